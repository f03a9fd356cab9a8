"""The way of all that stands in line before it goes: SMS, voice and WhatsApp by single calls, mail by sessions.

`line.py` decides who goes; this waits, calls, and gives back what was not used. A row is in one call, and a call is
made once. Rules beside those of `routes.py` and `line.py`:

1. The calls of a way have their places: they are made at once, side by side, and each gives its place back as it ends.
2. `may_go` is asked before each call, and before each mail.
3. Who waits is woken when it is granted something or may not go any more, not whenever somebody's call ends: the first
   of those who wait looks after the time from when quotas let go, and asks `may_go` now and then, for all of them: of a
   nation some sixty batches of voice calls stand here.
4. A call that goes wrong in here (a body nobody foresaw) is that call's: its rows may have been taken, the others are
   told what they were told.
5. Of mail only a lost session and a reply that ends one (421) are the provider's failure: other refusals are of one
   recipient.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.mail import Email, Mails
from fanout.channels.protocol import (
    NO_ANSWER,
    NO_CONNECTION,
    NOT_SENT,
    Answer,
    Call,
    CallChannel,
    Calls,
    Column,
    Message,
    Outcome,
)
from fanout.dispatch.calls import Caller
from fanout.dispatch.line import Gate, Line
from fanout.dispatch.mailer import Mailer
from fanout.dispatch.retry_after import seconds_of
from fanout.dispatch.routes import ASK_S, EVERY, Batch, Delivered, Early, MayGo, Way, ignored, tell
from fanout.logs import what_failed
from fanout.store.protocol import Lease
from fanout.store.states import Event, Reason

log = logging.getLogger("fanout.dispatch")

NAP_S: Final = 0.001  # a quota that is ready in less is not waited for more finely
STAND_S: Final = 0.25  # how often those who stand in line are asked whether they may still go
SESSION_ENDED: Final = 421


class _Want:
    """A batch in line; `way` is what it got, and `nap` how long it waits for that."""

    def __init__(self, lease: Lease, rows: int, may_go: MayGo) -> None:
        self.lane, self.action, self.batch, self.attempt = lease.lane, lease.action, lease.batch, lease.attempt
        self.rows, self.may_go = rows, may_go
        self.way: Way | None = None
        self.bell = trio.Event()
        self.nap = trio.CancelScope()


class Supplier(NamedTuple):
    """One of several that carry the same channel, and what it lets through."""

    channel: CallChannel
    caller: Caller
    gate: Gate


class _LineRoute(ABC):
    """What all of them share: the line, and the waiting in it."""

    def __init__(self, name: str, number: int, gates: Sequence[Gate]) -> None:
        self.name, self.number = name, number
        self._line: Line[_Want] = Line(gates)
        self._standing: dict[_Want, None] = {}  # in the order of coming
        self._serve_at_s = self._ask_at_s = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}, {self._line!r}>"

    def allows(self, now_s: float) -> int:
        return EVERY if self.given_up(now_s) else max(gate.breaker.allows(now_s) for gate in self._line.gates)

    def given_up(self, now_s: float) -> bool:
        return all(gate.breaker.given_up(now_s) for gate in self._line.gates)

    def paused_s(self, now_s: float) -> float:
        return min(gate.bucket.shut_s(now_s) for gate in self._line.gates)

    async def reserve(self, lease: Lease, rows: int, may_go: MayGo) -> Way | None:
        """Stand in line for places and quota; see `routes.Route`."""
        want = _Want(lease, rows, may_go)
        if not self._standing:
            self._ask_at_s = trio.current_time() + STAND_S
        self._line.add(want)
        self._standing[want] = None
        self._serve_at_s = 0.0
        try:
            while may_go():
                if trio.current_time() >= self._serve_at_s:
                    self._serve()
                if want.way is not None:
                    way, want.way = want.way, None
                    return way
                if self._line.dead(trio.current_time()):
                    return None
                want.bell = trio.Event()
                with trio.CancelScope() as want.nap:
                    self._keep_time()
                    await want.bell.wait()
            return None
        finally:
            self._line.drop(want)
            del self._standing[want]
            self._keep_time()
            if want.way is not None:
                want.way.free()

    def ring(self) -> None:
        """Something came free."""
        if not self._standing:
            return
        self._serve()
        if self._line.dead(trio.current_time()):
            self._send_away(self._standing)

    def _serve(self) -> None:
        """Let go all who may; the next time is when quotas allow, or soon, for breakers close without a word."""
        while True:
            granted, again_s = self._line.next(trio.current_time())
            if granted is None:
                break
            granted.want.way = self._way(granted.gate, granted.rows, granted.probe)
            granted.want.bell.set()
        now_s = trio.current_time()
        if now_s >= self._ask_at_s:
            self._ask_at_s = now_s + STAND_S
            dead = self._line.dead(now_s)
            self._send_away([want for want in self._standing if dead or not want.may_go()])
        self._serve_at_s = min(again_s, now_s + ASK_S)
        self._keep_time()

    def _send_away(self, wants: Iterable[_Want]) -> None:
        """Have these find out for themselves that they do not go."""
        for want in wants:
            want.bell.set()

    def _keep_time(self) -> None:
        """Have the first of those who stand in line wake when it is time to serve."""
        first = next(iter(self._standing), None)
        if first is not None:
            first.nap.deadline = min(first.nap.deadline, max(self._serve_at_s, trio.current_time() + NAP_S))

    @abstractmethod
    def _way(self, gate: int, rows: int, probe: bool) -> Way:
        """Rows that were granted, as each kind takes them."""


class _Reserved:
    """Rows with their places and their quota at one gate."""

    def __init__(self, route: _LineRoute, gate: Gate, rows: int, *, probe: bool) -> None:
        self.rows = rows
        self._route, self._gate, self._probe = route, gate, probe
        self._left, self._calls = rows, gate.calls(rows)  # reserved, and neither used nor given back

    def free(self) -> None:
        """Give back what is left; a probe that came to nothing lets the next one be made."""
        self._gate.bucket.give_back(self._left)
        self._gate.free(self._calls)
        self._left = self._calls = 0
        if self._probe:
            self._gate.breaker.answered(0, 0, trio.current_time())
            self._probe = False
        self._route.ring()

    def _went(self, rows: int) -> None:
        """So many rows of it go now."""
        self._left -= min(self._left, rows)

    def _tell(self, codes: NDArray[np.int16], asked_s: float) -> None:
        sent = bool((codes != NOT_SENT).any())
        tell(self._gate.breaker, self._gate.bucket, codes, asked_s, trio.current_time(), probe=self._probe)
        self._probe = self._probe and not sent


# --- calls ------------------------------------------------------------------------------------------------------------


class CallRoute(_LineRoute):
    """Single calls to one of several suppliers."""

    def __init__(self, suppliers: Sequence[Supplier], *, clock_ms: Callable[[], int]) -> None:
        channel = suppliers[0].channel
        super().__init__(channel.name, channel.number, [supplier.gate for supplier in suppliers])
        self._suppliers = tuple(suppliers)
        self.clock_ms = clock_ms

    def _way(self, gate: int, rows: int, probe: bool) -> Way:
        return _CallWay(self, self._suppliers[gate], rows, probe=probe)

    async def close(self) -> None:
        for supplier in self._suppliers:
            await supplier.caller.aclose()


class _Told:
    """What single calls of one way were answered so far, uint8 and int16[k]."""

    def __init__(self, rows: int) -> None:
        self.codes = np.full(rows, NOT_SENT, np.int16)
        self.event, self.reason = np.full(rows, Event.RETRY, np.uint8), np.zeros(rows, np.uint8)
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.asked_s = 0.0


class _CallWay(_Reserved):
    """Some calls to one supplier."""

    def __init__(self, route: CallRoute, supplier: Supplier, rows: int, *, probe: bool) -> None:
        super().__init__(route, supplier.gate, rows, probe=probe)
        self._supplier, self._clock_ms = supplier, route.clock_ms

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Calls:
        return self._supplier.channel.render(message, addresses, lease.rows[wanted], now_ms=now_ms)

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo, early: Early = ignored
    ) -> Delivered:
        assert isinstance(batch, Calls)
        assert len(batch.calls) <= self._calls, "each call has its place"
        place = np.cumsum(batch.usable) - 1  # of a wanted row among those that go
        told = _Told(len(index))
        async with trio.open_nursery() as nursery:
            for call in batch.calls:
                at = place[call.index]
                nursery.start_soon(self._one, call, at, lease.rows[index[at]], may_go, told)
        return Delivered(told.codes, Outcome(told.event, told.reason), told.asked_s, told.first_ms, told.last_ms)

    async def _one(
        self, call: Call, at: NDArray[np.intp], rows: NDArray[np.uint32], may_go: MayGo, told: _Told
    ) -> None:
        if not may_go():
            return
        self._went(len(at))
        try:
            answer, (event, reason), asked_s = await self._call(call, rows)
        finally:
            self._calls -= 1
            self._gate.free(1)
            self._route.ring()
        told.codes[at], told.event[at], told.reason[at] = answer.code, event, reason
        if 200 <= answer.code < 300:
            told.last_ms = self._clock_ms()
            told.first_ms = told.last_ms if told.first_ms is None else told.first_ms
        told.asked_s = max(told.asked_s, asked_s)
        self._tell(told.codes[at], asked_s)

    async def _call(self, call: Call, rows: NDArray[np.uint32]) -> tuple[Answer, Outcome, float]:
        """The answer, what it means, and the seconds it asks us to wait."""
        try:
            answer = await self._supplier.caller.call(call)
            outcome = self._supplier.channel.interpret(call, answer, rows)
            return answer, outcome, seconds_of(answer, self._clock_ms())
        except Exception as error:
            log.error("a call by %s failed, and may have been taken: %s", self._route.name, what_failed(error))
            event, reason = np.full(len(rows), Event.TIME_OUT, np.uint8), np.full(len(rows), Reason.GARBAGE, np.uint8)
            return Answer(code=NO_ANSWER), Outcome(event, reason), 0.0


# --- mail -------------------------------------------------------------------------------------------------------------


class MailRoute(_LineRoute):
    """One mail a row, a session a handful, in a thread."""

    def __init__(self, channel: Email, mailer: Mailer, gate: Gate, *, clock_ms: Callable[[], int]) -> None:
        super().__init__(channel.name, channel.number, [gate])
        self.channel, self.mailer, self.clock_ms = channel, mailer, clock_ms

    def _way(self, gate: int, rows: int, probe: bool) -> Way:
        return _MailWay(self, self._line.gates[gate], rows, probe=probe)

    async def close(self) -> None:
        """Sessions end with their handful."""


class _MailWay(_Reserved):
    """A session."""

    def __init__(self, route: MailRoute, gate: Gate, rows: int, *, probe: bool) -> None:
        super().__init__(route, gate, rows, probe=probe)
        self._channel, self._mailer, self._clock_ms = route.channel, route.mailer, route.clock_ms

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Mails:
        return self._channel.render(message, addresses, lease.rows[wanted], now_ms=now_ms)

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo, early: Early = ignored
    ) -> Delivered:
        assert isinstance(batch, Mails)
        first_ms = self._clock_ms()
        codes = await trio.to_thread.run_sync(self._mailer.send, batch.mails, may_go)
        self._went(int((codes != NOT_SENT).sum()))
        ended = (codes == SESSION_ENDED) | (codes == NO_CONNECTION) | (codes == NO_ANSWER)
        self._tell(np.where(ended | (codes == NOT_SENT), np.where(ended, NO_CONNECTION, NOT_SENT), 200), 0.0)
        taken = bool(((codes >= 200) & (codes < 300)).any())
        last_ms = self._clock_ms() if taken else None
        return Delivered(codes, self._channel.interpret(codes), 0.0, first_ms if taken else None, last_ms)
