"""A channel with its way to the wire: what differs between one request a row, one request a batch and mail ends here.

The way of rows: `Route.reserve` waits until some may go and hands out a `Way`; that renders them, puts them on the wire
and answers with a code and an outcome for each. The ledger is told between the two, so what it calls on its way is.

Rules, for every route:

1. `reserve` hands out as many rows as go at once: where messages replace in place a whole batch, since there a doubt
   costs no more than a quiet second message; where they ring only what has its place and its quota.
2. It gives up, with None, as soon as `may_go` says so or the provider's breaker is open. Waiting costs no quota.
3. A way is left (`free`) whatever happens: what it had reserved and did not use is given back.
4. What is kept on a route (breaker, quota, places, credential) is one provider's: providers do not wait for each other.
5. A provider's request for patience is obeyed, up to `retry.ASKED_S_MAX`: none may silence us for a night.

`row_route.py` is FCM and APNs, `service_route.py` Web Push, `line_route.py` what stands in line: SMS, voice, WhatsApp
and mail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fanout.channels.mail import Mails
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT, Calls, Column, Message, Outcome, Requests
from fanout.dispatch.breaker import Breaker
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.retry import ASKED_S_MAX
from fanout.store.protocol import Lease
from fanout.store.states import Event, Reason

EVERY: Final = 1_000_000
"""Batches of a provider that is given up: all that there is room for."""

ASK_S: Final = 0.05
"""How often, at least, who waits asks whether it may still go."""

Batch: TypeAlias = Requests | Calls | Mails
MayGo: TypeAlias = Callable[[], bool]


class Delivered(NamedTuple):
    """What came of the rows that went: `codes` int16[k], their outcome, and as in `lanes.Sent`.

    `since_ms`: by place, of dead addresses, as `RowChannel.dead_since_ms` says.
    """

    codes: NDArray[np.int16]
    outcome: Outcome
    asked_s: float
    first_ms: int | None
    last_ms: int | None
    since_ms: Mapping[int, int] = MappingProxyType({})


Early: TypeAlias = Callable[[NDArray[np.intp], Delivered], None]


def ignored(_places: NDArray[np.intp], _delivered: Delivered) -> None:
    """For who waits for all of them."""


class Way(Protocol):
    """Some rows of a batch with all they need to go. `index` intp[k]: those that `render` found usable in the lease."""

    rows: int

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Batch:
        """Make requests. Blocking, called in a thread: a batch's are milliseconds, and Web Push encrypts for each."""

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo, early: Early = ignored
    ) -> Delivered:
        """Put them on the wire. `early` may be told of places in `index` that are done while others are not."""

    def free(self) -> None:
        """The end of it, sent or not."""


class Route(Protocol):
    """One channel's way."""

    name: str
    number: int

    def allows(self, now_s: float) -> int:
        """Batches worth claiming now, as in `Breaker.allows`; of a provider that is given up, to go another way."""

    def given_up(self, now_s: float) -> bool:
        """Whether it has failed for so long that rows with another channel take that, as in `Breaker.given_up`."""

    def paused_s(self, now_s: float) -> float:
        """Seconds until the pause is over that its provider asked for; 0 if none, or one of several takes rows."""

    async def reserve(self, lease: Lease, rows: int, may_go: MayGo) -> Way | None:
        """Wait until some of so many rows may go. None: they may not, or their provider does not work."""

    async def close(self) -> None: ...


def tell(
    breaker: Breaker, bucket: Bucket, codes: NDArray[np.int16], asked_s: float, now_s: float, *, probe: bool
) -> None:
    """Let breaker and quota learn from what came back."""
    bad = int(((codes == NO_CONNECTION) | (codes == NO_ANSWER) | (codes >= 500)).sum())
    sent = int((codes != NOT_SENT).sum())
    breaker.answered(sent - bad, bad, now_s, probe=probe)
    if asked_s > 0:
        bucket.shut(now_s + min(asked_s, ASKED_S_MAX))


def not_taken(rows: int, asked_s: float = 0.0, reason: Reason = Reason.PROVIDER) -> Delivered:
    """Rows that were not sent since others found their provider failing; an attempt of theirs, too."""
    event, why = np.full(rows, Event.RETRY, np.uint8), np.full(rows, reason, np.uint8)
    return Delivered(np.full(rows, NO_CONNECTION, np.int16), Outcome(event, why), asked_s, None, None)


def perhaps(rows: int) -> Delivered:
    """Rows that were let go, and of which nobody can say more."""
    event, why = np.full(rows, Event.TIME_OUT, np.uint8), np.full(rows, Reason.CRASH, np.uint8)
    return Delivered(np.full(rows, NO_ANSWER, np.int16), Outcome(event, why), 0.0, None, None)


def merged(rows: int, parts: Sequence[tuple[NDArray[np.intp], Delivered]]) -> Delivered:
    """Parts, each with its places, as one; places that are in none were not sent."""
    codes = np.full(rows, NOT_SENT, np.int16)
    event, reason = np.full(rows, Event.RETRY, np.uint8), np.zeros(rows, np.uint8)
    for at, part in parts:
        codes[at] = part.codes
        event[at], reason[at] = part.outcome
    return Delivered(
        codes,
        Outcome(event, reason),
        max((part.asked_s for _, part in parts), default=0.0),
        min((part.first_ms for _, part in parts if part.first_ms is not None), default=None),
        max((part.last_ms for _, part in parts if part.last_ms is not None), default=None),
        {int(at[place]): since_ms for at, part in parts for place, since_ms in part.since_ms.items()},
    )
