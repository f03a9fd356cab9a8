"""One simulated night in a small town: an engine, two senders, operators, and everything that can go wrong.

The engine, the senders, the registry and the store are the real ones; what is simulated is around them (`world.py`).
Operators start actions, pause, close or let them end, and repeat what was not acknowledged. Meanwhile processes die at
random steps and are started again, clocks jump, and providers have their weather. Then the weather clears, and when all
is quiet, `check` compares what the ledger says with what is on the phones.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import trio
import trio.testing
from trio._core import _run

from fanout import wire
from fanout.channels import catalogue
from fanout.dispatch.breaker import Breaker
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.credentials import Fixed
from fanout.dispatch.routes import CallRoute, Route, RowRoute, Supplier
from fanout.dispatch.sender import run_sender
from fanout.engine import Engine
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas, Shape
from fanout.registry.registry import Registry
from fanout.registry.replica import Replica
from fanout.settings import KindSettings, Settings, load
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import State
from fanout.store.writer import open_writer
from tests.simulation.world import (
    PROCESS,
    TIMEOUT_S,
    Killed,
    Phones,
    Process,
    PushLane,
    SmsCaller,
    Weather,
    clock_ms,
    run_here,
)

PEOPLE = 160
ACTIONS = 3
NIGHT_S = 25.0
CALM_S_MAX = 300.0
LEASE_S = 3.0
NOTICE_MS = 500
"""A closed action may still put rows on the wire for this long: until its senders looked at the ledger again."""

UNSENT = (State.CANCELLED, State.EXPIRED, State.FAILED, State.MOVED)


class Boards:
    """The signage service as the engine knows it; what it remembers outlives the engine's process."""

    def __init__(self) -> None:
        self.shown: set[int] = set()

    async def plan(self, action: wire.Action, shape: Shape, kind: KindSettings) -> wire.BoardPlan:
        return wire.BoardPlan(boards=1)

    async def show(self, action_id: int, action: wire.Action, shape: Shape, lane: int, now_ms: int) -> None:
        await run_here(self.shown.add, action_id)

    async def update(
        self, action_id: int, texts: dict[str, str], board_texts: dict[str, list[str]], now_ms: int
    ) -> None:
        await run_here(self.shown.add, action_id)

    async def result(self, action_id: int, texts: dict[str, str], now_ms: int) -> None:
        await run_here(self.shown.discard, action_id)

    def counts(self, action_id: int) -> wire.BoardCounts:
        return wire.BoardCounts()

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
        self.phones, self.weather, self.boards = Phones(), Weather(self.random), Boards()
        self.engine: Engine | None = None
        self.engine_process: Process | None = None
        self.senders: list[Process] = []
        self.dead_owners: list[str] = []
        self.over = False
        self.accepted: dict[int, wire.ActionAccepted] = {}
        self.closed_ms: dict[int, int] = {}
        self.told: list[str] = []
        self.person: list[int] = []  # by row

    def _settings(self) -> Settings:
        provider = {"url": "http://127.0.0.1:9", "rate_per_s": 1e6, "burst": 100_000}
        return load(
            None,
            {},
            engine={"data": str(self.folder)},
            senders={"processes": 2, "lease_s": LEASE_S},
            dispatch={"request_timeout_s": TIMEOUT_S, "attempts_max": 8, "pause_first_s": 0.1, "pause_most_s": 1.0},
            providers={"fcm": provider, "apns": provider, "sms": provider},
        )

    def tell(self, what: str) -> None:
        self.told.append(f"{trio.current_time():8.3f} {what}")

    def open_store(self) -> SqliteStore:
        return SqliteStore.open(self.folder / "ledger.db", synchronous="NORMAL")

    async def run(self) -> None:
        self._populate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_engine)
            for number in range(2):
                nursery.start_soon(self._keep_sender, number)
            nursery.start_soon(self._misfortune)
            async with trio.open_nursery() as operators:
                for number in range(ACTIONS):
                    operators.start_soon(self._operator, number)
                operators.start_soon(trio.sleep, NIGHT_S)
            self.over = self.weather.calm = True
            await self._settle_down()
            nursery.cancel_scope.cancel()
        store = self.open_store()
        try:
            self.check(store)
        finally:
            store.close_store()

    def _populate(self) -> None:
        store = self.open_store()
        registry = self._open_registry(store)
        registry.upsert([_person(number) for number in range(PEOPLE)])
        self.person = [int(name[1:]) for name in registry.view().id_of(np.arange(PEOPLE, dtype=np.uint32))]
        registry.close()
        store.close_store()

    def _open_registry(self, store: SqliteStore) -> Registry:
        return Registry.open(
            self.folder / "registry", store, kinds=tuple(self.settings.kinds), tenants=tuple(self.settings.tenants)
        )

    # --- processes ----------------------------------------------------------------------------------------------------

    async def _keep_engine(self) -> None:
        while True:
            process = self.engine_process = Process("engine")
            await self._live(process, self._run_engine)
            self.engine = None
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
        try:
            async with open_writer(store) as writer:
                engine = Engine(
                    self.settings,
                    store,
                    writer,
                    registry,
                    self.boards,
                    NamedAreas.open(self.folder / "areas"),
                    clock_ms,
                )
                await engine.recover()
                self.engine = engine
                while True:
                    await engine.keep_up()
                    for owner in self.dead_owners:
                        await run_here(store.release, owner)
                    self.dead_owners.clear()
                    await trio.sleep(0.5)
        finally:  # what the kernel does for a process that is gone: its files are closed
            registry.close()
            store.close_store()

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
        skew_ms = 0 if self.over else self.random.choice((0, 0, 0, -2_000, 4_000))
        try:
            replica = Replica.open(self.folder / "registry", store)
            await run_sender(
                store, replica, self.settings, owner=process.name, clock_ms=lambda: clock_ms() + skew_ms,
                stop=trio.Event(), routes=self._routes(),
            )  # fmt: skip
        finally:
            store.close_store()

    def _routes(self) -> dict[str, Route]:
        now_s = trio.current_time()

        def bucket() -> Bucket:
            return Bucket(rate_per_s=1e6, burst=1e6, reserve=0.1, now_s=now_s)

        routes: dict[str, Route] = {
            name: RowRoute(
                catalogue.row_channel(name, self.settings),
                PushLane(name, self.phones, self.weather),
                breaker=Breaker(now_s=now_s),
                bucket=bucket(),
                credential=Fixed("Bearer simulated"),
            )
            for name in ("fcm", "apns")
        }
        supplier = Supplier(
            channel=catalogue.call_channel("sms", self.settings),
            caller=SmsCaller(self.phones, self.weather),
            breaker=Breaker(now_s=now_s),
            bucket=bucket(),
        )
        return routes | {"sms": CallRoute([supplier], clock_ms=clock_ms)}

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
        area: wire.Area = self.random.choice((wire.Everyone(), wire.Circle(lon=5.0, lat=52.0, radius_m=600.0)))
        lasts_s = self.random.choice((4.0, 60.0, 60.0))
        request = wire.ActionRequest(
            reference=f"case-{number}", kind="missing_child", area=area, texts={"nl": "Vermist.", "en": "Missing."},
            lane=self.random.choice((None, "search")), end_ms=clock_ms() + int(lasts_s * 1000),
        )  # fmt: skip
        accepted = await self._insist(lambda engine: engine.start("police", request))
        if accepted is None:
            return
        self.accepted[accepted.id] = accepted
        self.tell(f"action {accepted.id} for {accepted.people} people until {request.end_ms}")
        await trio.sleep(self.random.choice((0.05, 0.3, 2.0, 6.0)))
        if self.random.random() < 0.3:
            await self._insist(lambda engine: engine.pause("police", accepted.id, paused=True))
            await trio.sleep(self.random.uniform(0.1, 2.0))
            await self._insist(lambda engine: engine.pause("police", accepted.id, paused=False))
        end = self.random.choice(("result", "result", "cancel", "nothing"))
        if end == "result":
            closing = wire.ResultRequest(reference="r", outcome="direct", texts={"nl": "Gevonden.", "en": "Found."})
            await self._insist(lambda engine: engine.result("police", accepted.id, closing))
        elif end == "cancel":
            await self._insist(lambda engine: engine.cancel("police", accepted.id))
        self.tell(f"action {accepted.id}: {end}")

    async def _insist(self, call: Callable[[Engine], Awaitable[Any]]) -> Any:
        """Call the engine until it answers, as a control room's system does; None if it refuses."""
        while True:
            engine, process = self.engine, self.engine_process
            if engine is None or process is None:
                await trio.sleep(0.1)
                continue
            answer: list[Any] = []

            async def ask(engine: Engine = engine, process: Process = process, answer: list[Any] = answer) -> None:
                PROCESS.set(process)
                try:
                    answer.append(await call(engine))
                except Refused as refused:
                    self.tell(str(refused))
                    answer.append(None)

            try:
                with trio.move_on_after(TIMEOUT_S * 5):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(ask)
            except* (Killed, trio.ClosedResourceError, trio.BrokenResourceError, sqlite3.ProgrammingError):
                self.tell("no answer; asking again")
            if answer:
                return answer[0]
            await trio.sleep(0.2)

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
                    if not waiting:
                        return
            assert not patience.cancelled_caught, f"still waiting: {waiting}"
        finally:
            store.close_store()

    def check(self, store: SqliteStore) -> None:
        """The promises of the house, on what is left of the night."""
        ledger = {record.id: record for record in store.actions()}
        assert self.accepted.keys() <= ledger.keys(), "an acknowledged action is lost"
        assert self.boards.showing() == [], "a board shows what is over"
        for record in ledger.values():
            self._check_action(store, record.id)

    def _check_action(self, store: SqliteStore, action: int) -> None:
        phases = store.phases(action)
        rows: dict[int, dict[tuple[str, str], State]] = {phase.phase: {} for phase in phases}
        for view in store.batches(action):
            assert not np.isin(view.status, (State.PENDING, State.INTENDED, State.AGAIN)).any()
            for row, status in zip(view.rows.tolist(), view.status.tolist(), strict=True):
                key = (wire.CHANNELS[view.channel], _address(view.channel, self.person[row]))
                assert key not in rows[view.phase], f"row {row} is in the ledger twice"
                rows[view.phase][key] = State(status)
        if action in self.accepted:
            counted = sum(state is not State.MOVED for state in rows[0].values())
            assert counted == self.accepted[action].people, "somebody selected is not accounted for, or twice"
        for phase, states in rows.items():
            arrived = self.phones.who(action, phase)
            assert arrived <= states.keys(), "somebody got it who was not selected"
            for key, state in states.items():
                arrivals = self.phones.got.get((action, phase, *key), [])
                where = f"action {action} phase {phase} {key} {state.name}: {arrivals}"
                if state in (State.ACCEPTED, State.DELIVERED):
                    assert arrivals, f"counted as accepted, and never arrived: {where}"
                if state in UNSENT:
                    assert not arrivals, f"counted as unsent, and arrived: {where}"
                if key[0] == "sms":
                    assert len(arrivals) <= 1, f"rung twice: {where}"
                assert sum(not arrival.quiet for arrival in arrivals) <= 1, f"rung twice: {where}"
        self._check_close(store, action, rows)

    def _check_close(self, store: SqliteStore, action: int, rows: dict[int, dict[tuple[str, str], State]]) -> None:
        record = store.action(action)
        assert record is not None
        if record.closed_ms is not None:
            for (of, phase, *_), arrivals in self.phones.got.items():
                if (of, phase) == (action, 0):
                    late = [one for one in arrivals if one.sent_ms > record.closed_ms + NOTICE_MS]
                    assert not late, f"sent after the close at {record.closed_ms}: {late}"
        if record.state == "closed":
            (result,) = [phase.phase for phase in store.phases(action) if phase.name == "result"]
            told = _people(rows[result])  # people, since a result may find them on their next channel
            missed = _people(self.phones.who(action, 0)) - told
            assert not missed, f"got the action, and were not told its result: {missed}"
            # what was on the wire at the close counts as reached, also where it is refused a moment later
            never = told - _people(rows[0])
            assert not never, f"were told a result of what was never for them: {never}"


