"""Boards end to end over real sockets: a broker as a child process, simulated boards, the service."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from fanout import settings, wire
from fanout.errors import Refused
from fanout.geo import EVERYONE, circle
from signage.broker import find_mosquitto, free_port, start_broker
from signage.service import Signage, open_signage
from signage.simulators.fleet import Fleet, Placed, make_displays, make_passengers, spread_boards
from tests.signage.worlds import NAMES, Documents, action, shown

PATIENCE_S = 120.0
KINDS = settings.load(None, {}).kinds
BROKERS = [
    "amqtt",
    pytest.param("mosquitto", marks=pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto")),
]


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


def hour() -> int:
    return clock_ms() + 3_600_000


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that must come; the time-out is a failure, not a measurement."""
    with trio.move_on_after(PATIENCE_S) as scope:
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert not scope.cancelled_caught, f"still not after {PATIENCE_S} s: {what}"


@asynccontextmanager
async def running(
    folder: Path, memory: Documents, *brokers: str, clock: Callable[[], int] = clock_ms, **overlay: object
) -> AsyncIterator[Signage]:
    section = settings.load(None, {}, signage={"brokers": list(brokers), **overlay}).signage
    async with open_signage(section, memory, clock, folder=folder, kinds=KINDS) as signage:
        yield signage


def ends_filmed(display: Any) -> set[int]:
    return {item.end_ms for frame in display.film for item in frame.items}


def ready(signage: Signage) -> int:
    return sum(view.state == "ready" for view in signage.views())


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("version", [4, 5])
async def test_an_action_is_shown_and_gone(kind: str, version: int, tmp_path: Path) -> None:
    if kind == "amqtt" and version == 5:
        pytest.skip("amqtt speaks MQTT 3.1.1 only")
    memory = Documents()
    async with running(tmp_path, memory, embedded=kind) as signage, trio.open_nursery() as nursery:
        fleet = Fleet(
            make_displays(spread_boards(40, 1), 4, [], 1), signage.broker_address, clock_ms, version=version,
            film=tmp_path / "film.jsonl",
        )  # fmt: skip
        nursery.start_soon(fleet.run)
        await until(lambda: ready(signage) == 40, "all boards there")
        what = action(end_ms=hour())
        plan = await signage.plan(what, EVERYONE, KINDS["missing_child"])
        assert (plan.boards, plan.unfit) == (40, [])
        await signage.show(1, what, EVERYONE, 0, clock_ms())
        assert memory.spaces["boards.actions"], "durable when it returns"
        await until(lambda: signage.counts(1).shown == 40, "all shown")
        assert all(shown(display) == [(1, "start")] for display in fleet.displays)
        await signage.result(1, {}, clock_ms())
        await until(lambda: signage.counts(1).cleared == 40, "all cleared")
        assert all(shown(display) == [] for display in fleet.displays)
        assert signage.showing() == []
        assert all(row.ended_ms for row in signage.proof(1))
        nursery.cancel_scope.cancel()
    assert '"shown": [[1, "start"]]' in (tmp_path / "film.jsonl").read_text()


async def test_what_a_start_put_on_boards_is_known_after_a_restart(tmp_path: Path) -> None:
    memory, broker = Documents(), f"mqtt://127.0.0.1:{free_port()}"
    what = action(end_ms=hour())
    fields = {name: getattr(what, name) for name in wire.Action.__struct_fields__}
    async with running(tmp_path, memory, broker) as signage:
        await signage.show(1, wire.ActionRequest(reference="r-1", **fields), EVERYONE, 0, clock_ms())
    async with running(tmp_path, memory, broker) as signage:
        assert signage.showing() == [1]


async def test_an_end_that_was_moved_is_told_to_boards_and_remembered(tmp_path: Path) -> None:
    memory, minute, jumped_ms = Documents(), 60_000, 0

    def clock() -> int:
        return clock_ms() + jumped_ms

    broker = f"mqtt://127.0.0.1:{free_port()}"
    async with running(tmp_path, memory, clock=clock) as signage, trio.open_nursery() as nursery:
        fleet = Fleet(make_displays(spread_boards(2, 1), 1, [], 1), signage.broker_address, clock)
        nursery.start_soon(fleet.run)
        await until(lambda: ready(signage) == 2, "all boards there")
        begun_ms = clock()
        await signage.show(1, action(end_ms=begun_ms + 60 * minute), EVERYONE, 0, begun_ms)
        await until(lambda: signage.counts(1).shown == 2, "all shown")
        for moved_ms in (begun_ms + 120 * minute, begun_ms + 30 * minute):
            await signage.move_end(1, moved_ms)
            await signage.move_end(2, moved_ms)  # of none that we know
            await until(
                lambda end=moved_ms: all(end in ends_filmed(one) for one in fleet.displays),  # type: ignore[misc]
                "every board has the new end",
            )
        jumped_ms = 31 * minute
        fleet.clock_jumped()
        await until(lambda: signage.counts(1).cleared == 2, "all cleared, at the sooner end")
        nursery.cancel_scope.cancel()
    memory = Documents()
    async with running(tmp_path, memory, broker) as signage:
        await signage.show(1, action(end_ms=clock_ms() + minute), EVERYONE, 0, clock_ms())
        await signage.move_end(1, hour())
        jumped_ms = 2 * minute
    async with running(tmp_path, memory, broker, clock=clock) as signage:
        assert signage.showing() == [1]


