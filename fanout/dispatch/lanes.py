"""What a bulk lane is: rows of many batches in, a code for every row out, over HTTP/2 and TLS, one request a row.

Two lanes keep this contract, and `lane_choice.py` says which is used where:

* `frame_lane.py` writes the frames of one origin itself, a handful of rows at a time: FCM, APNs, push of browsers;
* `curl_lane.py` leaves it to libcurl, row by row: HTTP/1.1, and origins that get a few rows.

What a lane does: it takes the rows of many batches, lets the scheduler say whose go next, keeps a bounded number of
requests in flight, and answers each batch with a code a row. What it does not: retry what may have been taken, pace,
read meanings, or look at a wall clock of its own. Rules, held by one suite of tests over both:

1. Every row ends with a definite code: an HTTP status, or `NOT_SENT`, `NO_CONNECTION`, `NO_ANSWER`, `GARBAGE`. A row
   that may have been taken never has a code that says it was not.
2. `may_go` of a batch is asked before each handful of its rows goes to the wire, and of all that wait some twenty times
   a second: an action that is closed or over stops at once, also while its provider's quota is full or shut, and rows
   not sent yet come back as `NOT_SENT`.
3. A row that the provider refused before looking at it (REFUSED_STREAM, GOAWAY) may be sent again by the lane itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NOT_SENT, Requests


class Sent(NamedTuple):
    """What came back for the rows of `index`: `codes` int16[k]; `bodies` by place in `index`, of no plain successes.

    `asked_s`: the longest Retry-After among the answers. `first_ms`, `last_ms`: when 2xx came.
    """

    codes: NDArray[np.int16]
    bodies: Mapping[int, bytes]
    asked_s: float
    first_ms: int | None
    last_ms: int | None


NOTHING_SENT: Final = Sent(np.empty(0, np.int16), {}, 0.0, None, None)


def gathered(rows: int, parts: Sequence[tuple[NDArray[np.intp], Sent]]) -> Sent:
    """What came back for parts of the rows, each with its places, as one; a later part counts where two have a place,
    and what is in none was not sent."""
    codes = np.full(rows, NOT_SENT, np.int16)
    bodies: dict[int, bytes] = {}
    for at, sent in parts:
        codes[at] = sent.codes
        bodies |= {int(at[place]): body for place, body in sent.bodies.items()}
    return Sent(
        codes,
        bodies,
        max((sent.asked_s for _, sent in parts), default=0.0),
        min((sent.first_ms for _, sent in parts if sent.first_ms is not None), default=None),
        max((sent.last_ms for _, sent in parts if sent.last_ms is not None), default=None),
    )


class Lane(Protocol):
    """A way to the wire for channels that take one request a row. Simulations bring their own."""

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        """Send the rows at `index`; returns when each has its code.

        *Cancellation*: rows not sent yet stay unsent, those on the wire go on and their answers are dropped; a caller
        that wants them shields this call, which ends within the request time-out.
        """

    def close(self) -> None:
        """End the lane; rows still on the wire come back as `NO_ANSWER`."""


class RunningLane(Lane, Protocol):
    """A lane with a task of its own and connections that can stand before they are needed."""

    @property
    def in_flight(self) -> int:
        """Requests on the wire."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Drive the lane until `close`.

        *Cancellation*: none; a cancelled sender lets the rows on the wire end, and closes the lane after them.
        """

    async def warm(self, url: str) -> bool:
        """Open all connections before the first action; True if the provider answered on each."""


class Job:
    """The rows of one batch on their way; a ticket of the scheduler. A lane keeps in its own what it fills them with.

    `waiting` rows are not handed to the wire yet, `unanswered` have no code yet. `codes` int16[k].
    """

    def __init__(self, rows: int, *, lane: int, action: int, may_go: Callable[[], bool]) -> None:
        self.lane, self.action, self.may_go = lane, action, may_go
        self.waiting = self.unanswered = rows
        self.codes: NDArray[np.int16] = np.full(rows, NOT_SENT, np.int16)
        self.bodies: dict[int, bytes] = {}
        self.asked_s = 0.0
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.done = trio.Event()

    def sent(self) -> Sent:
        return Sent(self.codes, self.bodies, self.asked_s, self.first_ms, self.last_ms)

    def stop(self) -> None:
        """Nothing more of it goes to the wire."""
        self.unanswered -= self.waiting
        self.waiting = 0
        if not self.unanswered:
            self.done.set()
