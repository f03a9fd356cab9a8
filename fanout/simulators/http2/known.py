"""What a worker has read before: heads of requests, and bodies but for their token, as arrays that kernels look things
up in.

Both are bounded. When one is full it forgets everything and begins anew, which costs each text one reading more; a body
carries a time to live, so there is a new form for each batch and second.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.simulators.http2 import kernels as k

TEXTS_MAX: Final = 4_096
BYTES_MAX: Final = 4 * 1024 * 1024

Arrays = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]


class Texts:
    """Known texts, numbered from 0; `arrays` is what kernels get: index, spans, bytes."""

    def __init__(self) -> None:
        self._index = np.zeros(4 * TEXTS_MAX, np.int64)
        self._spans = np.zeros((TEXTS_MAX, 4), np.int64)
        self._bytes = np.zeros(BYTES_MAX, np.uint8)
        self.count = self._filled = 0
        self.arrays: Final[Arrays] = (self._index, self._spans, self._bytes)

    def number(self, text: bytes, kind: int) -> int | None:
        """The number of a text of this kind (0: of any), None if it is not known."""
        found = int(k.find(*self.arrays, np.frombuffer(text, np.uint8), 0, len(text), kind))
        return found if found >= 0 else None

    def fits(self, text: bytes) -> bool:
        """Whether there is room for it."""
        return self.count < TEXTS_MAX and self._filled + len(text) <= BYTES_MAX

    def add(self, text: bytes, kind: int) -> int:
        """Know a text that fits and is not known yet; returns its number."""
        assert self.fits(text)
        mark = int(k.digest(np.frombuffer(text, np.uint8), 0, len(text)))
        end = self._filled + len(text)
        self._bytes[self._filled : end] = np.frombuffer(text, np.uint8)
        self._spans[self.count] = self._filled, end, kind, mark
        place = mark & (len(self._index) - 1)
        while self._index[place]:
            place = (place + 1) & (len(self._index) - 1)
        self.count, self._filled = self.count + 1, end
        self._index[place] = self.count
        return self.count - 1

    def clear(self) -> None:
        """Forget all; numbers begin anew."""
        self._index[:] = 0
        self.count = self._filled = 0
