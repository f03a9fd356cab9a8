"""What the lines of a text snapshot prove: which of our messages stand on a display at this moment. Pure.

A display breaks lines itself, pages, scrolls, shows departures above a bottom line and a clock beside a page, so a
snapshot holds parts of our texts among lines that are not ours. A false proof is worse than none: who is told that a
child's picture is up, or gone, stops looking.

Rules:

1. Compared letter by letter and digit by digit: line breaks, hyphens, accents, cases and blanks do not count.
2. A *sight* is a run of lines that follow one another and, joined, are a stretch of the text. Lines that are not ours
   are passed over, blank ones are nothing. The text is a ring: a running line shows its end and then its beginning, and
   languages follow one another.
3. One sight is enough (`enough`) when it is the whole text, or `PART_ALONE` letters with nothing else on the display,
   or `PART_BESIDE` beside lines that are not ours: a destination that the text names too must not pass for the text.
4. Shorter pieces count together (`complete`): `PIECES` different letters of the text, or two thirds of a short one.
   A line of departures stays the same; a narrow running line does not.
5. Lines that two messages share belong to the one of which they show more (`beats`); a whole text beats a part as long.
   Lines of which both show as much prove neither.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

PART_ALONE: Final = 12
PART_BESIDE: Final = 16
PIECE: Final = 6  # letters of one sight below which it is an accident: `Assen`, `3 min`
PIECE_ALONE: Final = 3  # the same, when nothing else is on the display
PIECES: Final = 24


class Sight(NamedTuple):
    """Lines `first` to `last` show `letters` of a text; `places` tells which, one bit each. `alone`: nothing else is on
    the display.
    """

    first: int
    last: int
    letters: int
    places: int
    whole: bool
    alone: bool


class _Ring(NamedTuple):
    text: str
    start: int  # in the ring of all texts


def plain(text: str) -> str:
    """Letters and digits only, in one case, without accents."""
    bare = unicodedata.normalize("NFKD", text).casefold()
    return "".join(letter for letter in bare if letter.isalnum())


def plain_lines(lines: Sequence[str]) -> list[str]:
    """The lines of a snapshot that say anything."""
    return [bare for line in lines if (bare := plain(line))]


@lru_cache(maxsize=1024)
def _rings(texts: tuple[str, ...]) -> tuple[_Ring, ...]:
    """All texts one after the other, and each alone when there are several."""
    bare = [each for text in texts if (each := plain(text))]
    if len(bare) <= 1:
        return tuple(_Ring(each, 0) for each in bare)
    starts = [sum(map(len, bare[:at])) for at in range(len(bare))]
    return (_Ring("".join(bare), 0), *(_Ring(each, start) for each, start in zip(bare, starts, strict=True)))


def sights(lines: Sequence[str], texts: tuple[str, ...]) -> list[Sight]:
    """Every run of `lines` (of `plain_lines`) that shows one of the texts or a part of it."""
    rings = _rings(texts)
    if not rings or not lines:
        return []
    found = [sight for ring in rings for sight in _along(lines, ring, rings)]
    if not any(sight.whole for sight in found):
        found += _amid(lines, rings)
    return found


def _along(lines: Sequence[str], ring: _Ring, rings: tuple[_Ring, ...]) -> list[Sight]:
    """Runs of whole lines that are stretches of a ring."""
    size = len(ring.text)
    loop = ring.text * (2 + max(map(len, lines)) // size)
    found = []
    first = 0
    while first < len(lines):
        joined, after = lines[first], first + 1
        if joined not in loop:
            first += 1
            continue
        while after < len(lines) and len(joined) < size and joined + lines[after] in loop:
            joined += lines[after]
            after += 1
        letters = min(len(joined), size)
        places = 0
        begin = loop.find(joined)
        for at in range(begin, begin + letters):
            places |= 1 << (ring.start + at % size)
        alone = first == 0 and after == len(lines)
        found.append(Sight(first, after - 1, letters, places, _has_whole(joined, rings), alone))
        first = after
    return found


def _has_whole(joined: str, rings: tuple[_Ring, ...]) -> bool:
    return any(each.text in joined for each in rings)


def _amid(lines: Sequence[str], rings: tuple[_Ring, ...]) -> list[Sight]:
    """A whole text amid other words of its lines: `Let op: …`, `… 12:04`."""
    joined = "".join(lines)
    ends = [sum(map(len, lines[: at + 1])) for at in range(len(lines))]
    found = []
    for ring in rings:
        begin = joined.find(ring.text)
        size = len(ring.text)
        if begin < 0 or size < PART_ALONE:
            continue
        first = next(at for at, end in enumerate(ends) if end > begin)
        last = next(at for at, end in enumerate(ends) if end >= begin + size)
        found.append(Sight(first, last, size, ((1 << size) - 1) << ring.start, True, False))
    return found


def enough(sight: Sight) -> bool:
    """Whether this one sight proves the text."""
    if sight.whole:
        return sight.alone or sight.letters >= PIECE
    return sight.letters >= (PART_ALONE if sight.alone else PART_BESIDE)


def counts(sight: Sight) -> bool:
    """Whether it is a piece that adds up with others."""
    return sight.letters >= (PIECE_ALONE if sight.alone else PIECE)


def complete(places: int, texts: tuple[str, ...]) -> bool:
    """Whether pieces seen so far prove the text together."""
    rings = _rings(texts)
    shortest = min((len(ring.text) for ring in rings), default=0)
    return bool(rings) and places.bit_count() >= min(PIECES, -(-2 * shortest // 3))


def suspicious(sight: Sight, texts: tuple[str, ...]) -> bool:
    """Whether it may be the text, for one that must be gone: less is enough when nothing else is on the display."""
    shortest = min((len(ring.text) for ring in _rings(texts)), default=0)
    return enough(sight) or (sight.alone and sight.letters >= min(PART_ALONE, shortest // 4 + 1))


def beats(one: Sight, other: Sight) -> bool:
    """Whether lines that two messages share are of the first."""
    return (one.letters, one.whole) > (other.letters, other.whole)


def overlap(one: Sight, other: Sight) -> bool:
    return one.first <= other.last and other.first <= one.last
