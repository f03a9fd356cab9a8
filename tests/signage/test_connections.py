"""Controllers and those who speak before they are known, in any order."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from fanout.limits import BOARD_DOCUMENT_BYTES_MAX
from signage.boards import Boards
from signage.connections import EARLY_MAX, NAMELESS_MS, NAMELESS_MS_MAX, Connections
from signage.dialects import native
from signage.dialects.native import Reported, State
from signage.simulators.models import caps_for
from tests.signage.worlds import START_MS, World

READY = native.encode(State(state="ready", boot="ctl-1"))
LOST = native.encode(State(state="lost", boot="ctl-1"))


def births(*names: str) -> list[tuple[str, bytes]]:
    caps = [caps_for(name, "led-3x26", 5.0, 52.0, "", "ctl") for name in names]
    return [(native.board_topic(each.board, "caps"), native.encode(each)) for each in caps]


def presences(world: World) -> list[str]:
    return [board.presence for board in world.core.boards]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_state_of_a_controller_and_the_births_it_carries_come_in_any_order(order: tuple[int, ...]) -> None:
    world = World([])
    messages = [("signage/1/boards/ctl/state", READY), *births("x", "y")]
    for at in order:
        world.core.received(*messages[at], True)
    assert presences(world) == ["ready", "ready"]
    world.core.received("signage/1/boards/ctl/state", LOST, False)
    assert presences(world) == ["lost", "lost"]
    world.core.received(*births("z")[0], False)
    assert presences(world) == ["lost", "lost", "lost"], "one that is born later is on the same connection"


def test_after_a_restart_the_controller_speaks_for_the_boards_that_are_remembered() -> None:
    world = World([])
    for topic, payload in births("x", "y"):
        world.core.received(topic, payload, False)
    world.save()
    world.restart_engine()
    world.core.received("signage/1/boards/ctl/state", READY, True)
    assert presences(world) == ["ready", "ready"]


def test_a_board_that_carries_others_speaks_for_itself_too() -> None:
    world = World([])
    first = caps_for("ctl", "led-3x26", 5.0, 52.0, "")
    world.core.received("signage/1/boards/ctl/caps", native.encode(first), False)
    world.core.received(*births("x")[0], False)
    world.core.received("signage/1/boards/ctl/state", READY, False)
    assert presences(world) == ["ready", "ready"]


def test_a_board_that_moved_to_a_connection_of_its_own_is_not_lost_with_the_old() -> None:
    world = World([])
    world.core.received(*births("x")[0], False)
    world.core.received("signage/1/boards/ctl/state", READY, False)
    alone = caps_for("x", "led-3x26", 5.0, 52.0, "")
    world.core.received("signage/1/boards/x/caps", native.encode(alone), False)
    world.core.received("signage/1/boards/ctl/state", LOST, False)
    assert presences(world) == ["ready"]


def test_a_state_that_cannot_be_read_is_noted_on_the_board_it_would_speak_for() -> None:
    world = World([])
    world.core.received("signage/1/boards/ctl/state", b"\xc1", False)
    world.core.received(*births("x")[0], False)
    (board,) = world.core.boards
    assert any("invalid state" in problem for problem in board.problems)


def test_the_nameless_are_asked_ever_more_rarely() -> None:
    connections = Connections()
    connections.keep(native.Heard("who", "state"), READY, START_MS)
    asked = [at for at in range(0, 8 * NAMELESS_MS_MAX, NAMELESS_MS) if connections.to_ask(START_MS + at)]
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert asked[0] == NAMELESS_MS
    assert pauses[:3] == [2 * NAMELESS_MS, 4 * NAMELESS_MS, 8 * NAMELESS_MS]
    assert max(pauses) == NAMELESS_MS_MAX
    assert connections.born("who") == [("state", READY)]
    assert connections.to_ask(START_MS + 100 * NAMELESS_MS_MAX) == []


def test_who_is_not_known_has_bounded_room() -> None:
    connections = Connections()
    for at in range(EARLY_MAX + 10):
        connections.keep(native.Heard(f"b{at}", "state"), READY, START_MS)
    connections.keep(native.Heard("b0", "reported"), native.encode(Reported(board="b0")), START_MS)
    assert [leaf for leaf, _ in connections.born("b0")] == ["state", "reported"], "who has room, has it whole"
    assert connections.born(f"b{EARLY_MAX + 5}") == []
    connections.keep(native.Heard("b0", "reported"), b"[" * 1_000_000, START_MS)
    ((_, kept),) = connections.born("b0")
    assert len(kept) == BOARD_DOCUMENT_BYTES_MAX + 1, "so much that it is refused when its birth comes"


def test_one_that_names_itself_has_no_controller() -> None:
    connections, boards = Connections(), Boards()
    board, _ = boards.put(msgspec.structs.replace(caps_for("x", "led-3x26", 5.0, 52.0, ""), controller="x"))
    assert connections.carry(board) is None
    assert connections.carried("x") == []


def test_of_who_is_not_born_the_reason_is_told_until_it_is() -> None:
    world = World([])
    world.core.received("signage/1/boards/x/caps", b"\xc1", False)
    assert "Board x" in world.core.why_unknown("x")
    assert world.core.why_unknown("y") == ""
    world.core.received(*births("x")[0], False)
    assert world.core.why_unknown("x") == ""
    connections = Connections()
    for at in range(EARLY_MAX + 10):
        connections.misread(f"b{at}", "why")
    assert (connections.why_unborn("b0"), connections.why_unborn(f"b{EARLY_MAX + 5}")) == ("why", "")
