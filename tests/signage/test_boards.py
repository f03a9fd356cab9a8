"""Boards in areas: margins are metres, vehicles move, births are taken whole."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout import wire
from fanout.geo import EVERYONE, circle, corridor
from fanout.geo.gate import shape_of
from signage.boards import Boards, widened
from signage.dialects import native
from signage.showing import Record
from signage.simulators.display import Display
from signage.simulators.models import caps_for
from signage.simulators.passenger import PassengerDisplay
from tests.signage.worlds import START_MS, World, shown

METRES_PER_DEGREE = 111_194.9


def boards_at(*places: tuple[float, float]) -> Boards:
    boards = Boards()
    for number, (lon, lat) in enumerate(places):
        boards.put(caps_for(f"b{number}", "led-3x26", lon, lat, ""))
    return boards


SQUARE = wire.Polygon(coordinates=[[(6.0, 53.0), (6.02, 53.0), (6.02, 53.01), (6.0, 53.01), (6.0, 53.0)]])


@given(st.floats(5.99, 6.03), st.floats(52.99, 53.02), st.floats(1.0, 2_000.0))
def test_a_margin_round_a_polygon_is_metres(lon: float, lat: float, margin_m: float) -> None:
    across = METRES_PER_DEGREE * math.cos(math.radians(lat))
    dx = max(6.0 - lon, 0.0, lon - 6.02) * across
    dy = max(53.0 - lat, 0.0, lat - 53.01) * METRES_PER_DEGREE
    distance_m = math.hypot(dx, dy)
    if abs(distance_m - margin_m) < 2.0:
        return
    found = boards_at((lon, lat)).within(shape_of(SQUARE), margin_m)
    assert bool(found) == (distance_m < margin_m)


def test_a_margin_keeps_to_a_border_that_is_half_the_world_long() -> None:
    half = wire.Polygon(coordinates=[[(-90.0, 0.0), (90.0, 0.0), (90.0, 50.0), (-90.0, 50.0), (-90.0, 0.0)]])
    boards = boards_at((0.0, -0.005), (0.0, -0.02), (33.0, 50.1), (0.0, 80.0))
    found = boards.within(shape_of(half), 1_000.0)
    assert [board.lat for board in found if board.lat is not None and board.lat < 50] == [-0.005]
    assert not boards_at((0.0, 80.0)).within(shape_of(half), 50_000.0), "no strip goes over the pole"


def test_circles_and_corridors_grow() -> None:
    boards = boards_at((6.0, 53.0105))
    assert boards.within(circle(6.0, 53.0, 1_000.0)) == []
    assert len(boards.within(circle(6.0, 53.0, 1_000.0), 200.0)) == 1
    line = corridor([(5.9, 53.0), (6.1, 53.0)], 1_000.0)
    assert boards.within(line) == []
    assert len(boards.within(line, 200.0)) == 1
    assert widened(EVERYONE, 100.0) is EVERYONE


def test_a_board_without_a_place_is_only_where_everyone_is() -> None:
    boards = Boards()
    boards.put(caps_for("b0", "led-3x26", None, None, ""))
    assert boards.within(circle(0.0, 0.0, 20_000_000.0)) == []
    assert len(boards.within(EVERYONE)) == 1


def test_nearest_counts_people_and_chooses_no_board() -> None:
    boards = boards_at((6.0, 53.0))
    assert boards.within(shape_of(wire.Nearest(lon=6.0, lat=53.0, count=5))) == []


def test_a_birth_is_taken_whole_and_the_same_again_is_nothing() -> None:
    boards = Boards()
    caps = caps_for("b0", "led-3x26", 6.0, 53.0, "")
    _, new = boards.put(caps)
    assert new
    board, again = boards.put(caps)
    assert not again
    boards.put(caps_for("b0", "ticker-1x24", 7.0, 53.0, ""))
    assert (board.model.lines, board.lon, len(boards)) == (1, 7.0, 1)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_board_on_a_vehicle_drives_in_and_out(forgets: bool) -> None:
    world = World([])
    caps = msgspec.structs.replace(caps_for("bus", "led-3x26", 6.5, 53.0, "line 12"), mobile=True)
    bus = Display(caps)
    bus.power_on()
    world.displays.append(bus)
    world.join(bus)
    add(world, wire.Circle(lon=6.0, lat=53.0, radius_m=5_000.0), [])
    assert shown(bus) == []
    drive(world, 6.01)
    assert shown(bus) == [(1, "start")]
    if forgets:
        world.restart_engine()
    drive(world, 6.5)
    assert shown(bus) == []
    drive(world, 6.0)
    assert shown(bus) == [(1, "start")]
    assert world.core.counts(1).selected == 1


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("how", ["asks for content", "discovers itself"])
def test_a_display_of_the_standard_on_a_vehicle_drives_in_and_out(how: str, forgets: bool) -> None:
    bus = PassengerDisplay("v", "bus", ("Assen", "lines", "12"), position=(6.01, 53.0))
    pole = PassengerDisplay("v", "pole", ("Assen", "station", "a1"), position=(6.0, 53.0))
    world = World([], passengers=[bus, pole])
    world.pass_time(40)
    add(world, wire.Circle(lon=6.0, lat=53.0, radius_m=5_000.0), [bus.id, pole.id])
    world.pass_time(5)
    assert (shown(bus), shown(pole)) == ([(1, "start")], [(1, "start")])

    def goes(lon: float) -> None:
        bus.position = (lon, 53.0)
        asks = bus._ask_content if how == "asks for content" else bus._discover
        world._publish([asks(world.now_ms)])
        world.pump()

    begun = len(bus.film)
    goes(6.5)
    assert shown(bus) == []
    assert len(bus.film) == begun + 1, "down at once, and not told once more before"
    if forgets:
        world.save()
        world.restart_engine()
    world.pass_time(60)
    assert (shown(bus), shown(pole)) == ([], [(1, "start")])
    assert world.core.counts(1).shown == 2, "it was shown there"
    goes(6.02)
    world.pass_time(5)
    assert shown(bus) == [(1, "start")]
    goes(6.5)
    world.pass_time(5)
    world.core.end(1, {"nl": "Gevonden."}, world.now_ms, "closed")
    world.pump()
    world.pass_time(5)
    assert (shown(bus), shown(pole)) == ([], [(1, "result")])
    assert bus.violations == pole.violations == []


def add(world: World, area: wire.Circle, boards: list[str]) -> None:
    """Show action 1 in an area."""
    texts = {"nl": "Vermist: jongen, 6 jaar."}
    what = wire.Action(kind="missing_child", area=area, texts=texts, end_ms=START_MS + 3_600_000)
    world.core.add(
        Record(action=1, request=what, priority=0, start_ms=START_MS, end_ms=what.end_ms, boards=boards), shape_of(area)
    )
    world.save()
    world.pump()


def drive(world: World, lon: float) -> None:
    bus = world.displays[0]
    items = [native.Shown(action=item.action, stage=item.stage) for item in bus.shown]
    there = native.Reported(board="bus", version=bus._version, shown=items, lon=lon, lat=53.0)
    world.core.received("signage/1/boards/bus/reported", native.encode(there), False)
    world.pump()
