"""A channel with its way to the wire: what differs between one request a row, one request a batch and mail ends here.

A route renders a batch, puts it on the wire, and answers with a code and an outcome for every row, in the order of the
rows that went. What is kept on it (breaker, quota, credential) is one provider's: providers do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.mail import Email, Mails
from fanout.channels.protocol import (
    NO_ANSWER,
    NO_CONNECTION,
    NOT_SENT,
    Call,
    CallChannel,
    Calls,
    Column,
    Message,
    Outcome,
    Requests,
    RowChannel,
)
from fanout.dispatch.breaker import Breaker, Is
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.calls import Caller
from fanout.dispatch.credentials import AccessToken, Credential
from fanout.dispatch.lanes import Lane
from fanout.dispatch.mailer import Mailer
from fanout.dispatch.retry_after import seconds_of
from fanout.dispatch.suppliers import choose
from fanout.store.protocol import Lease
from fanout.store.states import State

CALLS_AT_ONCE: Final = 8  # single calls in flight per provider and process: 30 voice calls a second at 0.25 s each
CALLS_COMMON: Final = 6  # of these, what lanes other than 0 may have: an urgent call never waits for them

Batch: TypeAlias = Requests | Calls | Mails
MayGo: TypeAlias = Callable[[], bool]


class Delivered(NamedTuple):
    """What came of the rows that went: `codes` int16[k], their outcome, and as in `lanes.Sent`."""

    codes: NDArray[np.int16]
    outcome: Outcome
    asked_s: float
    first_ms: int | None
    last_ms: int | None


class Route(Protocol):
    """One channel's way. `index` intp[k]: places in the lease's arrays of the rows that `render` found usable."""

    name: str
    number: int
    slow_render: bool  # worth a thread

    def allows(self, now_s: float) -> int:
        """Batches worth claiming now, as in `Breaker.allows`."""

    def probe(self) -> None: ...

    def drop(self, lease: Lease) -> None:
        """The batch has ended, sent or not."""

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Batch: ...

    async def deliver(self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo) -> Delivered: ...

    async def close(self) -> None: ...


class _One:
    """What routes with one breaker and one quota share."""

    slow_render = False

    def __init__(self, name: str, number: int, breaker: Breaker, bucket: Bucket) -> None:
        self.name, self.number, self.breaker, self.bucket = name, number, breaker, bucket

    def allows(self, now_s: float) -> int:
        return self.breaker.allows(now_s)

    def probe(self) -> None:
        if self.breaker.state is Is.HALF_OPEN:
            self.breaker.probe()

    def drop(self, lease: Lease) -> None:
        self.breaker.answered(0, 0, trio.current_time())

    async def close(self) -> None:
        """Nothing of its own is open."""


class RowRoute(_One):
    """One request a row, by a bulk lane."""

    def __init__(
        self, channel: RowChannel, lane: Lane, *, breaker: Breaker, bucket: Bucket, credential: Credential
    ) -> None:
        super().__init__(channel.name, channel.number, breaker, bucket)
        self.slow_render = channel.name == "webpush"
        self._channel, self._lane, self._credential = channel, lane, credential

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Requests:
        again = lease.status[wanted] == State.AGAIN
        return self._channel.render(message, addresses, again, now_ms=now_ms, authorize=self._credential.authorize)

    async def deliver(self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo) -> Delivered:
        assert isinstance(batch, Requests)
        sent = await self._lane.send(
            batch, np.flatnonzero(batch.usable), lane=lease.lane, action=lease.action, may_go=may_go
        )
        _tell(self.breaker, self.bucket, sent.codes, sent.asked_s)
        if isinstance(self._credential, AccessToken) and (sent.codes == 401).any():
            self._credential.refused()
        outcome = self._channel.interpret(sent.codes, sent.bodies)
        return Delivered(sent.codes, outcome, sent.asked_s, sent.first_ms, sent.last_ms)

    async def close(self) -> None:
        self._lane.close()


class Supplier(NamedTuple):
    """One of several that carry the same channel."""

    channel: CallChannel
    caller: Caller
    breaker: Breaker
    bucket: Bucket
    weight: float = 1.0


class CallRoute:
    """Single calls, by httpx, to one of several suppliers. A row is in one call, and a call is made once."""

    slow_render = False

    def __init__(self, suppliers: Sequence[Supplier], *, clock_ms: Callable[[], int]) -> None:
        self.name, self.number = suppliers[0].channel.name, suppliers[0].channel.number
        self._suppliers = tuple(suppliers)
        self._chosen: dict[int, Supplier] = {}
        self._clock_ms = clock_ms
        self._room, self._common = trio.Semaphore(CALLS_AT_ONCE), trio.Semaphore(CALLS_COMMON)

    def allows(self, now_s: float) -> int:
        return max(supplier.breaker.allows(now_s) for supplier in self._suppliers)

    def probe(self) -> None:
        for supplier in self._suppliers:
            if supplier.breaker.state is Is.HALF_OPEN:
                supplier.breaker.probe()

    def drop(self, lease: Lease) -> None:
        if (supplier := self._chosen.pop(lease.batch, None)) is not None:
            supplier.breaker.answered(0, 0, trio.current_time())

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Calls:
        works = [supplier.breaker.state is not Is.OPEN for supplier in self._suppliers]
        weights = [supplier.weight for supplier in self._suppliers]
        supplier = self._chosen[lease.batch] = self._suppliers[choose(lease.batch, lease.attempt, weights, works)]
        return supplier.channel.render(message, addresses, lease.rows[wanted], now_ms=now_ms)

    async def deliver(self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo) -> Delivered:
        assert isinstance(batch, Calls)
        supplier = self._chosen[lease.batch]
        place = np.cumsum(batch.usable) - 1  # of a wanted row among those that go
        told = _Told(len(index))
        async with trio.open_nursery() as nursery:
            for call in batch.calls:
                await _quota(supplier.bucket, len(call.index), urgent=lease.lane == 0)
                if lease.lane:
                    await self._common.acquire()
                await self._room.acquire()
                nursery.start_soon(self._one, supplier, call, place[call.index], lease, index, may_go, told)
        _tell(supplier.breaker, supplier.bucket, told.codes, told.asked_s)
        return Delivered(told.codes, Outcome(told.event, told.reason), told.asked_s, told.first_ms, told.last_ms)

    async def _one(
        self,
        supplier: Supplier,
        call: Call,
        at: NDArray[np.intp],
        lease: Lease,
        index: NDArray[np.intp],
        may_go: MayGo,
        told: _Told,
    ) -> None:
        try:
            if not may_go():
                return
            answer = await supplier.caller.call(call)
        finally:
            self._room.release()
            if lease.lane:
                self._common.release()
        told.codes[at] = answer.code
        told.event[at], told.reason[at] = supplier.channel.interpret(call, answer, lease.rows[index[at]])
        if 200 <= answer.code < 300:
            told.last_ms = self._clock_ms()
            told.first_ms = told.last_ms if told.first_ms is None else told.first_ms
        told.asked_s = max(told.asked_s, seconds_of(answer, self._clock_ms()))

    async def close(self) -> None:
        for supplier in self._suppliers:
            await supplier.caller.aclose()


class _Told:
    """What single calls of one batch were answered so far, uint8 and int16[k]."""

    def __init__(self, rows: int) -> None:
        self.codes = np.full(rows, NOT_SENT, np.int16)
        self.event, self.reason = np.zeros(rows, np.uint8), np.zeros(rows, np.uint8)
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.asked_s = 0.0


class MailRoute(_One):
    """One mail a row, a session a batch, in a thread."""

    def __init__(
        self, channel: Email, mailer: Mailer, *, breaker: Breaker, bucket: Bucket, clock_ms: Callable[[], int]
    ) -> None:
        super().__init__(channel.name, channel.number, breaker, bucket)
        self._channel, self._mailer, self._clock_ms = channel, mailer, clock_ms

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Mails:
        return self._channel.render(message, addresses, lease.rows[wanted], now_ms=now_ms)

    async def deliver(self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo) -> Delivered:
        assert isinstance(batch, Mails)
        await _quota(self.bucket, len(batch.mails), urgent=lease.lane == 0)
        first_ms = self._clock_ms()
        codes = await trio.to_thread.run_sync(self._mailer.send, batch.mails, may_go)
        _tell(self.breaker, self.bucket, codes, 0.0)
        taken = bool(((codes >= 200) & (codes < 300)).any())
        last_ms = self._clock_ms() if taken else None
        return Delivered(codes, self._channel.interpret(codes), 0.0, first_ms if taken else None, last_ms)


async def _quota(bucket: Bucket, rows: int, *, urgent: bool) -> None:
    """Wait until the quota lets so many rows go at once; more than it holds go when it is full."""
    while (allowed := bucket.available(trio.current_time(), urgent=urgent)) < rows:
        now_s = trio.current_time()
        ready_s = bucket.ready_s(now_s, rows, urgent=urgent)
        if ready_s <= now_s:
            bucket.take(allowed)
            return
        await trio.sleep_until(ready_s)
    bucket.take(rows)


def _tell(breaker: Breaker, bucket: Bucket, codes: NDArray[np.int16], asked_s: float) -> None:
    """Let breaker and quota learn from what came back."""
    bad = int(((codes == NO_CONNECTION) | (codes == NO_ANSWER) | (codes >= 500)).sum())
    sent = int((codes != NOT_SENT).sum())
    breaker.answered(sent - bad, bad, trio.current_time())
    if asked_s > 0:
        bucket.shut(trio.current_time() + asked_s)
