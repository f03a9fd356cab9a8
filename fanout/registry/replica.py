"""What a sender process has of the registry: the address of a row on a channel, read at the last moment.

Rules:

1. Contacts stay in the file of the newest snapshot (`filed.py`): no sender has a copy, or maps more than their offsets.
2. `refresh` takes in what the log has since then, and goes over to a newer snapshot when there is one. An upsert or an
   erasure that was acknowledged is in force after the next refresh.
   An address that was dropped as dead is not given again, nor its channel named among the choices. Of those only the
   rows are kept, by channel: a nation finds thousands, and hardly one of them is asked for again.
3. An address is given only for the generation the plan was made with: a row that was erased, or given to somebody else,
   gives nothing.

Not thread-safe; one a sender.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout import wire
from fanout.registry import entries, kernels, packed, snapshot
from fanout.registry.columns import ERASED, PERSON, preference_of, without_choice
from fanout.registry.filed import Filed
from fanout.registry.packed import Packed
from fanout.store.protocol import Log


class _Now(NamedTuple):
    """A row as the log has it since the snapshot: its generation, and its addresses by channel, the preferred first."""

    generation: int
    addresses: dict[int, bytes]


class Replica:
    """Open one with `Replica.open`, in the process that sends."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder, self._log = folder, log
        self._version = self._sequence = 0
        self._people: NDArray[np.void] = np.empty(0, PERSON)
        self._contacts: dict[int, Filed] = {}
        self._changed: dict[int, _Now] = {}
        self._changed_rows = np.empty(0, np.uint32)  # sorted, as those of `_dropped`
        self._dropped: dict[int, NDArray[np.uint32]] = {}  # by channel, of people as the snapshot has them

    @classmethod
    def open(cls, folder: Path, log: Log) -> Replica:
        """Map the newest snapshot (there may be none yet) and take in the log after it."""
        replica = cls(folder, log)
        replica.refresh()
        return replica

    def refresh(self) -> bool:
        """Take in what is new; True if anything was."""
        before = (self._version, self._sequence)
        self._reopen()
        while not self._follow():  # the log was trimmed under us: there is a newer snapshot
            self._reopen()
        return (self._version, self._sequence) != before

    def addresses(self, channel: int, rows: NDArray[np.uint32], generations: NDArray[np.uint16]) -> Packed:
        """The address of each row on a channel (number in `wire.CHANNELS`), packed, n strings.

        Empty where the row is erased, is of another generation (`generations` uint16[n]), or has no such address.
        """
        column: Filed | Packed = self._contacts.get(channel, packed.empty())
        pick = np.empty(rows.size, np.int64)
        kernels.addresses(self._people["generation"], self._people["flags"], column.offsets, rows, generations, pick)
        if channel in self._dropped:
            pick[_among(rows, self._dropped[channel])] = -1
        changed = np.flatnonzero(_among(rows, self._changed_rows))
        if changed.size == 0:
            return column.take(pick)
        values = [b""] * changed.size
        for at, slot in enumerate(changed.tolist()):
            now = self._changed[int(rows[slot])]
            if now.generation == generations[slot]:
                values[at] = now.addresses.get(channel, b"")
        pick[changed] = column.rows + np.arange(changed.size)
        mapped = column.take(np.where(pick < column.rows, pick, -1))
        return packed.Overlay(mapped, rows.size, changed.astype(np.uint32), packed.of_bytes(values)).whole()

    def preferences(self, rows: NDArray[np.uint32], generations: NDArray[np.uint16]) -> NDArray[np.uint32]:
        """uint32[n]: the channels on which each row has an address, in its own order (see `columns.preference_of`).

        0 where the row is erased or of another generation.
        """
        out = np.zeros(rows.size, np.uint32)
        known = np.flatnonzero(rows < self._people.size)
        people = self._people[rows[known]]
        good = (people["generation"] == generations[known]) & (people["flags"] & ERASED == 0)
        out[known[good]] = people["preference"][good]
        for channel, dropped in self._dropped.items():
            without = _among(rows, dropped)
            out[without] = without_choice(out[without], channel)
        for at in np.flatnonzero(_among(rows, self._changed_rows)).tolist():
            now = self._changed[int(rows[at])]
            out[at] = preference_of(list(now.addresses)) if now.generation == generations[at] else 0
        return out

    def _reopen(self) -> None:
        while (version := snapshot.newest(self._folder) if self._folder.is_dir() else 0) > self._version:
            try:
                self._people, self._contacts, self._sequence = snapshot.load_for_senders(self._folder, version)
            except FileNotFoundError:  # replaced by a newer one between the look and the opening
                continue
            self._version = version
            self._changed, self._dropped = {}, {}
            self._changed_rows = np.empty(0, np.uint32)

    def _follow(self) -> bool:
        """Take in the log; False if entries are missing between what we have and what there is."""
        before = self._sequence
        try:
            for sequence, entry in entries.after(self._log, self._sequence):
                if sequence != self._sequence + 1:
                    return False
                self._sequence = sequence
                self._apply(entry)
        finally:  # also of a page that was read before the ledger refused the next: it is not read again
            if self._sequence != before:
                self._changed_rows = np.sort(np.fromiter(self._changed, np.uint32, len(self._changed)))
        if self._sequence != before:
            return True
        return self._log.last(entries.STREAM) <= self._sequence or snapshot.newest(self._folder) <= self._version

    def _apply(self, entry: entries.Entry) -> None:
        rows = entries.rows_of(entry).tolist()
        if isinstance(entry, entries.Erased):
            for row in rows:
                self._changed[row] = _Now(-1, {})
            return
        if isinstance(entry, entries.Dropped):
            self._drop(entries.rows_of(entry), entries.channels_of(entry))
            return
        for row, generation, one in zip(rows, entries.generations_of(entry).tolist(), entry.participants, strict=True):
            contacts = {wire.CHANNELS.index(a.channel): a.value.encode() for a in one.addresses}
            self._changed[row] = _Now(generation, contacts)

    def _drop(self, rows: NDArray[np.uint32], channels: NDArray[np.uint8]) -> None:
        """Take addresses away: from people who changed at once, from all others when they are asked for."""
        for channel in np.unique(channels).tolist():
            lost = rows[channels == channel]
            for row in lost.tolist() if self._changed else ():
                if (now := self._changed.get(row)) is not None:
                    kept = {other: address for other, address in now.addresses.items() if other != channel}
                    self._changed[row] = _Now(now.generation, kept)
            known = self._dropped.get(channel)
            self._dropped[channel] = np.unique(lost) if known is None else np.union1d(known, lost)


def _among(rows: NDArray[np.uint32], some: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """bool[n]: which rows are among some that are sorted."""
    if not some.size:
        return np.zeros(rows.size, np.bool_)
    found: NDArray[np.bool_] = some[np.minimum(np.searchsorted(some, rows), some.size - 1)] == rows
    return found
