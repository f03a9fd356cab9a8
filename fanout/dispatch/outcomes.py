"""What becomes of a batch's rows once the wire has spoken: from events to states, as arrays. Pure.

Rules, on top of `states.TABLE`:

1. A row that was not on the wire after all is what it was before its intent: still waiting, or stopped by the end or
   the close that kept it back. One that may have been received earlier (`AGAIN`) is then unknown, never cancelled.
2. A time-out on a channel that replaces in place is sent once more, quietly (`AGAIN`), while attempts are left; on a
   channel that rings twice it stays unknown for ever.
3. A row that was certainly not taken is tried again while attempts are left; then it has failed, for the reason that
   was met last. A row of which an earlier attempt may have been taken is unknown then, not failed; so it is when a
   later attempt is refused, unless because its address is dead or wrong: that was so the first time, too.
4. `AGAIN` keeps `Reason.CRASH`, as the ledger wants it (`store/rows.py`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.channels.protocol import NOT_SENT, Outcome
from fanout.store.states import OPEN, REPLACES_IN_PLACE, Event, Reason, State, advance, among

Bytes8 = NDArray[np.uint8]

_NEVER_WAS: Final = (Reason.TOKEN_DEAD, Reason.TOKEN_INVALID)
_STOPPED: Final = {Event.END: Reason.END, Event.CLOSE: Reason.CLOSED, Event.RETRY: Reason.NONE}


class Verdict(NamedTuple):
    """A batch as it goes to `settle`: `status`, `reason` uint8[n]; `done` if no row wants more work."""

    status: Bytes8
    reason: Bytes8
    done: bool


def verdict(
    status: Bytes8,
    reason: Bytes8,
    index: NDArray[np.intp],
    codes: NDArray[np.int16],
    outcome: Outcome,
    *,
    channel: int,
    stop: Event | None,
    last_attempt: bool,
) -> Verdict:
    """Merge what came back for the rows at `index` into the batch.

    `status`, `reason` uint8[n]: the batch before its intent, with rows already refused; `codes`, `outcome`: of `index`.
    `stop`: `END` or `CLOSE` if the action is over, `RETRY` if it is paused, else None.
    """
    before = status[index]
    event, why = outcome.event.copy(), outcome.reason.copy()
    unsent = codes == NOT_SENT
    event[unsent], why[unsent] = Event.RETRY, Reason.NONE
    retry = event == Event.RETRY
    lost = event == Event.TIME_OUT
    after = np.where(retry, before, advance(np.full_like(before, State.INTENDED), event))
    if channel in REPLACES_IN_PLACE and not last_attempt and stop in (None, Event.RETRY):
        after[lost] = State.AGAIN
    doubtful = (event == Event.REJECT) & (before == State.AGAIN) & ~among(why, _NEVER_WAS)
    after[doubtful] = State.UNKNOWN
    if last_attempt:
        given_up = retry & ~unsent
        after[given_up] = np.where(before[given_up] == State.AGAIN, State.UNKNOWN, State.FAILED)
    if stop is not None:
        waiting = among(after, OPEN)
        after[waiting] = advance(after[waiting], stop)
        why[waiting] = np.where(after[waiting] == State.UNKNOWN, Reason.CRASH, _STOPPED[stop])
    why[after == State.AGAIN] = Reason.CRASH
    why[among(after, (State.PENDING, State.ACCEPTED))] = Reason.NONE
    whole, because = status.copy(), reason.copy()
    whole[index], because[index] = after, why
    return Verdict(whole, because, not among(whole, OPEN).any())
