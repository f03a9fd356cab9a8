"""One simulated night in a small town: an engine, two senders, operators, and everything that can go wrong.

The engine, the senders, the registry and the store are the real ones; what is simulated is around them (`world.py`,
`providers.py`). Operators start actions, alone and in waves, pause, tell news, close or let them end, and repeat what
was not acknowledged. Citizens are erased and register; suppliers send receipts. Meanwhile processes die at random steps
and are started again, clocks jump, and providers have their weather. Then the weather clears, and when all is quiet,
`promises.py` compares what the ledger says with what is on the phones.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio
import trio.testing
from trio._core import _run

from fanout import wire
from fanout.channels import catalogue
from fanout.channels.sms import MESSAGES_PER_CALL_MAX
from fanout.dispatch.breaker import Breaker
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.credentials import Fixed
from fanout.dispatch.line import Gate
from fanout.dispatch.line_route import CallRoute, Supplier
from fanout.dispatch.routes import Route
from fanout.dispatch.row_route import RowRoute
from fanout.dispatch.sender import run_sender
from fanout.engine import Engine
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas, Shape
from fanout.registry.registry import Registry
from fanout.registry.replica import Replica
from fanout.settings import KindSettings, Settings, load
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import OPEN
from fanout.store.writer import open_writer
from tests.simulation.promises import check
from tests.simulation.providers import CALL_FATES, ROW_FATES, SECRET, PhoneCaller, PostOffice, PushLane, Weather
from tests.simulation.world import (
    PROCESS,
    TIMEOUT_S,
    Journal,
    Killed,
    Phones,
    Process,
    WatchedAddresses,
    WatchedStore,
    clock_ms,
    run_here,
)

PEOPLE = 120
ACTIONS = 3
NIGHT_S = 16.0
CALM_S_MAX = 300.0
LEASE_S = 3.0
BULK = ("fcm", "apns", "webpush")
SUPPLIERS = ("sms", "sms_second", "voice", "whatsapp")
CHANNELS_OF = (
    ("fcm", "sms"), ("apns",), ("sms", "voice"), ("fcm",), ("webpush", "fcm"), ("voice",), ("apns", "webpush", "voice"),
    ("sms",), ("fcm", "apns", "sms", "voice"), ("webpush",), ("whatsapp", "sms"), ("fcm", "whatsapp", "voice"),
)  # fmt: skip
"""Of person n the n-th, the preferred channel first; then again from the beginning."""

POINT = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"
SUBSCRIPTION = f'{{"endpoint":"https://127.0.0.1:9/push/%s","keys":{{"p256dh":"{POINT}","auth":"{"A" * 22}"}}}}'
"""A browser's, with a valid P-256 key: the base point."""


class Boards:
    """The signage service as the engine knows it; what it remembers outlives the engine's process."""

    def __init__(self) -> None:
        self.shown: set[int] = set()

    async def plan(self, action: wire.Action, shape: Shape, kind: KindSettings) -> wire.BoardPlan:
        return wire.BoardPlan(boards=1)

    async def show(
        self,
        action_id: int,
        action: wire.Action,
        shape: Shape,
        lane: int,
        now_ms: int,
        *,
        photo: wire.Photo | None = None,
    ) -> None:
        await run_here(self.shown.add, action_id)

    async def update(
        self, action_id: int, texts: dict[str, str], board_texts: dict[str, list[str]], now_ms: int
    ) -> None:
        await run_here(self.shown.add, action_id)

    async def move_end(self, action_id: int, end_ms: int) -> None:
        """They forget nothing by themselves."""

    async def result(self, action_id: int, texts: dict[str, str], now_ms: int) -> None:
        await run_here(self.shown.discard, action_id)

    def counts(self, action_id: int) -> wire.BoardCounts:
        return wire.BoardCounts()

    def proofs(self, action_id: int) -> list[wire.BoardProof]:
        return []

    def showing(self) -> list[int]:
        return sorted(self.shown)

    def views(self) -> list[wire.BoardView]:
        return []

    def view(self, board: str) -> wire.BoardView | None:
        return None


