"""Text to lines to pages, for one board model. Fitted or refused; a text is never cut.

Rules:

1. What a board shows is all the words of one form of the text, in order. A form that does not fit is not shown in part.
2. Forms are tried from the longest to the shortest, in all languages together; the first that fits is taken. If no
   form fits in all languages, those are tried without the later languages, and what was left out is said in
   `Layout.left_out`.
3. Lines are filled word by word. A word longer than a line is hyphenated (pyphen); only when a text would need more
   pages than the board has are other words hyphenated too. A number, a telephone number, a number plate is never
   divided.
4. One page is static. Several pages follow one another, each as long as it takes to read, never less than
   `seconds_page_min`. A board of one line that can scroll scrolls what does not fit on it, as far as it says that its
   line can run; what is longer is paged, like on any other. A board that scrolls and does not say how far
   (`scroll_characters` 0, also the displays of RTIG T047 that give no longest line) is not made to scroll: where it
   would stop, the text would be cut, and nobody would know.
5. On pixel boards the largest face is taken in which each language needs at most `PAGES_GOOD` pages; else the face with
   the fewest pages. So letters are as large as can be without making people wait for the end.

Why greedy lines and not a paragraph optimiser: boards are ragged and three lines high; the greedy way needs the fewest
lines, which is what counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import pyphen

from signage import charsets
from signage.dialects.native import Behaviour, Caps, Page, Target
from signage.fonts import NAMES, Face, load_face

PAGES_GOOD: Final = 2
MODEL_LINES_MAX: Final = 64
SCALES: Final = (1, 2, 3, 4, 6, 8)
_BREAK_AFTER: Final = re.compile(r"(?<=[^\W\d_]{2}[-/])(?=[^\W\d_]{2})")
_DIVISIBLE: Final = re.compile(r"^([^\w]*)([^\W\d_]{5,})([^\w]*)$")


class Model(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What of a board decides how a text is laid out. Boards that agree in all of it share their layouts."""

    name: str
    kind: str
    lines: int = 0
    characters: int = 0
    width_px: int = 0
    height_px: int = 0
    fonts: tuple[str, ...] = ()
    charset: str = "ascii"
    scrolls: bool = False
    scroll_characters: int = 0  # 0: it does not say
    pages: int = 4
    languages: tuple[str, ...] = ()  # the part before the hyphen of each, in lower case
    media: tuple[str, ...] = ()  # content types of pictures


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long a page stays: a moment to find it, then reading."""

    seconds_page_min: float = 4.0
    seconds_to_find: float = 1.5
    characters_per_second: float = 14.0


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A text on a model. `form`: which of the forms was taken; `left_out`: languages that did not fit beside the
    first.
    """

    behaviour: Behaviour
    pages: tuple[Page, ...]
    font: str = ""
    form: int = 0
    languages: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class Unfit(Exception):
    """The model cannot show the text; the argument says why, in a sentence's words."""


def model_of(caps: Caps) -> Model:
    """The layout's view of a birth document."""
    return Model(
        name=caps.model,
        kind=caps.kind,
        lines=caps.lines,
        characters=caps.characters,
        width_px=caps.width_px,
        height_px=caps.height_px,
        fonts=tuple(caps.fonts),
        charset=caps.charset,
        scrolls=caps.scrolls,
        scroll_characters=caps.scroll_characters,
        pages=caps.pages,
        languages=tuple(dict.fromkeys(map(_main_language, caps.languages))),
        media=tuple(caps.media) if caps.kind == "image" else (),
    )


def _main_language(tag: str) -> str:
    """`nl` of `nl`, `NL`, `nl-BE`: tags of languages are the same in either case."""
    return tag.partition("-")[0].strip().lower()


def band(model: Model, target: Target) -> tuple[int, int]:
    """Where a target begins on a board, from above, and how high it is: in lines, or in pixels. The bottom line of a
    board of pixels is its lowest fifth.
    """
    whole = model.lines if model.kind == "characters" else model.height_px
    low = min(1, whole) if model.kind == "characters" else whole // 5
    return {"full": (0, whole), "over": (0, whole - low), "bottom line": (whole - low, low)}[target]


def reduced(model: Model, target: Target) -> Model:
    """The model as a text of this target sees it."""
    if target == "full":
        return model
    _, high = band(model, target)
    return msgspec.structs.replace(model, **{"lines" if model.kind == "characters" else "height_px": high})


def refusal(unfit: Unfit, target: Target) -> str:
    """Why a text does not fit: what is said of a reduced model is said of a part of the board."""
    return str(unfit) if target == "full" else f"beside its own content (target {target!r}) {unfit}"


