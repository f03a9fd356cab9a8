"""Lines read back from boards: each target in its band, running lines through any window, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signage.dialects.native import Item, Page
from signage.layout import Model
from signage.readback import reads

LED = Model(name="led", kind="characters", lines=3, characters=20)
TICKER = Model(name="ticker", kind="characters", lines=1, characters=24)
MATRIX = Model(name="matrix", kind="pixels", width_px=208, height_px=56)
BUSES = ["12 Centraal   3 min", "8 Station    11 min", "Geen lift vandaag"]


def item(*pages: list[str], **more: Any) -> Item:
    fields = {"action": 1, "stage": "start", "priority": 20, "start_ms": 0, "end_ms": 100} | more
    return Item(pages=[Page(lines=lines, seconds=4.0) for lines in pages], **fields)


BOTTOM = item(["Bel 112 bij brand"], target="bottom line")
OVER = item(["Vermist:", "kind"], ["Bel", "112"], target="over", action=2)
SHORT = item(["Vermist: kind"], target="over", action=3)


@pytest.mark.parametrize(
    ("on", "lines", "model", "right"),
    [
        ([BOTTOM], [*BUSES[:2], "Bel 112 bij brand"], LED, True),
        ([BOTTOM], ["Bel 112 bij brand", *BUSES[:2]], LED, False),
        ([BOTTOM], BUSES, LED, False),
        ([BOTTOM], ["Bel 112 bij brand"], LED, True),  # our line only
        ([BOTTOM], [*BUSES, "Bel 112 bij brand"], MATRIX, True),
        ([BOTTOM], [*BUSES, "Bel 112 bij brand", "and more"], MATRIX, False),
        ([OVER], ["Bel", "112", BUSES[2]], LED, True),
        ([OVER], ["Bel", BUSES[0], BUSES[2]], LED, False),
        ([SHORT], ["  Vermist: kind  ", "", BUSES[2]], LED, True),
        ([SHORT], ["", "Vermist: kind", BUSES[2]], LED, True),  # centred in its band
        ([SHORT], ["Vermist: kind", BUSES[0], BUSES[2]], LED, False),  # the rest of its band is not its own
        ([SHORT], ["Vermist: kind", BUSES[2]], LED, True),  # blank lines left out
        ([OVER, BOTTOM], ["Vermist:", "kind", "Bel 112 bij brand"], LED, True),
        ([OVER, BOTTOM], ["Vermist:", "kind", BUSES[2]], LED, False),
        ([OVER, BOTTOM], [*BUSES[:2], "Bel 112 bij brand"], LED, False),
        ([OVER, BOTTOM], ["Vermist:", "kind"], LED, False),  # the bottom line is not proven
        ([OVER, SHORT, BOTTOM], ["Vermist: kind", "", "Bel 112 bij brand"], LED, True),  # they alternate
        ([OVER, BOTTOM], ["Bel", "112", "Bel 112 bij brand"], MATRIX, True),
        ([item(["one"], target="over"), item(["one"], target="bottom line")], ["one"], MATRIX, False),
        ([item(["one"])], ["one", "two"], LED, False),
        ([item(["one"]), item(["two"])], ["", "two", ""], LED, True),
        ([item(["one"], target="over", priority=0), BOTTOM], ["one", "", BUSES[2]], LED, True),
        ([item(["Gevonden:", "straße"])], ["GEVONDEN:", "STRASSE"], LED, True),  # a board without small letters
        ([OVER, BOTTOM], ["BEL", "112", "BEL 112 BIJ BRAND"], LED, True),
        ([item(["rode jas"], behaviour="scroll")], ["JAS   RODE J"], TICKER, True),
        ([item(["Gevonden:", "kind"])], ["GEVONDEN:", "MEISJE"], LED, False),
        ([], [], LED, False),
    ],
)
def test_each_target_is_read_in_its_band(on: list[Item], lines: list[str], model: Model, right: bool) -> None:
    assert reads(on, lines, model) is right


DUTCH, ENGLISH = "Vermist: meisje (8), rode jas, Assen.", "Missing: girl (8), red coat, Assen."
RUNNING = item([DUTCH], [ENGLISH], behaviour="scroll")


@given(st.integers(0, 200), st.integers(1, 40), st.integers(0, 24), st.booleans())
def test_a_running_line_is_read_through_any_window(at: int, width: int, gap: int, both: bool) -> None:
    turn = DUTCH + " " * gap + (ENGLISH + " " * gap if both else "")
    seen = (turn * 4)[at % len(turn) :][:width]
    assert reads([RUNNING], [seen], TICKER)


@pytest.mark.parametrize("seen", ["Vermist: jongen", "Assen. Gevonden", "12 Centraal 3 min", "Assen.Vermist: jo"])
def test_another_running_line_is_not(seen: str) -> None:
    assert not reads([RUNNING], [seen], TICKER)


def test_a_running_line_may_be_gone_for_a_moment() -> None:
    assert reads([RUNNING], [" "], TICKER)
    bottom = item([DUTCH], behaviour="scroll", target="bottom line")
    assert reads([bottom], [*BUSES[:2], ""], LED)
    assert reads([bottom], [*BUSES[:2], "rode jas, Assen. Ve"], LED)
    assert not reads([bottom], BUSES, LED)
    assert not reads([item(["still"])], [""], LED), "a page that stands is never gone"
