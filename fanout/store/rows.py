"""What a ledger does to the rows of one batch, as arrays: the part of every store that knows no store.

A batch's rows are two columns, `status` and `reason`, uint8[n]. A store keeps them and calls here to change them; all
that is decided about a row is decided by `states.TABLE` and by the functions below, so stores cannot differ.

Rules:

1. All functions are pure: arrays in, new arrays out, nothing written in place.
2. A row that may have been received (its sender died with it) keeps `Reason.CRASH` while it is `AGAIN` or goes out a
   second time. So a second attempt that was certainly not taken leaves it `AGAIN`, not `PENDING`: it may have been
   received the first time, and a close makes it `UNKNOWN`, which gets the result, not `CANCELLED`, which does not.
3. A sender's word about a row counts if the ledger had let the row go (`INTENDED`), or if it did not touch the wire.
   What a close or a receipt did to a row in the meantime is not undone by a report that does not know of it.
4. Good news always counts, however late and from whomever: `ACCEPTED` settles a row that is open, unknown or stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from fanout.store.protocol import NewBatch
from fanout.store.states import OPEN, REPLACES_IN_PLACE, TABLE, WAITING, Event, Reason, State, advance, among

Bytes8 = NDArray[np.uint8]
Columns = tuple[Bytes8, Bytes8]
"""Status and reason of a batch, uint8[n] each."""

_KEEP: Final = 254
_BUG: Final = 255

# For a stored state (left), which reported states are taken (as what); those not named leave the row as it is.
_HELD: Final[dict[State, dict[State, int]]] = {
    State.PENDING: {
        State.FAILED: State.FAILED, State.EXPIRED: State.EXPIRED, State.CANCELLED: State.CANCELLED,
        State.MOVED: State.MOVED,
        State.AGAIN: _BUG, State.ACCEPTED: _BUG, State.DELIVERED: _BUG, State.UNKNOWN: _BUG,
    },
    State.INTENDED: {state: state for state in State},
    State.AGAIN: {
        State.FAILED: State.FAILED, State.MOVED: State.MOVED, State.ACCEPTED: State.ACCEPTED,
        State.EXPIRED: State.UNKNOWN, State.CANCELLED: State.UNKNOWN, State.UNKNOWN: State.UNKNOWN,
    },
    State.FAILED: {State.MOVED: State.MOVED},
    State.BOUNCED: {State.FAILED: State.FAILED, State.MOVED: State.MOVED},
    State.UNKNOWN: {State.ACCEPTED: State.ACCEPTED},
    State.EXPIRED: {State.ACCEPTED: State.ACCEPTED},
    State.CANCELLED: {State.ACCEPTED: State.ACCEPTED},
}  # fmt: skip
_LOST: Final[dict[State, dict[State, int]]] = {
    state: {State.ACCEPTED: State.ACCEPTED}
    for state in (State.INTENDED, State.AGAIN, State.UNKNOWN, State.EXPIRED, State.CANCELLED)
}


def _table(rules: dict[State, dict[State, int]]) -> Bytes8:
    table = np.full((len(State), len(State)), _KEEP, np.uint8)
    for stored, taken in rules.items():
        for reported, result in taken.items():
            table[stored, reported] = result
    table.setflags(write=False)
    return table


HELD: Final = _table(_HELD)
"""uint8, shape (stored states, reported states): what a report under a held lease makes of a row."""
LOST: Final = _table(_LOST)
"""As `HELD`, for a report under a lease that was lost."""


def has_open(status: Bytes8) -> bool:
    """Whether any row still wants work."""
    return bool(among(status, OPEN).any())


def tally(status: Bytes8, reason: Bytes8) -> NDArray[np.uint32]:
    """uint32[states + reasons]: rows by `State`, then failed rows by `Reason`."""
    states = np.bincount(status, minlength=len(State))
    reasons = np.bincount(reason[status == State.FAILED], minlength=len(Reason))
    return np.concatenate((states, reasons)).astype(np.uint32)


def tallies(status: Bytes8, reason: Bytes8, sizes: Sequence[int]) -> NDArray[np.uint32]:
    """uint32[batches, states + reasons]: the tally of each of these batches, whose rows lie end to end."""
    count, of = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    failed = status == State.FAILED
    states = np.bincount(of * len(State) + status, minlength=count * len(State))
    reasons = np.bincount(of[failed] * len(Reason) + reason[failed], minlength=count * len(Reason))
    return np.hstack((states.reshape(count, -1), reasons.reshape(count, -1))).astype(np.uint32)


def stopped_tally(tally: NDArray[np.uint32], event: Event) -> NDArray[np.uint32]:
    """What `stopped` makes of a tally. Of all rows only the bounced become failed, and they have one reason."""
    after = tally.copy()
    for state in State:
        then = TABLE[state, event]
        if state is not State.INTENDED and then != state:
            after[state] -= tally[state]
            after[then] += tally[state]
    after[len(State) + Reason.UNDELIVERED] += tally[State.BOUNCED]
    return after


def intended(status: Bytes8, index: NDArray[np.intp]) -> Bytes8:
    """Let the rows at `index` go. Rows that a receipt has settled in the meantime stay as they are."""
    after = status.copy()
    waiting = index[among(status[index], WAITING)]
    after[waiting] = State.INTENDED
    return after


def crashed(status: Bytes8, reason: Bytes8, channel: int) -> Columns:
    """Resolve rows whose sender is gone: once more where the channel replaces in place, else unknown."""
    on_wire = status == State.INTENDED
    if not on_wire.any():
        return status, reason
    event = Event.CRASH_REPLACES if channel in REPLACES_IN_PLACE else Event.CRASH_RINGS
    return np.where(on_wire, advance(status, event), status), np.where(on_wire, np.uint8(Reason.CRASH), reason)


def stopped(status: Bytes8, reason: Bytes8, event: Event) -> Columns:
    """A close or an end: what is unsent stops, what may have been received is unknown, what is on the wire stays."""
    after = np.where(status == State.INTENDED, status, advance(status, event))
    why = Reason.END if event is Event.END else Reason.CLOSED
    unsent = (after != status) & ~among(after, (State.UNKNOWN, State.FAILED))
    return after, np.where(unsent, np.uint8(why), reason)


def settled(stored: Columns, reported: Columns, *, held: bool, over: bool) -> Columns:
    """A sender's report, merged into what the ledger holds.

    `held`: whether its lease still is. `over`: whether the action was closed, so that no row moves to another channel.
    """
    status, reason = stored
    said, why = reported
    if over:
        said = np.where(said == State.MOVED, np.uint8(State.FAILED), said)
    taken = (HELD if held else LOST)[status, said]
    assert not (taken == _BUG).any(), "a sender reports a row that the ledger never let go"
    kept = taken == _KEEP
    after = np.where(kept, status, taken)
    because = np.where(kept, reason, why)
    # rule 2: rows that went out a second time, and of which this attempt is known not to have been taken
    twice = (status == State.INTENDED) & (reason == Reason.CRASH)
    after = np.where(twice & (after == State.PENDING), np.uint8(State.AGAIN), after)
    after = np.where(twice & among(after, (State.CANCELLED, State.EXPIRED)), np.uint8(State.UNKNOWN), after)
    because = np.where(after == State.AGAIN, np.uint8(Reason.CRASH), because)
    because = np.where(among(after, (State.ACCEPTED, State.DELIVERED)), np.uint8(Reason.NONE), because)
    return after, because


def moved_batches(rows: NDArray[np.uint32], before: Bytes8, after: Bytes8, moved: Sequence[NewBatch]) -> list[NewBatch]:
    """Of the batches on next channels, the part for rows that have `MOVED` just now.

    A row that a receipt had settled, or that moved earlier, is not in them: it would be told, and counted, twice.
    """
    gone = rows[(after == State.MOVED) & (before != State.MOVED)]
    further = []
    for batch in moved:
        mine = np.isin(batch.rows, gone)
        if mine.any():
            further.append(replace(batch, rows=batch.rows[mine], generations=batch.generations[mine]))
    return further


def let_go(status: Bytes8, reason: Bytes8, channel: int, stop: Event | None) -> Columns:
    """The end of a lease, however it came: no row is on the wire any more that anybody would answer for."""
    status, reason = crashed(status, reason, channel)
    return (status, reason) if stop is None else stopped(status, reason, stop)


def received(
    stored: Columns, place: NDArray[np.intp], delivered: NDArray[np.bool_], bounced: NDArray[np.bool_]
) -> Columns:
    """Receipts for the rows at `place`; doubled and in any order, since nothing un-delivers a delivered row.

    `bounced` bool[n]: of those not delivered, who certainly got nothing and may still go to another channel.
    """
    status, reason = stored[0].copy(), stored[1].copy()
    for event, chosen in (
        (Event.RECEIPT_BOUNCED, place[bounced]),
        (Event.RECEIPT_FAILED, place[~delivered & ~bounced]),
        (Event.RECEIPT_DELIVERED, place[delivered]),
    ):
        if not chosen.size:
            continue
        before = status[chosen]
        after = advance(before, event)
        why = Reason.NONE if event is Event.RECEIPT_DELIVERED else Reason.UNDELIVERED
        reason[chosen] = np.where(after != before, np.uint8(why), reason[chosen])
        status[chosen] = after
    return status, reason
