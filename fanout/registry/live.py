"""Live positions: where people are now, in memory only.

Rules:

1. Nothing here is ever written, logged or handed out; a position is gone when it expires, when its owner is erased, or
   when the process ends.
2. A later position replaces an earlier one; one that arrives out of order is left out.
3. Readers get an immutable `LiveView`; which of its positions are fresh enough is for the query to say.

A view is three levels, each an index: all, those moved since that was made, and those moved since then. A batch makes
the last anew, which is small, and a level is merged into the one above it when it is an eighth of it: so what a
position costs grows with the logarithm of how many there are, not with their number. All of it happens in the thread of
whoever brings positions, nearly all of it without the interpreter; readers go on with the view they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fanout.geo.index import PlaceIndex
from fanout.registry import kernels

NEVER: Final = np.iinfo(np.int64).min
BASE: Final = 0
MOVED: Final = 1
FRESH: Final = 2
_LEAST: Final = (1 << 15, 1 << 12)  # rows of the second and the third level that are always fine
_SHARE: Final = 8

_Array = TypeVar("_Array", bound=NDArray[Any])
Rows = NDArray[np.uint32]
Times = NDArray[np.int64]


class Level(NamedTuple):
    """Some rows' positions: `rows` uint32[k] ascending, `at_ms` int64[k], when each was measured, `NEVER` for those
    without one; `places` is over their numbers 0 … k-1, and `since_ms` int64[len(places)] is the times in its order."""

    places: PlaceIndex
    rows: Rows
    at_ms: Times
    since_ms: Times


@dataclass(frozen=True, slots=True)
class LiveView:
    """What readers see.

    `base` is over rows; `base_at_ms` int64[n], when a row's position in it was measured, `NEVER` without one;
    `base_since_ms` int64[len(base)], the same in the index's order, as neighbours are asked for together. `level`
    uint8[m]: which of the three has the row's position, `BASE`, `MOVED` or `FRESH`; what another has of it is out of
    date. What was measured more than `expires_ms` ago counts for nothing.
    """

    base: PlaceIndex
    base_at_ms: Times
    base_since_ms: Times
    level: NDArray[np.uint8]
    moved: Level
    fresh: Level
    expires_ms: int

    def __len__(self) -> int:
        base = (self.level[: self.base_at_ms.size] == BASE) & (self.base_at_ms != NEVER)
        moved = (self.level[self.moved.rows] == MOVED) & (self.moved.at_ms != NEVER)
        return int(base.sum() + moved.sum()) + len(self.fresh.places)


class LivePositions:
    """The newest position of every row. Not thread-safe: the registry's lock guards it."""

    def __init__(self, expires_ms: int) -> None:
        self.expires_ms = expires_ms
        self._lon = np.zeros(0, np.int32)
        self._lat = np.zeros(0, np.int32)
        self._at_ms = np.full(0, NEVER, np.int64)
        self._level = np.zeros(0, np.uint8)
        self._base = PlaceIndex.build(self._lon, self._lat)
        self._base_at_ms = self._base_since_ms = _sealed(np.empty(0, np.int64))
        self._moved = self._level_of(np.empty(0, np.uint32))
        self._fresh = np.empty(0, np.uint32)

    def update(
        self, rows: NDArray[np.int64], lon: NDArray[np.int32], lat: NDArray[np.int32], at_ms: Times, now_ms: int
    ) -> LiveView:
        """Take positions in (rows may repeat) and return the view with them; a time ahead of `now_ms` counts as now."""
        if rows.size:
            self._grow(int(rows.max()) + 1)
        new = np.empty(rows.size, np.uint32)
        count = kernels.take_positions(
            rows, lon, lat, at_ms, now_ms, now_ms - self.expires_ms,
            self._lon, self._lat, self._at_ms, self._level, FRESH, new,
        )  # fmt: skip
        self._freshen(new[:count])
        if self._fresh.size > max(_LEAST[1], self._moved.rows.size // _SHARE):
            self._merge()
            if self._moved.rows.size > max(_LEAST[0], len(self._base) // _SHARE):
                self._rebuild(now_ms)
        return self._view()

    def forget(self, rows: Rows) -> LiveView:
        """Drop the positions of rows, at once."""
        known = rows[rows < self._at_ms.size]
        self._at_ms[known] = NEVER
        new = known[self._level[known] != FRESH]
        self._level[new] = FRESH
        self._freshen(new)
        return self._view()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _view(self) -> LiveView:
        level = _sealed(self._level.copy())
        fresh = self._level_of(self._fresh)
        return LiveView(self._base, self._base_at_ms, self._base_since_ms, level, self._moved, fresh, self.expires_ms)

    def _level_of(self, rows: Rows) -> Level:
        at_ms = self._at_ms[rows]
        there = np.flatnonzero(at_ms != NEVER).astype(np.uint32)
        here = rows[there]
        index = PlaceIndex.build_ordered(self._lon[here], self._lat[here], there)[0]
        return Level(index, _sealed(rows), _sealed(at_ms), _sealed(at_ms[index.rows]))

    def _freshen(self, new: Rows) -> None:
        self._fresh = _joined(self._fresh, np.sort(new))

    def _merge(self) -> None:
        """Make the second level of it and the third."""
        rows = _joined(self._moved.rows[self._level[self._moved.rows] == MOVED], self._fresh)
        self._level[self._fresh] = MOVED
        self._moved, self._fresh = self._level_of(rows), np.empty(0, np.uint32)

    def _rebuild(self, now_ms: int) -> None:
        """Make the first level of all there is, without what has expired."""
        self._at_ms[self._at_ms <= now_ms - self.expires_ms] = NEVER
        there = np.flatnonzero(self._at_ms != NEVER).astype(np.uint32)
        self._base = PlaceIndex.build_ordered(self._lon[there], self._lat[there], there)[0]
        self._base_at_ms = _sealed(self._at_ms.copy())
        self._base_since_ms = _sealed(self._at_ms[self._base.rows])
        self._level[:] = BASE
        self._moved, self._fresh = self._level_of(np.empty(0, np.uint32)), np.empty(0, np.uint32)

    def _grow(self, size: int) -> None:
        more = size - self._at_ms.size
        if more > 0:
            more = max(more, self._at_ms.size // 4)
            self._lon = np.concatenate([self._lon, np.zeros(more, np.int32)])
            self._lat = np.concatenate([self._lat, np.zeros(more, np.int32)])
            self._at_ms = np.concatenate([self._at_ms, np.full(more, NEVER, np.int64)])
            self._level = np.concatenate([self._level, np.zeros(more, np.uint8)])


def _joined(one: Rows, other: Rows) -> Rows:
    """Rows of both, ascending: two sorted runs, which a stable sort merges; no row is in both.

    Not `union1d`: on 100,000 rows its hashing takes a hundred times as long, and holds the interpreter meanwhile.
    """
    merged = np.concatenate([one, other])
    merged.sort(kind="stable")
    return merged


def _sealed(array: _Array) -> _Array:
    array.setflags(write=False)
    return array
