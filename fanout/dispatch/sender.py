"""The sender: claims batches, and has each handled, from claim to result. One process, some batches of each channel.

Its parts: `hand.py` is what it has in hand and knows, `handling.py` the way of one batch, `writing.py` how its word
gets into the ledger. Rules:

1. Channels are bulkheads: each has its own batches in hand, places, quota and breaker. One that hangs holds no other.
2. Capacity is kept free for the more urgent: each lane has room for `batches_in_hand` batches and one, whatever the
   less urgent ones have in hand, and its rows go first.
3. A close or an end is noticed twice: by `intend`, and by the watch that looks at the ledger when there is news for
   senders and makes what waits give up. What was stopped is not claimed again before the next look, which may know
   better. A look is one call for all there is to see, since a thread's turn costs more than what it reads. Intents and
   results of others are no news: a nation's ledger changes a hundred times a second, and to look at each was a tenth of
   a core for every sender.
4. Whoever has the wishes claims, alone (`wishes.py`): the look does as soon as it sees news, in its own thread, since
   on a busy machine each change of threads is milliseconds of a first message; and `serve` when a batch has ended.
   Of what was claimed the nearest begin first, and have the machine for themselves until they are off.
5. On `stop` nothing more is claimed, nobody waits for a place any more, and what is on the wire is finished and settled
   within the time of one request. A cancelled sender does the same; what it could not settle by then is resolved by the
   ledger as after a crash.
6. Where the nearest of each action have a sender of their own (`share`), it has the cores for itself at first: others
   that stand idle look a moment later (`behind_s`). One that is busy gains nobody anything by that.
7. Nothing that a batch, a provider or a ledger does ends a sender. A ledger that takes nothing is asked again; until it
   has taken what came back, nothing more is claimed. Only a writer that broke ends it, for it will not write again.

The store blocks. Readings and claims go through `ask`, a thread by default; results through the group commit of
`store/writer.py`, so that channels share a flush. A simulation hands in one `ask` for both, and calls directly.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, NamedTuple

import trio

from fanout import wire
from fanout.channels import catalogue
from fanout.dispatch.budget import Budgets
from fanout.dispatch.counters import Counters
from fanout.dispatch.hand import Addresses, Hand
from fanout.dispatch.handling import Desk, Handling
from fanout.dispatch.opening import open_routes
from fanout.dispatch.routes import Route
from fanout.dispatch.terms import GRACE_S, nearest_apart
from fanout.dispatch.wishes import Wish, Wishes
from fanout.dispatch.writing import Ask, Writing
from fanout.errors import Refused
from fanout.logs import what_failed
from fanout.plan.batches import sizes
from fanout.settings import Settings
from fanout.store.protocol import ActionRecord, Lease, Share, Store
from fanout.store.writer import Writer, open_writer

log = logging.getLogger("fanout.dispatch")

CLAIM_EVERY_S: Final = 0.25  # without news: for retries whose time has come and leases that ran out
WAKE_EVERY_S: Final = 0.005  # how often, at most, the ledger is looked at: what a first message may wait here
HEAD_START_S: Final = 0.02  # of the nearest of an action before all others, whose rendering would hold the interpreter
SWITCH_S: Final = 0.0001  # Python's default of 5 ms would make every step of a thread wait that long for a busy lane


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
    share: Share = Share.ALL,
    behind_s: float = 0.0,
    routes: Mapping[str, Route] | None = None,
    counters: Counters | None = None,
) -> None:
    """Send on `channels` until `stop`.

    `on_warm` is called once connections stand; `routes` replaces the ways to the wire.
    `share`: of what waits; `behind_s`: how long a sender with nothing in hand leaves the machine to others at news.
    """
    sys.setswitchinterval(SWITCH_S)
    async with trio.open_nursery() as lanes, AsyncExitStack() as stack:
        if routes is None:
            routes = await open_routes(settings, clock_ms, lanes, channels=channels, share=share)
        write = ask
        if write is None:
            writer = await stack.enter_async_context(open_writer(store))
            write = partial(_written, writer)
        writing = Writing(ask or in_thread, write)
        sender = _Sender(
            store, replica, settings, owner, clock_ms, stop, writing, counters or Counters(), share, behind_s
        )
        on_warm()
        try:
            await sender.run(routes)
        finally:
            with trio.CancelScope(shield=True):
                for route in routes.values():
                    await route.close()
                await sender.release()
            lanes.cancel_scope.cancel()  # the renewal of credentials


async def _written(writer: Writer, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Write in the next group commit."""
    return await writer.run(partial(call, *args, **options))


