"""Where a row goes next when its channel certainly did not reach its participant. Pure.

Rules:

1. Only rows that failed for certain move: a dead or wrong address, an address that is gone, a participant who opted out
   of this channel, a provider that did not take it in all attempts, or that refuses what we send: a wrong project, a
   proxy that redirects and a body it does not like meet everyone alike. What is unknown may have been received, and
   stays; so does what was taken and is said to be undelivered later, unless its provider is certain: that has bounced.
2. The next channel is the first one *after* the present one, in the participant's own order of preference, that the
   action uses and that can carry its text. Only forwards, so that no row goes in circles.
3. Who has the present channel no longer among theirs (it was dropped meanwhile) is tried on the first of theirs after
   it in the order of the settings. A channel that is not in the settings' list is neither left nor gone to.
4. Moved rows go out as batches of their own, first in their lane (`seq` 0): they are the ones who are late already.
   They are cut as the plan cuts (`plan/batches.sizes`): of 2,048 dead tokens, a call's next channel gets a second's
   worth each.
5. Of a large action some twenty rows of each batch move, and a batch of twenty costs its next channel nearly what one
   of five hundred does: claim, intent, call, result. So from the `GATHER_FROM`-th batch of a channel on they wait
   `GATHER_S` for those who come after them, and go together. Not so where life is at risk, nor near the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.store.protocol import Lease, NewBatch
from fanout.store.states import Reason, State, among

NOWHERE: Final = 255
GATHER_FROM: Final = 8  # of a channel's batches: 11,000 people are told before it, and a local action is over
GATHER_S: Final = 1.0  # an SMS takes several, and a push that has failed has had its time
GATHER_END_S: Final = 60.0  # before the end nobody waits any more
MOVABLE: Final = (
    Reason.TOKEN_DEAD,
    Reason.TOKEN_INVALID,
    Reason.PAYLOAD,
    Reason.GARBAGE,
    Reason.ERASED,
    Reason.OPTED_OUT,
    Reason.QUOTA,
    Reason.PROVIDER,
    Reason.NETWORK,
    Reason.CREDENTIALS,
)


def failed_now(before: NDArray[np.uint8], status: NDArray[np.uint8], reason: NDArray[np.uint8]) -> NDArray[np.intp]:
    """intp[k]: places of rows that failed just now and may move. `before`, `status`, `reason` uint8[n]."""
    may = among(reason, MOVABLE) | (before == State.BOUNCED)
    return np.flatnonzero((before != State.FAILED) & (status == State.FAILED) & may)


def targets(preferences: NDArray[np.uint32], channel: int, order: Sequence[int]) -> NDArray[np.uint8]:
    """uint8[n]: each row's next channel after `channel`, or `NOWHERE`.

    `preferences` uint32[n]: nibble k is 1 + the row's k-th choice, 0 where there is none; `order`: the channels that
    are open, as the settings have them, `channel` among them.
    """
    found = np.full(preferences.size, NOWHERE, np.uint8)
    choices = preferences[:, None] >> np.arange(0, 32, 4, dtype=np.uint32) & np.uint32(15)  # uint32[n, 8]
    passed = np.zeros(preferences.size, np.bool_)
    used = np.zeros(16, np.bool_)  # by nibble
    used[np.array(order) + 1] = True
    for choice, open_to in zip(choices.T, used[choices].T, strict=True):
        here = passed & (found == NOWHERE) & open_to
        found[here] = choice[here] - 1
        passed |= choice == channel + 1
    for later in order[order.index(channel) + 1 :]:
        found[~passed & (found == NOWHERE) & (choices == later + 1).any(axis=1)] = later
    return found


def gathered_by_ms(lease: Lease, now_ms: int, end_ms: int) -> int:
    """Until when moved rows of a batch wait for others to go with; 0: not at all."""
    if lease.lane == 0 or lease.seq < GATHER_FROM or now_ms + 1000 * GATHER_END_S >= end_ms:
        return 0
    return now_ms + int(1000 * GATHER_S)


def batches(
    lease: Lease, index: NDArray[np.intp], to: NDArray[np.uint8], most: Mapping[int, int], *, not_before_ms: int = 0
) -> list[NewBatch]:
    """The batches of moved rows: `index` intp[k] into the lease, `to` uint8[k] their channels, none `NOWHERE`.

    `most`: rows of a batch, by channel; `not_before_ms`: as `gathered_by_ms` says.
    """
    found = []
    for channel in np.unique(to).tolist():
        places = index[to == channel]
        for start in range(0, len(places), most[channel]):
            part = places[start : start + most[channel]]
            found.append(
                NewBatch(
                    channel=channel,
                    language=lease.language,
                    seq=lease.seq,
                    rows=lease.rows[part],
                    generations=lease.generations[part],
                    not_before_ms=not_before_ms,
                    joins_up_to=most[channel] if not_before_ms else 0,
                )
            )
    return found
