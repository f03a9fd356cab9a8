"""Documents on the wire: how long the broker keeps one."""

from __future__ import annotations

from signage.dialects import native
from signage.mqtt import Packet
from tests.signage.worlds import START_MS, World, action, shown

END_MS = START_MS + 3_600_000


def watched(world: World) -> list[Packet]:
    """Every packet of the engine from now on."""
    seen: list[Packet] = []
    take = world.core.take

    def keep() -> Packet | None:
        packet = take()
        seen.extend([packet] if packet is not None else [])
        return packet

    world.core.take = keep  # type: ignore[method-assign]
    return seen


def test_a_document_expires_with_the_last_end_and_so_does_what_takes_it_down() -> None:
    world = World(["well"])
    packets = watched(world)
    world.show(1, action(end_ms=END_MS))
    world.pass_time(600, 30)
    world.show(2, action(end_ms=END_MS - 1_800_000))
    world.end(2)
    world.end(1)
    assert [packet.expiry_s for packet in packets] == [3_600, 3_000, 3_000, 3_000]
    assert native.read_envelope("b0", packets[-1].payload)[0].items == []


def test_an_area_document_expires_with_the_last_end_of_all_its_boards() -> None:
    world = World(["well"] * 2, models=["led-3x26"], areas=[["all.led"]] * 2)
    packets = watched(world)
    world.show(1, action(end_ms=END_MS))
    assert [(packet.topic, packet.expiry_s) for packet in packets] == [("signage/1/areas/all.led/desired", 3_600)]


def test_a_board_that_comes_back_after_the_expiry_shows_nothing() -> None:
    """The broker forgets the take-down at the end of what it takes down; the board's clock has it down by then."""
    world = World(["well"], overlay={"on_comm_loss": "hold"})
    (display,) = world.displays
    packets = watched(world)
    world.show(1, action(end_ms=END_MS))
    world.leave(display)
    world.end(1)
    (kept,) = [packet for packet in packets if packet.retain and packet.payload][-1:]
    assert kept.expiry_s == 3_600
    world.pass_time(3_601, 60)
    world.retained.pop(native.desired_topic("b0"))
    world.join(display)
    assert shown(display) == []
