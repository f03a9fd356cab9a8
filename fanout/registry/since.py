"""When each row's addresses were registered last, which is what news of dead addresses is compared with.

One number a row: epoch milliseconds of the last time somebody was put in with these addresses, 0 where that is not
known (an import, a snapshot older than this). It is a column of the snapshot, mapped, and over it lies what came since,
so that it costs no memory to speak of; nobody but the registry's writer reads it, and that only for rows in the news.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray


class Since:
    """The column of one registry. Methods are called under the registry's lock."""

    def __init__(self, kept_ms: NDArray[np.int64] | None = None) -> None:
        self._kept_ms = np.zeros(0, np.int64) if kept_ms is None else kept_ms
        self._later: dict[int, int] = {}

    def note(self, rows: Iterable[int], at_ms: int) -> None:
        """These rows were registered now."""
        self._later.update(dict.fromkeys(rows, at_ms))

    def registered_ms(self, row: int) -> int:
        """When a row was registered last, 0 if that is not known."""
        if (found := self._later.get(row)) is not None:
            return found
        return int(self._kept_ms[row]) if row < len(self._kept_ms) else 0

    def later(self) -> dict[int, int]:
        """What came since the snapshot, as it is now."""
        return self._later.copy()

    def column(self, rows: int, later: Mapping[int, int]) -> NDArray[np.int64]:
        """int64[rows]: the column of the next snapshot, with what `later` gave."""
        whole = np.zeros(rows, np.int64)
        whole[: len(self._kept_ms)] = self._kept_ms[:rows]
        if later:
            whole[np.fromiter(later, np.int64, len(later))] = np.fromiter(later.values(), np.int64, len(later))
        return whole

    def stand_on(self, kept_ms: NDArray[np.int64], later: Mapping[int, int]) -> None:
        """A snapshot with `later` in it is there: what came after stays over it."""
        self._kept_ms = kept_ms
        self._later = {row: at_ms for row, at_ms in self._later.items() if later.get(row) != at_ms}