class Town:
    """See the module. `run` lives a night and checks it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.settings = self._settings()
        self.phones, self.boards, self.journal = Phones(), Boards(), Journal()
        self.weather = {
            name: Weather(self.random, ROW_FATES if name in BULK else CALL_FATES, calm=lambda: self.over)
            for name in (*BULK, *SUPPLIERS)
        }
        self.post = PostOffice(self.random, self.phones)
        self.engine: Engine | None = None
        self.engine_process: Process | None = None
        self.registry: Registry | None = None
        self.senders: list[Process] = []
        self.dead_owners: list[str] = []
        self.over = False
        self.accepted: dict[int, wire.ActionAccepted] = {}
        self.twins: list[tuple[int, int]] = []
        self.pauses: dict[int, list[tuple[int, int]]] = {}
        self.persons: dict[tuple[int, int], int] = {}  # by row and generation
        self.erased_ms: dict[int, int] = {}
        self.people = PEOPLE
        self.told: list[str] = []
        self.met: Counter[str] = Counter()

    def _settings(self) -> Settings:
        provider = {"enabled": True, "url": "http://127.0.0.1:9", "rate_per_s": 1e6, "burst": 100_000}
        signed = provider | {"receipt_secret": SECRET}
        return load(
            None,
            {},
            engine={"data": str(self.folder)},
            senders={"processes": 2, "lease_s": LEASE_S},
            dispatch={"request_timeout_s": TIMEOUT_S, "attempts_max": 8, "pause_first_s": 0.1, "pause_most_s": 1.0},
            providers=dict.fromkeys(BULK, provider) | dict.fromkeys(SUPPLIERS, signed),
        )

    def has_other_way(self, person: int, channel: str) -> bool:
        """Whether there is a channel after this one on which somebody is certainly to be found all night."""
        own = CHANNELS_OF[person % len(CHANNELS_OF)]
        dead = {name.partition("_")[0] for name, weather in self.weather.items() if weather.is_dead(person)}
        return person not in self.erased_ms and any(name not in dead for name in own[own.index(channel) + 1 :])

    def tell(self, what: str) -> None:
        self.told.append(f"{trio.current_time():8.3f} {what}")

    def open_store(self) -> WatchedStore:
        store = WatchedStore.open(self.folder / "ledger.db", synchronous="OFF")  # type: ignore[arg-type]  # no power cuts here
        assert isinstance(store, WatchedStore)
        store.journal = self.journal
        return store

    async def run(self) -> None:
        self._populate()
        for name, weather in self.weather.items():
            self.tell(f"{name}: {weather!r}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_engine)
            for number in range(2):
                nursery.start_soon(self._keep_sender, number)
            nursery.start_soon(self._misfortune)
            nursery.start_soon(self._postman)
            async with trio.open_nursery() as operators:
                for number in range(ACTIONS):
                    operators.start_soon(self._operator, number)
                operators.start_soon(self._clerk)
                operators.start_soon(trio.sleep, NIGHT_S)
            self.over = True
            await self._settle_down()
            nursery.cancel_scope.cancel()
        store = self.open_store()
        try:
            check(self, store)
            for record in store.actions():
                for count in store.counts(record.id):
                    name = wire.CHANNELS[count.channel]
                    self.met.update({f"{name} {state}": rows for state, rows in enumerate(count.states) if rows})
        finally:
            store.close_store()

    def _populate(self) -> None:
        store = self.open_store()
        registry = self._open_registry(store)
        self._enrol(registry, range(PEOPLE))
        registry.close()
        store.close_store()

    def _enrol(self, registry: Registry, numbers: range) -> None:
        registry.upsert([_person(number) for number in numbers])
        view = registry.view()
        rows = view.row_of([f"p{number}" for number in numbers])
        generations = view.take("generation", rows)
        keys = zip(rows.tolist(), generations.tolist(), strict=True)
        self.persons.update(zip(keys, numbers, strict=True))

    def _open_registry(self, store: SqliteStore) -> Registry:
        return Registry.open(
            self.folder / "registry", store, kinds=tuple(self.settings.kinds), tenants=tuple(self.settings.tenants)
        )

    # --- processes ----------------------------------------------------------------------------------------------------

    async def _keep_engine(self) -> None:
        while True:
            process = self.engine_process = Process("engine")
            await self._live(process, self._run_engine)
            self.engine = self.registry = None
            self.tell("the engine is dead")
            await trio.sleep(self.random.choice((0.2, 1.0, LEASE_S + 1)))

    async def _live(self, process: Process, run: Callable[[Process], Awaitable[None]]) -> None:
        """Run a process until it is killed."""

        async def inside() -> None:
            PROCESS.set(process)
            with process.scope:
                await run(process)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(inside)
        except BaseExceptionGroup:
            if not process.dead:  # what a dying process still stumbles over is nobody's concern
                raise

    async def _run_engine(self, process: Process) -> None:
        store = self.open_store()
        registry = self._open_registry(store)
        skew_ms = self._skew_ms()
        try:
            async with open_writer(store) as writer:
                areas = NamedAreas.open(self.folder / "areas")
                engine = Engine(
                    self.settings, store, writer, registry, self.boards, areas, lambda: clock_ms() + skew_ms
                )
                await engine.recover()
                self.engine, self.registry = engine, registry
                while True:
                    await engine.keep_up()
                    for owner in self.dead_owners:
                        await run_here(store.release, owner)
                    self.dead_owners.clear()
                    await run_here(registry.take_dead)
                    if self.random.random() < 0.1:
                        free = await run_here(store.open_rows)
                        await run_here(registry.reuse, free)
                        await run_here(registry.compact)
                    await trio.sleep(0.5)
        finally:  # what the kernel does for a process that is gone: its files are closed
            registry.close()
            store.close_store()

    def _skew_ms(self) -> int:
        """How wrong the clock of a process is that starts now."""
        return 0 if self.over else self.random.choice((0, 0, 0, -2_000, 4_000))

    async def _keep_sender(self, number: int) -> None:
        starts = 0
        while True:
            process = Process(f"sender-{number}.{starts}")
            self.senders.append(process)
            await self._live(process, self._run_sender)
            self.senders.remove(process)
            self.tell(f"{process.name} is dead")
            if self.random.random() < 0.7:  # else nobody noticed, and its leases must run out
                self.dead_owners.append(process.name)
            starts += 1
            await trio.sleep(self.random.choice((0.1, 0.5, LEASE_S)))

    async def _run_sender(self, process: Process) -> None:
        store = self.open_store()
        skew_ms = process.skew_ms = self._skew_ms()

        def person_of(row: int, generation: int) -> int | None:
            return self.persons.get((row, generation))

        try:
            replica = Replica.open(self.folder / "registry", store)
            await run_sender(
                store, WatchedAddresses(replica, self.phones, person_of), self.settings, owner=process.name,
                clock_ms=lambda: clock_ms() + skew_ms, stop=trio.Event(), routes=self._routes(),
            )  # fmt: skip
        finally:
            store.close_store()

    def _routes(self) -> dict[str, Route]:
        now_s = trio.current_time()

        def bucket() -> Bucket:
            return Bucket(rate_per_s=1e6, burst=1e6, reserve=0.1, now_s=now_s)

        def supplier(name: str) -> Supplier:
            gate = Gate(
                breaker=Breaker(now_s=now_s), bucket=bucket(), places=8, reserve=0.125,
                call_rows=MESSAGES_PER_CALL_MAX if name.startswith("sms") else 1,
            )  # fmt: skip
            caller = PhoneCaller(name.partition("_")[0], self.phones, self.weather[name], self.post)
            return Supplier(catalogue.call_channel(name, self.settings), caller, gate)

        routes: dict[str, Route] = {
            name: RowRoute(
                catalogue.row_channel(name, self.settings),
                PushLane(name, self.phones, self.weather[name]),
                breaker=Breaker(now_s=now_s),
                bucket=bucket(),
                credential=Fixed("Bearer simulated"),
            )
            for name in BULK
        }
        routes["sms"] = CallRoute([supplier("sms"), supplier("sms_second")], clock_ms=clock_ms)
        routes |= {name: CallRoute([supplier(name)], clock_ms=clock_ms) for name in ("voice", "whatsapp")}
        return routes

    async def _misfortune(self) -> None:
        """Kill something now and then: at once, or a few steps from now, between two statements."""
        while not self.over:
            await trio.sleep(self.random.expovariate(1 / 3.0))
            victims = [*self.senders, self.engine_process]
            victim = self.random.choice(victims)
            if victim is None or victim.dead or self.over:
                continue
            if self.random.random() < 0.3:
                self.tell(f"kill {victim.name} at once")
                victim.kill()
            else:
                victim.steps_left = self.random.randint(1, 60)
                self.tell(f"kill {victim.name} in {victim.steps_left} steps")

    # --- operators ----------------------------------------------------------------------------------------------------

    async def _operator(self, number: int) -> None:
        await trio.sleep(self.random.uniform(0.5, 8.0))
        chance = self.random.random
        area: wire.Area = self.random.choice((wire.Everyone(), wire.Circle(lon=5.0, lat=52.0, radius_m=600.0)))
        lasts_s = self.random.choice((4.0, 30.0, 30.0))
        request = wire.ActionRequest(
            reference=f"case-{number}", kind="missing_child", area=area, texts={"nl": "Vermist.", "en": "Missing."},
            lane=self.random.choice((None, "search")), end_ms=clock_ms() + int(lasts_s * 1000),
            waves=wire.Waves(people=12, free=self.random.randint(0, 3), answer_s=3) if chance() < 0.25 else None,
        )  # fmt: skip
        accepted = await self._insist(lambda engine: engine.start("police", request))
        if accepted is None:
            return
        self.accepted[accepted.id] = accepted
        self.tell(f"action {accepted.id} for {accepted.people} people until {request.end_ms}")
        if chance() < 0.15:
            await self._twin(accepted, request)
        await trio.sleep(self.random.choice((0.05, 0.3, 2.0, 6.0)))
        if request.waves is not None:
            free = wire.OperatorsRequest(free=self.random.randint(0, 6))
            await self._insist(lambda engine: engine.operators("police", accepted.id, free))
            await trio.sleep(self.random.uniform(0.1, 3.0))
        if chance() < 0.3:
            await self._pause(accepted.id)
        for news in range(self.random.choice((0, 0, 0, 1, 1, 2))):
            update = wire.UpdateRequest(
                reference=f"news-{news}", texts={"nl": f"Nieuws {news}.", "en": f"News {news}."}
            )
            await self._insist(partial(Engine.update, tenant="police", action_id=accepted.id, request=update))
            self.tell(f"action {accepted.id}: news {news}")
            await trio.sleep(self.random.choice((0.05, 0.5, 2.0)))
        end = self.random.choice(("result", "result", "cancel", "nothing"))
        if end == "result":
            closing = wire.ResultRequest(reference="r", outcome="direct", texts={"nl": "Gevonden.", "en": "Found."})
            await self._insist(lambda engine: engine.result("police", accepted.id, closing))
        elif end == "cancel":
            await self._insist(lambda engine: engine.cancel("police", accepted.id))
        self.tell(f"action {accepted.id}: {end}")

    async def _twin(self, accepted: wire.ActionAccepted, request: wire.ActionRequest) -> None:
        """The same once more under another reference, cancelled at once: who is selected must be the same."""
        twin = msgspec.structs.replace(request, reference=f"{request.reference}-twin")
        again = await self._insist(lambda engine: engine.start("police", twin))
        if again is not None:
            self.accepted[again.id] = again
            self.twins.append((accepted.id, again.id))
            await self._insist(lambda engine: engine.cancel("police", again.id))

    async def _pause(self, action: int) -> None:
        paused = await self._insist(lambda engine: engine.pause("police", action, paused=True))
        from_ms = clock_ms()
        await trio.sleep(self.random.uniform(0.1, 3.0))
        if paused is not None:
            self.pauses.setdefault(action, []).append((from_ms, clock_ms()))
        await self._insist(lambda engine: engine.pause("police", action, paused=False))

    async def _clerk(self) -> None:
        """Erases people in the middle of everything, and lets others register."""
        for _ in range(self.random.choice((0, 1, 2, 4))):
            await trio.sleep(self.random.uniform(0.2, 8.0))
            gone = self.random.sample(range(PEOPLE), self.random.randint(1, 12))
            await self._insist(partial(self._at_registry, self._erase, gone))
            for person in gone:
                self.erased_ms.setdefault(person, clock_ms())
            self.tell(f"erased {gone}")
            if self.random.random() < 0.5:
                numbers = range(self.people, self.people + self.random.randint(1, 6))
                self.people = numbers.stop
                await self._insist(partial(self._at_registry, self._register, numbers))

    async def _at_registry(self, call: Callable[[Any], None], argument: Any, _: Engine) -> None:
        await run_here(call, argument)

    def _erase(self, numbers: list[int]) -> None:
        assert self.registry is not None
        self.registry.erase([f"p{number}" for number in numbers])

    def _register(self, numbers: range) -> None:
        assert self.registry is not None
        self._enrol(self.registry, numbers)

    async def _postman(self) -> None:
        """Bring receipts, again and again until they are taken; some are forged."""
        while True:
            await trio.sleep(0.2)
            while (post := self.post.due()) is not None:
                provider, headers, body, reports = post
                forged = self.random.random() < 0.05
                given = dict.fromkeys(headers, "sha256=0000") if forged else headers
                answers = await self._ask(lambda engine: engine.take_receipts(provider, given, body))  # noqa: B023
                if answers and not forged:
                    assert isinstance(answers[0], wire.ReceiptsAccepted), answers
                    self.post.delivered(reports)
                    continue
                assert not answers or isinstance(answers[0], Refused), "a forged receipt was taken"
                self.post.back(reports)
                if not answers:
                    break

    async def _insist(self, call: Callable[[Engine], Awaitable[Any]]) -> Any:
        """Call the engine until it answers, as a control room's system does; None if it refuses."""
        while True:
            answers = await self._ask(call)
            if answers:
                if isinstance(answers[0], Refused):
                    self.tell(str(answers[0]))
                    return None
                return answers[0]
            await trio.sleep(0.2)

    async def _ask(self, call: Callable[[Engine], Awaitable[Any]]) -> list[Any]:
        """Call the engine once: its answer or its refusal, or nothing."""
        engine, process = self.engine, self.engine_process
        if engine is None or process is None:
            return []
        answers: list[Any] = []

        async def ask() -> None:
            PROCESS.set(process)
            try:
                answers.append(await call(engine))
            except Refused as refused:
                answers.append(refused)

        try:
            with trio.move_on_after(TIMEOUT_S * 5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask)
        except* (Killed, trio.ClosedResourceError, trio.BrokenResourceError, sqlite3.ProgrammingError):
            self.tell("no answer; asking again")
        return answers

    # --- the morning after --------------------------------------------------------------------------------------------

    async def _settle_down(self) -> None:
        """Until nothing waits any more."""
        store = self.open_store()
        try:
            with trio.move_on_after(CALM_S_MAX) as patience:
                while True:
                    await trio.sleep(1.0)
                    waiting = [
                        record.id
                        for record in store.actions()
                        if record.state in ("open", "paused", "closing") or _waiting(store, record.id)
                    ]
                    if not waiting and not self.post.waiting:
                        return
            assert not patience.cancelled_caught, f"still waiting: {waiting}, {self.post.waiting[:5]}"
        finally:
            store.close_store()


