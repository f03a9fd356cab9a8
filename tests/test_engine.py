"""The life of an action, on a real ledger and a real registry; boards are recorded, senders are played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from fanout import engine as engines
from fanout import wire
from fanout.engine import Engine
from fanout.errors import Refused
from fanout.geo import shapes
from fanout.geo.areas import NamedAreas, Shape
from fanout.registry.registry import Registry
from fanout.settings import KindSettings, load
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import Event, State, advance
from fanout.store.writer import open_writer

HOUR_MS = 3_600_000
HERE = wire.Circle(lon=5.0, lat=52.0, radius_m=1_000)
FAR_NEAREST = wire.Union(of=[wire.Circle(lon=5.0, lat=52.0, radius_m=1), wire.Nearest(lon=5.1, lat=52.0, count=20)])


class RecordedBoards:
    """Remembers what it was asked. Which boards there are is the business of `signage` and its tests."""

    def __init__(self) -> None:
        self.shown: dict[int, dict[str, str]] = {}
        self.areas: dict[int, tuple[wire.Area, Shape]] = {}
        self.taken_down: list[int] = []
        self.ends_ms: dict[int, int] = {}

    async def plan(self, action: wire.Action, shape: Shape, kind: KindSettings) -> wire.BoardPlan:
        return wire.BoardPlan(boards=2 if kind.boards else 0)

    async def show(
        self, action_id: int, action: wire.Action, shape: Shape, lane: int, now_ms: int, *,
        photo: wire.Photo | None = None,
    ) -> None:  # fmt: skip
        self.shown[action_id] = dict(action.texts)
        self.areas[action_id] = action.area, shape

    async def update(
        self, action_id: int, texts: dict[str, str], board_texts: dict[str, list[str]], now_ms: int
    ) -> None:
        self.shown[action_id] = dict(texts)

    async def move_end(self, action_id: int, end_ms: int) -> None:
        self.ends_ms[action_id] = end_ms

    async def result(self, action_id: int, texts: dict[str, str], now_ms: int) -> None:
        self.taken_down.append(action_id)
        self.shown.pop(action_id, None)

    def counts(self, action_id: int) -> wire.BoardCounts:
        return wire.BoardCounts(selected=2 if action_id in self.shown else 0)

    def showing(self) -> list[int]:
        return list(self.shown)

    def views(self) -> list[wire.BoardView]:
        return []

    def view(self, board: str) -> wire.BoardView | None:
        return None


class Room:
    """An engine with what it stands on, and a clock that the test moves."""

    def __init__(self, engine: Engine, store: SqliteStore, registry: Registry, boards: RecordedBoards) -> None:
        self.engine, self.store, self.registry, self.boards = engine, store, registry, boards
        self.now_ms = 1_790_000_000_000

    def request(self, **changes: Any) -> wire.ActionRequest:
        fields: dict[str, Any] = {
            "reference": "case", "kind": "missing_child", "area": HERE, "texts": {"nl": "Vermist.", "en": "Missing."},
            "end_ms": self.now_ms + HOUR_MS,
        }  # fmt: skip
        return wire.ActionRequest(**{**fields, **changes})

    def send(self, events: list[Event], most: int = 100) -> list[int]:
        """Play a sender: claim everything, give the rows these events in turn; returns rows in the order of claims."""
        rows: list[int] = []
        leases = self.store.claim(
            "test", channels=range(7), lanes=range(3), now_ms=self.now_ms, lease_ms=60_000, most=most
        )
        for lease in leases:
            index = np.flatnonzero(lease.status == State.PENDING)
            assert self.store.intend(lease, index, now_ms=self.now_ms)
            rows += lease.rows[index].tolist()
            event = np.resize(np.array([int(event) for event in events], np.uint8), len(lease.rows))
            status = advance(np.full(len(lease.rows), State.INTENDED, np.uint8), event)
            self.store.settle(
                lease, status=status, reason=np.zeros(len(lease.rows), np.uint8),
                first_ms=self.now_ms, last_ms=self.now_ms, done=True,
            )  # fmt: skip
        return rows


def person(number: int, lon: float = 5.0, language: str = "nl") -> wire.Participant:
    return wire.Participant(
        id=f"p{number}",
        places=[wire.Place(lon=lon, lat=52.0)],
        addresses=[wire.Address(channel="sms", value=f"+3161234{number:04}")],
        language=language,
    )


@asynccontextmanager
async def open_room(folder: Path, people: int = 20) -> AsyncIterator[Room]:
    settings = load(
        None,
        {},
        engine={"data": str(folder)},
        tenants={"village": {"kinds": ["fire"], "people_max": 3, "area_km2_max": 1.0}},
    )
    store = SqliteStore.open(folder / "ledger.db")
    registry = Registry.open(folder / "registry", store, kinds=tuple(settings.kinds), tenants=tuple(settings.tenants))
    boards = RecordedBoards()
    try:
        async with open_writer(store) as writer:
            room: Room
            engine = Engine(
                settings, store, writer, registry, boards, NamedAreas.open(folder / "areas"), lambda: room.now_ms
            )
            room = Room(engine, store, registry, boards)
            if people:
                await trio.to_thread.run_sync(registry.upsert, [person(n, 5.0 + n * 1e-4) for n in range(people)])
            yield room
    finally:
        registry.close()
        store.close_store()


async def test_nearest_are_told_first(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        assert accepted.people == 20
        rows = room.send([Event.ACCEPT])
        assert room.registry.view().id_of(np.array(rows)) == [f"p{n}" for n in range(20)]


async def test_the_result_goes_to_those_who_may_have_got_it_and_to_nobody_else(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        told = room.send([Event.ACCEPT, Event.REJECT, Event.TIME_OUT])
        expected = {row for place, row in enumerate(told) if place % 3 != 1}
        closing = wire.ResultRequest(reference="r", outcome="indirect", texts={"nl": "Gevonden."})
        view = await room.engine.result("police", accepted.id, closing)
        assert (view.state, view.outcome) == ("closed", "indirect")
        assert room.boards.taken_down == [accepted.id]
        assert set(room.send([Event.ACCEPT])) == expected
        assert (await room.engine.view("police", accepted.id)).tallies[1].accepted == len(expected)


async def test_closing_stops_what_is_unsent(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        (lease, *_) = room.store.claim(
            "slow", channels=range(7), lanes=range(3), now_ms=room.now_ms, lease_ms=9, most=1
        )
        await room.engine.cancel("police", accepted.id)
        assert not room.store.intend(lease, np.arange(len(lease.rows)), now_ms=room.now_ms)
        tally = (await room.engine.view("police", accepted.id)).tallies[0]
        assert (tally.cancelled, tally.waiting) == (20, 0)
        assert room.send([Event.ACCEPT]) == []


async def test_many_starts_of_one_reference_are_one_action(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        answers: list[wire.ActionAccepted] = []

        async def start() -> None:
            answers.append(await room.engine.start("police", room.request()))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(start)
        assert len({answer.id for answer in answers}) == 1
        assert [answer.repeated for answer in answers].count(False) == 1
        assert {answer.people for answer in answers} == {20}
        with pytest.raises(Refused, match="reference_conflict"):
            await room.engine.start("police", room.request(texts={"nl": "Anders."}))
        room.now_ms += 5_000
        assert (await room.engine.start("police", room.request(end_ms=room.now_ms - 5_000 + HOUR_MS))).repeated


async def test_who_was_only_waiting_at_a_sender_gets_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "COME_BACK_S", 30.0)
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        (lease,) = room.store.claim(
            "test", channels=range(7), lanes=range(3), now_ms=room.now_ms, lease_ms=60_000, most=1
        )
        assert room.store.intend(lease, np.arange(len(lease.rows)), now_ms=room.now_ms)
        async with trio.open_nursery() as nursery:
            request = wire.ResultRequest(reference="end", outcome="direct", texts={"nl": "Gevonden."})
            nursery.start_soon(room.engine.result, "police", accepted.id, request)
            while room.store.action(accepted.id).state == "open":  # type: ignore[union-attr]  # noqa: ASYNC110
                await trio.sleep(0.001)
            await trio.sleep(0.2)  # as long as a sender takes to give rows back
            status = np.full(len(lease.rows), State.CANCELLED, np.uint8)
            status[:3] = State.ACCEPTED
            room.store.settle(
                lease, status=status, reason=np.zeros(len(lease.rows), np.uint8),
                first_ms=room.now_ms, last_ms=room.now_ms, done=True,
            )  # fmt: skip
        told = [view.rows.tolist() for view in room.store.batches(accepted.id) if view.phase == 1]
        assert told == [lease.rows[:3].tolist()]


async def test_a_result_that_was_recorded_but_not_planned_is_planned_after_the_crash(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        told = room.send([Event.ACCEPT])
        closing = wire.ResultRequest(reference="r", outcome="none", texts={"en": "Over."})
        room.store.close(
            accepted.id, state="closing", now_ms=room.now_ms, outcome="none", result_body=wire.encode_msgpack(closing)
        )
    async with open_room(tmp_path, people=0) as room:
        await room.engine.recover()
        view = await room.engine.view("police", accepted.id)
        assert view.state == "closed"
        assert view.tallies[1].selected == len(told)
        await room.engine.recover()
        assert len((await room.engine.view("police", accepted.id)).tallies) == 2


async def test_boards_are_made_right_after_a_crash(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        live = await room.engine.start("police", room.request(reference="a"))
        over = await room.engine.start("police", room.request(reference="b"))
        await room.engine.cancel("police", over.id)
        room.boards.shown = {over.id: {"nl": "old"}}
        await room.engine.recover()
        assert list(room.boards.shown) == [live.id]


async def test_an_action_expires_at_its_end(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        room.now_ms += HOUR_MS - 1
        await room.engine.keep_up()
        assert (await room.engine.view("police", accepted.id)).state == "open"
        room.now_ms += 1
        await room.engine.keep_up()
        view = await room.engine.view("police", accepted.id)
        assert (view.state, view.tallies[0].expired) == ("expired", 20)
        assert room.boards.taken_down == [accepted.id]


@pytest.mark.parametrize(
    ("tenant", "changes", "code"),
    [
        ("nobody", {}, "not_permitted"),
        ("village", {}, "not_permitted"),
        ("village", {"kind": "fire"}, "area_too_large"),
        ("village", {"kind": "fire", "area": wire.Circle(lon=5.0, lat=52.0, radius_m=400)}, "selection_too_large"),
        ("village", {"kind": "fire", "area": wire.Nearest(lon=5.1, lat=52.0, count=1_000_000)}, "area_too_large"),
        ("village", {"kind": "fire", "area": FAR_NEAREST}, "area_too_large"),
        ("village", {"kind": "fire", "area": wire.Nearest(lon=5.0, lat=52.0, count=5)}, "selection_too_large"),
        ("police", {"kind": "party"}, "kind_unknown"),
        ("police", {"centre": wire.Point(coordinates=(5.0, 92.0))}, "area_coordinate_range"),
        ("police", {"end_ms": 1}, "end_in_the_past"),
        ("police", {"channels": ["voice"]}, "text_unfit"),
        ("police", {"area": wire.Named(kind="municipality", name="Atlantis")}, "area_unknown"),
    ],
)
async def test_what_is_refused_left_nothing(tmp_path: Path, tenant: str, changes: dict[str, Any], code: str) -> None:
    async with open_room(tmp_path) as room:
        with pytest.raises(Refused) as caught:
            await room.engine.start(tenant, room.request(**changes))
        assert caught.value.code == code
        assert room.store.actions() == []
        assert room.boards.shown == {}


async def test_a_tenant_may_reach_the_nearest_in_its_ground(tmp_path: Path) -> None:
    """Three people within 14 metres are a circle of a thousandth of a square kilometre."""
    async with open_room(tmp_path) as room:
        nearest = room.request(kind="fire", area=wire.Nearest(lon=5.0, lat=52.0, count=3))
        assert (await room.engine.start("village", nearest)).people == 3


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({}, ["home", "belgian", "english", "senior", "away", "here"]),
        ({"languages": ["nl"]}, ["home", "belgian", "senior", "away", "here"]),
        ({"languages": ["nl-BE", "en"]}, ["belgian", "english"]),
        ({"age_groups": ["senior", "youth"]}, ["senior"]),
        ({"live": wire.Live(mode="ignore")}, ["home", "belgian", "english", "senior", "away"]),
        ({"live": wire.Live(mode="instead")}, ["home", "belgian", "english", "senior", "here"]),
        ({"live": wire.Live(fresh_s=1)}, ["home", "belgian", "english", "senior", "away"]),
        (
            {"centre": wire.Point(coordinates=(5.004, 52.0, 12.5))},
            ["away", "senior", "here", "english", "belgian", "home"],
        ),
        (
            {"centre": wire.LineString(coordinates=[(5.0018, 51.9, -3.0), (5.0018, 52.1)])},
            ["english", "belgian", "senior", "home", "away", "here"],
        ),
        ({"area": wire.Nearest(lon=5.0, lat=52.0, count=2), "languages": ["en", "nl-BE"]}, ["belgian", "english"]),
    ],
)
async def test_an_action_reaches_whom_it_asks_for_and_its_preview_says_so(
    tmp_path: Path, filters: dict[str, Any], told: list[str]
) -> None:
    """Homes stand a thousandth of a degree apart; `away` is far from hers, and `here` has come from afar."""
    traits: dict[str, dict[str, Any]] = {
        "home": {}, "belgian": {"language": "nl-BE"}, "english": {"language": "en"}, "senior": {"age_group": "senior"},
        "away": {}, "here": {},
    }  # fmt: skip
    people = [
        wire.Participant(
            id=name,
            places=[wire.Place(lon=6.0 if name == "here" else 5.0 + number / 1000, lat=52.0)],
            addresses=[wire.Address(channel="sms", value=f"+3161234{number:04}")],
            **trait,
        )
        for number, (name, trait) in enumerate(traits.items())
    ]
    async with open_room(tmp_path, people=0) as room:
        await trio.to_thread.run_sync(room.registry.upsert, people)
        seen = [
            wire.LivePosition(id="away", lon=7.0, lat=52.0, at_ms=room.now_ms - 20_000),
            wire.LivePosition(id="here", lon=5.0055, lat=52.0, at_ms=room.now_ms - 20_000),
        ]
        await trio.to_thread.run_sync(room.registry.positions, seen, room.now_ms)
        one_text = {"texts": {"nl": "Vermist."}, "boards": wire.BoardOptions(show=False)}
        request = room.request(**one_text, **filters)
        fields = {name: getattr(request, name) for name in wire.PreviewRequest.__struct_fields__ if name != "grid"}
        preview = await room.engine.preview("police", wire.PreviewRequest(**fields))
        accepted = await room.engine.start("police", request)
        assert room.registry.view().id_of(np.array(room.send([Event.ACCEPT]))) == told
        assert (preview.people, preview.channels) == (accepted.people, accepted.channels)


async def test_an_action_that_would_reach_nobody_is_refused(tmp_path: Path) -> None:
    sea = wire.Circle(lon=-30.0, lat=30.0, radius_m=1_000)
    async with open_room(tmp_path) as room:
        assert (await room.engine.start("police", room.request(area=sea))).boards.boards == 2, "boards are somebody"
        for changes in ({"kind": "burglary"}, {"boards": wire.BoardOptions(show=False)}):
            request = room.request(area=sea, reference="sea", **changes)
            with pytest.raises(Refused, match="selection_empty"):
                await room.engine.start("police", request)
            fields = {name: getattr(request, name) for name in wire.PreviewRequest.__struct_fields__ if name != "grid"}
            preview = await room.engine.preview("police", wire.PreviewRequest(**fields))
            assert (preview.people, preview.boards.boards, preview.seconds_to_all) == (0, 0, 0.0)
        assert len(room.store.actions()) == 1


async def test_boards_stand_where_the_nearest_people_live(tmp_path: Path) -> None:
    async with open_room(tmp_path, people=0) as room:
        await trio.to_thread.run_sync(room.registry.upsert, [person(n, 5.0 + n / 100) for n in range(10)])
        nearest = wire.Nearest(lon=5.0, lat=52.0, count=4)
        accepted = await room.engine.start("police", room.request(area=nearest))
        assert accepted.people == 4
        area, shape = room.boards.areas[accepted.id]
        assert isinstance(area, wire.Circle)
        assert area.radius_m == pytest.approx(2_053.7, abs=0.1), "the fourth lives at 5.03"
        assert isinstance(shape, shapes.Circle)
        beyond = wire.Difference(of=nearest, without=wire.Circle(lon=5.0, lat=52.0, radius_m=1_000))
        accepted = await room.engine.start("police", room.request(area=beyond, reference="b"))
        assert accepted.people == 2
        assert isinstance(room.boards.areas[accepted.id][1], shapes.Difference)
        room.boards.shown.clear()
        await room.engine.recover()
        assert room.boards.areas[accepted.id][0] == wire.Difference(of=area, without=beyond.without)


async def test_nobody_sees_the_action_of_another_tenant(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        with pytest.raises(Refused, match="not_found"):
            await room.engine.view("village", accepted.id)
        with pytest.raises(Refused, match="not_found"):
            await room.engine.cancel("village", accepted.id)


async def test_each_is_told_in_a_language_of_the_action(tmp_path: Path) -> None:
    async with open_room(tmp_path, people=0) as room:
        speakers = [person(0), person(1, language="en"), person(2, language="de"), person(3, language="nl-BE")]
        await trio.to_thread.run_sync(room.registry.upsert, speakers)
        accepted = await room.engine.start("police", room.request())
        told = {batch.language: len(batch.rows) for batch in room.store.batches(accepted.id)}
        assert told == {"nl": 2, "en": 2}


async def test_waves_follow_free_operators_and_a_result_stops_the_rest(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:

        def told() -> list[str]:
            return room.registry.view().id_of(np.array(room.send([Event.ACCEPT]), np.uint32))

        accepted = await room.engine.start("police", room.request(waves=wire.Waves(people=4, free=1)))
        assert told() == ["p0", "p1", "p2", "p3"]
        await room.engine.keep_up()
        assert told() == []
        view = await room.engine.operators("police", accepted.id, wire.OperatorsRequest(free=3))
        assert view.waves == wire.WaveCounts(people=4, let_go=3, of=5, free=3)
        assert told() == [f"p{n}" for n in range(4, 12)]
        await room.engine.operators("police", accepted.id, wire.OperatorsRequest(free=1))
        room.now_ms += 61_000
        await room.engine.keep_up()
        assert told() == ["p12", "p13", "p14", "p15"], "the one who stayed free"
        closing = wire.ResultRequest(reference="r", outcome="direct", texts={"nl": "Gevonden."})
        view = await room.engine.result("police", accepted.id, closing)
        assert (view.tallies[0].accepted, view.tallies[0].cancelled) == (16, 4)
        assert sorted(told()) == sorted(f"p{n}" for n in range(16))
        await room.engine.keep_up()
        assert room.store.scan("waves") == []
        with pytest.raises(Refused, match="action_not_open"):
            await room.engine.operators("police", accepted.id, wire.OperatorsRequest(free=1))


async def test_waves_go_on_after_a_restart(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request(waves=wire.Waves(people=5, free=2)))
        assert len(room.send([Event.ACCEPT])) == 10
        now_ms = room.now_ms
    async with open_room(tmp_path, people=0) as room:
        room.now_ms = now_ms + 61_000
        await room.engine.recover()
        await room.engine.keep_up()
        assert len(room.send([Event.ACCEPT])) == 10
        view = await room.engine.view("police", accepted.id)
        assert view.waves == wire.WaveCounts(people=5, let_go=4, of=4, free=2)


async def test_waves_that_are_too_many_or_not_asked_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanout.limits.WAVES_MAX", 19)
    async with open_room(tmp_path) as room:
        with pytest.raises(Refused) as caught:
            await room.engine.start("police", room.request(waves=wire.Waves(people=1, free=1)))
        assert (caught.value.code, caught.value.where) == ("waves_too_many", "waves.people")
        accepted = await room.engine.start("police", room.request())
        with pytest.raises(Refused, match="action_without_waves"):
            await room.engine.operators("police", accepted.id, wire.OperatorsRequest(free=1))


async def test_an_update_goes_to_everyone_who_was_told_or_is_about_to_be(tmp_path: Path) -> None:
    async with open_room(tmp_path, people=100) as room:
        accepted = await room.engine.start("police", room.request())
        told = room.send([Event.ACCEPT, Event.REJECT], most=1)
        refused = set(told[1::2])
        update = wire.UpdateRequest(reference="u1", texts={"nl": "Nu ook een rode jas."})
        view = await room.engine.update("police", accepted.id, update)
        assert (view.state, [tally.phase for tally in view.tallies]) == ("open", ["start", "update"])
        assert room.boards.shown[accepted.id] == {"nl": "Nu ook een rode jas."}
        assert len((await room.engine.update("police", accepted.id, update)).tallies) == 2, "the same again"
        rest = room.send([Event.ACCEPT])
        waiting = set(range(100)) - set(told)
        assert sorted(rest) == sorted([*waiting, *(set(range(100)) - refused)])
        for row in waiting:
            assert rest.index(row) < len(rest) - 1 - rest[::-1].index(row), "the start first, then the update"
        changed = wire.UpdateRequest(reference="u1", texts={"nl": "Anders."})
        with pytest.raises(Refused, match="reference_conflict"):
            await room.engine.update("police", accepted.id, changed)
        await room.engine.cancel("police", accepted.id)
        late = wire.UpdateRequest(reference="u2", texts={"nl": "Te laat."})
        with pytest.raises(Refused, match="action_not_open"):
            await room.engine.update("police", accepted.id, late)


async def test_an_update_waits_with_its_wave(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request(waves=wire.Waves(people=10, free=1)))
        assert len(room.send([Event.ACCEPT])) == 10
        update = wire.UpdateRequest(reference="u1", texts={"nl": "Nu ook een rode jas."})
        await room.engine.update("police", accepted.id, update)
        assert len(room.send([Event.ACCEPT])) == 10, "those who know of it"
        await room.engine.operators("police", accepted.id, wire.OperatorsRequest(free=2))
        assert len(room.send([Event.ACCEPT])) == 20, "the others get both"


async def test_an_end_is_moved_later_and_sooner(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        begin_ms, two_hours = room.now_ms, wire.UpdateRequest(reference="e1", end_ms=room.now_ms + 2 * HOUR_MS)
        view = await room.engine.update("police", accepted.id, two_hours)
        assert (view.end_ms, [tally.phase for tally in view.tallies]) == (two_hours.end_ms, ["start"]), "nobody is told"
        assert (room.boards.ends_ms, room.boards.shown) == (
            {accepted.id: two_hours.end_ms},
            {accepted.id: {"nl": "Vermist.", "en": "Missing."}},
        )
        room.now_ms += HOUR_MS
        await room.engine.keep_up()
        assert len(room.send([Event.ACCEPT])) == 20, "it goes on after its first end"
        news = wire.UpdateRequest(reference="e2", texts={"nl": "Tot vier uur."}, end_ms=room.now_ms + HOUR_MS // 2)
        view = await room.engine.update("police", accepted.id, news)
        assert (view.end_ms, [tally.phase for tally in view.tallies]) == (news.end_ms, ["start", "update"])
        later = wire.UpdateRequest(reference="e3", end_ms=begin_ms + 2 * HOUR_MS)
        await room.engine.update("police", accepted.id, later)
        view = await room.engine.update("police", accepted.id, news)
        assert view.end_ms == later.end_ms, "the same news again changes nothing"
        room.boards.ends_ms.clear()
        await room.engine.recover()
        assert room.boards.ends_ms == {accepted.id: later.end_ms}, "boards that missed it hear of it"
        room.now_ms = begin_ms + 2 * HOUR_MS
        with pytest.raises(Refused, match="expired"):
            await room.engine.update(
                "police", accepted.id, wire.UpdateRequest(reference="e4", end_ms=room.now_ms + HOUR_MS)
            )
        await room.engine.keep_up()
        assert (await room.engine.view("police", accepted.id)).state == "expired"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "text_missing"),
        ({"end_ms": 1}, "end_in_the_past"),
        ({"end_ms": 1_790_000_000_000 + 72 * HOUR_MS + 1}, "end_too_far"),
        ({"end_ms": 1_790_000_000_000 + 2 * HOUR_MS, "texts": {"nl": " "}}, "text_missing"),
        ({"end_ms": 1_790_000_000_000 + 2 * HOUR_MS, "board_texts": {"nl": ["Kort"]}}, "text_missing"),
    ],
)
async def test_an_update_that_is_refused_moves_no_end(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request())
        with pytest.raises(Refused) as caught:
            await room.engine.update("police", accepted.id, wire.UpdateRequest(reference="u", **changes))
        assert caught.value.code == code
        assert (await room.engine.view("police", accepted.id)).end_ms == room.now_ms + HOUR_MS


async def test_waves_wait_for_an_end_that_was_moved(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        accepted = await room.engine.start("police", room.request(waves=wire.Waves(people=5, free=1)))
        assert len(room.send([Event.ACCEPT])) == 5
        await room.engine.update(
            "police", accepted.id, wire.UpdateRequest(reference="e", end_ms=room.now_ms + 2 * HOUR_MS)
        )
        room.now_ms += HOUR_MS
        assert room.send([Event.ACCEPT]) == [], "the old end lets nobody go"
        await room.engine.operators("police", accepted.id, wire.OperatorsRequest(free=2))
        assert len(room.send([Event.ACCEPT])) == 10


async def test_the_number_to_call_stands_where_words_ask_for_it(tmp_path: Path) -> None:
    async with open_room(tmp_path) as room:
        words: dict[str, Any] = {
            "call_number": "088-6620000", "texts": {"nl": "Vermist. Bel {call_number}.", "en": "{Missing}."},
            "titles": {"nl": "Bel {call_number}"}, "boards": wire.BoardOptions(texts={"nl": ["Bel {call_number}"]}),
        }  # fmt: skip
        request = room.request(**words)
        fields = {name: getattr(request, name) for name in wire.Action.__struct_fields__}
        preview = await room.engine.preview("police", wire.PreviewRequest(**fields))
        assert {item.text for item in preview.renderings} == {
            "Bel 088-6620000: Vermist. Bel 088-6620000.",
            "{Missing}.",
        }
        accepted = await room.engine.start("police", request)
        assert (await room.engine.start("police", request)).repeated, "as it was sent"
        assert room.boards.shown[accepted.id]["nl"] == "Vermist. Bel 088-6620000."
        news = wire.UpdateRequest(reference="u", texts={"nl": "Nieuws: {call_number}."})
        for _ in range(2):
            await room.engine.update("police", accepted.id, news)
        assert room.boards.shown[accepted.id] == {"nl": "Nieuws: 088-6620000."}
        room.send([Event.ACCEPT])
        await room.engine.result(
            "police",
            accepted.id,
            wire.ResultRequest(reference="r", outcome="none", texts={"nl": "{call_number} dicht."}),
        )
        said = [(phase.texts["nl"], phase.titles["nl"]) for phase in room.store.phases(accepted.id)]
        assert [text for text, _ in said] == [
            "Vermist. Bel 088-6620000.", "Nieuws: 088-6620000.", "088-6620000 dicht."
        ]  # fmt: skip
        assert {title for _, title in said} == {"Bel 088-6620000"}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"texts": {"nl": "Bel {call_number}"}}, "texts.nl"),
        ({"titles": {"nl": "Bel {call_number}"}}, "titles.nl"),
        ({"boards": wire.BoardOptions(texts={"nl": ["Bel", "{call_number}"]})}, "boards.texts.nl[1]"),
    ],
)
async def test_a_number_that_is_not_there_is_asked_for_in_vain(
    tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    async with open_room(tmp_path) as room:
        with pytest.raises(Refused) as caught:
            await room.engine.start("police", room.request(**changes))
        assert (caught.value.code, caught.value.where) == ("text_unfit", where)