async def test_a_kind_that_may_not_be_on_boards_is_on_none(tmp_path: Path) -> None:
    async with running(tmp_path, Documents(), f"mqtt://127.0.0.1:{free_port()}") as signage:
        what = action(end_ms=hour(), kind="burglary")
        plan = await signage.plan(what, EVERYONE, KINDS["burglary"])
        assert (plan.boards, plan.reason) == (0, "actions of kind 'burglary' may not be shown on public boards")
        await signage.show(1, what, EVERYONE, 0, clock_ms())
        assert signage.counts(1) == wire.BoardCounts()


async def test_boards_in_the_area_and_its_margin(tmp_path: Path) -> None:
    placed = [Placed("in", 6.5, 53.0), Placed("rim", 6.5, 53.0105), Placed("out", 6.5, 53.1)]
    async with running(tmp_path, Documents(), embedded="amqtt") as signage, trio.open_nursery() as nursery:
        nursery.start_soon(Fleet(make_displays(placed, 3, [], 0), signage.broker_address, clock_ms).run)
        await until(lambda: ready(signage) == 3, "all boards there")
        shape = circle(6.5, 53.0, 1_000.0)
        near = action(end_ms=hour())
        assert (await signage.plan(near, shape, KINDS["missing_child"])).boards == 1
        wide = action(end_ms=hour(), boards=wire.BoardOptions(margin_m=200.0))
        assert (await signage.plan(wide, shape, KINDS["missing_child"])).boards == 2
        nursery.cancel_scope.cancel()


async def test_models_that_cannot_show_it_are_named(tmp_path: Path) -> None:
    placed = [Placed("small", 6.5, 53.0, model="led-2x20"), Placed("large", 6.5, 53.0, model="tft-1920x1080")]
    async with running(tmp_path, Documents(), embedded="amqtt") as signage, trio.open_nursery() as nursery:
        nursery.start_soon(Fleet(make_displays(placed, 2, [], 0), signage.broker_address, clock_ms).run)
        await until(lambda: ready(signage) == 2, "all boards there")
        long = action("Vermist meisje, rode jas. " * 16, end_ms=hour())
        plan = await signage.plan(long, EVERYONE, KINDS["missing_child"])
        assert plan.boards == 1
        assert [(each.model, each.boards) for each in plan.unfit] == [("led-2x20", 1)]
        short = action(
            "Vermist meisje, rode jas. " * 16, end_ms=hour(), boards=wire.BoardOptions(texts={"nl": ["Kort."]})
        )
        assert (await signage.plan(short, EVERYONE, KINDS["missing_child"])).boards == 2
        nursery.cancel_scope.cancel()


async def test_models_of_one_name_are_counted_together_and_a_part_of_a_board_is_named(tmp_path: Path) -> None:
    file = tmp_path / "boards.csv"
    rows = ["id,lon,lat,model,lines,characters,charset", "a,6.5,53,led,1,24,ascii", "b,6.5,53,led,1,24,latin-1"]
    file.write_text("\n".join([*rows, "c,6.5,53,led,3,24,ascii", ""]))
    broker = f"mqtt://127.0.0.1:{free_port()}"
    async with running(tmp_path, Documents(), broker, lists=[str(file)], target_search="over") as signage:
        plan = await signage.plan(action("Kort.", end_ms=hour(), lane="search"), EVERYONE, KINDS["missing_child"])
        why = "beside its own content (target 'over') it has 0 lines of 24 characters"
        assert (plan.boards, plan.unfit) == (1, [wire.UnfitBoards(model="led", boards=2, why=why)])


