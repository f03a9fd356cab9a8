"""Live positions: where people are now, in memory only.

Rules:

1. Nothing here is ever written, logged or handed out; a position is gone when it expires, when its owner is erased, or
   when the process ends.
2. A later position replaces an earlier one; one that arrives out of order is left out.
3. Readers get an immutable `LiveView`; which of its positions are fresh enough is for the query to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.geo.index import PlaceIndex

AHEAD_MS: Final = 60_000  # a phone's clock may be this much ahead of ours
NEVER: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class LiveView:
    """What readers see: `index` with the registry's rows; `at_ms` int64[positions] in the index's order."""

    index: PlaceIndex
    at_ms: NDArray[np.int64]


class LivePositions:
    """The newest position of every row. Not thread-safe: the registry's lock guards it."""

    def __init__(self, expires_ms: int) -> None:
        self.expires_ms = expires_ms
        self._lon = np.zeros(0, np.int32)
        self._lat = np.zeros(0, np.int32)
        self._at_ms = np.full(0, NEVER, np.int64)

    def update(
        self, rows: NDArray[np.int64], lon: NDArray[np.int32], lat: NDArray[np.int32], at_ms: NDArray[np.int64],
        now_ms: int,
    ) -> LiveView:  # fmt: skip
        """Take positions in (rows may repeat) and return the view with them; those that are too old are left out."""
        if rows.size:
            self._grow(int(rows.max()) + 1)
        order = np.argsort(at_ms, kind="stable")
        rows, lon, lat, at_ms = rows[order], lon[order], lat[order], np.minimum(at_ms[order], now_ms)
        newer = at_ms >= self._at_ms[rows]
        rows = rows[newer]
        self._lon[rows], self._lat[rows], self._at_ms[rows] = lon[newer], lat[newer], at_ms[newer]
        self._at_ms[self._at_ms < now_ms - self.expires_ms] = NEVER
        return self._view()

    def forget(self, rows: NDArray[np.uint32]) -> LiveView:
        """Drop the positions of rows, at once."""
        self._at_ms[rows[rows < self._at_ms.size]] = NEVER
        return self._view()

    def _view(self) -> LiveView:
        rows = np.flatnonzero(self._at_ms != NEVER).astype(np.uint32)
        index, order = PlaceIndex.build_ordered(self._lon[rows], self._lat[rows], rows)
        return LiveView(index, self._at_ms[rows][order])

    def _grow(self, size: int) -> None:
        more = size - self._at_ms.size
        if more > 0:
            self._lon = np.concatenate([self._lon, np.zeros(more, np.int32)])
            self._lat = np.concatenate([self._lat, np.zeros(more, np.int32)])
            self._at_ms = np.concatenate([self._at_ms, np.full(more, NEVER, np.int64)])
