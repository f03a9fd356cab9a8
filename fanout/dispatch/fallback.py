"""Where a row goes next when its channel certainly did not reach its participant. Pure.

Rules:

1. Only rows that failed for certain move: a dead or wrong address, an address that is gone, a participant who opted out
   of this channel, a provider that did not take it in all attempts. What is unknown may have been received, and stays.
2. The next channel is the first one *after* the present one, in the order of the settings, that the action uses, that
   can carry its text, and on which the participant has an address. Only forwards, so that no row goes in circles.
3. Moved rows go out as batches of their own, first in their lane (`seq` 0): they are the ones who are late already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.store.protocol import Lease, NewBatch
from fanout.store.states import Reason, State

NOWHERE: Final = 255
MOVABLE: Final = (
    Reason.TOKEN_DEAD,
    Reason.TOKEN_INVALID,
    Reason.ERASED,
    Reason.OPTED_OUT,
    Reason.QUOTA,
    Reason.PROVIDER,
    Reason.NETWORK,
    Reason.CREDENTIALS,
)


def later(order: Sequence[int], channel: int) -> list[int]:
    """The channels after `channel`; none if it is not in the order."""
    return list(order[order.index(channel) + 1 :]) if channel in order else []


def failed_now(before: NDArray[np.uint8], status: NDArray[np.uint8], reason: NDArray[np.uint8]) -> NDArray[np.intp]:
    """intp[k]: places of rows that failed just now and may move. `before`, `status`, `reason` uint8[n]."""
    return np.flatnonzero((before != State.FAILED) & (status == State.FAILED) & np.isin(reason, MOVABLE))


def targets(rows: int, reached: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """uint8[rows]: each row's next channel, or `NOWHERE`; `reached` bool[rows] by channel, the first choice first."""
    found = np.full(rows, NOWHERE, np.uint8)
    for channel, has in reached.items():
        found[(found == NOWHERE) & has] = channel
    return found


def batches(lease: Lease, index: NDArray[np.intp], to: NDArray[np.uint8]) -> list[NewBatch]:
    """The batches of moved rows: `index` intp[k] into the lease, `to` uint8[k] their channels, none `NOWHERE`."""
    return [
        NewBatch(
            channel=channel,
            language=lease.language,
            seq=0,
            rows=lease.rows[index[to == channel]],
            generations=lease.generations[index[to == channel]],
        )
        for channel in np.unique(to).tolist()
    ]
