"""A channel with its way to the wire: what differs between one request a row and one request a batch ends here.

A `Route` renders a batch, puts it on the wire, and answers with a code and an outcome for every row, in the order of
the rows that went. What is kept on it (breaker, bucket) is one provider's: providers do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.catalogue import Channel
from fanout.channels.protocol import (
    NO_ANSWER,
    NOT_SENT,
    Answer,
    Calls,
    Column,
    Message,
    Outcome,
    Requests,
    RowChannel,
)
from fanout.channels.sms import Sms
from fanout.dispatch.breaker import Breaker
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.calls import Caller, HttpCaller
from fanout.dispatch.lanes import BulkLane, Lane
from fanout.settings import Settings
from fanout.store.protocol import Lease
from fanout.store.states import State

CALL_CONNECTIONS = 4

Batch: TypeAlias = Requests | Calls


class Delivered(NamedTuple):
    """What came of the rows that went: `codes` int16[k], their outcome, and as in `lanes.Sent`."""

    codes: NDArray[np.int16]
    outcome: Outcome
    asked_s: float
    first_ms: int | None
    last_ms: int | None


class Route(Protocol):
    """One channel's way. `index` intp[k]: places in the lease's arrays of the rows that `render` found usable."""

    breaker: Breaker
    bucket: Bucket

    @property
    def channel(self) -> RowChannel | Sms: ...

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Batch: ...

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: Callable[[], bool]
    ) -> Delivered: ...

    async def close(self) -> None: ...


class RowRoute:
    """One request a row, by a bulk lane."""

    def __init__(
        self, channel: RowChannel, lane: Lane, *, breaker: Breaker, bucket: Bucket, authorization: Callable[[], str]
    ) -> None:
        self.channel, self.lane, self.breaker, self.bucket = channel, lane, breaker, bucket
        self._authorization = authorization

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Requests:
        again = lease.status[wanted] == State.AGAIN
        return self.channel.render(message, addresses, again, now_ms=now_ms, authorization=self._authorization())

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: Callable[[], bool]
    ) -> Delivered:
        assert isinstance(batch, Requests)
        sent = await self.lane.send(
            batch, np.flatnonzero(batch.usable), lane=lease.lane, action=lease.action, may_go=may_go
        )
        outcome = self.channel.interpret(sent.codes, sent.bodies)
        return Delivered(sent.codes, outcome, sent.asked_s, sent.first_ms, sent.last_ms)

    async def close(self) -> None:
        self.lane.close()


class CallRoute:
    """Many rows a request, by single calls, one after the other: what rings twice is never on two wires at once."""

    def __init__(
        self, channel: Sms, caller: Caller, *, breaker: Breaker, bucket: Bucket, clock_ms: Callable[[], int]
    ) -> None:
        self.channel, self.caller, self.breaker, self.bucket = channel, caller, breaker, bucket
        self._clock_ms = clock_ms

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Calls:
        return self.channel.render(message, addresses, lease.rows[wanted], now_ms=now_ms)

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: Callable[[], bool]
    ) -> Delivered:
        assert isinstance(batch, Calls)
        place = np.cumsum(batch.usable) - 1  # of a wanted row among those that go
        codes = np.full(len(index), NOT_SENT, np.int16)
        event, reason = np.zeros(len(index), np.uint8), np.zeros(len(index), np.uint8)
        first_ms: int | None = None
        last_ms: int | None = None
        asked_s = 0.0
        for call in batch.calls:
            await self._quota(len(call.index), urgent=lease.lane == 0)
            if not may_go():
                break
            at = place[call.index]
            answer = Answer(code=NO_ANSWER)
            try:
                answer = await self.caller.call(call)
            finally:
                codes[at] = answer.code
            outcome = self.channel.interpret(call, answer, lease.rows[index[at]])
            event[at], reason[at] = outcome
            if 200 <= answer.code < 300:
                last_ms = self._clock_ms()
                first_ms = last_ms if first_ms is None else first_ms
            if answer.code in (429, 503):
                asked_s = max(asked_s, _seconds(answer.headers.get("retry-after", "")))
        return Delivered(codes, Outcome(event, reason), asked_s, first_ms, last_ms)

    async def close(self) -> None:
        if isinstance(self.caller, HttpCaller):
            await self.caller.aclose()

    async def _quota(self, rows: int, *, urgent: bool) -> None:
        while (allowed := self.bucket.available(trio.current_time(), urgent=urgent)) < rows:
            now_s = trio.current_time()
            ready_s = self.bucket.ready_s(now_s, rows, urgent=urgent)
            if ready_s <= now_s:  # a call larger than the bucket goes when the bucket is full
                self.bucket.take(allowed)
                return
            await trio.sleep_until(ready_s)
        self.bucket.take(rows)


async def open_routes(
    channels: Mapping[str, Channel], settings: Settings, clock_ms: Callable[[], int], nursery: trio.Nursery
) -> dict[str, RowRoute | CallRoute]:
    """Routes for all channels, warm: connections and TLS stand before the first action. Lanes run in `nursery`."""
    dispatch, routes = settings.dispatch, dict[str, RowRoute | CallRoute]()
    share = max(1, settings.senders.processes)
    for name, channel in channels.items():
        provider = getattr(settings.providers, name)
        now_s = trio.current_time()
        bucket = Bucket(
            rate_per_s=provider.rate_per_s / share,
            burst=max(1.0, provider.burst / share),
            reserve=dispatch.reserve,
            now_s=now_s,
        )
        breaker = Breaker(now_s=now_s)
        if isinstance(channel, Sms):
            caller = HttpCaller(ca=provider.ca, timeout_s=dispatch.request_timeout_s, connections=CALL_CONNECTIONS)
            routes[name] = CallRoute(channel, caller, breaker=breaker, bucket=bucket, clock_ms=clock_ms)
            nursery.start_soon(caller.warm, provider.url)
        else:
            lane = BulkLane(
                ca=provider.ca,
                connections=dispatch.connections,
                streams=dispatch.streams,
                timeout_s=dispatch.request_timeout_s,
                reserve=dispatch.reserve,
                bucket=bucket,
                clock_ms=clock_ms,
            )
            await nursery.start(lane.run)
            routes[name] = RowRoute(
                channel, lane, breaker=breaker, bucket=bucket, authorization=lambda: "Bearer simulated"
            )
            await lane.warm(provider.url)
    return routes


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
