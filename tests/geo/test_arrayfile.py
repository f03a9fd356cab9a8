"""A mapped file is this process's memory only as long as it holds on to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fanout.geo import arrayfile

BYTES = 32 * 1024 * 1024


def test_pages_that_were_let_go_are_no_memory_of_ours_and_as_good_as_before(tmp_path: Path) -> None:
    numbers = np.arange(BYTES // 8, dtype=np.int64)
    arrayfile.write(tmp_path / "numbers", "numbers", {"numbers": numbers}, meta={})
    arrays, _ = arrayfile.read(tmp_path / "numbers", "numbers", {"numbers": "<i8"}, verify=False)
    mapped = arrays["numbers"]
    before = arrayfile.resident_file_bytes()
    assert int(mapped.sum()) == int(numbers.sum())
    assert arrayfile.resident_file_bytes() - before >= BYTES // 2, "what was touched counts"
    arrayfile.let_go([mapped[10:], numbers, np.empty(0, np.int64)])
    assert arrayfile.resident_file_bytes() - before < BYTES // 2
    assert np.array_equal(mapped, numbers)
