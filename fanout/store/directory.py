"""Where each row of one (action, phase, channel) is: what a receipt needs to find its batch without reading any other.

Rows never change their batch, so what a directory has stays true; only for rows that it has not must somebody ask
whether further batches came, and how many there are tells. It is 16 bytes a row, so a store keeps a few, those used
last (`limits.RECEIPT_DIRECTORIES_MAX`).
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

    def find(
        self, rows: NDArray[np.uint32], delivered: NDArray[np.bool_]
    ) -> list[tuple[int, NDArray[np.intp], NDArray[np.bool_]]]:
        """By batch, ascending: its number, places, and what their receipts say. Rows not in here are left out."""
        if not len(self.rows) or not len(rows):
            return []
        if len(rows) == 1:  # what most bodies hold: a tenth of the way below
            at = self._at(rows)
            if at is None:
                return []
            return [(int(self.batch[at]), self.place[at : at + 1].astype(np.intp), delivered)]
        spot = np.searchsorted(self.rows, rows)
        spot[spot == len(self.rows)] = 0
        known = self.rows[spot] == rows
        spot, delivered = spot[known], delivered[known]
        order = np.argsort(self.batch[spot], kind="stable")
        spot, delivered = spot[order], delivered[order]
        numbers, begins = np.unique(self.batch[spot], return_index=True)
        ends = np.append(begins, len(spot))[1:].tolist()
        return [
            (number, self.place[spot[begin:end]].astype(np.intp), delivered[begin:end])
            for number, begin, end in zip(numbers.tolist(), begins.tolist(), ends, strict=True)
        ]

    def has(self, rows: NDArray[np.uint32]) -> bool:
        """Whether all of these are in here."""
        if len(rows) == 1:
            return self._at(rows) is not None
        spot = np.searchsorted(self.rows, rows)
        return not len(rows) or (int(spot.max()) < len(self.rows) and bool((self.rows[spot] == rows).all()))

    def _at(self, rows: NDArray[np.uint32]) -> int | None:
        """Where the first of these is."""
        at = int(self.rows.searchsorted(rows[0]))
        return at if at < len(self.rows) and self.rows[at] == rows[0] else None


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

    def known(self, key: Key) -> Directory | None:
        """The directory that is held of a key, which may lack rows of batches that came since."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def current(self, key: Key, batches: int, read: Callable[[], Sequence[Part]]) -> Directory:
        """A directory of `batches` batches: the one that is known, or one read now."""
        with self._lock:
            found = self._known.pop(key, None)
        if found is None or found.batches != batches:
            found = directory_of(read())
        with self._lock:
            self._known[key] = found
            while len(self._known) > limits.RECEIPT_DIRECTORIES_MAX:
                self._known.popitem(last=False)
        return found
