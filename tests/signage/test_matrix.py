"""A face: every target in its place, its own content beside, running lines in a window; and all of it is read right."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signage.arbitration import on_now
from signage.dialects.native import Item, Page, Target
from signage.layout import model_of
from signage.readback import reads
from signage.shadow import State
from signage.simulators.matrix import Matrix, face
from signage.simulators.models import MODELS
from tests.signage.worlds import START_MS, World, action

HOUR_MS = 3_600_000


def item(target: Target, *pages: str, priority: int = 20, number: int = 1, scroll: bool = False) -> Item:
    return Item(
        action=number, stage="start", priority=priority, target=target, behaviour="scroll" if scroll else "paged",
        pages=[Page(lines=page.split("|"), seconds=4.0) for page in pages], start_ms=0, end_ms=HOUR_MS,
    )  # fmt: skip


def test_a_face_is_all_that_stands_on_the_board() -> None:
    caps = MODELS["led-3x26"]
    bottom = item("bottom line", "Bel 112")
    over = item("over", "Vermist:|kind", "Bel", number=2)
    assert face(caps, (), 0) == ["12 Centraal", "8 Station Zuid", "5 Haven"]
    assert face(caps, (bottom,), 0) == ["12 Centraal", "8 Station Zuid", "Bel 112"]
    assert face(caps, (over,), 0) == ["Vermist:", "kind", "5 Haven"]
    assert face(caps, (over,), 4_000) == ["Bel", "", "5 Haven"]
    assert face(caps, (over, bottom), 0) == ["Vermist:", "kind", "Bel 112"]
    assert face(caps, (item("full", "Bel"),), 0) == ["Bel", "", ""]
    assert face(MODELS["matrix-208x56"], (bottom,), 0)[-2:] == ["5 Haven", "Bel 112"]
    running = item("full", "Vermist: meisje (8), rode jas", scroll=True)
    assert face(MODELS["ticker-1x24"], (running,), 21 * 200) == ["rode jas     Vermist: me"]


ITEMS = st.lists(
    st.builds(
        item, st.sampled_from(["full", "over", "bottom line"]),
        st.sampled_from(["Vermist: kind", "Bel 112", "Meisje|van 8"]), st.sampled_from(["Gezien?", "rode jas"]),
        priority=st.sampled_from([0, 20, 20, 30]), number=st.integers(1, 9), scroll=st.booleans(),
    ), max_size=4,
)  # fmt: skip


@given(ITEMS, st.integers(0, HOUR_MS - 1), st.sampled_from(list(MODELS)))
def test_what_a_face_shows_is_read_as_what_must_be_on(items: list[Item], at_ms: int, name: str) -> None:
    """The board's reading of the contract and the engine's, at any moment."""
    caps = msgspec.structs.replace(MODELS[name], lines=max(3, MODELS[name].lines))
    on = on_now(items, at_ms)
    if on:
        assert reads(on, face(caps, on, at_ms), model_of(caps)), (on, face(caps, on, at_ms))


@pytest.mark.parametrize("model", ["led-3x26", "line-4x90", "matrix-208x56", "tft-1920x1080"])
@pytest.mark.parametrize(("search", "information"), [("over", "bottom line"), ("bottom line", "over")])
def test_a_board_that_tells_its_real_lines_is_proven_and_not_chased(model: str, search: str, information: str) -> None:
    world = World(["well"], models=[model], overlay={"target_search": search, "target_information": information})
    display = world.displays[0]
    assert isinstance(display, Matrix)
    board = world.core.boards.get("b0")
    assert board is not None
    world.show(1, action("Uitkijken naar vrouw, 84 jaar.", end_ms=START_MS + HOUR_MS), lane=1)
    world.show(2, action("Brand: ramen dicht.", end_ms=START_MS + HOUR_MS), lane=2)
    version = board.version
    world.pass_time(300, 5)
    assert (board.state, board.version) == (State.AGREED, version), "it is not told again"
    assert [world.core.counts(number).shown for number in (1, 2)] == [1, 1]
    world.end(1)
    world.end(2)
    assert board.report is not None
    assert "12 Centraal" in board.report.lines, "its own content is back"
