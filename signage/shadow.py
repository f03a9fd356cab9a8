"""What we want a board to show and what it says it shows, reconciled: a table. `step(state, event)` gives state and
effects.

Rules:

1. A document is due until the link has taken it, in flight until the broker has it, waiting until the board reports its
   version, and agreed when the board reports that version *and* shows what it must show now.
2. A board that reports our version but shows otherwise is deviant; a document of the same version would be ignored, so
   when it stays deviant it is sent again under a higher version (`RAISE`). The same when a board knows a higher version
   than ours: it or we lost memory.
3. A board that lags for too long is sent its document again. How long is the service's: this table reads no clock.
4. After every reconnection to the broker everything that is not forgotten is due again: the broker may have lost it.
   Duplicates are harmless, versions see to that.
5. When the last end of anything a board was ever sent is past, and some grace, the broker is told to forget the topic
   (an empty retained payload). Not before: a board that was away must find the document that takes its message down.
6. A board that shows something of ours while we want nothing of it is told so with an empty document.

Pairs that are not in the table change nothing: reports and acknowledgements come doubled, late and out of order.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from signage.arbitration import on_now
from signage.dialects.native import Item, Reported
from signage.layout import Model
from signage.readback import reads


class State(IntEnum):
    """Of one board's document."""

    CLEAR = 0  # nothing is wanted and the broker holds nothing
    DUE = 1  # to be published
    FLIGHT = 2  # given to the link
    WAITING = 3  # the broker has it; the board has not reported it
    AGREED = 4  # read back: the board shows what it must
    DEVIANT = 5  # the board has it and shows otherwise
    REJECTED = 6  # the board refused it
    FORGETTING = 7  # the broker is to forget the topic


class Event(IntEnum):
    """What can happen."""

    DESIRE = 0  # there is a new document
    TAKEN = 1  # the link took it
    STORED = 2  # the broker acknowledged this version
    CUT = 3  # the connection to the broker ended before that, or is new
    AGREES = 4  # the board reports this version and shows what it must
    DIFFERS = 5  # the board reports this version and shows otherwise
    BEHIND = 6  # the board reports an older version
    AHEAD = 7  # the board reports a version we never gave
    REJECT = 8  # the board refused this version
    LATE = 9  # too long without agreement, and the board is there
    GRACE = 10  # everything it was ever sent is over, and the grace too


class Effect(IntEnum):
    """What the service must do."""

    PUBLISH = 0  # queue the document
    RAISE = 1  # give it a version above all known ones, and queue it
    FORGET = 2  # queue an empty retained payload
    NOTE = 3  # tell ops


_S, _E, _F = State, Event, Effect
_Row = dict[Event, tuple[State, tuple[Effect, ...]]]

_AGAIN: Final = (_S.DUE, (_F.PUBLISH,))
_RAISED: Final = (_S.DUE, (_F.RAISE,))
_FORGET: Final = (_S.FORGETTING, (_F.FORGET,))
_NOTED: Final = (_S.REJECTED, (_F.NOTE,))

TABLE: Final[dict[State, _Row]] = {
    _S.CLEAR: {_E.DESIRE: _AGAIN, _E.DIFFERS: _RAISED},
    _S.DUE: {_E.DESIRE: _AGAIN, _E.TAKEN: (_S.FLIGHT, ()), _E.CUT: _AGAIN, _E.AHEAD: _RAISED, _E.GRACE: _FORGET},
    _S.FLIGHT: {_E.DESIRE: _AGAIN, _E.STORED: (_S.WAITING, ()), _E.CUT: _AGAIN, _E.AGREES: (_S.AGREED, ()),
                _E.DIFFERS: (_S.DEVIANT, ()), _E.AHEAD: _RAISED, _E.REJECT: _NOTED, _E.LATE: _AGAIN, _E.GRACE: _FORGET},
    _S.WAITING: {_E.DESIRE: _AGAIN, _E.CUT: _AGAIN, _E.AGREES: (_S.AGREED, ()), _E.DIFFERS: (_S.DEVIANT, ()),
                 _E.AHEAD: _RAISED, _E.REJECT: _NOTED, _E.LATE: _AGAIN, _E.GRACE: _FORGET},
    _S.AGREED: {_E.DESIRE: _AGAIN, _E.CUT: _AGAIN, _E.DIFFERS: (_S.DEVIANT, ()), _E.BEHIND: (_S.WAITING, ()),
                _E.AHEAD: _RAISED, _E.GRACE: _FORGET},
    _S.DEVIANT: {_E.DESIRE: _AGAIN, _E.CUT: _AGAIN, _E.AGREES: (_S.AGREED, ()), _E.BEHIND: (_S.WAITING, ()),
                 _E.AHEAD: _RAISED, _E.REJECT: _NOTED, _E.LATE: _RAISED, _E.GRACE: _FORGET},
    _S.REJECTED: {_E.DESIRE: _AGAIN, _E.CUT: _AGAIN, _E.AGREES: (_S.AGREED, ()), _E.DIFFERS: (_S.DEVIANT, ()),
                  _E.AHEAD: _RAISED, _E.LATE: _RAISED, _E.GRACE: _FORGET},
    _S.FORGETTING: {_E.DESIRE: _AGAIN, _E.STORED: (_S.CLEAR, ()), _E.CUT: _FORGET, _E.DIFFERS: _RAISED},
}  # fmt: skip

OPEN: Final = frozenset({_S.DUE, _S.FLIGHT, _S.WAITING, _S.DEVIANT, _S.REJECTED})
"""States in which the board does not (yet) show what it must."""


def step(state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """The next state and what to do. Pairs outside the table: nothing changes."""
    return TABLE[state].get(event, (state, ()))


_AGREES, _DIFFERS, _BEHIND, _AHEAD = _E.AGREES, _E.DIFFERS, _E.BEHIND, _E.AHEAD
"""By a name of their own where ten thousand boards come by in a second: to look a member up in its enum costs as much
as five calls (Python 3.11). So in `outbox`, `reconcile` and `witness`.
"""


def compare(version: int, items: Sequence[Item], report: Reported, now_ms: int, model: Model | None) -> Event:
    """What a board's report means for a document of ours: AGREES, DIFFERS, BEHIND or AHEAD.

    `model`: that of the board, where the lines it reads back must show our pages; None for displays that break the
    lines themselves.
    """
    if report.version > version:
        return _AHEAD
    if report.version < version:
        return _BEHIND
    expected = on_now(items, now_ms)
    shown = {(entry.action, entry.stage) for entry in report.shown}
    if shown != {(item.action, item.stage) for item in expected}:
        return _DIFFERS
    if model is not None and expected and report.lines and not reads(expected, report.lines, model):
        return _DIFFERS
    return _AGREES


def diagram() -> str:
    """The table as a Mermaid state diagram, for the contract's text."""
    lines = ["stateDiagram-v2", "    [*] --> CLEAR"]
    for state, row in TABLE.items():
        for event, (after, effects) in row.items():
            does = f" / {', '.join(effect.name for effect in effects)}" if effects else ""
            lines.append(f"    {state.name} --> {after.name}: {event.name}{does}")
    return "\n".join(lines)
