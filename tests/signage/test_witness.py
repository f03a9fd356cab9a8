"""What boards say, weighed: presence, rejections that name no version, and why a message is not on."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.wire import BoardProof
from signage.boards import Board
from signage.dialects import native
from signage.dialects.native import Ack, Reported, Shown, State
from signage.shadow import State as Stage
from signage.views import explained
from tests.signage.worlds import START_MS, World, action

HOUR_MS = 3_600_000
END_MS = START_MS + HOUR_MS


def the(world: World, name: str = "b0") -> Board:
    board = world.core.boards.get(name)
    assert board is not None
    return board


def says(world: World, leaf: str, message: Any) -> None:
    """A board speaks, beside its simulation."""
    world.core.received(f"signage/1/boards/b0/{leaf}", native.encode(message), False)


def row(world: World, number: int = 1) -> BoardProof:
    proof = world.core.proof(number)
    assert proof is not None
    boards = {board.id: board for board in world.core.boards}
    return explained(proof, world.core.showings[number].record, boards, world.now_ms)[0]


# --- rejections -------------------------------------------------------------------------------------------------------


def test_a_document_that_cannot_be_read_is_rejected_as_version_0_and_that_counts() -> None:
    """As the simulated board does it: by its checksum, before it knows any version."""
    world = World(["well"])
    (display,) = world.displays
    receive = display.receive
    display.receive = lambda topic, payload, now_ms: receive(topic, payload.replace(b"Vermist", b"Gevlogn"), now_ms)
    world.show(1, action(end_ms=END_MS))
    board = the(world)
    assert board.state is Stage.REJECTED
    assert any("rejected what was published last: " in problem for problem in board.problems)
    assert row(world).why.startswith("rejected: ")
    assert row(world).reason.startswith("it refused its document")
    display.receive = receive
    world.pass_time(world.settings.lag_s + 2)
    assert world.core.counts(1).shown == 1
    assert (row(world).why, row(world).reason) == ("", "")


def test_a_rejection_of_what_is_past_changes_nothing() -> None:
    world = World(["mute"])
    world.show(1, action(end_ms=END_MS))
    board = the(world)
    says(world, "ack", [Ack(version=board.version - 1, what="rejected", reason="too old")])
    assert (board.state, board.problems) == (Stage.WAITING, [])
    says(world, "ack", [Ack(version=board.version, what="rejected", reason="signature")])
    assert board.state is Stage.REJECTED


def test_a_board_that_agrees_stays_so_when_somebody_forges_a_document_it_rejects() -> None:
    world = World(["well"])
    world.show(1, action(end_ms=END_MS))
    says(world, "ack", [Ack(version=0, what="rejected", reason="no document")])
    assert the(world).state is Stage.AGREED
    assert the(world).problems == ["it rejected what was published last: no document"]


# --- reasons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "words"),
    [("power", "it lost its power"), ("local", "its own content has the board"), ("schedule", "its own schedule")],
)
def test_why_a_board_does_not_show_it_is_told(why: Any, words: str) -> None:
    world = World(["well"])
    world.show(1, action(end_ms=END_MS))
    shown_ms = world.now_ms
    world.pass_time(10)
    board, dark_ms = the(world), world.now_ms
    says(world, "reported", Reported(board="b0", version=board.version, why=why))
    assert board.state is Stage.DEVIANT
    assert (row(world).shown_ms, row(world).dark_ms, row(world).why) == (shown_ms, dark_ms, why)
    assert row(world).reason.startswith(f"it says it shows something else: {words}")
    assert f"it does not show action 1: {why}" in board.problems
    world.restart_engine()
    assert row(world).why == "", "what the broker keeps of it is the board's own last report, which shows it"


def test_why_it_ended_is_kept_and_survives_a_restart() -> None:
    world = World(["well"])
    world.show(1, action(end_ms=END_MS))
    board = the(world)
    says(world, "ack", [Ack(version=board.version, what="ended", action=1, reason="switched off by hand")])
    assert row(world).dark_ms == world.now_ms
    assert row(world).ended_ms is None, "it is to be shown still"
    assert row(world).why == "switched off by hand"
    assert "it does not show action 1: switched off by hand" in board.problems
    world.end(1)
    assert (row(world).ended_ms is not None, row(world).why) == (True, "desired")
    world.save()
    world.restart_engine()
    assert (row(world).ended_ms is not None, row(world).why) == (True, "desired")


def test_its_own_words_outlast_the_report_that_follows_them() -> None:
    world = World(["well"])
    world.show(1, action(end_ms=END_MS))
    board = the(world)
    says(world, "ack", [Ack(version=board.version, what="ended", action=1, reason="switched off by hand")])
    says(world, "reported", Reported(board="b0", version=board.version, why="local"))
    assert row(world).why == "switched off by hand"
    assert row(world).reason == "it says it shows something else: switched off by hand"
    says(world, "ack", [Ack(version=board.version, what="ended", action=1, reason="power")])
    says(world, "reported", Reported(board="b0", version=board.version, why="comm_loss"))
    assert row(world).why == "comm_loss", "words of the contract give way"


def test_an_end_by_the_clock_has_its_reason() -> None:
    world = World(["mute"])
    world.show(1, action(end_ms=START_MS + 10_000))
    world.pass_time(12)
    board = the(world)
    says(world, "ack", [Ack(version=board.version, what="ended", action=1, reason="ended")])
    says(world, "reported", Reported(board="b0", version=board.version, why="local"))
    assert (row(world).why, row(world).dark_ms, board.problems) == ("ended", None, [])


def test_what_must_not_be_on_is_not_dark() -> None:
    """An emergency overrides it; the simulated board says so with `ended`."""
    world = World(["well"])
    world.show(1, action(end_ms=END_MS), lane=1)
    world.show(2, action(end_ms=END_MS), lane=0)
    assert row(world).dark_ms is None
    assert the(world).problems == []
    world.end(2)
    assert (row(world).why, row(world).dark_ms) == ("", None)


def test_an_update_is_no_end() -> None:
    world = World(["well"])
    world.show(1, action(end_ms=END_MS))
    world.update(1, "Nieuw: blauwe jas.")
    assert (row(world).dark_ms, row(world).reason) == (None, "")


def test_other_lines_than_ours_are_dark_too() -> None:
    world = World(["well"], models=["led-3x26"])
    world.show(1, action(end_ms=END_MS))
    report = Reported(board="b0", version=the(world).version, shown=[Shown(action=1)], lines=["Bus 12", "", ""])
    says(world, "reported", report)
    assert row(world).dark_ms == world.now_ms
    assert row(world).reason.startswith("it says it shows something else")
    world._publish(world.displays[0]._report(world.now_ms))
    assert row(world).dark_ms is None


# --- presence ---------------------------------------------------------------------------------------------------------


def test_a_will_with_the_boot_of_a_living_board_is_made_good_by_its_next_word() -> None:
    """A maker that keeps one boot id for two connections: the will of the first comes after the second began."""
    world = World(["well"])
    board = the(world)
    lost = State(state="lost", boot=board.boot)
    for again in [
        ("state", State(state="ready", boot=board.boot)),
        ("reported", Reported(board="b0")),
        ("ack", [Ack(version=0, what="received")]),
    ]:
        says(world, "state", lost)
        assert board.presence == "lost"
        says(world, *again)
        assert board.presence == "ready", again


def test_each_connection_of_a_simulated_board_has_a_boot_of_its_own() -> None:
    world = World(["well"])
    (display,) = world.displays
    topic, old = display.will()
    display.cut(world.now_ms)
    world.join(display)
    world.core.received(topic, old, False)
    assert the(world).presence == "ready"


def test_nobody_who_listens_is_told() -> None:
    world = World(["well"])
    (display,) = world.displays
    display.hears = lambda topic: False  # it forgot to subscribe
    world.show(1, action(end_ms=END_MS))
    assert row(world).reason == "the broker has its document, and nobody listens on its topic"
    assert the(world).problems == [], "a broker that has just come back has its boards a moment later"
    world.pass_time(world.settings.lag_s + 2)
    assert any("nobody listens on its desired topic" in problem for problem in the(world).problems)
    del display.hears
    world.pass_time(2 * world.settings.lag_s + 2)
    assert (row(world).reason, world.core.counts(1).shown) == ("", 1)
