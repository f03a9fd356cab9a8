"""Area topics: one publish serves many, never one board more, nothing shown twice, nothing left behind."""

from __future__ import annotations

import pytest

from signage.areas import Area, Areas
from signage.boards import Boards
from signage.dialects import native
from signage.simulators.models import caps_for
from tests.signage.worlds import START_MS, World, action, kept_documents, shown

HOUR_MS = 3_600_000
NORTH, ALL = native.area_topic("north"), native.area_topic("all")


def desired(world: World) -> list[str]:
    """Topics of the documents that went out since the last call, without those to be forgotten."""
    topics = [topic for topic, payload in world.sent if topic.endswith("/desired") and payload]
    world.sent.clear()
    return topics


def make(count: int, areas: list[list[str]] | None = None, models: list[str] | None = None) -> World:
    return World(["well"] * count, models=models or ["led-3x26"], areas=areas or [["all"]] * count)


def test_one_publish_serves_all_and_takes_down_all() -> None:
    world = make(6)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert desired(world) == [ALL]
    assert [shown(display) for display in world.displays] == [[(1, "start")]] * 6
    assert world.core.counts(1).shown == 6
    world.update(1, "Nieuw: blauwe jas. Bel 112.")
    assert desired(world) == [ALL]
    assert world.core.counts(1).updated == 6
    world.end(1)
    assert desired(world) == [ALL]
    assert [shown(display) for display in world.displays] == [[]] * 6
    assert world.core.counts(1).cleared == 6
    world.pass_time(3_600 + world.settings.grace_s + 30, 10)
    assert ALL not in world.retained


def test_nothing_is_shown_twice_by_a_board_of_many_areas() -> None:
    world = make(4, [["all", "north"], ["all", "north"], ["all"], ["all", "south"]])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert desired(world) == [ALL]
    for display in world.displays:
        assert [[item.action for item in frame.items] for frame in display.film] == [[], [1]]


def test_an_area_with_one_board_that_must_not_show_it_is_not_used() -> None:
    world = make(4, [["all", "north"], ["all", "north"], ["all"], ["all"]])
    world.show(1, action(end_ms=START_MS + HOUR_MS), boards={"b0", "b1", "b2"})
    assert desired(world) == [NORTH, native.desired_topic("b2")]
    assert [shown(display) for display in world.displays] == [[(1, "start")]] * 3 + [[]]
    assert all(frame.items == () for frame in world.displays[3].film)


def test_a_board_that_reads_only_its_own_topic_is_served_beside() -> None:
    world = make(4, [["all"], ["all"], ["all"], []])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert sorted(desired(world)) == [ALL, native.desired_topic("b3")]
    assert world.core.counts(1).shown == 4


def test_an_area_of_several_models_serves_none() -> None:
    world = make(4, models=["led-3x26", "led-2x20"])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert ALL not in desired(world)
    assert world.core.counts(1).shown == 4


def test_what_the_broker_keeps_is_never_over() -> None:
    world = make(3, [["all", "north"], ["all", "north"], ["all"]])
    world.show(1, action(end_ms=START_MS + HOUR_MS), boards={"b0", "b1"})
    world.show(2, action(end_ms=START_MS + HOUR_MS))
    world.end(1)
    kept = [kept_documents(world, display) for display in world.displays]
    assert all(item.action == 2 for documents in kept for one in documents for item in one.items)
    forgetful = world.displays[0]
    forgetful.mood = "amnesia"
    world.leave(forgetful)
    before = len(forgetful.film)
    forgetful.power_on()
    world.join(forgetful)
    assert {item.action for frame in forgetful.film[before:] for item in frame.items} <= {2}
    assert shown(forgetful) == [(2, "start")]


def test_a_board_that_did_not_hear_the_area_is_told_alone() -> None:
    world = make(3)
    deaf = world.displays[0]
    hears, deaf.hears = deaf.hears, lambda topic: topic == native.desired_topic("b0")
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert world.core.counts(1).laggards == ["b0"]
    world.pass_time(world.settings.lag_s + 2)
    assert desired(world) == [ALL, native.desired_topic("b0")]
    assert world.core.counts(1).shown == 3
    deaf.hears = hears
    world.end(1)
    world.pass_time(1)
    assert world.core.counts(1).cleared == 3
    assert native.desired_topic("b0") not in world.retained, "its document stands in one place"


def test_a_board_that_is_born_into_an_area_reads_what_is_kept_there() -> None:
    world = make(5)
    late = world.displays.pop()
    world.leave(late)
    world.restart_engine()
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    desired(world)
    world.displays.append(late)
    world.join(late)
    assert desired(world) == []
    assert shown(late) == [(1, "start")]
    assert world.core.counts(1).shown == 5


@pytest.mark.parametrize("forgets", [False, True])
def test_an_engine_that_restarts_leaves_no_area_document_behind(forgets: bool) -> None:
    world = make(3)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.engine_cut()
    world.end(1)
    world.restart_engine(forgets=forgets)
    world.pass_time(world.settings.lag_s * 2, 5)
    assert [shown(display) for display in world.displays] == [[]] * 3
    assert all(not one.items for display in world.displays for one in kept_documents(world, display))


def test_a_document_for_another_model_is_passed_over() -> None:
    world = make(2)
    body = native.encode_body(
        area="all", model="another", version=2**50, on_comm_loss="blank", comm_loss_s=300, items=b"\x90", form="msgpack"
    )
    assert world.displays[0].receive(ALL, native.encode_envelope(body, "msgpack"), world.now_ms) == []


def test_names_that_cannot_be_a_topic_are_noted() -> None:
    world = make(1, [["fine", "a/b", "#"]])
    board = world.core.boards.get("b0")
    assert board is not None
    assert [problem for problem in board.problems if "area topic" in problem] == [
        "'a/b' cannot be an area topic: it has to be one level, without / + #",
        "'#' cannot be an area topic: it has to be one level, without / + #",
    ]


def test_a_board_leaves_an_area() -> None:
    areas, boards = Areas(), Boards()
    board, _ = boards.put(caps_for("b0", "led-3x26", 5.0, 52.0, "", areas=["north", "all"]))
    areas.listen(board)
    assert [area.name for area in areas.take_stirred()] == ["all", "north"]
    boards.put(caps_for("b0", "led-3x26", 5.0, 52.0, "", areas=["all"]))
    areas.listen(board)
    north = next(area for area in areas.take_stirred() if area.name == "north")
    assert (list(north.listeners), [area.name for area in areas.of(board)]) == ([], ["all"])
    assert repr(Area("x")) == "<Area x: 0 listeners, unknown v0>"
