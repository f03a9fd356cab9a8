"""Live positions in three levels are those of a dict, however they were moved, merged, forgotten or expired."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.registry import live
from fanout.registry.live import BASE, FRESH, MOVED, NEVER, LivePositions, LiveView

EXPIRES_MS = 1_000


def held(view: LiveView) -> dict[int, tuple[int, int, int]]:
    """Row to longitude, latitude and time of every position that is not out of date; each row in one level only."""
    found: dict[int, tuple[int, int, int]] = {}
    levels = (
        (BASE, view.base, np.arange(view.base_at_ms.size), view.base_at_ms, view.base_since_ms),
        (MOVED, *view.moved),
        (FRESH, *view.fresh),
    )
    for level, places, rows, at_ms, since_ms in levels:
        assert (since_ms == at_ms[places.rows]).all()
        for number, lon, lat in zip(places.rows.tolist(), places.lon.tolist(), places.lat.tolist(), strict=True):
            row = int(rows[number])
            if view.level[row] == level and at_ms[number] != NEVER:
                assert row not in found
                found[row] = (lon, lat, int(at_ms[number]))
    return found


@settings(max_examples=500)
@given(st.integers(0, 2**32 - 1))
def test_positions_are_those_of_a_dict(seed: int) -> None:
    random = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "_LEAST", (int(random.integers(2, 30)), int(random.integers(1, 8))))
        positions, naive, now_ms = LivePositions(EXPIRES_MS), dict[int, tuple[int, int, int]](), 10_000
        for _ in range(random.integers(1, 25)):
            now_ms += int(random.integers(0, 200))
            if random.random() < 0.2:
                gone = random.choice(60, 3, replace=False).astype(np.uint32)
                view = positions.forget(gone)
                naive = {row: spot for row, spot in naive.items() if row not in gone}
            else:
                n = int(random.integers(0, 12))
                rows, at_ms = random.integers(0, 50, n), now_ms - random.integers(-300, 1_500, n)
                lon, lat = (random.integers(-9, 9, n).astype(np.int32) for _ in range(2))
                view = positions.update(rows, lon, lat, at_ms, now_ms)
                for row, x, y, at in zip(rows.tolist(), lon.tolist(), lat.tolist(), at_ms.tolist(), strict=True):
                    at = min(at, now_ms)
                    if at > now_ms - EXPIRES_MS and at >= naive.get(row, (0, 0, 0))[2]:
                        naive[row] = (x, y, at)
            known = held(view)
            assert len(view) == len(known)
            assert naive.items() >= known.items(), "nothing but what was taken in"
            left_out = naive.keys() - known.keys()
            assert all(naive[row][2] <= now_ms - EXPIRES_MS for row in left_out), "nothing is lost before it expires"


def test_a_view_stays_as_it_was() -> None:
    positions = LivePositions(EXPIRES_MS)
    spots = np.arange(5, dtype=np.int32)
    before = positions.update(np.arange(5), spots, spots, np.full(5, 7), 7)
    known = held(before)
    positions.update(np.arange(5), spots + 1, spots, np.full(5, 8), 8)
    positions.forget(np.array([0], np.uint32))
    assert held(before) == known