async def test_without_a_broker_actions_are_accepted_and_boards_catch_up(tmp_path: Path) -> None:
    port = free_port()
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path / "broker", port=port))
    memory = Documents()
    try:
        async with running(tmp_path, memory, broker.address) as signage, trio.open_nursery() as nursery:
            fleet = Fleet(make_displays(spread_boards(12, 1), 3, [], 1), broker.address, clock_ms)
            nursery.start_soon(fleet.run)
            await until(lambda: ready(signage) == 12, "all boards there")
            await signage.show(1, action(end_ms=hour()), EVERYONE, 0, clock_ms())
            await until(lambda: signage.counts(1).shown == 12, "the first is shown")
            await trio.to_thread.run_sync(broker.stop)
            await until(lambda: not signage.statistics().connected, "the loss is noticed")
            await signage.show(2, action(end_ms=hour()), EVERYONE, 0, clock_ms())
            await signage.show(3, action(end_ms=hour()), EVERYONE, 0, clock_ms())
            await signage.result(1, {}, clock_ms())
            await signage.result(3, {}, clock_ms())
            broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path / "broker", port=port))
            await until(lambda: signage.counts(2).shown == 12 and signage.counts(1).cleared == 12, "boards caught up")
            for display in fleet.displays:
                assert shown(display) == [(2, "start")]
                assert 3 not in {item.action for frame in display.film for item in frame.items}
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(broker.stop)


@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto")
@pytest.mark.parametrize("areas", [False, True])
async def test_a_broker_that_is_dead_for_an_hour_and_has_forgotten_everything(areas: bool, tmp_path: Path) -> None:
    jumped_ms = 0

    def clock() -> int:
        return clock_ms() + jumped_ms

    port, minute = free_port(), 60_000
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path / "one", port=port, kind="mosquitto"))
    try:
        async with (
            running(tmp_path, Documents(), broker.address, clock=clock) as signage,
            trio.open_nursery() as nursery,
        ):
            groups = make_displays(spread_boards(14, 1, areas=areas), 4, [], 1) + make_passengers(6, 1)
            fleet = Fleet(groups, broker.address, clock, version=5)
            nursery.start_soon(fleet.run)
            await until(lambda: ready(signage) == 20, "all there")
            start_ms = clock()
            await signage.show(1, action(end_ms=start_ms + 30 * minute), EVERYONE, 0, start_ms)
            await signage.show(2, action(end_ms=start_ms + 180 * minute), EVERYONE, 0, start_ms)
            await until(lambda: signage.counts(1).shown == signage.counts(2).shown == 20, "both are shown")

            broker.process.kill()  # and with it the broker: nothing is saved, nobody is told
            await trio.to_thread.run_sync(broker.stop)
            await until(lambda: not signage.statistics().connected, "the loss is noticed")
            down_ms = clock()
            await signage.result(2, {"nl": "Gevonden. Dank u wel."}, down_ms)
            await signage.show(3, action(end_ms=start_ms + 180 * minute), EVERYONE, 0, down_ms)
            await signage.show(4, action(end_ms=start_ms + 180 * minute), EVERYONE, 0, down_ms)
            await signage.result(4, {}, clock())
            await signage.show(5, action(end_ms=start_ms + 20 * minute), EVERYONE, 0, down_ms)
            jumped_ms = 60 * minute
            fleet.clock_jumped()
            await until(lambda: all(1 not in numbers_of(one.film[-1]) for one in fleet.displays), "boards keep the end")
            back_ms = clock()

            broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path / "two", port=port, kind="mosquitto"))
            await until(lambda: signage.counts(3).shown == 20, "all have caught up")
            await until(lambda: all(signage.counts(number).cleared == 20 for number in (1, 2)), "proven gone")
            for display in fleet.displays:
                assert shown(display) == [(3, "start")], display
            after = [display.film[at:] for display in fleet.displays for at in [first_after(display.film, back_ms)]]
            seen = {number for frames in after for frame in frames for number in numbers_of(frame)}
            assert seen <= {3}, "of what ended, or came and went, nothing was shown from then on"
            assert signage.counts(5).shown == 0
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(broker.stop)


def first_after(film: Sequence[Any], at_ms: int) -> int:
    """Where in a film the first frame of that time or later stands."""
    return next((at for at, frame in enumerate(film) if frame.at_ms >= at_ms), len(film))


def numbers_of(frame: Any) -> list[int]:
    if hasattr(frame, "messages"):
        return [NAMES[identifier][0] for identifier in frame.messages]
    return [item.action for item in frame.items]


async def test_an_engine_that_comes_back_goes_on_where_it_was(tmp_path: Path) -> None:
    memory = Documents()
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path / "broker"))
    try:
        async with trio.open_nursery() as nursery:
            fleet = Fleet(make_displays(spread_boards(12, 1), 12, [], 1), broker.address, clock_ms)
            nursery.start_soon(fleet.run)
            async with running(tmp_path, memory, broker.address) as signage:
                await until(lambda: ready(signage) == 12, "all boards there")
                await signage.show(1, action(end_ms=hour()), EVERYONE, 0, clock_ms())
                await signage.show(2, action(end_ms=hour()), EVERYONE, 1, clock_ms())
                await until(lambda: signage.counts(1).shown == 12, "shown")
                await signage.result(1, {}, clock_ms())
            async with running(tmp_path, memory, broker.address) as signage:
                await until(lambda: signage.counts(1).cleared == 12, "the close is still known")
                await until(lambda: signage.counts(2).shown == 12, "the ordinary returned")
                assert signage.showing() == [2]
                assert all(shown(display) == [(2, "start")] for display in fleet.displays)
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(broker.stop)


