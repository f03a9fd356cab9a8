"""Only forwards, only the certain, each once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout.dispatch.fallback import MOVABLE, NOWHERE, failed_now, later, targets
from fanout.store.states import Reason, State


def test_only_forwards() -> None:
    assert later([0, 3, 4], 0) == [3, 4]
    assert later([0, 3, 4], 4) == []
    assert later([0, 3], 1) == []


def test_only_what_failed_for_certain_and_just_now() -> None:
    cases = [(before, after, reason) for before in State for after in State for reason in Reason]
    before, after, reason = (np.array(column, np.uint8) for column in zip(*cases, strict=True))
    found = {cases[i] for i in failed_now(before, after, reason).tolist()}
    assert found == {(b, a, r) for b, a, r in cases if a is State.FAILED and b is not State.FAILED and r in MOVABLE}
    assert Reason.PAYLOAD not in MOVABLE


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=30))
def test_the_first_that_reaches(has: list[list[bool]]) -> None:
    table = np.array(has, np.bool_).reshape(-1, 3)
    reached = {channel: table[:, place] for place, channel in enumerate((3, 1, 4))}
    expected = [next((c for c, yes in zip((3, 1, 4), row, strict=True) if yes), NOWHERE) for row in has]
    assert targets(len(has), reached).tolist() == expected
