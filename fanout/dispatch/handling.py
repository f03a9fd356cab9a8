"""The way of one batch: reservation -> addresses -> intent in the ledger -> wire -> result in the ledger.

Rules:

1. A handful at a time: as many rows as their route lets go at once. Only they are intended, just before they go, so
   that what the ledger calls on its way is on the wire, and a stop, a close or a crash finds nobody there who waits.
   Handfuls of a batch go side by side; their results are written together, at the end, which ends the lease. But who
   was accepted `EARLY_S` before that is written by itself: a provider that hangs holds back nobody else's good news.
2. Addresses are read when the rows may go, at the last moment, so who was erased while they waited gets nothing.
3. Intent is refused when the action is closed, over or paused, the lease lost, or the ledger cannot write: then nothing
   of the handful goes out, and nothing further of the batch.
4. Every row leaves with a definite state: `outcomes.py` says which, `fallback.py` where a failed one goes next. Rows
   that stayed behind since others of the batch found their provider failing have had an attempt with them; rows that
   were only stopped have not. An attempt is the last one also when the next would come after the end: whom a provider
   puts off until then, and who stands in line behind the pause it asked for, the next channel still reaches in time.
   Rows of a provider that is given up (`breaker.py`) take their next channel if they have one; others wait on, however
   many attempts that is, for none of these was theirs. Rows that bounced since take it too, or have failed; while their
   action is stopped they wait, and the ledger knows what becomes of them.
5. What goes wrong in here is this batch's: it is logged without its words, and its rows get a state like any others.
   What had not been sent is tried again, with the pause and the count of attempts of any other; what may have been
   sent is settled as after a crash of its sender.
6. The first handful of the nearest people has its addresses, its requests and the ledger's word in one turn of a
   thread: each change of threads takes a busy machine milliseconds, which is what a first message waits. All others are
   put together for the ledger, since a commit costs more than that.
7. What came back is written for certain (`writing.py`). Addresses that a provider declared dead go into a log for the
   registry; if that cannot be written now, the next action finds them dead again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT, Column, Message, Outcome
from fanout.dispatch import fallback
from fanout.dispatch.budget import Budgets
from fanout.dispatch.counters import Counters
from fanout.dispatch.dead import news
from fanout.dispatch.hand import Hand
from fanout.dispatch.outcomes import Verdict, verdict
from fanout.dispatch.retry import pause_s
from fanout.dispatch.routes import Batch, Delivered, Route, Way, not_taken, perhaps
from fanout.dispatch.writing import Writing
from fanout.errors import Refused
from fanout.logs import what_failed
from fanout.registry.entries import DEAD_STREAM, DeadAddresses, encode_dead
from fanout.settings import DispatchSettings
from fanout.store.protocol import Lease, NewBatch, Store
from fanout.store.states import OPEN, WAITING, Event, Reason, State, among

log = logging.getLogger("fanout.dispatch")

EARLY_S: Final = 1.0
"""How long acceptances wait for the rest of their batch; most batches are done by then, and cost one commit."""

STOPPED_S: Final = 0.02
"""Pause of rows that were only stopped: until the ledger was looked at again, which may know better."""


class Desk(NamedTuple):
    """What all batches of a sender share. `sizes`: rows of a batch, by channel; `leaving`: it begins nothing more."""

    store: Store
    hand: Hand
    writing: Writing
    dispatch: DispatchSettings
    sizes: dict[int, int]
    counters: Counters
    budgets: Budgets
    clock_ms: Callable[[], int]
    leaving: Callable[[], bool]


class Handling:
    """One batch in one sender, from its claim to its settling."""

    def __init__(self, desk: Desk, route: Route, lease: Lease, off: trio.Event) -> None:
        self.desk, self.route, self.lease = desk, route, lease
        self.off = off  # set as the first of it go to the wire
        rows = len(lease.rows)
        self.status, self.reason = lease.status.copy(), lease.reason.copy()  # as before, but for rows refused
        self.wanted = np.flatnonzero(among(lease.status, WAITING))
        self.codes = np.full(rows, NOT_SENT, np.int16)
        self.event, self.why = np.full(rows, Event.RETRY, np.uint8), np.zeros(rows, np.uint8)
        self.asked_s = 0.0
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.dead: list[DeadAddresses] = []
        self.over = False  # nothing further of it may go
        self.turned_away = False  # by its provider's breaker
        self.given_up = False  # its provider, when it is settled
        self.told = np.zeros(rows, np.bool_)  # whose acceptance the ledger has before all others are done

    async def run(self) -> None:
        """Send it and settle it. *Cancellation*: what is not settled by then the ledger resolves, as after a crash."""
        hand = self.desk.hand
        try:
            message = hand.known(self.lease) or await self.desk.writing.ask(hand.message, self.lease)
        except Exception as error:
            self._say("cannot be read", error)
            await self._give_back()
            return
        async with trio.open_nursery() as watch:
            watch.start_soon(self._write_early)
            async with trio.open_nursery() as handfuls:  # none of them raises, or the others would be lost with it
                await self._send(message, handfuls)
            watch.cancel_scope.cancel()
        await self._settle(message)
        await self._report_dead()

    # --- on the wire --------------------------------------------------------------------------------------------------

    async def _send(self, message: Message, handfuls: trio.Nursery) -> None:
        at, may_go = 0, partial(self.may_wait, message)
        while at < len(self.wanted):
            try:
                way = await self.route.reserve(self.lease, len(self.wanted) - at, may_go)
            except Exception as error:
                self._say("got no place", error)
                return
            if way is None:
                self.turned_away = self.may_go(message)
                return
            part = self.wanted[at : at + way.rows]
            nearest = at == 0 and self.lease.seq == 0
            at += way.rows
            handfuls.start_soon(self._handful, way, message, part, nearest)

    async def _handful(self, way: Way, message: Message, part: NDArray[np.intp], nearest: bool) -> None:
        """Rows with their places and their quota: from their addresses to what came back."""
        try:
            found = await self._prepare(way, message, part, intend=nearest)
            if found is not None and (found.let or (self.may_go(message) and await self._intend(found.places))):
                delivered = await self._deliver(way, message, found)
                self._take(found.places, delivered)
                self._note_dead(part, found, delivered)
        except Exception as error:
            self._say("stopped half way", error)
            self.over = True
        finally:
            way.free()

    async def _deliver(self, way: Way, message: Message, found: _Prepared) -> Delivered:
        index = found.places

        def early(at: NDArray[np.intp], delivered: Delivered) -> None:
            self._note(index[at], delivered)

        self.off.set()
        try:
            return await way.deliver(found.batch, self.lease, index, partial(self.may_go, message), early)
        except Exception as error:
            self._say("may have gone out", error)
            return perhaps(len(index))

    async def _write_early(self) -> None:
        """Now and then, let the ledger know of acceptances while others of the batch are under way."""
        lease, desk = self.lease, self.desk
        while True:
            await trio.sleep(EARLY_S)
            fresh = np.flatnonzero((self.event == Event.ACCEPT) & ~self.told)
            if not len(fresh):
                continue
            status = lease.status.copy()
            status[fresh] = State.ACCEPTED
            try:
                await desk.writing.write(
                    desk.store.settle,
                    lease.lost(),
                    status=status,
                    reason=lease.reason,
                    first_ms=self.first_ms,
                    last_ms=self.last_ms,
                    done=False,
                )
                self.told[fresh] = True
            except Refused as error:
                desk.writing.complaints.say("acceptances wait for the rest of their batch", error)
            except Exception as error:
                self._say("acceptances wait for the rest of their batch", error)

    def _note_dead(self, part: NDArray[np.intp], found: _Prepared, delivered: Delivered) -> None:
        """What the provider said of the addresses that were tried."""
        refused = found.places[delivered.outcome.event == Event.REJECT]
        if len(refused):
            addresses = found.addresses.take(np.searchsorted(part, refused)).rows()
            self.dead += news(
                self.lease,
                found.places,
                dict(zip(refused.tolist(), addresses, strict=True)),
                delivered.outcome,
                delivered.since_ms,
                tried_ms=found.read_ms,
                proven=self.desk.counters.events[self.route.name, "accept"] > 0,
            )

    async def _prepare(self, way: Way, message: Message, part: NDArray[np.intp], *, intend: bool) -> _Prepared | None:
        """Addresses and requests, and the ledger's word if `intend`; None if there is nothing to send."""
        desk = self.desk
        try:
            found = await desk.writing.ask(self._get_ready, way, message, part, intend=intend)
        except Refused as error:
            desk.writing.complaints.say("addresses cannot be read", error)
            self.over = True
            return None
        except Exception as error:
            self._say("cannot be rendered", error)
            self._take(part, not_taken(len(part)))
            return None
        self._refuse(part, found.addresses, found.batch.usable)
        if found.let is not None and not self._told(found.places, found.let):
            return None
        return found if len(found.places) else None

    def _get_ready(self, way: Way, message: Message, part: NDArray[np.intp], *, intend: bool) -> _Prepared:
        """What a handful needs. Blocking. Errors: whatever comes of reading addresses and making requests."""
        desk, lease = self.desk, self.lease
        read_ms = desk.clock_ms()
        addresses = desk.hand.addresses(lease, part)
        batch = way.render(message, addresses, lease, part, now_ms=desk.clock_ms())
        places = part[batch.usable]
        let: bool | Refused | None = None
        if intend and len(places) and self.may_go(message):
            try:
                let = desk.store.intend(lease, places, now_ms=desk.clock_ms())
            except Refused as error:
                let = error
        return _Prepared(batch, places, addresses, read_ms, let)

    def _refuse(self, part: NDArray[np.intp], addresses: Column, usable: NDArray[np.bool_]) -> None:
        """Rows whose address is gone or cannot be right never get near the wire."""
        refused = part[~usable]
        gone = np.diff(addresses.offsets)[~usable] == 0
        doubtful = gone & (self.status[refused] == State.AGAIN)  # erased since an attempt that may have been received
        self.status[refused] = np.where(doubtful, np.uint8(State.UNKNOWN), np.uint8(State.FAILED))
        self.reason[refused] = np.where(gone, np.uint8(Reason.ERASED), np.uint8(Reason.TOKEN_INVALID))

    async def _intend(self, index: NDArray[np.intp]) -> bool:
        """Tell the ledger that rows go; False if they may not: closed, paused, over, or somebody else's by now."""
        desk, let = self.desk, False
        try:
            let = await desk.writing.write(desk.store.intend, self.lease, index, now_ms=desk.clock_ms())
        except Refused as error:
            return self._told(index, error)
        return self._told(index, let)

    def _told(self, index: NDArray[np.intp], let: bool | Refused) -> bool:
        """What the ledger said of rows that want to go."""
        if isinstance(let, Refused):
            self.desk.writing.complaints.say("nothing goes out", let)
            let = False
        if let:  # whatever happens from here on, they may have gone
            self.codes[index], self.event[index], self.why[index] = NO_ANSWER, Event.TIME_OUT, Reason.CRASH
        self.over = self.over or not let
        return let

    def _take(self, index: NDArray[np.intp], delivered: Delivered) -> None:
        """What came of rows."""
        self.desk.counters.count(self.route.name, delivered.outcome)
        self._note(index, delivered)

    def _note(self, index: NDArray[np.intp], delivered: Delivered) -> None:
        self.codes[index] = delivered.codes
        self.event[index], self.why[index] = delivered.outcome
        self.asked_s = max(self.asked_s, delivered.asked_s)
        if delivered.first_ms is not None and delivered.last_ms is not None:
            self.first_ms = min(delivered.first_ms, self.first_ms or delivered.first_ms)
            self.last_ms = max(delivered.last_ms, self.last_ms or delivered.last_ms)

    def may_go(self, message: Message) -> bool:
        """Asked just before rows go to the wire, and while they wait for it; by a mailer in its thread."""
        return not self.over and not self.desk.leaving() and self.desk.hand.stopping(self.lease, message) is None

    def may_wait(self, message: Message) -> bool:
        """Asked while rows stand in line, before the ledger is told that they go."""
        return self.may_go(message) and not self._is_put_off(message)

    def _is_put_off(self, message: Message) -> bool:
        """Whether the provider asked for a pause until after the end."""
        pause_s = self.route.paused_s(trio.current_time())
        return pause_s > 0 and self.desk.clock_ms() + 1000 * pause_s >= self.desk.hand.end_ms(message)

    # --- what came back -----------------------------------------------------------------------------------------------

    async def _settle(self, message: Message) -> None:
        """Record what came back, and when to try again what was not taken."""
        desk, lease, dispatch = self.desk, self.lease, self.desk.dispatch
        index = self.wanted[among(self.status[self.wanted], WAITING)]
        stop = desk.hand.stopping(lease, message)
        put_off = self._is_put_off(message)
        self.turned_away |= put_off
        self.given_up = stop is None and (put_off or self.route.given_up(trio.current_time()))
        unsent = not (self.codes[index] != NOT_SENT).any()
        self._speak_for_all(index)
        spent = lease.attempt + 1 >= dispatch.attempts_max and not (self.given_up and unsent)
        last = spent or self._no_other(message)
        found = verdict(
            self.status,
            self.reason,
            index,
            self.codes[index],
            Outcome(self.event[index], self.why[index]),
            channel=lease.channel,
            stop=stop,
            last_attempt=last or self.given_up,
        )
        if stop is None:
            found = _bounced_failed(found)
        moved = await self._fall_back(message, found)
        if self.given_up and not last:
            found = self._wait_on(index, found)
        await desk.writing.for_certain(
            desk.writing.write,
            desk.store.settle,
            lease,
            status=found.status,
            reason=found.reason,
            first_ms=self.first_ms,
            last_ms=self.last_ms,
            done=found.done,
            not_before_ms=desk.clock_ms() + int(1000 * self._wait_s(found)),
            moved=moved,
        )

    def _no_other(self, message: Message) -> bool:
        """Whether another attempt would come after the end: whoever was not taken has time for another channel now."""
        dispatch = self.desk.dispatch
        wait_s = pause_s(
            self.lease.batch,
            self.lease.attempt + 1,
            first_s=dispatch.pause_first_s,
            most_s=dispatch.pause_most_s,
            asked_s=self.asked_s,
        )
        return self.desk.clock_ms() + 1000 * wait_s >= self.desk.hand.end_ms(message)

    def _speak_for_all(self, index: NDArray[np.intp]) -> None:
        """Rows that stayed behind since their provider was found failing share the attempt of those who found it."""
        behind = index[self.codes[index] == NOT_SENT]
        failed = among(self.event[index], (Event.RETRY, Event.TIME_OUT)) & (self.codes[index] != NOT_SENT)
        if self.turned_away and (failed.any() or self.given_up):
            self.codes[behind], self.event[behind], self.why[behind] = NO_CONNECTION, Event.RETRY, Reason.PROVIDER

    def _wait_on(self, index: NDArray[np.intp], found: Verdict) -> Verdict:
        """Rows that were not taken and have no other channel are what they were: their provider may come back."""
        stay = index[(self.event[index] == Event.RETRY) & (found.status[index] != State.MOVED)]
        found.status[stay], found.reason[stay] = self.lease.status[stay], self.lease.reason[stay]
        return found._replace(done=not among(found.status, OPEN).any())

    def _wait_s(self, found: Verdict) -> float:
        """How long the rows that are still open wait."""
        lease, dispatch, budgets = self.lease, self.desk.dispatch, self.desk.budgets
        went = self.codes != NOT_SENT
        again = int((went & among(found.status, OPEN)).sum())
        if lease.attempt == 0:
            budgets.went(lease.action, lease.channel, int(went.sum()))
        if not again:
            return STOPPED_S
        if self.given_up:
            most_s = dispatch.pause_most_s
            return pause_s(lease.batch, lease.attempt + 1, first_s=most_s, most_s=most_s)
        allowed = budgets.allows(lease.action, lease.channel, again)
        return pause_s(
            lease.batch,
            lease.attempt + 1,
            first_s=dispatch.pause_first_s if allowed else dispatch.pause_most_s,
            most_s=dispatch.pause_most_s,
            asked_s=self.asked_s,
        )

    async def _fall_back(self, message: Message, found: Verdict) -> list[NewBatch]:
        """Move rows that certainly failed to the participant's next channel; marks them in `found`."""
        desk, lease = self.desk, self.lease
        index = fallback.failed_now(lease.status, found.status, found.reason)
        order = desk.hand.fall_backs(message)
        if not len(index) or lease.channel not in order or desk.hand.stopping(lease, message) is not None:
            return []
        preferences = await desk.writing.for_certain(desk.writing.ask, desk.hand.preferences, lease, index)
        to = fallback.targets(preferences, lease.channel, order)
        index, to = index[to != fallback.NOWHERE], to[to != fallback.NOWHERE]
        found.status[index] = State.MOVED
        by_ms = fallback.gathered_by_ms(lease, desk.clock_ms(), message.end_ms)
        return fallback.batches(lease, index, to, desk.sizes, not_before_ms=by_ms)

    async def _report_dead(self) -> None:
        """Tell the registry which of the addresses that were tried do not lead anywhere."""
        if not self.dead:
            return
        writing, entries = self.desk.writing, [encode_dead(entry) for entry in self.dead]
        try:
            await writing.write(self.desk.store.append, DEAD_STREAM, entries)
        except Refused as error:
            writing.complaints.say("dead addresses are not written", error)

    async def _give_back(self) -> None:
        """A batch of which nothing is known: as it was, after a pause."""
        lease, dispatch = self.lease, self.desk.dispatch
        wait_s = pause_s(lease.batch, lease.attempt + 1, first_s=dispatch.pause_first_s, most_s=dispatch.pause_most_s)
        await self.desk.writing.for_certain(
            self.desk.writing.write,
            self.desk.store.settle,
            lease,
            status=lease.status,
            reason=lease.reason,
            first_ms=None,
            last_ms=None,
            done=False,
            not_before_ms=self.desk.clock_ms() + int(1000 * wait_s),
        )

    def _say(self, what: str, error: Exception) -> None:
        """Log what went wrong in here, without its words."""
        log.error("rows of action %d by %s: %s: %s", self.lease.action, self.route.name, what, what_failed(error))


def _bounced_failed(found: Verdict) -> Verdict:
    """Rows that bounced have failed, unless they move on."""
    found.status[found.status == State.BOUNCED] = State.FAILED
    return found._replace(done=not among(found.status, OPEN).any())


class _Prepared(NamedTuple):
    """A handful ready to go: `places` intp[k] in the lease; addresses of these and of refused ones, of `read_ms`.

    `let`: what the ledger said of them; None if it was not asked yet.
    """

    batch: Batch
    places: NDArray[np.intp]
    addresses: Column
    read_ms: int
    let: bool | Refused | None
