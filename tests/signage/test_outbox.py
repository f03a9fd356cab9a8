"""Boards that come to an end: refused by the broker, or retired by who owns them."""

from __future__ import annotations

from fanout.geo import EVERYONE
from fanout.geo.gate import shape_of
from signage.dialects import native
from signage.mqtt import Packet
from signage.shadow import OPEN
from signage.showing import Record
from signage.simulators.models import caps_for
from tests.signage.worlds import START_MS, World, action, shown

HOUR_MS = 3_600_000


# --- what the broker refuses, and boards that are retired -------------------------------------------------------------


def test_what_the_broker_refuses_is_not_published_and_is_tried_again_in_time() -> None:
    world = World(["well", "off"])
    world.core.add(record := world_record(world, 1), shape_of(record.request.area))
    refused = 0
    while (packet := world.core.take()) is not None:
        world.core.refused(packet, 0x87)
        refused += 1
    assert refused == 2, "not at once, and not for ever"
    proof = world.core.proof(1)
    assert proof is not None
    assert [row.published_ms for row in proof.rows()] == [None, None]
    for board in world.core.boards:
        assert board.problems == ["the broker refuses its document: reason 0x87 (not authorised)"]
    world.pass_time(world.settings.lag_s + 2)
    assert world.core.counts(1).shown == 1
    assert [row.published_ms is not None for row in proof.rows()] == [True, True], "also to one that is not there"


def test_an_area_that_the_broker_refuses_is_served_board_by_board() -> None:
    world = World(["well"] * 2, models=["led-3x26"], areas=[["all.led"]] * 2)
    take = world.core.take

    def refusing() -> Packet | None:
        while (packet := take()) is not None and packet.topic == "signage/1/areas/all.led/desired":
            world.core.refused(packet, 0x87)
        return packet

    world.core.take = refusing  # type: ignore[method-assign]
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert world.core.counts(1).shown == 0
    world.pass_time(world.settings.lag_s + 2)
    assert world.core.counts(1).shown == 2


def world_record(world: World, number: int) -> Record:
    what = action(end_ms=START_MS + HOUR_MS)
    for at in range(len(world.displays)):
        if world.core.boards.get(f"b{at}") is None:
            world.core.born(caps_for(f"b{at}", "led-3x26", 5.0, 52.0, "here"))
            world.core.received(f"signage/1/boards/b{at}/state", b'{"state": "lost"}', True)
    boards = [board.id for board in world.core.boards]
    return Record(action=number, request=what, priority=0, start_ms=START_MS, end_ms=what.end_ms, boards=boards)


def test_a_board_whose_birth_document_is_cleared_is_retired() -> None:
    world = World(["well"] * 3, models=["led-3x26"], areas=[["all.led"]] * 3)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.show(2, action(end_ms=START_MS + HOUR_MS), boards={"b0", "b1"})
    world.leave(gone := world.displays[0])
    topic = native.desired_topic("b0")
    assert topic in world.retained
    old = world.core.boards.get("b0")
    world.core.received("signage/1/boards/b0/caps", b"", False)
    world.pump()
    world.save()
    assert [board.id for board in world.core.boards] == ["b1", "b2"]
    assert topic not in world.retained
    assert set(world.memory.spaces["boards.caps"]) == {"b1", "b2"}
    assert [board.id for board in world.core.boards.within(EVERYONE)] == ["b1", "b2"]
    retired = world.core.retired["b0"]
    assert (retired, retired.presence, retired.problems[-1]) == (
        old, "retired", "it is retired: its birth document was cleared",
    )  # fmt: skip
    world.end(2)
    world.pass_time(60, 5)
    assert topic not in world.retained
    assert world.core.counts(2).laggards == ["b0"], "what it never confirmed is not made up"
    assert all(board.state not in OPEN for board in world.core.boards)
    world.join(gone)
    assert shown(gone) == [(1, "start")], "it was only resting: it is a board like any other again"
    assert world.core.counts(1).selected == 3
    assert world.core.retired == {}


def test_a_board_that_is_retired_while_its_document_is_on_its_way_stays_so() -> None:
    world = World(["well", "well"], models=["led-3x26"])
    world.leave(world.displays[0])
    world.core.add(record := world_record(world, 1), shape_of(record.request.area))
    packets = [packet for _ in range(2) if (packet := world.core.take()) is not None]
    world.core.received("signage/1/boards/b0/caps", b"", False)
    for packet in packets[:1]:
        world.core.sent(packet, True)
    world.core.lost(packets[1:])
    world.core.up()
    world.pump()
    assert native.desired_topic("b0") not in world.retained
    assert world.core.counts(1).shown == 1


def test_a_board_may_be_retired_between_choice_and_action() -> None:
    world = World(["well"] * 2)
    record = world_record(world, 1)
    world.leave(world.displays[0])
    world.core.received("signage/1/boards/b0/caps", b"", False)
    world.core.add(record, shape_of(record.request.area))
    world.pump()
    assert (world.core.counts(1).selected, world.core.counts(1).shown) == (2, 1)


def test_an_empty_birth_of_a_stranger_is_nothing() -> None:
    world = World(["well"])
    world.core.received("signage/1/boards/b9/caps", b"", False)
    for leaf in ("state", "reported", "ack"):
        world.core.received(f"signage/1/boards/b0/{leaf}", b"", False)
    assert [board.id for board in world.core.boards] == ["b0"]
