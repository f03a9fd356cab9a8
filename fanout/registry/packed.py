"""Strings of many rows as two arrays: the bytes end to end, and where each begins.

A million tokens as Python strings take 200 MB and a second to touch; packed they take what they are, can be mapped from
a file, and go into a kernel. `data` uint8[sum of lengths], `offsets` int64[n + 1]; an empty string stands for "none".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.registry import kernels

_CHUNK_ROWS = 1 << 16


class Packed(NamedTuple):
    """n strings: `data` uint8[], `offsets` int64[n + 1]."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many strings."""
        return int(self.offsets.size) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64[n], bytes of each."""
        return np.diff(self.offsets)

    def text(self, row: int) -> str:
        """One string."""
        return bytes(self.data[self.offsets[row] : self.offsets[row + 1]]).decode()

    def texts(self) -> list[str]:
        """All of them."""
        whole, ends = self.data.tobytes(), self.offsets.tolist()
        return [whole[start:end].decode() for start, end in pairwise(ends)]

    def take(self, rows: NDArray[Any]) -> Packed:
        """The strings of these rows, in this order; a row below 0 gives an empty one."""
        wanted = rows.astype(np.int64)
        offsets = np.zeros(wanted.size + 1, np.int64)
        if self.rows:
            lengths = np.where(wanted < 0, 0, self.offsets[wanted + 1] - self.offsets[wanted])
            np.cumsum(lengths, out=offsets[1:])
        data = np.empty(int(offsets[-1]), np.uint8)
        kernels.gather(self.data, self.offsets, wanted, offsets, data)
        return pack(data, offsets)


def pack(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Packed:
    """A column of these arrays, read-only from now on, so that a kernel is compiled for one kind of array."""
    data.setflags(write=False)
    offsets.setflags(write=False)
    return Packed(data, offsets)


def empty(rows: int = 0) -> Packed:
    """So many empty strings."""
    return pack(np.empty(0, np.uint8), np.zeros(rows + 1, np.int64))


def of_bytes(values: Sequence[bytes]) -> Packed:
    """Pack byte strings."""
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
    return pack(np.frombuffer(b"".join(values), np.uint8), offsets)


def of_texts(values: Sequence[str]) -> Packed:
    """Pack strings as UTF-8."""
    return of_bytes([value.encode() for value in values])


def of_arrow(column: Any) -> Packed:
    """Pack an Arrow array of strings (no chunks); null becomes empty."""
    import pyarrow as pa

    wide = column.cast(pa.large_string()).fill_null("")
    _, offsets, data = wide.buffers()
    starts = np.frombuffer(offsets, np.int64)[wide.offset : wide.offset + len(wide) + 1]
    if data is None:
        return empty(len(wide))
    return pack(np.frombuffer(data, np.uint8)[starts[0] : starts[-1]], starts - starts[0])


def concatenate(parts: Sequence[Packed]) -> Packed:
    """One after the other."""
    offsets = [np.zeros(1, np.int64)]
    total = 0
    for part in parts:
        offsets.append(part.offsets[1:] - part.offsets[0] + total)
        total += int(part.offsets[-1] - part.offsets[0])
    data = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
    return pack(np.concatenate(data) if data else np.empty(0, np.uint8), np.concatenate(offsets))


class Overlay:
    """`base` with some rows replaced and `rows` in all; made piece by piece, so that it never stands in memory.

    `changed` uint32[m] ascending; `values` the m strings that stand there now.
    """

    def __init__(self, base: Packed, rows: int, changed: NDArray[np.uint32], values: Packed) -> None:
        self._base, self._values = base, values
        self._pick = np.full(rows, -1, np.int64)
        self._pick[changed] = np.arange(changed.size)
        lengths = np.zeros(rows, np.int64)
        lengths[: base.rows] = base.lengths
        lengths[changed] = values.lengths
        self.offsets = np.zeros(rows + 1, np.int64)
        np.cumsum(lengths, out=self.offsets[1:])

    def pieces(self) -> Iterator[NDArray[np.uint8]]:
        """The bytes, in order."""
        for start in range(0, self._pick.size, _CHUNK_ROWS):
            end = min(start + _CHUNK_ROWS, self._pick.size)
            out = np.empty(int(self.offsets[end] - self.offsets[start]), np.uint8)
            kernels.overlay(
                self._base.data, self._base.offsets, self._values.data, self._values.offsets,
                self._pick, self.offsets, start, end, out,
            )  # fmt: skip
            yield out

    def whole(self) -> Packed:
        """All at once."""
        pieces = list(self.pieces())
        return pack(np.concatenate(pieces) if pieces else np.empty(0, np.uint8), self.offsets)
