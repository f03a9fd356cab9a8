"""What snapshots prove: parts among lines that are not ours, running lines, shared pages; and what they must not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signage.dialects import evidence

CHILD = ("Vermist: meisje (8), rode jas, blauwe rugzak, het laatst gezien bij Centraal. Bel 112.",)
BOY = ("Vermist: jongen, 6 jaar, 1.15 m, kort donker haar. Gezien? Bel 112.",)
TWO = ("Vermist: meisje van acht in rode jas.", "Missing: girl of eight in a red coat.")


def proves(lines: list[str], texts: tuple[str, ...]) -> bool:
    """Whether one snapshot alone is proof."""
    found = evidence.sights(evidence.plain_lines(lines), texts)
    places = 0
    for sight in found:
        places |= sight.places if evidence.counts(sight) else 0
    return any(map(evidence.enough, found)) or evidence.complete(places, texts)


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (["jongen, 6 jaar, 1.15 m,", "kort donker haar."], BOY),
        (["VERMIST: JONGEN, 6 JAAR", "1.15 M, KORT DON-", "KER HAAR. GEZIEN? BEL", "112."], BOY),
        (["Vermist: meisje (8), rode", "jas, blauwe rugzak, het", "12 Centraal 3 min"], CHILD),
        (["12 Centraal     3 min", "4 Zernike      11 min", "(8), rode jas, blauwe rugz"], CHILD),
        (["Halte Centraal       12:04", "laatst gezien bij", "Centraal. Bel 112."], CHILD),
        (["12 Centraal     3 min", "", "aal. Bel 112.     Vermist:"], CHILD),
        (["", "aal. Bel 112.     Vermist:", ""], CHILD),
        (["Let op! " + CHILD[0]], CHILD),
        (["rode jas.     Missing: gir", "12 Centraal     3 min"], TWO),
        (["12 Centraal     3 min", "coat.     Vermist: meisje v"], TWO),
        (["Gevonden."], ("Gevonden.",)),
        (["12 Centraal 3 min", "Gevonden. Dank u wel."], ("Gevonden. Dank u wel.",)),
    ],
)
def test_a_part_is_proof(lines: list[str], texts: tuple[str, ...]) -> None:
    assert proves(lines, texts)


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (["112"], BOY),
        (["", ""], BOY),
        ([], BOY),
        (["12 Centraal  3 min"], BOY),
        (["12 Centraal     3 min", "Centraal"], CHILD),
        (["Centraal", "12:04"], CHILD),
        (["8", "rode", "bel", "112"], CHILD),
        (["Assen", "Groningen"], ("Vermist in Assen: jongen van zes met een gele regenjas",)),
        (["4 Assen 3 min", "Assen"], ("Vermist in Assen",)),
        (["Vermist: jongen, 9 jaar"], CHILD),
        (["bij Centraal.", "12 Zernike 3 min"], CHILD),
        (["iets"], ()),
        (["iets"], ("...",)),
    ],
)
def test_what_may_be_something_else_is_none(lines: list[str], texts: tuple[str, ...]) -> None:
    assert not proves(lines, texts)


def test_pieces_of_a_narrow_running_line_add_up_and_a_destination_does_not() -> None:
    windows = [CHILD[0][at : at + 14] for at in range(0, 50, 7)]
    places = 0
    for window in windows:
        for sight in evidence.sights(evidence.plain_lines(["12 Zernike 3 m", window]), CHILD):
            assert not evidence.enough(sight)
            places |= sight.places if evidence.counts(sight) else 0
    assert evidence.complete(places, CHILD)
    places = 0
    for _ in range(50):
        for sight in evidence.sights(evidence.plain_lines(["Centraal", "12:04"]), CHILD):
            places |= sight.places if evidence.counts(sight) else 0
    assert not evidence.complete(places, CHILD)


words = st.lists(st.text("abcdefghijklmnop", min_size=1, max_size=9), min_size=6, max_size=30).map(" ".join)


def filled(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


@given(words, st.integers(16, 40), st.integers(2, 4), st.data())
def test_any_page_of_enough_letters_is_proof_whatever_stands_beside_it(
    text: str, width: int, high: int, data: st.DataObject
) -> None:
    lines = filled(text, width)
    at = data.draw(st.integers(0, len(lines) - 1))
    page = lines[at : at + high]
    foreign = ["12 zzzzzz 3 min", "9 qqqq 11:04"]
    shown = foreign[: data.draw(st.integers(0, 2))] + page + foreign[: data.draw(st.integers(0, 2))]
    if sum(len(evidence.plain(line)) for line in page) >= evidence.PART_BESIDE:
        assert proves(shown, (text,))


@given(words, words)
def test_what_stands_there_of_another_text_is_none(one: str, other: str) -> None:
    lines = filled(other, 26)
    longest = max((sight.letters for sight in evidence.sights(evidence.plain_lines(lines), (one,))), default=0)
    if longest < evidence.PIECE:
        assert not proves(lines, (one,))


@given(st.lists(st.text(max_size=30), max_size=12), st.lists(st.text(max_size=30), max_size=3).map(tuple))
def test_any_snapshot_can_be_read(lines: list[str], texts: tuple[str, ...]) -> None:
    shown = evidence.plain_lines(lines)
    for sight in evidence.sights(shown, texts):
        assert 0 <= sight.first <= sight.last < len(shown)
        assert sight.letters > 0
        assert sight.places.bit_count() == sight.letters
