"""Strings that stay in their file are those that a packed column has, in any order, and map nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.geo import arrayfile
from fanout.registry import packed
from fanout.registry.filed import GAP_BYTES, Filed


def column_of(folder: Path, values: list[bytes]) -> Filed:
    given = packed.of_bytes(values)
    arrayfile.write(folder / "column", "column", {"before": np.zeros(99, np.uint8), "data": given.data}, meta={})
    return Filed(arrayfile.section(folder / "column", "column", "data", "|u1"), given.offsets)


@given(
    lengths=st.lists(st.sampled_from([0, 1, 3, GAP_BYTES - 1, GAP_BYTES, GAP_BYTES + 1]), min_size=1, max_size=12),
    data=st.data(),
)
def test_takes_what_a_packed_column_takes(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    values = [bytes([65 + number]) * length for number, length in enumerate(lengths)]
    filed = column_of(tmp_path_factory.mktemp("filed"), values)
    rows = np.array(data.draw(st.lists(st.integers(-1, len(values) - 1), max_size=20)), np.int64)
    assert filed.rows == len(values)
    assert filed.take(rows).texts() == packed.of_bytes(values).take(rows).texts()


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    filed = column_of(tmp_path, [b"a" * 50, b"b" * 50])
    with (tmp_path / "column").open("r+b") as file:
        file.truncate(arrayfile.HEADER_BYTES + 150)
    with pytest.raises(OSError, match="shorter"):
        filed.take(np.array([0, 1]))


def test_reading_all_of_it_makes_no_file_ours(tmp_path: Path) -> None:
    filed = column_of(tmp_path, [b"x" * 64] * 500_000)
    filed.take(np.arange(3))
    before = resident_file_kb()
    for start in range(0, filed.rows, 50_000):
        assert filed.take(np.arange(start, start + 50_000)[::-1]).data.size == 50_000 * 64
    assert resident_file_kb() - before < filed.rows * 64 // 1024 // 4, "a quarter of the file"


def resident_file_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))
