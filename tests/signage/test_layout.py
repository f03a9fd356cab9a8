"""Every layout obeys its model and loses no word, by a checker that knows nothing of how layouts are made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signage.charsets import CODECS
from signage.dialects.native import Target
from signage.fonts import NAMES, load_face
from signage.layout import Layout, Model, Pace, Unfit, band, lay_out, model_of, reduced
from signage.simulators import models
from tests.signage.worlds import START_MS, World, action

PACE = Pace()
WORDS = st.sampled_from(
    [
        "Vermist:",
        "jongen,",
        "6",
        "jaar",
        "1.15",
        "m",
        "kort",
        "donker",
        "haar",
        "gele",
        "regenjas",
        "blauwe",
        "laarzen.",
        "Laatst",
        "gezien",
        "15.40",
        "uur",
        "speeltuin",
        "Wilhelminapark",
        "Bel",
        "112",
        "gemeenteraadsverkiezingen",
        "’s-Hertogenbosch",
        "Súdwest-Fryslân",
        "€",
        "12½",
        "ĳsmuts",
        "Goes/Bergen",
        "Ü",
        "verantwoordelijkheidsgevoel",
        "0800-0011",
        "XX-99-YY",
        "“Hoekje”",
        "–",
        "café",
        "naïef",
    ]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=40).map(" ".join)
MODELS = st.one_of(
    st.builds(
        Model,
        name=st.just("line"),
        kind=st.just("characters"),
        lines=st.integers(0, 8),
        characters=st.integers(0, 100),
        charset=st.sampled_from([*CODECS, "ebcdic"]),
        scrolls=st.booleans(),
        scroll_characters=st.integers(0, 400),
        pages=st.integers(0, 12),
        languages=st.sampled_from([(), ("nl",), ("en",), ("nl", "en")]),
    ),
    st.builds(
        Model,
        name=st.just("pixel"),
        kind=st.sampled_from(["pixels", "image"]),
        width_px=st.integers(0, 400),
        height_px=st.integers(0, 120),
        charset=st.sampled_from(["utf-8", "latin-1", "ascii"]),
        pages=st.integers(0, 12),
        fonts=st.sampled_from([(), ("6x10",), ("10x20", "5x7"), ("nosuchfont",)]),
    ),
)


def letters(text: str) -> str:
    """A text without what a layout may change: blanks, hyphens, and the spelling of what a board lacks."""
    return re.sub(r"[\s-]", "", text)


def check(layout: Layout, model: Model, forms: list[tuple[tuple[str, str], ...]]) -> None:
    """The rules of a layout."""
    assert 1 <= len(layout.pages) <= max(1, model.pages)
    encoding = CODECS.get(model.charset, "ascii")
    for page in layout.pages:
        assert page.lines
        assert page.seconds >= PACE.seconds_page_min
        for line in page.lines:
            assert line == line.strip()
            line.encode(encoding)
            if layout.behaviour == "scroll":
                assert len(line) <= model.scroll_characters
            elif model.kind == "characters":
                assert len(line) <= model.characters
            else:
                assert load_face(layout.font).measure(line) <= model.width_px
        if model.kind == "characters":
            assert len(page.lines) <= model.lines
        else:
            assert len(page.lines) * load_face(layout.font).height <= model.height_px
    assert (layout.behaviour == "static") == (len(layout.pages) == 1 and layout.behaviour != "scroll")
    form = dict(forms[layout.form])
    for language in layout.languages:
        joined = " ".join(line for page in layout.pages if page.language == language for line in page.lines)
        plain = form[language]
        if plain.isascii():
            assert letters(joined) == letters(plain)
        words = re.findall(r"\d[\d.]*\d|\d", plain)
        for word in words:
            assert word in joined, "a number is never divided"


@given(TEXTS, MODELS)
def test_a_layout_obeys_its_model_and_loses_no_word(text: str, model: Model) -> None:
    forms = [(("nl", text),)]
    try:
        layout = lay_out(forms, model, PACE)
    except Unfit:
        return
    check(layout, model, forms)


@given(TEXTS, TEXTS, TEXTS, MODELS)
def test_of_forms_the_longest_that_fits_is_taken(first: str, second: str, english: str, model: Model) -> None:
    forms = [(("nl", first + " " + second), ("en", english)), (("nl", second), ("en", english))]
    try:
        layout = lay_out(forms, model, PACE)
    except Unfit:
        return
    check(layout, model, forms)
    if layout.form == 1 and not layout.left_out:
        assert not fits_whole(forms[0], model)


def fits_whole(form: tuple[tuple[str, str], ...], model: Model) -> bool:
    try:
        return not lay_out([form], model, PACE).left_out
    except Unfit:
        return False


def test_real_texts_on_a_common_board(shared_data: Path) -> None:
    model = Model(name="led", kind="characters", lines=3, characters=26, charset="latin-1", pages=6)
    texts = (shared_data / "messages" / "burgernet" / "teksten.jsonl").read_text().splitlines()
    for line in texts:
        text = json.loads(line)["tekst"]
        check(lay_out([(("nl", text),)], model, PACE), model, [(("nl", text),)])


def test_a_hundred_characters_on_ninety_are_paged_or_refused() -> None:
    text = "Vermist: jongen van zes jaar met kort donker haar, een gele regenjas en blauwe laarzen. Gezien? Bel 112."
    assert len(text) > 90
    fits = lay_out([(("nl", text),)], Model(name="p", kind="characters", lines=1, characters=90, pages=2), PACE)
    assert len(fits.pages) == 2
    with pytest.raises(Unfit, match="2 pages"):
        lay_out([(("nl", text),)], Model(name="p", kind="characters", lines=1, characters=90, pages=1), PACE)


@pytest.mark.parametrize("far", [0, 30])
def test_what_does_not_scroll_is_paged(far: int) -> None:
    """A board that scrolls, but not as far as this text, or that does not say how far."""
    text = "Vermist: meisje (8), rode jas, blauwe rugzak. Gezien in Assen? 112."
    assert len(text) == 67
    ticker = Model(name="t", kind="characters", lines=1, characters=24, pages=8, scrolls=True, scroll_characters=far)
    paged = lay_out([(("nl", text),)], ticker, PACE)
    assert (paged.behaviour, len(paged.pages)) == ("paged", 3)
    assert paged == lay_out([(("nl", text),)], msgspec.structs.replace(ticker, scrolls=False), PACE)
    with pytest.raises(Unfit, match="needs 3 pages and the board shows 2; as a running line it "):
        lay_out([(("nl", text),)], msgspec.structs.replace(ticker, pages=2), PACE)
    assert lay_out([(("nl", text),)], msgspec.structs.replace(ticker, scroll_characters=67), PACE).behaviour == "scroll"


def test_languages_are_the_same_in_either_case() -> None:
    caps = msgspec.structs.replace(models.MODELS["led-3x26"], languages=["NL", "en-GB", "EN"])
    model = model_of(caps)
    assert model.languages == ("nl", "en")
    laid = lay_out([(("nl", "Vermist: kind."), ("en", "Missing: child."), ("de", "Vermisst: Kind."))], model, PACE)
    assert laid.languages == ("nl", "en")


def test_dutch_is_hyphenated_where_dutch_is() -> None:
    model = Model(name="n", kind="characters", lines=4, characters=12, pages=2)
    layout = lay_out([(("nl", "verantwoordelijkheidsgevoel"),)], model, PACE)
    assert layout.pages[0].lines == ["verantwoor-", "delijkheids-", "gevoel"]


def test_what_the_board_lacks_is_spelt() -> None:
    model = Model(name="a", kind="characters", lines=2, characters=40, charset="ascii")
    layout = lay_out([(("nl", "Café “’t Hoekje” €5, 12½ ĳs – Ü"),)], model, PACE)
    assert layout.pages[0].lines == ['Cafe "\'t Hoekje" EUR5, 121/2 ijs - U']
    with pytest.raises(Unfit, match="🚨"):
        lay_out([(("nl", "alarm 🚨"),)], model, PACE)


def test_a_language_that_does_not_fit_is_named() -> None:
    model = Model(name="a", kind="characters", lines=2, characters=20, pages=1)
    layout = lay_out([(("nl", "Vermist: kind. Bel 112."), ("en", "Missing: child. Call 112."))], model, PACE)
    assert (layout.languages, layout.left_out) == (("nl",), ("en",))


def test_fonts_of_the_contract_have_all_of_dutch() -> None:
    for name in NAMES:
        face = load_face(name)
        assert all(face.has(letter) for letter in "abcXYZ019 éëïöüáóúèâêîôû€ĳĲ‘’“”–…½±"), name
        assert face.draw("Ab").shape == (face.height, face.measure("Ab"))


@pytest.mark.parametrize("name", list(models.MODELS))
@pytest.mark.parametrize("target", ["full", "over", "bottom line"])
def test_targets_share_a_board(name: str, target: Target) -> None:
    model = model_of(models.MODELS[name])
    whole = model.lines if model.kind == "characters" else model.height_px
    top, high = band(model, target)
    assert 0 <= top <= top + high <= whole
    assert band(model, "over")[1] + band(model, "bottom line")[1] == whole
    part = reduced(model, target)
    assert (part.lines if model.kind == "characters" else part.height_px) == high
    assert (reduced(model, "full"), part.name) == (model, name)


def test_a_bottom_line_stands_below_what_leaves_it_free() -> None:
    both = {"target_search": "over", "target_information": "bottom line"}
    world = World(["well"] * 2, models=["line-4x90", "tft-1920x1080"], overlay=both)
    world.show(1, action("Uitkijken naar vrouw, 84 jaar.", end_ms=START_MS + 3_600_000), lane=1)
    world.show(2, action("Brand: sluit ramen en deuren.", end_ms=START_MS + 3_600_000), lane=2)
    for display in world.displays:
        assert [(item.action, item.target) for item in display.shown] == [(1, "over"), (2, "bottom line")]
        assert world.core.counts(2).shown == 2
    over, bottom = world.displays[1].shown
    assert (over.box, bottom.box) == ([0, 0, 1920, 864], [0, 864, 1920, 216])
    assert all(len(page.lines) <= 1 for item in world.displays[0].shown[1:] for page in item.pages)
    world.show(3, action(end_ms=START_MS + 3_600_000), lane=0)
    assert [item.target for item in world.displays[0].shown] == ["full"], "an emergency has the whole board"