class _Claimed(NamedTuple):
    """What a claim got, all by one route, and the wishes behind it."""

    leases: list[Lease]
    route: Route | None
    rest: Sequence[Wish]


class _Seen(NamedTuple):
    """What a look at the ledger found: the records of the actions in hand; and what it claimed, of which wishes."""

    actions: dict[int, ActionRecord | None]
    wishes: Sequence[Wish]
    claimed: _Claimed


class _Sender:
    """One sender, and what all its channels share."""

    def __init__(
        self,
        store: Store,
        replica: Addresses,
        settings: Settings,
        owner: str,
        clock_ms: Callable[[], int],
        stop: trio.Event,
        writing: Writing,
        counters: Counters,
        share: Share,
        behind_s: float,
    ) -> None:
        self.store, self.owner, self.clock_ms, self.stop = store, owner, clock_ms, stop
        self.writing, self.counters = writing, counters
        self.share, self.behind_s = share, behind_s
        self.apart = {number for number, name in enumerate(wire.CHANNELS) if nearest_apart(settings, name)}
        self.lease_ms = int(settings.senders.lease_s * 1000)
        self.grace_s = settings.dispatch.request_timeout_s + GRACE_S
        whole = sizes(catalogue.paces(settings))
        self.hand = Hand(store, replica, settings, clock_ms, most=settings.dispatch.batches_in_hand + 1, sizes=whole)
        self.holding: set[trio.CancelScope] = set()
        self.cancelled = False
        self.refusal: Refused | None = None  # of the last claim
        self.news = trio.Event()
        self.wishes = Wishes()
        self.batches: trio.Nursery | None = None
        self.unseen = False  # the ledger changed, and could not be looked at
        self.desk = Desk(
            store=store,
            hand=self.hand,
            writing=writing,
            dispatch=settings.dispatch,
            sizes=whole,
            counters=counters,
            budgets=Budgets(),
            clock_ms=clock_ms,
            leaving=lambda: self.cancelled or stop.is_set(),
        )

    async def run(self, routes: Mapping[str, Route]) -> None:
        """Serve all channels until `stop`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch)
            nursery.start_soon(self.keep_leases)
            nursery.start_soon(self.hurry)
            await self.serve(list(routes.values()))
            nursery.cancel_scope.cancel()

    async def release(self) -> None:
        """Let go what could not be settled."""
        try:
            await self.writing.write(self.store.release, self.owner)
        except Refused as error:  # whoever started this sender releases it once more
            self.writing.complaints.say("batches are not released yet", error)

    # --- what all channels share --------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Whenever there is news: learn which actions in hand may not go on, and begin what was claimed."""
        while True:
            seen: _Seen | None = await self.try_to(self.writing.ask, self.look, CLAIM_EVERY_S)
            if seen is not None:
                self.hand.learn(seen.actions)
                await self.begin(seen.claimed)
                if self.wishes.give_back(seen.wishes, used=bool(seen.claimed.leases)):
                    self.news.set()
            await trio.sleep(max(WAKE_EVERY_S, self.behind_s) if self.unseen else WAKE_EVERY_S)

    def look(self, timeout_s: float) -> _Seen | None:
        """What there is to see once there is news; None if the ledger did not change within the time. Blocking.

        A change that was not looked at (the ledger refused; it is the turn of the nearest, rule 6) is the next time,
        without waiting.
        """
        late = self.unseen
        self.unseen = self.store.wait_for_work(0.0 if self.unseen else timeout_s) or self.unseen
        if not self.unseen:
            self.hand.keep_up()
            return None
        if self.behind_s and not (late or self.hand.leases):
            return None
        actions = self.hand.read_actions(self.hand.actions())
        self.unseen = False
        wishes = () if self.writing.stuck or self.stop.is_set() else self.wishes.take()
        claimed = self.claim(wishes)
        if not claimed.leases:
            self.hand.keep_up()
        return _Seen(actions, wishes, claimed)

    async def keep_leases(self) -> None:
        """Renew what is in hand, three times as often as needed."""
        while True:
            await trio.sleep(self.lease_ms / 3000)
            if leases := list(self.hand.leases.values()):
                until_ms = self.clock_ms() + self.lease_ms
                await self.try_to(self.writing.write, self.store.renew, leases, until_ms=until_ms)

    async def hurry(self) -> None:
        """Once the sender is to end, leave what is on the wire the time of one request."""
        try:
            await self.stop.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        finally:
            for scope in self.holding:
                scope.deadline = trio.current_time() + self.grace_s

    async def try_to(self, way: Ask, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Ask the ledger for what can wait; None, after a moment, if it refuses."""
        try:
            return await way(call, *args, **options)
        except Refused as error:
            self.writing.complaints.say("the ledger does not answer", error)
            await trio.sleep(CLAIM_EVERY_S)
            return None

    # --- batches --------------------------------------------------------------------------------------------------

    async def serve(self, routes: Sequence[Route]) -> None:
        """Claim and handle batches until `stop`, one task for all channels."""
        async with trio.open_nursery() as self.batches:
            try:
                while not self.stop.is_set():
                    await self.claim_and_wait(routes)
            finally:
                self.batches = None

    async def claim_and_wait(self, routes: Sequence[Route]) -> None:
        """Claim what there is room for, then wait for news."""
        self.news = news = trio.Event()
        if self.wishes.withdraw():
            wishes = self.count(routes)
            while wishes and not self.stop.is_set():
                claimed: _Claimed = await self.writing.ask(self.claim, wishes)
                await self.begin(claimed)
                wishes = claimed.rest
            self.wishes.offer(self.count(routes))
        if self.refusal is not None:
            self.writing.complaints.say("nothing is claimed", self.refusal)
        with trio.move_on_after(CLAIM_EVERY_S):
            await news.wait()

    def count(self, routes: Sequence[Route]) -> Sequence[Wish]:
        """As many batches of each channel as there is room for, and as its provider's breaker lets go."""
        if self.writing.stuck:
            return ()
        now_s, wishes = trio.current_time(), []
        for route in routes:
            lanes, room = self.hand.room(route.number)
            wishes.append(Wish(route, lanes, min(room, route.allows(now_s))))
        return [wish for wish in wishes if wish.most > 0]

    def claim(self, wishes: Sequence[Wish]) -> _Claimed:
        """Claim what is wished for, for the first channel that gets something. Blocking.

        One at a time, since another's claim may have to wait for the ledger. Once that refuses, nothing more is asked.
        """
        if wishes:
            self.refusal = None
        for number, (route, lanes, most) in enumerate(wishes):
            try:
                leases = self.store.claim(
                    self.owner,
                    channels=(route.number,),
                    lanes=lanes,
                    now_ms=self.clock_ms(),
                    lease_ms=self.lease_ms,
                    most=most,
                    share=self.share if route.number in self.apart else Share.ALL,
                )
            except Refused as error:
                self.refusal = error
                break
            if leases:
                self.hand.read_ahead(leases)
                return _Claimed(leases, route, wishes[number + 1 :])
        return _Claimed([], None, ())

    async def begin(self, claimed: _Claimed) -> None:
        """Handle what was claimed; what a look claimed as `serve` ended is left to `release`."""
        route = claimed.route
        if route is None:
            return
        nearest = trio.Event()
        for lease in claimed.leases:
            if self.batches is None:
                return
            self.hand.take(lease)
            self.counters.in_hand[route.name] += 1
            self.batches.start_soon(self.hold, route, lease, nearest)
            if lease.seq == 0:
                with trio.move_on_after(HEAD_START_S):
                    await nearest.wait()
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()  # the nearer begin first

    async def hold(self, route: Route, lease: Lease, off: trio.Event) -> None:
        """Handle one batch, and have it in hand meanwhile; cancellation waits for it (see `hurry`).

        `off` is set once the first of it go to the wire, or none will.
        """
        name = route.name
        scope = trio.CancelScope(shield=True)
        self.holding.add(scope)
        if self.desk.leaving():  # claimed just then
            scope.deadline = trio.current_time() + self.grace_s
        try:
            with scope:
                await Handling(self.desk, route, lease, off).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as error:  # its lease runs out, and the ledger knows what that means
            log.error("a batch of action %d by %s is left to the ledger: %s", lease.action, name, what_failed(error))
        finally:
            off.set()
            self.holding.discard(scope)
            self.hand.drop(lease)
            self.counters.in_hand[name] -= 1
            self.counters.batches[name] += 1
            self.news.set()