async def test_a_broker_of_our_own_that_cannot_start_is_refused(tmp_path: Path) -> None:
    taken = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = taken[0].socket.getsockname()[1]
    try:
        with pytest.raises(BaseException) as caught:
            async with running(tmp_path, Documents(), embedded="amqtt", embedded_port=port):
                pass
    finally:
        await taken[0].aclose()
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Refused)
    assert error.code == "broker_unavailable"


@pytest.mark.parametrize("kind", BROKERS)
async def test_displays_of_the_standard_beside_boards(kind: str, tmp_path: Path) -> None:
    async with running(tmp_path, Documents(), embedded=kind) as signage, trio.open_nursery() as nursery:
        groups = make_displays(spread_boards(8, 1), 2, [], 1) + make_passengers(12, 1)
        fleet = Fleet(groups, signage.broker_address, clock_ms, film=tmp_path / "film.jsonl")
        nursery.start_soon(fleet.run)
        await until(lambda: ready(signage) == 20, "all there")
        what = action(end_ms=hour())
        assert (await signage.plan(what, circle(5.3, 52.1, 300_000.0), KINDS["missing_child"])).boards == 20
        await signage.show(1, what, EVERYONE, 0, clock_ms())
        await until(lambda: signage.counts(1).shown == 20, "all shown")
        assert all(shown(display) == [(1, "start")] for display in fleet.displays)
        await signage.result(1, {}, clock_ms())
        await until(lambda: signage.counts(1).cleared == 20, "all cleared")
        assert all(shown(display) == [] for display in fleet.displays)
        assert [getattr(display, "violations", []) for display in fleet.displays] == [[]] * 20
        nursery.cancel_scope.cancel()


def kept_content(port: int, wait_s: int = 1) -> str:
    """A topic of content that the broker keeps, if it says so in time."""
    command = ["mosquitto_sub", "-p", str(port), "-t", "CMS/#", "--retained-only", "-C", "1", "-F", "%t %l"]
    command += ["-W", str(wait_s)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.skipif(find_mosquitto() is None or shutil.which("mosquitto_sub") is None, reason="no mosquitto")
async def test_copies_of_an_action_that_ended_days_ago_are_cleared_at_the_broker(tmp_path: Path) -> None:
    """MQTT 3.1.1: what the broker keeps never expires, and the engine had forgotten the action before it connected."""
    memory = Documents()
    later_ms = 0
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path / "broker", kind="mosquitto"))
    try:
        overlay: dict[str, Any] = {"protocol": "3.1.1", "clock": lambda: clock_ms() + later_ms}
        async with running(tmp_path, memory, broker.address, **overlay) as signage, trio.open_nursery() as nursery:
            fleet = Fleet(make_passengers(4, 1), broker.address, clock_ms)
            nursery.start_soon(fleet.run)
            await until(lambda: ready(signage) == 4, "all there")
            await signage.show(1, action(end_ms=hour()), EVERYONE, 0, clock_ms())
            await until(lambda: signage.counts(1).shown == 4, "all shown")
            fleet.cut_all()
            await until(lambda: all("DONE" in display.statuses for display in fleet.displays), "told alone")
            nursery.cancel_scope.cancel()
        assert "CMS/informationMessage/content" in await trio.to_thread.run_sync(kept_content, broker.port, 60)
        later_ms = 48 * 3_600_000
        async with running(tmp_path, memory, broker.address, **overlay) as signage:
            await until(lambda: signage.showing() == [], "the action is forgotten")
            with trio.fail_after(PATIENCE_S):
                while await trio.to_thread.run_sync(kept_content, broker.port):
                    pass
    finally:
        await trio.to_thread.run_sync(broker.stop)


async def test_the_key_that_documents_are_signed_with_is_told(tmp_path: Path) -> None:
    async with running(tmp_path, Documents(), "mqtt://127.0.0.1:1", signing_key=str(tmp_path / "key.pem")) as signage:
        key = signage.key()
        assert key is not None
        public = load_pem_public_key(key.pem.encode())
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert (base64.b64decode(key.public), key.id) == (raw, hashlib.sha256(raw).hexdigest()[:16])
    async with running(tmp_path, Documents(), "mqtt://127.0.0.1:1") as signage:
        assert signage.key() is None