def warm(languages: Sequence[str] = ("nl", "en")) -> None:
    """Read the fonts and the hyphenation patterns, so that no action waits for a file. Blocking, half a second."""
    for name in NAMES:
        load_face(name)
    for language in languages:
        _hyphenator(language)


def lay_out(forms: Sequence[tuple[tuple[str, str], ...]], model: Model, pace: Pace) -> Layout:
    """Lay a text out. `forms`: the longest first, each the texts by language as pairs, the main language first.

    Raises `Unfit`. Pure, and the same for equal arguments: callers may keep the answer per model.
    """
    grids = _grids(model)
    wanted = [_wanted(form, model.languages) for form in forms]
    best: str | None = None
    most = max(len(form) for form in wanted)
    for kept in range(most, 0, -1):
        for number, form in enumerate(wanted):
            if len(form) < kept:
                continue
            try:
                return _fit(form[:kept], model, grids, pace, number, tuple(name for name, _ in form[kept:]))
            except Unfit as unfit:
                best = str(unfit)
    assert best is not None
    raise Unfit(best)


def _wanted(form: tuple[tuple[str, str], ...], languages: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Those languages the board is for; the main language when it is for none of them."""
    chosen = tuple(pair for pair in form if not languages or _main_language(pair[0]) in languages)
    return chosen or form[:1]


class _Grid(msgspec.Struct, frozen=True):
    """Room for text: so many lines, each so wide in the unit of the face (None: one unit a character)."""

    face: Face | None
    width: int
    lines: int


def why_useless(model: Model) -> str:
    """Why a model can show no text at all; empty when it can."""
    try:
        _grids(model)
    except Unfit as unfit:
        return str(unfit)
    return ""


@lru_cache(maxsize=4096)
def _grids(model: Model) -> tuple[_Grid, ...]:
    """The ways a model can be filled, the largest letters first; `Unfit` when it has no room at all."""
    if model.kind == "characters":
        if model.lines < 1 or model.characters < 1:
            raise Unfit(f"it has {model.lines} lines of {model.characters} characters")
        return (_Grid(None, model.characters, min(model.lines, MODEL_LINES_MAX)),)
    grids = []
    scales = SCALES if model.kind == "image" else (1,)
    for name in model.fonts or NAMES:
        for scale in scales:
            try:
                face = load_face(name if scale == 1 else f"{name}*{scale}")
            except KeyError:
                continue
            lines = min(model.height_px // face.height, MODEL_LINES_MAX)
            if lines >= 1 and model.width_px >= 4 * face.measure("n"):
                grids.append(_Grid(face, model.width_px, lines))
    if not grids:
        raise Unfit(f"none of its fonts fits {model.width_px} by {model.height_px} pixels")
    return tuple(sorted(grids, key=lambda grid: -_height(grid)))


def _height(grid: _Grid) -> int:
    return grid.face.height if grid.face is not None else 1


def _fit(
    form: tuple[tuple[str, str], ...],
    model: Model,
    grids: tuple[_Grid, ...],
    pace: Pace,
    number: int,
    left_out: tuple[str, ...],
) -> Layout:
    """One form on one model, in the best of its grids."""
    best: tuple[int, _Grid, list[tuple[str, list[list[str]]]]] | None = None
    why = ""
    for grid in grids:
        try:
            paged = [
                (language, _pages(_spelt(text, model, grid), language, grid, model.pages)) for language, text in form
            ]
        except Unfit as unfit:
            why = str(unfit)
            continue
        total = sum(len(pages) for _, pages in paged)
        if total <= max(1, model.pages) and (best is None or total < best[0]):
            best = (total, grid, paged)
            if all(len(pages) <= PAGES_GOOD for _, pages in paged):
                break
        elif total > max(1, model.pages):
            why = f"it needs {total} pages and the board shows {max(1, model.pages)}"
    one_line = all(grid.lines == 1 for grid in grids)
    if model.scrolls and (best is None or (one_line and best[0] > len(form))):
        try:
            return _scroll(form, model, grids, pace, number, left_out)
        except Unfit as unfit:
            if str(unfit) != why:
                why = f"{why}; as a running line {unfit}"
    if best is None:
        raise Unfit(why)
    total, grid, paged = best
    return Layout(
        behaviour="static" if total == 1 else "paged",
        pages=tuple(
            Page(lines=lines, seconds=_seconds(lines, pace), language=language)
            for language, pages in paged
            for lines in pages
        ),
        font=grid.face.name if grid.face is not None else "",
        form=number,
        languages=tuple(language for language, _ in paged),
        left_out=left_out,
    )


def _scroll(
    form: tuple[tuple[str, str], ...],
    model: Model,
    grids: tuple[_Grid, ...],
    pace: Pace,
    number: int,
    left_out: tuple[str, ...],
) -> Layout:
    """Each language as one running line."""
    grid = grids[0]
    pages = []
    for language, text in form:
        spelt = _spelt(text, model, grid)
        if not model.scroll_characters:
            raise Unfit("it may be too long: the board does not say how far it scrolls")
        if len(spelt) > model.scroll_characters:
            raise Unfit(f"it has {len(spelt)} characters and the board scrolls {model.scroll_characters}")
        pages.append(Page(lines=[spelt], seconds=_seconds([spelt], pace), language=language))
    if len(pages) > max(1, model.pages):
        raise Unfit(f"it needs {len(pages)} pages and the board shows {max(1, model.pages)}")
    return Layout(
        behaviour="scroll",
        pages=tuple(pages),
        font=grid.face.name if grid.face is not None else "",
        form=number,
        languages=tuple(language for language, _ in form),
        left_out=left_out,
    )


def _seconds(lines: list[str], pace: Pace) -> float:
    letters = sum(map(len, lines))
    return max(pace.seconds_page_min, math.ceil(2 * (pace.seconds_to_find + letters / pace.characters_per_second)) / 2)


@lru_cache(maxsize=1024)
def _spelt_in(text: str, charset: str, face: Face | None) -> str:
    has = charsets.membership(charset)
    both = has if face is None else lambda character: has(character) and face.has(character)
    try:
        return charsets.spell(charsets.normalise(text), both)
    except charsets.Unspellable as error:
        raise Unfit(f"it has no character for {error.args[0]!r}") from None


def _spelt(text: str, model: Model, grid: _Grid) -> str:
    return _spelt_in(text, model.charset, grid.face)


def _pages(text: str, language: str, grid: _Grid, pages_max: int) -> list[list[str]]:
    """Lines in pages; words are hyphenated only where they must be, unless that saves a page that is one too many."""
    face, width = grid.face, grid.width
    if face is not None and face.single:  # all characters are as wide: count them, and share lines between models
        width //= face.single
        face = None
    room = max(1, pages_max) * grid.lines
    lines = _lines(text, language, face, width, eager=False)
    if room < len(lines) <= 2 * room:
        eager = _lines(text, language, face, width, eager=True)
        lines = eager if len(eager) < len(lines) else lines
    return [list(lines[at : at + grid.lines]) for at in range(0, len(lines), grid.lines)]


@lru_cache(maxsize=4096)
def _lines(text: str, language: str, face: Face | None, width: int, *, eager: bool) -> tuple[str, ...]:
    """Fill lines of a width in the face's unit (None: characters).

    `eager` divides any word that can be, else only words that are longer than a line.
    """
    measure = len if face is None else face.measure
    space = 1 if face is None else face.measure(" ")
    lines: list[str] = []
    line, used = "", 0
    for word in text.split(" "):
        rest = word
        while True:
            size = measure(rest)
            if not line and size <= width:
                line, used = rest, size
                break
            if line and used + space + size <= width:
                line, used = f"{line} {rest}", used + space + size
                break
            room = width - used - space if line else width
            head = tail = ""
            if size > width or eager:
                head, tail = _divide(rest, language, room, measure)
            if head:
                lines.append(f"{line} {head}" if line else head)
                line, used, rest = "", 0, tail
                continue
            if not line:
                raise Unfit(f"the word {rest!r} is longer than its line")
            lines.append(line)
            line, used = "", 0
    if line:
        lines.append(line)
    return tuple(lines)


def _divide(word: str, language: str, room: int, measure: Callable[[str], int]) -> tuple[str, str]:
    """The longest head (with its hyphen) that has room, and the tail; two empty strings when there is none."""
    for at, hyphen in _divisions(word, language):
        head = word[:at] + hyphen
        if measure(head) <= room:
            return head, word[at:]
    return "", ""


@lru_cache(maxsize=4096)
def _divisions(word: str, language: str) -> tuple[tuple[int, str], ...]:
    """Places where a word may be divided, the last first, with what is then written at the end of the line."""
    places = [(match.start(), "") for match in _BREAK_AFTER.finditer(word)]
    plain = _DIVISIBLE.match(word)
    if plain is not None:
        start = plain.end(1)
        places += [(start + at, "-") for at in _hyphenator(language).positions(plain.group(2))]
    return tuple(sorted(places, reverse=True))


@lru_cache(maxsize=32)
def _hyphenator(language: str) -> pyphen.Pyphen:
    known = pyphen.language_fallback(language.replace("-", "_")) or "nl_NL"
    return pyphen.Pyphen(lang=known, left=2, right=2)
