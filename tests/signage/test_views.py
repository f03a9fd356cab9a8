"""What an operator reads: what a board can, what it shall show and why, and why one lags, by name."""

from __future__ import annotations

import msgspec

from fanout.wire import BoardProof
from signage.simulators.models import caps_for
from signage.views import explained, page_of, view_of
from tests.signage.worlds import START_MS, World, action

HOUR_MS = 3_600_000


def reasons(world: World, number: int) -> dict[str, str]:
    return {row.board: row.reason for row in rows(world, number)}


def rows(world: World, number: int) -> list[BoardProof]:
    proof = world.core.proof(number)
    assert proof is not None
    boards = {board.id: board for board in world.core.boards}
    return explained(proof, world.core.showings[number].record, boards, world.now_ms)


def test_a_laggard_has_a_reason() -> None:
    world = World(["well", "mute", "well", "well", "liar"], models=["led-3x26"])
    world.leave(world.displays[2])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.pass_time(2)
    said = reasons(world, 1)
    assert said["b0"] == ""
    assert said["b1"].startswith("it has not reported yet")
    assert said["b2"] == "it has no contact"
    world.show(2, action("Een ander kind.", end_ms=START_MS + HOUR_MS), lane=1)
    assert reasons(world, 2)["b0"] == "emergency 1 is on"
    world.end(1)
    assert reasons(world, 1)["b2"] == "it has no contact"
    assert reasons(world, 1)["b0"] == ""
    assert all(row.ended_ms for row in rows(world, 1) if row.board in ("b0", "b3"))


def test_an_action_that_no_longer_fits_says_so() -> None:
    world = World(["well"], models=["led-3x26"])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.update(1, "Vermist meisje, rode jas. " * 40)
    assert "does not fit model led-3x26" in reasons(world, 1)["b0"]


def test_a_page_tells_what_a_board_can_and_why_it_shows_what_it_shows() -> None:
    world = World(["well"], models=["led-3x26"], areas=[["north"]])
    world.show(1, action("Uitkijken naar vrouw, 84 jaar.", end_ms=START_MS + HOUR_MS), lane=1)
    world.show(2, action(end_ms=START_MS + HOUR_MS))
    board = world.core.boards.get("b0")
    assert board is not None
    page = page_of(board, world.now_ms)
    assert page.capability is not None
    assert (page.capability.lines, page.capability.characters, page.capability.announced) == (3, 26, True)
    assert page.capability.areas == ["north"]
    assert [(item.action, item.standing, item.why) for item in page.items] == [
        (2, "on", "emergencies come first and alone"),
        (1, "outranked", "emergency 2 is on"),
    ]
    assert (page.desired, page.reported_version, page.lag_ms) == ([2, 1], page.desired_version, None)
    assert "meisje" in " ".join(page.shown)
    assert view_of(board, world.now_ms).capability is None, "a list of ten thousand carries the short form"


def test_a_board_without_a_place_says_that_no_area_reaches_it() -> None:
    world = World(["well"])
    board = world.core.boards.get("b0")
    assert board is not None
    assert view_of(board, world.now_ms).problems == []
    world.core.born(msgspec.structs.replace(caps_for("nowhere", "led-3x26", 5.0, 52.0, ""), lon=None, lat=None))
    board = world.core.boards.get("nowhere")
    assert board is not None
    assert "only actions for everyone" in view_of(board, world.now_ms).problems[0]
    world.core.boards.move(board, 5.0, 52.0)
    assert view_of(board, world.now_ms).problems == []


def test_lag_counts_from_when_it_began() -> None:
    world = World(["mute"])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.pass_time(7)
    board = world.core.boards.get("b0")
    assert board is not None
    assert view_of(board, world.now_ms).lag_ms == 7_000
    assert (
        msgspec.json.decode(msgspec.json.encode(view_of(board, world.now_ms)))["id"]
        == caps_for("b0", "led-3x26", 5.0, 52.0, "").board
    )
