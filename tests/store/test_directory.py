"""Directories find what a look through all batches finds, and are read again only when batches came."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout import limits
from fanout.store.directory import Directories, Directory, Part, directory_of

ROWS = st.lists(st.integers(0, 40), unique=True, max_size=40)


@given(ROWS, st.integers(1, 7), st.lists(st.integers(0, 50), max_size=30))
def test_it_finds_what_a_look_through_all_finds(rows: list[int], size: int, wanted: list[int]) -> None:
    batches = {number: rows[begin : begin + size] for number, begin in enumerate(range(0, len(rows), size), 5)}
    where = directory_of([(number, np.array(one, np.uint32).tobytes()) for number, one in batches.items()])
    asked = np.array(wanted, np.uint32)
    known, spot = where.find(asked)
    told = [(wanted[at], int(where.batch[one]), int(where.place[one])) for at, one in zip(known, spot, strict=True)]
    assert told == [(row, n, one.index(row)) for row in wanted for n, one in batches.items() if row in one]
    assert where.has(asked) == set(wanted).issubset(rows)


def test_it_is_read_again_only_when_batches_came_and_not_kept_for_ever() -> None:
    known, reads = Directories(), []

    def held(action: int, *rows: int, batches: int = 1) -> Directory:
        def read() -> list[Part]:
            reads.append(action)
            return [(action, np.array([action], np.uint32).tobytes())] * batches

        return known.current((action, 0, 3), np.array(rows, np.uint32), lambda: batches, read)

    for action in (1, 1, 2, 1):
        assert held(action, action).rows.tolist() == [action]
    assert held(1, 77).rows.tolist() == [1]
    assert reads == [1, 2], "a row that is nobody's, and no batch came"
    held(1, 1, batches=2)
    assert reads == [1, 2], "a row that is known"
    held(1, 77, batches=2)
    assert reads == [1, 2, 1]
    for action in range(3, 3 + limits.RECEIPT_DIRECTORIES_MAX):
        held(action, action)
    held(2, 2)
    assert reads[-1] == 2
