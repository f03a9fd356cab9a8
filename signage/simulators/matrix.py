"""A simulated board with a face: what stands on it line by line, its own content beside the engine's.

`Display` decides what is to be shown; here it is put on lines, as a real board would, and read back for the report:

1. The board's own content is departures. It stands on all lines that no item of the engine takes.
2. `full` takes all lines, `over` all but the lowest, `bottom line` the lowest. Items of one place alternate, and their
   pages follow one another, by the board's clock.
3. A running line is a window on its text that comes round, after a gap.
4. Boards of pixels report the lines that a reader sees: as many of their own as boards of characters have at most.

Each connection has a boot id of its own, so that the will of an old one cannot speak for a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from signage.dialects import native
from signage.dialects.native import Behaviour, Caps, Item, Page, Reported, Shown, Target
from signage.simulators.display import Display, Out

DEPARTURES: Final = ("12 Centraal", "8 Station Zuid", "5 Haven", "Lift naar spoor 2 buiten gebruik")
GAP: Final = "     "
STEP_MS: Final = 200  # a running line moves on by one character


class Matrix(Display):
    """One board, with its face."""

    def cut(self, now_ms: int) -> None:
        super().cut(now_ms)
        self._boots += 1  # the will has been said; the next connection has another

    def _report(self, now_ms: int) -> list[Out]:
        if self.mood == "mute":
            return []
        local = now_ms + self.clock_error_ms
        report = Reported(
            board=self.id,
            version=self._version,
            why=self._why,
            shown=[Shown(action=item.action, stage=item.stage, since_ms=local) for item in self._shown],
            lines=face(self.caps, self._shown, local),
            errors=self._errors,
            at_ms=local,
        )
        return [self._out("reported", report, True)]


def face(caps: Caps, items: Sequence[Item], at_ms: int) -> list[str]:
    """What stands on a board that shows these items, line by line, at this moment of its clock."""
    own = _own(caps)
    over = [item for item in items if item.target == "over"]
    low = [item for item in items if item.target == "bottom line"]
    together = bool(over and low) and all(item.priority != native.EMERGENCY for item in items)
    if not items:
        return own
    if together:
        return [*_band(caps, over, "over", own, at_ms), *_band(caps, low, "bottom line", own, at_ms)]
    item, page = _now(items, at_ms)
    lines = _written(caps, item.behaviour, page, at_ms)
    match item.target:
        case "full":
            return _filled(lines, caps.lines)
        case "over":
            return [*_filled(lines, caps.lines - 1), own[-1]]
        case _:
            return [*own[:-1], *lines]


def _band(caps: Caps, items: Sequence[Item], target: Target, own: Sequence[str], at_ms: int) -> list[str]:
    item, page = _now(items, at_ms)
    lines = _written(caps, item.behaviour, page, at_ms)
    return _filled(lines, caps.lines - 1 if target == "over" else 1)


def _own(caps: Caps) -> list[str]:
    """Departures, on as many lines as there are."""
    count = max(1, caps.lines) if caps.kind == "characters" else len(DEPARTURES)
    return [*_departures(caps.characters or 40, count)]


@lru_cache(maxsize=256)
def _departures(width: int, count: int) -> tuple[str, ...]:
    return tuple(DEPARTURES[at % len(DEPARTURES)][:width].rstrip() for at in range(count))


def _now(items: Sequence[Item], at_ms: int) -> tuple[Item, Page]:
    """The page whose turn it is, of items that alternate."""
    if len(items) == 1 and len(items[0].pages) == 1:
        return items[0], items[0].pages[0]
    turns = [(item, page) for item in items for page in item.pages]
    left_ms = at_ms % max(1, sum(int(page.seconds * 1000) for _, page in turns))
    for item, page in turns:
        left_ms -= int(page.seconds * 1000)
        if left_ms < 0:
            return item, page
    return turns[-1]


def _written(caps: Caps, behaviour: Behaviour, page: Page, at_ms: int) -> list[str]:
    if behaviour != "scroll":
        return list(page.lines)
    running = " ".join(page.lines) + GAP
    at = at_ms // STEP_MS % len(running)
    window = caps.characters or 40
    return [(running * (2 + window // len(running)))[at : at + window]]


def _filled(lines: Sequence[str], count: int) -> list[str]:
    """Blank lines below, up to so many; a board of pixels has none."""
    return [*lines, *[""] * (count - len(lines))]