def _waiting(store: SqliteStore, action: int) -> int:
    return sum(sum(count.states[state] for state in (0, 1, 2)) for count in store.counts(action))


def _address(channel: int, person: int) -> str:
    return f"6{person:08d}"[-9:] if wire.CHANNELS[channel] == "sms" else f"{person:064x}"


def _people(keys: Iterable[tuple[str, str]]) -> set[int]:
    """Who is behind (channel, address)."""
    return {int(address[1:]) if channel == "sms" else int(address, 16) for channel, address in keys}


def _person(number: int) -> wire.Participant:
    channel: Any = ("fcm", "apns", "sms", "fcm")[number % 4]
    names = [channel] if channel == "sms" or number % 3 else [channel, "sms"]  # a third has a next channel
    addresses = [
        wire.Address(channel=name, value=f"+316{number:08d}" if name == "sms" else f"{number:064x}") for name in names
    ]
    return wire.Participant(
        id=f"p{number}",
        places=[wire.Place(lon=5.0 + number * 1e-4, lat=52.0)],
        addresses=addresses,
        language=("nl", "en")[number % 2],
    )


def live(folder: Path, seed: int) -> Town:
    """Run one night. Errors: whatever promise was broken, with the night's last events."""
    town = Town(folder, seed)
    setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010  (final, and made for this)
    _run._r.seed(seed)
    try:
        trio.run(town.run, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException:
        print("\n".join(town.told[-60:]))
        raise
    return town
