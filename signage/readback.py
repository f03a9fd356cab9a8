"""Whether the lines read back from a board are what it must show now: a pure function of items, lines and model.

Rules:

1. A board reports the whole of what stands on it, line by line, its own content beside ours included. Each target is
   looked for where it stands, its *band* (`layout.band`): `full` is all lines, `over` all but the lowest, `bottom line`
   the lowest. What stands outside our bands is the board's own and is not looked at.
2. `over` and `bottom line` items stand together: then each of the two bands must read as one of its own items. All
   others (emergencies, `full`) alternate: one of them must be read.
3. Blank lines and blanks at either end of a line count for nothing: boards centre, pad and trim. Nor do capitals: many
   a board has no small letters, and says so.
4. A running line is seen through a window that comes round: the tail of one turn, a gap or none, the head of the next,
   which may be that of the next language; or nothing for a moment. Any such window will do, since no board can be asked
   what it will show.
5. Where the lines cannot be placed (a board of pixels; one that leaves out blank lines, or reports our lines only),
   `over` is looked for from the top and `bottom line` from below, with nothing counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from signage.dialects.native import EMERGENCY, Item, Target
from signage.layout import Model, band


def reads(on: Sequence[Item], lines: Sequence[str], model: Model) -> bool:
    """Whether `lines` show what is on by the rules of arbitration: `on` as `arbitration.on_now` gives it."""
    if len(on) == 1 and _stands(on[0], lines):
        return True
    split = [item for item in on if item.target == "over"], [item for item in on if item.target == "bottom line"]
    if any(item.priority == EMERGENCY for item in on) or not all(split):
        return any(_taken(item, lines, model) is not None for item in on)
    room = len(_seen(lines))
    return any(
        above + below <= room
        for above in _all_taken(split[0], lines, model)
        for below in _all_taken(split[1], lines, model)
    )


def _stands(item: Item, lines: Sequence[str]) -> bool:
    """Whether a page of a full item stands there to the letter: what nearly every report says."""
    if item.target != "full" or item.behaviour == "scroll":
        return False
    for page in item.pages:
        high = len(page.lines)
        if lines[:high] == page.lines and not any(lines[high:]):
            return True
    return False


def _all_taken(items: Sequence[Item], lines: Sequence[str], model: Model) -> list[int]:
    found = (_taken(item, lines, model) for item in items)
    return [count for count in found if count is not None]


def _taken(item: Item, lines: Sequence[str], model: Model) -> int | None:
    """How many of the lines that are not blank are this item's; None when it is not to be read there."""
    target = item.target
    if target != "full" and model.kind == "characters" and len(lines) == model.lines:
        top, high = band(model, target)
        target, lines = "full", lines[top : top + high]
    seen = _seen(lines)
    if item.behaviour == "scroll":
        mine = _end(seen, target, 1)
        running = [" ".join(page.lines) for page in item.pages]
        return len(mine) if all(_window(line, running) for line in mine) else None
    pages = (_seen(page.lines) for page in item.pages)
    return next((len(page) for page in pages if _end(seen, target, len(page)) == page), None)


def _end(seen: list[str], target: Target, count: int) -> list[str]:
    """Those of the lines where `count` lines of a target stand."""
    match target:
        case "full":
            return seen
        case "over":
            return seen[:count]
        case _:
            return seen[len(seen) - count :] if count <= len(seen) else seen


def _seen(lines: Sequence[str]) -> list[str]:
    return [_bare(line) for line in lines if line.strip()]


def _bare(text: str) -> str:
    return " ".join(text.split()).casefold()


def _window(seen: str, running: Sequence[str]) -> bool:
    """Whether a line is a window on running texts that come round, each after itself or after the one before it."""
    texts = [_bare(text) for text in running]
    for turn in [[text] for text in texts] + ([texts] if len(texts) > 1 else []):
        for gap in (" ", ""):
            once = "".join(text + gap for text in turn)
            if once and seen in once * (len(seen) // len(once) + 2):
                return True
    return False
