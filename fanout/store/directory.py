"""Where each row of one (action, phase, channel) is: what a receipt needs to find its batch without reading any other.

Rows never change their batch once a sender has had it, so what a directory has stays true; only for rows that it has
not must somebody ask whether further batches came, and how many there are tells. It is 16 bytes a row, so a store keeps
a few, those used last (`limits.RECEIPT_DIRECTORIES_MAX`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout import limits

Key: TypeAlias = tuple[int, int, int]
"""Action, phase, channel."""
Part: TypeAlias = tuple[int, bytes]
"""A batch's number, and its rows, uint32[n] as bytes."""


class Directory(msgspec.Struct, frozen=True):
    """The rows of one key. `rows` uint32[n] sorted; `batch` int64[n]; `place` uint32[n], the index inside the batch;
    `batches`: how many there are."""

    rows: NDArray[np.uint32]
    batch: NDArray[np.int64]
    place: NDArray[np.uint32]
    batches: int

    def find(self, rows: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which of these are in here, intp[n], and where in `self.rows`, intp[n]."""
        if not len(self.rows):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        spot = np.searchsorted(self.rows, rows)
        spot[spot == len(self.rows)] = 0
        known = np.flatnonzero(self.rows[spot] == rows)
        return known, spot[known]

    def has(self, rows: NDArray[np.uint32]) -> bool:
        """Whether all of these are in here."""
        return len(self.find(rows)[0]) == len(rows)


def directory_of(parts: Sequence[Part]) -> Directory:
    """The directory of all batches of one key."""
    columns = [np.frombuffer(rows, np.uint32) for _, rows in parts]
    sizes = [len(column) for column in columns]
    rows = np.concatenate([np.empty(0, np.uint32), *columns])
    batch = np.repeat(np.array([number for number, _ in parts], np.int64), sizes)
    place = np.concatenate([np.empty(0, np.uint32), *(np.arange(size, dtype=np.uint32) for size in sizes)])
    order = np.argsort(rows, kind="stable")
    return Directory(rows[order], batch[order], place[order].astype(np.uint32), len(parts))


class Directories:
    """The directories of one store that were used last. May be asked by any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Directory] = OrderedDict()
        self._lock = threading.Lock()

    def current(
        self, key: Key, rows: NDArray[np.uint32], count: Callable[[], int], read: Callable[[], Sequence[Part]]
    ) -> Directory:
        """A directory in which `rows` are, if they are anywhere: the one that is known, or one read now.

        `count()`: how many batches there are, asked only when a row is missing from the directory that is known.
        """
        with self._lock:
            found = self._known.pop(key, None)
        if found is None or (not found.has(rows) and found.batches != count()):
            found = directory_of(read())
        with self._lock:
            self._known[key] = found
            while len(self._known) > limits.RECEIPT_DIRECTORIES_MAX:
                self._known.popitem(last=False)
        return found
