"""What is free goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fanout.memory import give_back


def own_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) / 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_memory_between_things_that_stay_is_given_back() -> None:
    # each too small for a mapping of its own, so that they lie side by side in one heap
    everything = [np.ones(100_000, np.uint8) for _ in range(1_000)]
    kept = everything[::10]
    del everything
    before_mb = own_mb()
    give_back()
    assert before_mb - own_mb() > 50
    assert all(array.all() for array in kept)


def test_what_lives_when_a_process_is_ready_is_not_looked_at_again() -> None:
    program = """
import gc
from fanout import memory
kept = []
memory.settle()
print(any(kept is one for one in gc.get_objects()), gc.get_threshold() == memory.COLLECT_EVERY)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["False", "True"]