def _waiting(store: SqliteStore, action: int) -> int:
    return sum(sum(count.states[state] for state in OPEN) for count in store.counts(action))


def _person(number: int) -> wire.Participant:
    values = {
        "fcm": f"{number:064x}", "apns": f"{number:064x}", "sms": f"+316{number:08d}", "voice": f"+316{number:08d}",
        "whatsapp": f"+316{number:08d}", "webpush": SUBSCRIPTION % f"{number:064x}",
    }  # fmt: skip
    names: Any = CHANNELS_OF[number % len(CHANNELS_OF)]
    return wire.Participant(
        id=f"p{number}",
        places=[wire.Place(lon=5.0 + number % PEOPLE * 1e-4, lat=52.0)],
        addresses=[wire.Address(channel=name, value=values[name]) for name in names],
        language=("nl", "en")[number % 2],
    )


def live(folder: Path, seed: int) -> Town:
    """Run one night. Errors: whatever promise was broken, with the night's last events and how to live it again."""
    town = Town(folder, seed)
    setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010  (final, and made for this)
    _run._r.seed(seed)
    try:
        trio.run(town.run, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException:
        print("\n".join([*town.told[:6], "...", *town.told[-60:]]))
        print(f"again: pytest 'tests/simulation/test_nights.py::test_a_night_keeps_every_promise[{seed}]' --long")
        raise
    return town
