"""Strings of many rows that stay in their file: a sender's column of addresses.

Mapped, an address that is read counts as sixteen pages and more of the reader's memory, since the system maps what it
has in its cache around each touch: after a nation in no order a sender would hold all of the file, 250 MB of a million
and a half people. Read by `pread`, nothing stays; a batch's rows are read in the order of the file, those that lie
close to each other by one call. Offsets are mapped: 8 bytes a row.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fanout.geo.arrayfile import Section
from fanout.registry import kernels
from fanout.registry.packed import Packed, pack

GAP_BYTES: Final = 2_048  # read and thrown away rather than skipped by another call


class Filed:
    """n strings: `section` has the bytes end to end, `offsets` int64[n + 1]; see `Packed`, whose `take` this has."""

    def __init__(self, section: Section, offsets: NDArray[np.int64]) -> None:
        self.offsets = offsets
        self._file, self._begin = section.descriptor, section.offset
        weakref.finalize(self, os.close, section.descriptor)

    @property
    def rows(self) -> int:
        """How many strings."""
        return int(self.offsets.size) - 1

    def take(self, rows: NDArray[Any]) -> Packed:
        """The strings of these rows, in this order; a row below 0 gives an empty one. Errors: `OSError`."""
        wanted = rows.astype(np.int64)
        known = np.flatnonzero(wanted >= 0)
        starts, ends = np.zeros(wanted.size, np.int64), np.zeros(wanted.size, np.int64)
        starts[known], ends[known] = self.offsets[wanted[known]], self.offsets[wanted[known] + 1]
        offsets = np.zeros(wanted.size + 1, np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        out = np.empty(int(offsets[-1]), np.uint8)
        if out.size:
            order = np.flatnonzero(ends > starts)
            order = order[np.argsort(starts[order], kind="stable")]
            data, places = self._read(starts[order], ends[order])
            pairs = np.zeros(2 * wanted.size + 1, np.int64)
            pairs[2 * order], pairs[2 * order + 1] = places, places + (ends - starts)[order]
            pairs.setflags(write=False)
            picks = np.full(wanted.size, -1, np.int64)
            picks[order] = 2 * order
            kernels.gather(data, pairs, picks, offsets, out)
        return pack(out, offsets)

    def _read(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """What stands between each pair, `starts` ascending, in a buffer, and where in it each begins."""
        reach = np.maximum.accumulate(ends)
        first = np.concatenate(([True], starts[1:] > reach[:-1] + GAP_BYTES))
        begins = starts[first]
        stops = reach[np.concatenate((np.flatnonzero(first)[1:] - 1, [len(starts) - 1]))]
        at = np.concatenate(([0], np.cumsum(stops - begins)))
        buffer = np.empty(int(at[-1]), np.uint8)
        view, file, base = buffer.data, self._file, self._begin
        for begin, low, high in zip((begins + base).tolist(), at[:-1].tolist(), at[1:].tolist(), strict=True):
            if os.preadv(file, [view[low:high]], begin) != high - low:
                raise OSError("a file of addresses is shorter than it was")
        buffer.setflags(write=False)
        return buffer, at[:-1][np.cumsum(first) - 1] + starts - begins[np.cumsum(first) - 1]
