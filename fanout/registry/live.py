"""Live positions: where people are now, in memory only.

Rules:

1. Nothing here is ever written, logged or handed out; a position is gone when it expires, when its owner is erased, or
   when the process ends.
2. A later position replaces an earlier one; one that arrives out of order is left out.
3. Readers get an immutable `LiveView`, a large base and a small delta as the registry's own view is; which of its
   positions are fresh enough is for the query to say.

Each batch makes a new delta (its size is what a batch costs); once that is an eighth of the base, the base is made
anew. Both happen in the thread of whoever brings positions: readers go on with the view they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from fanout.geo.index import PlaceIndex

NEVER: Final = np.iinfo(np.int64).min
_DELTA_ROWS_MIN: Final = 1 << 15
_DELTA_SHARE: Final = 8

_Array = TypeVar("_Array", bound=NDArray[Any])
Rows = NDArray[np.uint32]
Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LiveView:
    """What readers see.

    `base` is over rows; `base_at_ms` int64[n], when a row's position in it was measured, `NEVER` without one.
    `moved` uint8[m], not 0: look in the delta. `delta_rows` uint32[k] ascending, `delta_at_ms` int64[k]; `delta` is
    over their numbers 0 … k-1. What was measured more than `expires_ms` ago counts for nothing.
    """

    base: PlaceIndex
    base_at_ms: Times
    moved: NDArray[np.uint8]
    delta: PlaceIndex
    delta_rows: Rows
    delta_at_ms: Times
    expires_ms: int

    def __len__(self) -> int:
        return int((self.base_at_ms != NEVER).sum()) + len(self.delta)


class LivePositions:
    """The newest position of every row. Not thread-safe: the registry's lock guards it."""

    def __init__(self, expires_ms: int) -> None:
        self.expires_ms = expires_ms
        self._lon = np.zeros(0, np.int32)
        self._lat = np.zeros(0, np.int32)
        self._at_ms = np.full(0, NEVER, np.int64)
        self._moved = np.zeros(0, np.uint8)
        self._delta_rows = np.empty(0, np.uint32)
        self._base = PlaceIndex.build(self._lon, self._lat)
        self._base_at_ms = _sealed(np.empty(0, np.int64))

    def update(
        self, rows: NDArray[np.int64], lon: NDArray[np.int32], lat: NDArray[np.int32], at_ms: Times, now_ms: int
    ) -> LiveView:
        """Take positions in (rows may repeat) and return the view with them; a time ahead of `now_ms` counts as now."""
        if rows.size:
            self._grow(int(rows.max()) + 1)
        order = np.argsort(at_ms, kind="stable")
        rows, lon, lat, at_ms = rows[order], lon[order], lat[order], np.minimum(at_ms[order], now_ms)
        taken = (at_ms >= self._at_ms[rows]) & (at_ms > now_ms - self.expires_ms)
        rows = rows[taken]
        self._lon[rows], self._lat[rows], self._at_ms[rows] = lon[taken], lat[taken], at_ms[taken]
        return self._changed(rows, now_ms)

    def forget(self, rows: Rows) -> LiveView:
        """Drop the positions of rows, at once."""
        known = rows[rows < self._at_ms.size]
        self._at_ms[known] = NEVER
        return self._changed(known.astype(np.int64), None)

    def _changed(self, rows: NDArray[np.int64], now_ms: int | None) -> LiveView:
        self._move(rows)
        if now_ms is not None and self._delta_rows.size > max(_DELTA_ROWS_MIN, len(self._base) // _DELTA_SHARE):
            self._at_ms[self._at_ms <= now_ms - self.expires_ms] = NEVER
            there = np.flatnonzero(self._at_ms != NEVER).astype(np.uint32)
            self._base = PlaceIndex.build_ordered(self._lon[there], self._lat[there], there)[0]
            self._base_at_ms = _sealed(self._at_ms.copy())
            self._moved[self._delta_rows] = 0
            self._delta_rows = np.empty(0, np.uint32)
        at_ms = self._at_ms[self._delta_rows]
        there = np.flatnonzero(at_ms != NEVER).astype(np.uint32)
        here = self._delta_rows[there]
        delta = PlaceIndex.build_ordered(self._lon[here], self._lat[here], there)[0]
        return LiveView(
            self._base,
            self._base_at_ms,
            _sealed(self._moved.copy()),
            delta,
            _sealed(self._delta_rows.copy()),
            _sealed(at_ms),
            self.expires_ms,
        )

    def _move(self, rows: NDArray[np.int64]) -> None:
        """Put rows into the delta, whose rows ascend: two sorted runs, which a stable sort merges.

        Not `union1d`: on 100,000 rows its hashing takes a hundred times as long, and holds the interpreter meanwhile.
        """
        fresh = np.sort(rows[self._moved[rows] == 0].astype(np.uint32))
        fresh = fresh[np.append(True, fresh[1:] != fresh[:-1])[: fresh.size]]
        self._moved[fresh] = 1
        merged = np.concatenate([self._delta_rows, fresh])
        merged.sort(kind="stable")
        self._delta_rows = merged

    def _grow(self, size: int) -> None:
        more = size - self._at_ms.size
        if more > 0:
            more = max(more, self._at_ms.size // 4)
            self._lon = np.concatenate([self._lon, np.zeros(more, np.int32)])
            self._lat = np.concatenate([self._lat, np.zeros(more, np.int32)])
            self._at_ms = np.concatenate([self._at_ms, np.full(more, NEVER, np.int64)])
            self._moved = np.concatenate([self._moved, np.zeros(more, np.uint8)])


def _sealed(array: _Array) -> _Array:
    array.setflags(write=False)
    return array
