"""Columns, alphabets and deadlines."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.protocol import alphabet, column, deadline_s, well_formed

rows = st.lists(st.binary(max_size=12), max_size=40)


@given(rows, st.data())
def test_take_is_picking(values: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=60)) if values else []
    taken = column(values).take(np.array(index, np.intp))
    assert taken.rows() == [values[i] for i in index]


@given(rows)
def test_well_formed_is_the_obvious(values: list[bytes]) -> None:
    letters = b"abcdef0123456789"
    expected = [2 <= len(value) <= 8 and all(byte in letters for byte in value) for value in values]
    assert well_formed(column(values), alphabet(letters), least=2, most=8).tolist() == expected


def test_a_deadline_is_never_negative_nor_beyond_the_platform() -> None:
    assert deadline_s(1_999, 0, most_s=10) == 1
    assert deadline_s(0, 5_000, most_s=10) == 0
    assert deadline_s(10**12, 0, most_s=10) == 10
