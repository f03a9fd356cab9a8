"""The sender: claims batches, puts them on the wire, records what came back. One process, one task a channel.

The way of a batch, and its rules:

1. Claim -> addresses -> intent in the ledger -> wire -> result in the ledger. Addresses are read at the last moment, so
   who was erased meanwhile gets nothing; intent is refused when the action is closed, over, or the lease lost.
2. Every row leaves with a definite state: `outcomes.py` says which, `fallback.py` where a failed one goes next; this
   module only carries arrays. Addresses that a provider declared dead go into a log for the registry.
3. Channels are bulkheads: each has its own batches in hand, places, quota and breaker. One that hangs holds no other.
4. Capacity is kept free for lane 0: `batches_in_hand` batches of any lane, and as many again for lane 0 only. So a
   local life-at-risk action is claimed while a national one has all ordinary places, and its rows go first.
5. A close or an end is noticed twice: by `intend`, and by the watch that looks at the ledger when it changed and makes
   the lane stop between rows. What was stopped is not claimed again before the next look, which may know better.
6. On `stop` nothing more is claimed, what is on the wire is finished and settled. A cancelled sender does the same, for
   as long as a request may take; what it could not settle by then is resolved by the ledger as after a crash.

The store blocks. Readings and claims go through `ask`, a thread by default; results through the group commit of
`store/writer.py`, so that channels share a flush. A simulation hands in one `ask` for both, and calls directly.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import trio
from numpy.typing import NDArray

from fanout import wire
from fanout.channels import catalogue
from fanout.channels.protocol import NOT_SENT, Column, Message, Outcome
from fanout.dispatch import fallback
from fanout.dispatch.opening import open_routes
from fanout.dispatch.outcomes import Verdict, verdict
from fanout.dispatch.retry import pause_s
from fanout.dispatch.routes import Delivered, Route
from fanout.registry.entries import DEAD_STREAM, DeadAddresses, digest_of, encode_dead
from fanout.settings import Settings
from fanout.store.protocol import ActionRecord, Generations, Lease, NewBatch, Rows, Store
from fanout.store.states import Event, Reason, State
from fanout.store.writer import Writer, open_writer

log = logging.getLogger("fanout.dispatch")

Ask = Callable[..., Awaitable[Any]]

CLAIM_EVERY_S: Final = 0.25  # without news: for retries whose time has come and leases that ran out
WAKE_EVERY_S: Final = 0.005  # how often, at most, channels look for new batches: what a first message may wait here
LOOK_EVERY_S: Final = 0.02  # how often, at most, the ledger is asked whether actions in hand were closed
SWITCH_S: Final = 0.0005  # Python's default of 5 ms would make every step of a thread wait that long for a busy lane
ALL_LANES: Final = tuple(range(len(wire.LANES)))
STOPPED_BY: Final = {"paused": Event.RETRY, "expired": Event.END}
"""What a state of an action other than `open` means for rows not sent; all others close it."""


class Addresses(Protocol):
    """What the sender needs of the registry's replica."""

    def refresh(self) -> bool: ...

    def addresses(
        self, channel: int, rows: Rows, generations: Generations, /
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...

    def preferences(self, rows: Rows, generations: Generations, /) -> NDArray[np.uint32]: ...


class Counters:
    """What a sender did, for metrics: rows by (channel, event) and (channel, reason), batches by channel."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.batches: Counter[str] = Counter()
        self.in_hand: Counter[str] = Counter()

    def count(self, channel: str, outcome: Outcome) -> None:
        for value, rows in enumerate(np.bincount(outcome.event, minlength=len(Event)).tolist()):
            if rows:
                self.events[channel, Event(value).name.lower()] += rows
        for value, rows in enumerate(np.bincount(outcome.reason, minlength=len(Reason)).tolist()):
            if rows and value != Reason.NONE:
                self.reasons[channel, Reason(value).name.lower()] += rows


async def in_thread(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Ask in a worker thread."""
    return await trio.to_thread.run_sync(partial(call, *args, **options))


async def run_sender(
    store: Store,
    replica: Addresses,
    settings: Settings,
    *,
    owner: str,
    clock_ms: Callable[[], int],
    stop: trio.Event,
    on_warm: Callable[[], None] = lambda: None,
    ask: Ask | None = None,
    channels: Sequence[str] = wire.CHANNELS,
    routes: Mapping[str, Route] | None = None,
    counters: Counters | None = None,
) -> None:
    """Send on `channels` until `stop`.

    `on_warm` is called once connections stand; `routes` replaces the ways to the wire.
    """
    sys.setswitchinterval(SWITCH_S)
    async with trio.open_nursery() as lanes, AsyncExitStack() as stack:
        if routes is None:
            routes = await open_routes(settings, clock_ms, lanes, channels=channels)
        write = ask
        if write is None:
            writer = await stack.enter_async_context(open_writer(store))
            write = partial(_written, writer)
        sender = _Sender(
            store, replica, settings, owner, clock_ms, stop, ask or in_thread, write, counters or Counters()
        )
        on_warm()
        try:
            await sender.run(routes)
        finally:
            with trio.CancelScope(shield=True):
                for route in routes.values():
                    await route.close()
                await write(store.release, owner)
            lanes.cancel_scope.cancel()  # the renewal of credentials


async def _written(writer: Writer, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Write in the next group commit."""
    return await writer.run(partial(call, *args, **options))


class _Wish(NamedTuple):
    """How many batches of which lanes a channel would take now."""

    route: Route
    lanes: tuple[int, ...]
    most: int


class _Sender:
    """The state of one sender: what it has in hand, and what it knows of the actions in hand."""

    def __init__(
        self,
        store: Store,
        replica: Addresses,
        settings: Settings,
        owner: str,
        clock_ms: Callable[[], int],
        stop: trio.Event,
        ask: Ask,
        write: Ask,
        counters: Counters,
    ) -> None:
        self.store, self.replica, self.settings = store, replica, settings
        self.owner, self.clock_ms, self.stop = owner, clock_ms, stop
        self.ask, self.write, self.counters = ask, write, counters
        self.lease_ms = int(settings.senders.lease_s * 1000)
        self.hand = settings.dispatch.batches_in_hand + 1
        self.grace_s = settings.dispatch.request_timeout_s + 1.0
        self.leases: dict[tuple[int, int], Lease] = {}  # by batch and token: a lease that ran out may be claimed anew here
        self.stopped: dict[int, Event] = {}
        self.messages: dict[tuple[int, int, str], Message] = {}
        self.channels: dict[tuple[int, int, str], list[int]] = {}
        self.holding: set[trio.CancelScope] = set()
        self.registry = trio.Lock()
        self.news = trio.Event()
        self.changed = trio.Event()

    async def run(self, routes: Mapping[str, Route]) -> None:
        """Serve all channels until `stop`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch)
            nursery.start_soon(self.follow)
            nursery.start_soon(self.keep_leases)
            nursery.start_soon(self.hurry)
            await self.serve(list(routes.values()))
            nursery.cancel_scope.cancel()

    # --- what all channels share --------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Say so when the ledger changed."""
        while True:
            await self.ask(self.store.wait, CLAIM_EVERY_S)
            self.news.set()
            self.changed.set()
            await trio.sleep(WAKE_EVERY_S)

    async def follow(self) -> None:
        """Learn which actions in hand may not go on, whenever the ledger changed."""
        while True:
            await self.changed.wait()
            self.changed = trio.Event()
            await self.look()
            await trio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Ask the ledger about the actions in hand."""
        in_hand = {lease.action for lease in self.leases.values()}
        for action, record in (await self.ask(self.read_actions, in_hand)).items():
            if record is None or record.state != "open":
                self.stopped[action] = STOPPED_BY.get(record.state if record else "", Event.CLOSE)
            else:
                self.stopped.pop(action, None)
        for action in self.stopped.keys() - in_hand:
            del self.stopped[action]
        live = {(lease.action, lease.phase, lease.language) for lease in self.leases.values()}
        for key in self.messages.keys() - live:
            del self.messages[key], self.channels[key]

    def read_actions(self, actions: set[int]) -> dict[int, ActionRecord | None]:
        """The actions' records, in one go."""
        return {action: self.store.action(action) for action in actions}

    async def hurry(self) -> None:
        """Once the sender is cancelled, leave the batches on the wire the time of one request."""
        try:
            await trio.sleep_forever()
        finally:
            for scope in self.holding:
                scope.deadline = trio.current_time() + self.grace_s

    async def keep_leases(self) -> None:
        """Renew what is in hand, three times as often as needed."""
        while True:
            await trio.sleep(self.lease_ms / 3000)
            if self.leases:
                until_ms = self.clock_ms() + self.lease_ms
                await self.write(self.store.renew, list(self.leases.values()), until_ms=until_ms)

    # --- batches --------------------------------------------------------------------------------------------------

    async def serve(self, routes: Sequence[Route]) -> None:
        """Claim and deliver batches until `stop`: one look at the ledger, in one thread, for all channels."""
        async with trio.open_nursery() as batches:
            while not self.stop.is_set():
                self.news = news = trio.Event()
                now_s = trio.current_time()
                wishes = [wish for route in routes if (wish := self.wish(route, now_s)).most > 0]
                for route, leases in await self.ask(self.claim, wishes) if wishes else ():
                    if route.allows(now_s) == 1:
                        route.probe()
                    for lease in leases:
                        self.leases[lease.batch, lease.token] = lease
                        self.counters.in_hand[route.name] += 1
                        batches.start_soon(self.hold, route, lease)
                with trio.move_on_after(CLAIM_EVERY_S):
                    await news.wait()

    def wish(self, route: Route, now_s: float) -> _Wish:
        """As many batches as there is room for: of all lanes, or when those are full, of lane 0 only."""
        in_hand = self.counters.in_hand[route.name]
        lanes, room = (ALL_LANES, self.hand - in_hand) if in_hand < self.hand else ((0,), 2 * self.hand - in_hand)
        return _Wish(route, lanes, min(room, route.allows(now_s)))

    def claim(self, wishes: Sequence[_Wish]) -> list[tuple[Route, list[Lease]]]:
        """Claim what is wished for, channel by channel; those that got nothing are left out. Blocking."""
        found = []
        for route, lanes, most in wishes:
            leases = self.store.claim(
                self.owner,
                channels=(route.number,),
                lanes=lanes,
                now_ms=self.clock_ms(),
                lease_ms=self.lease_ms,
                most=most,
            )
            if leases:
                found.append((route, leases))
        return found

    async def hold(self, route: Route, lease: Lease) -> None:
        """Deliver one batch, and have it in hand meanwhile; cancellation waits for it (see `hurry`)."""
        name = route.name
        scope = trio.CancelScope(shield=True)
        self.holding.add(scope)
        try:
            with scope:
                await self.deliver(route, lease)
        finally:
            self.holding.discard(scope)
            del self.leases[lease.batch, lease.token]
            route.drop(lease)
            self.counters.in_hand[name] -= 1
            self.counters.batches[name] += 1
            self.news.set()

    async def deliver(self, route: Route, lease: Lease) -> None:
        """The way of one batch."""
        wanted = np.flatnonzero(np.isin(lease.status, (State.PENDING, State.AGAIN)))
        async with self.registry:  # the replica is one object, and threads are several
            message, addresses = await self.ask(self.read_batch, lease, wanted)
        render = partial(route.render, message, addresses, lease, wanted, now_ms=self.clock_ms())
        batch = await self.ask(render) if route.slow_render else render()
        index = wanted[batch.usable]
        status, reason = lease.status.copy(), lease.reason.copy()
        refused = wanted[~batch.usable]
        gone = np.diff(addresses.offsets)[~batch.usable] == 0
        perhaps = gone & (status[refused] == State.AGAIN)  # erased since an attempt that may have been received
        status[refused] = np.where(perhaps, np.uint8(State.UNKNOWN), np.uint8(State.FAILED))
        reason[refused] = np.where(gone, np.uint8(Reason.ERASED), np.uint8(Reason.TOKEN_INVALID))
        if len(index) and not await self.write(self.store.intend, lease, index, now_ms=self.clock_ms()):
            # closed, paused, over, or somebody else's by now: nothing of it went out
            await self.write(
                self.store.settle,
                lease,
                status=lease.status,
                reason=lease.reason,
                first_ms=None,
                last_ms=None,
                done=False,
                not_before_ms=self.clock_ms() + int(1000 * LOOK_EVERY_S),
            )
            return
        delivered = await route.deliver(batch, lease, index, partial(self.may_go, lease, message))
        found = await self.settle(route, lease, message, status, reason, index, delivered)
        await self.report_dead(lease, found, wanted, addresses)

    async def settle(
        self,
        route: Route,
        lease: Lease,
        message: Message,
        status: NDArray[np.uint8],
        reason: NDArray[np.uint8],
        index: NDArray[np.intp],
        delivered: Delivered,
    ) -> Verdict:
        """Record what came back, and when to try again what was not taken."""
        dispatch, now_ms = self.settings.dispatch, self.clock_ms()
        self.counters.count(route.name, delivered.outcome)
        found = verdict(
            status,
            reason,
            index,
            delivered.codes,
            delivered.outcome,
            channel=lease.channel,
            stop=self.stopping(lease, message),
            last_attempt=lease.attempt + 1 >= dispatch.attempts_max,
        )
        moved = await self.fall_back(lease, message, found)
        wait_s = pause_s(
            lease.batch,
            lease.attempt + 1,
            first_s=dispatch.pause_first_s,
            most_s=dispatch.pause_most_s,
            asked_s=delivered.asked_s,
        )
        only_stopped = bool((delivered.codes == NOT_SENT).all())
        await self.write(
            self.store.settle,
            lease,
            status=found.status,
            reason=found.reason,
            first_ms=delivered.first_ms,
            last_ms=delivered.last_ms,
            done=found.done,
            not_before_ms=now_ms + int(1000 * (LOOK_EVERY_S if only_stopped else wait_s)),
            moved=moved,
        )
        return found

    async def fall_back(self, lease: Lease, message: Message, found: Verdict) -> list[NewBatch]:
        """Move rows that certainly failed to the participant's next channel; marks them in `found`."""
        index = fallback.failed_now(lease.status, found.status, found.reason)
        order = self.channels[message.action, message.phase, message.language]
        if not len(index) or lease.channel not in order or self.stopping(lease, message) is not None:
            return []
        async with self.registry:
            preferences = await self.ask(self.preferences, lease, index)
        to = fallback.targets(preferences, lease.channel, order)
        index, to = index[to != fallback.NOWHERE], to[to != fallback.NOWHERE]
        found.status[index] = State.MOVED
        return fallback.batches(lease, index, to)

    async def report_dead(self, lease: Lease, found: Verdict, wanted: NDArray[np.intp], addresses: Column) -> None:
        """Tell the registry which of the addresses that were tried, at `wanted`, the provider declared dead."""
        dead = np.flatnonzero((found.reason == Reason.TOKEN_DEAD) & (lease.reason != Reason.TOKEN_DEAD))
        if len(dead):
            tried = addresses.rows()
            entry = DeadAddresses(
                channel=lease.channel,
                at_ms=self.clock_ms(),
                rows=lease.rows[dead].tolist(),
                generations=lease.generations[dead].tolist(),
                digests=[digest_of(tried[at]) for at in np.searchsorted(wanted, dead).tolist()],
            )
            await self.write(self.store.append, DEAD_STREAM, [encode_dead(entry)])

    # --- small questions ------------------------------------------------------------------------------------------

    def read_batch(self, lease: Lease, wanted: NDArray[np.intp]) -> tuple[Message, Column]:
        """What a batch says, and where its rows at `wanted` are reached now; in a thread, in one go."""
        return self.message(lease), self.addresses(lease, wanted, lease.channel)

    def addresses(self, lease: Lease, wanted: NDArray[np.intp], channel: int) -> Column:
        """Where the rows at `wanted` are reached now on a channel; empty where they are not. Blocking."""
        self.replica.refresh()
        return Column(*self.replica.addresses(channel, lease.rows[wanted], lease.generations[wanted]))

    def preferences(self, lease: Lease, index: NDArray[np.intp]) -> NDArray[np.uint32]:
        """The channels of the rows at `index`, in their own order (see `registry.columns`). Blocking."""
        self.replica.refresh()
        return self.replica.preferences(lease.rows[index], lease.generations[index])

    def message(self, lease: Lease) -> Message:
        """What the batch says. Blocking."""
        key = (lease.action, lease.phase, lease.language)
        known = self.messages.get(key)
        if known is not None:
            return known
        record = self.store.action(lease.action)
        assert record is not None, "a batch belongs to an action"
        phase = next(phase for phase in self.store.phases(lease.action) if phase.phase == lease.phase)
        asked = wire.decode_msgpack(record.body, wire.ActionRequest) if record.body else None
        message = Message(
            action=lease.action,
            phase=lease.phase,
            name=phase.name,
            kind=record.kind,
            lane=lease.lane,
            language=lease.language,
            title=phase.titles.get(lease.language, ""),
            text=phase.texts[lease.language],
            end_ms=phase.end_ms,
            image=self.settings.media.link(asked.photo) if asked is not None and phase.name != "result" else "",
        )
        self.channels[key] = self.open_channels(asked.channels if asked is not None else None, message)
        self.messages[key] = message
        return message

    def open_channels(self, asked: Sequence[str] | None, message: Message) -> list[int]:
        """Channels this message may fall back to, of those asked for (None: all), in the order of the settings."""
        return [
            wire.CHANNELS.index(name)
            for name in self.settings.dispatch.fall_back
            if getattr(self.settings.providers, name).enabled
            and (asked is None or name in asked)
            and catalogue.unfit(name, message.text, message.title, message.image) is None
        ]

    def may_go(self, lease: Lease, message: Message) -> bool:
        """Asked just before rows go to the wire."""
        return self.stopping(lease, message) is None

    def stopping(self, lease: Lease, message: Message) -> Event | None:
        """What keeps the rows of a batch back, if anything. A result goes out although its action is closed."""
        if self.clock_ms() >= message.end_ms:
            return Event.END
        return None if message.name == "result" else self.stopped.get(lease.action)
