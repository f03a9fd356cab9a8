"""Directories find what a look through all batches finds, and are read again only when batches came."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout import limits
from fanout.store.directory import Directories, Part, directory_of

ROWS = st.lists(st.integers(0, 40), unique=True, max_size=40)


@given(ROWS, st.integers(1, 7), st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30))
def test_it_finds_what_a_look_through_all_finds(rows: list[int], size: int, receipts: list[tuple[int, bool]]) -> None:
    batches = {number: rows[begin : begin + size] for number, begin in enumerate(range(0, len(rows), size), 5)}
    where = directory_of([(number, np.array(one, np.uint32).tobytes()) for number, one in batches.items()])
    asked = np.array([row for row, _ in receipts], np.uint32)
    found = where.find(asked, np.array([good for _, good in receipts], np.bool_))
    told = {(n, int(at), bool(good)) for n, places, goods in found for at, good in zip(places, goods, strict=True)}
    assert told == {(n, one.index(row), good) for row, good in receipts for n, one in batches.items() if row in one}
    assert where.has(asked) == {row for row, _ in receipts}.issubset(rows)
    assert [number for number, _, _ in found] == sorted({number for number, _, _ in told})


def test_it_is_read_again_only_when_batches_came_and_not_kept_for_ever() -> None:
    known, reads = Directories(), []

    def read(action: int) -> list[Part]:
        reads.append(action)
        return [(action, np.array([action], np.uint32).tobytes())]

    for action in (1, 1, 2, 1):
        assert known.current((action, 0, 3), 1, lambda action=action: read(action)).rows.tolist() == [action]  # type: ignore[misc]
    assert reads == [1, 2]
    held = known.current((1, 0, 3), 2, lambda: read(1))
    assert reads == [1, 2, 1]
    assert known.known((1, 0, 3)) is held
    assert known.known((9, 0, 3)) is None
    for action in range(3, 3 + limits.RECEIPT_DIRECTORIES_MAX):
        known.current((action, 0, 3), 1, lambda action=action: read(action))  # type: ignore[misc]
    known.current((2, 0, 3), 1, lambda: read(2))
    assert reads[-1] == 2
