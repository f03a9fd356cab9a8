"""The registry: who takes part, where, and how each is reached. One process writes; any number read.

Rules:

1. `view()` is a reference to an immutable state; it is in force for every selection that begins after. No reader waits.
2. A change is in the log, durable, before it is in a view; one call is one entry, so it happens whole or not at all.
3. A restart is the newest snapshot and the log after it, and gives the same registry. `compact` writes the next
   snapshot and trims the log; a crash at any moment leaves one of the two good states.
4. A row is given to somebody else only after the caller said that nothing open refers to it (`reuse`), and then with
   another generation. An erased participant is in no view from that moment on.
5. Live positions are in memory only.
6. An address that a provider declared dead is dropped, unless another one stands there by now, or it was registered
   again since (`hygiene.py`). Whether it was dropped is an entry of the log, and so is how far the stream of such news
   was read: nothing is taken in twice.

Calls block and are thread-safe: trio code calls them through `trio.to_thread`. What takes long (`compact`, `rebuild`)
works beside writers, which wait only for the swap at its end; `import_file` holds writers up, never readers.

Why not a database: selection wants columns in memory in the order of an index, and a participant is 150 bytes; what a
database would add (a durable log) the store has already.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout import limits, wire
from fanout.clock import clock_ms
from fanout.errors import Refused
from fanout.geo.fixed import to_fixed
from fanout.registry import entries, files, hygiene, ingest, packed, snapshot
from fanout.registry import view as views
from fanout.registry.columns import ERASED, Names, Numbering, by_place
from fanout.registry.hygiene import Hygiene
from fanout.registry.live import LivePositions
from fanout.registry.packed import Overlay, Packed
from fanout.registry.replica import Replica
from fanout.registry.since import Since
from fanout.registry.view import Part, Rows, View
from fanout.store.protocol import Log

COMPACT_AFTER_CHANGES: Final = 100_000
DEAD_ENTRIES_MOST: Final = 256  # batches of dead addresses taken in as one change
POSITION_TTL_S: Final = 900.0


class Registry:
    """Open one with `Registry.open`. Every method may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        log: Log,
        lock_file: int,
        numbering: Numbering,
        compact_after: int,
        ttl_ms: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._folder, self._log, self._lock_file = folder, log, lock_file
        self._numbering = numbering
        self._lock = threading.RLock()  # writers
        self._compaction = threading.Lock()  # one rebuild or compaction at a time
        self._written: list[Rows] = []  # rows changed since the view that is being rebuilt
        self._changes = 0  # rows changed since the snapshot
        self._free: list[int] = []  # rows of erased people that `reuse` gave back
        self._live = LivePositions(ttl_ms)
        self._compact_after = compact_after
        self._contacts: dict[int, Packed] = {}
        self._sequence = self._snapshot_sequence = 0
        self._snapshot_version = 0
        self._hygiene = Hygiene()
        self._clock_ms, self._since = clock_ms, Since()
        self._addresses: Replica | None = None  # opened when there is something to compare
        self._before_swap: list[Callable[[Part], None]] = []
        empty = views.empty_part()
        self._view = View(
            0, 0, 0, numbering.frozen(), empty, views.empty_part(np.empty(0, np.uint32)), np.zeros(0, np.uint8)
        )

    @classmethod
    def open(
        cls,
        folder: Path,
        log: Log,
        *,
        kinds: Sequence[str] | None = None,
        tenants: Sequence[str] | None = None,
        compact_after_changes: int = COMPACT_AFTER_CHANGES,
        position_ttl_s: float = POSITION_TTL_S,
        verify: bool = True,
        clock_ms: Callable[[], int] = clock_ms,
    ) -> Registry:
        """Open or begin the registry in a folder; blocks until it is whole.

        `kinds`, `tenants`: those there are; others are refused in upserts. None: they are learnt as they come.
        Raises `Refused("registry_locked")` if another process writes here, `Refused("file_*")` for a damaged snapshot.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock_file = _lock(folder)
        try:
            version = snapshot.newest(folder)
            found = snapshot.load(folder, version, verify=verify) if version else None
            snapshot.remove_others(folder, version)
            given = {"kinds": kinds, "tenants": tenants}
            closed = tuple(what for what, names in given.items() if names is not None)
            numbering = Numbering(found.names if found else Names(), closed)
            for what in closed:
                numbering.add(what, given[what] or ())
            ttl_ms = round(position_ttl_s * 1000)
            registry = cls(folder, log, lock_file, numbering, compact_after_changes, ttl_ms, clock_ms)
            if found is not None:
                registry._adopt(found)
            registry._replay()
        except BaseException:
            os.close(lock_file)
            raise
        return registry

    def close(self) -> None:
        """Let go of the folder. Views that are held stay good."""
        with self._lock:
            if self._lock_file >= 0:
                os.close(self._lock_file)
                self._lock_file = -1

    # --- reading ------------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """The state in force: a reference, free of cost."""
        return self._view

    def statistics(self) -> dict[str, int]:
        """Counts for metrics and `/readyz`."""
        view = self._view
        return {
            "people": view.people,
            "rows": view.rows,
            "places": len(view.base.index) + len(view.delta.index),
            "delta": view.delta.size,
            "changes": self._changes,
            "live": len(view.live) if view.live is not None else 0,
            "free_rows": len(self._free),
            "version": view.version,
            "snapshot_version": self._snapshot_version,
            "log_entries": self._sequence - self._snapshot_sequence,
        }

    def before_swap(self, prepare: Callable[[Part], None]) -> None:
        """Have `prepare` called with every new base before readers meet it, in the thread that made it: what is kept
        of a base beside it can be ready when it is in force."""
        self._before_swap.append(prepare)

    def dropped(self) -> dict[tuple[str, str], int]:
        """How many dead addresses were dropped in all, by channel and reason."""
        return self._hygiene.dropped()

    # --- writing ------------------------------------------------------------------------------------------------------

    def upsert(self, participants: Sequence[wire.Participant]) -> int:
        """Take participants in, each replacing all that was held of its id; returns the version in which they are.

        Durable when it returns. Raises `Refused("field_invalid" | "kind_unknown" | "batch_too_large" |
        "registry_full")`, naming the first that is wrong; nothing has happened then.
        """
        if len(participants) > limits.PARTICIPANTS_PER_REQUEST_MAX:
            raise Refused("batch_too_large", "participants", limit=limits.PARTICIPANTS_PER_REQUEST_MAX,
                          rows=len(participants))  # fmt: skip
        with self._lock:
            if not participants:
                return self._view.version
            columns = ingest.of_participants(participants, self._numbering)
            rows, generations, free = self._rows_for(columns.ids)
            version, now_ms = self._view.version + 1, self._clock_ms()
            entry = entries.Upserted(version, rows.tobytes(), generations.tobytes(), list(participants), now_ms)
            self._sequence = self._log.append(entries.STREAM, [entries.encode(entry)])
            self._since.note(rows.tolist(), now_ms)
            self._free = free
            self._view = views.changed(self._view, rows, generations, columns, self._numbering.frozen(), version)
            self._changed(rows)
        return version

    def erase(self, ids: Sequence[str]) -> int:
        """Erase participants, unknown ids passed over; returns how many there were. Durable and in force on return."""
        with self._lock:
            found = np.unique(self._view.row_of(ids))
            rows = found[found >= 0].astype(np.uint32)
            if rows.size:
                version = self._view.version + 1
                entry = entries.Erased(version, rows.tobytes())
                self._sequence = self._log.append(entries.STREAM, [entries.encode(entry)])
                self._view = views.erased(self._view, rows, self._view.take("generation", rows), version)
                self._forget(rows)
                self._changed(rows)
        return int(rows.size)

    def take_dead(self) -> int:
        """Take in what senders learnt of dead addresses since the last time; returns how many were dropped.

        Durable and in force on return. Call it every few seconds; with nothing new it costs one look at the log.
        """
        with self._lock:
            found = self._log.read(entries.DEAD_STREAM, after=self._hygiene.upto, most=DEAD_ENTRIES_MOST)
            if not found:
                return 0
            upto = found[-1][0]
            if self._addresses is None:
                self._addresses = Replica(self._folder, self._log)
            self._addresses.refresh()
            news = [known for _, data in found if (known := entries.decode_dead(data)) is not None]
            dead = hygiene.still_there(self._addresses, news, self._since.registered_ms)
            made = hygiene.entries_of(dead, version=self._view.version + 1, upto=upto)
            if made:
                self._sequence = self._log.append(entries.STREAM, [entries.encode(entry) for entry in made])
                rows = np.concatenate([entries.rows_of(entry) for entry in made])
                channels = np.concatenate([entries.channels_of(entry) for entry in made])
                self._view = views.dropped(self._view, channels, rows, made[-1].version)
                self._changed(np.unique(rows))
            for entry in made:
                self._hygiene = self._hygiene.after(entry)
            self._hygiene = self._hygiene._replace(upto=upto)
        self._log.trim(entries.DEAD_STREAM, upto=upto)
        return sum(map(len, dead.values()))

    def reuse(self, open_rows: NDArray[np.uint32]) -> int:
        """Let rows of erased people be given out again, except those in `open_rows` (what actions still refer to).

        `open_rows`: each once; read it from the ledger after the last erasure that is to count. Returns how many are
        free now.
        """
        with self._lock:
            view = self._view
            every = np.arange(view.rows, dtype=np.uint32)
            gone = every[(view.take("flags", every) & ERASED) != 0]
            self._free = np.setdiff1d(gone, open_rows, assume_unique=True).tolist()
            return len(self._free)

    def positions(self, positions: Sequence[wire.LivePosition], now_ms: int) -> tuple[int, int]:
        """Take live positions in; returns (accepted, unknown): ids that are not registered are left out."""
        return self.positions_of(
            packed.of_texts([position.id for position in positions]),
            np.array([position.lon for position in positions], np.float64),
            np.array([position.lat for position in positions], np.float64),
            np.array([position.at_ms for position in positions], np.int64),
            now_ms,
        )

    def positions_of(
        self,
        ids: Packed,
        lon: NDArray[np.float64],
        lat: NDArray[np.float64],
        at_ms: NDArray[np.int64],
        now_ms: int,
    ) -> tuple[int, int]:
        """As `positions`, in columns: degrees float64[n], times int64[n]; for streams that are columns already."""
        rows = self._view.rows_of(ids)
        known = rows >= 0
        lons, lats = to_fixed(lon[known], lat[known])
        with self._lock:
            live = self._live.update(rows[known], lons, lats, at_ms[known], now_ms)
            self._view = _with(self._view, live=live)
        return int(known.sum()), int(rows.size - known.sum())

    # --- importing ----------------------------------------------------------------------------------------------------

    def import_table(
        self,
        table: Any,
        *,
        on_bad: Literal["refuse", "skip"] = "refuse",
        row_numbers: files.RowNumbers = files.COUNTED,
        progress: Callable[[str], None] | None = None,
    ) -> ingest.Imported:
        """Import an Arrow table (see `ingest` for its columns): its people are added, or replace those of the same id.

        The next snapshot is the import: all of it is there when this returns, none before. Raises
        `Refused("import_*")`; with `on_bad="skip"` bad rows are left out and told of in the answer.
        Files are read by `importing.import_file`.
        """
        tell = progress or (lambda _: None)
        with self._compaction, self._lock:
            self._written = []
            tell("checking")
            columns, imported = ingest.columns_of(table, self._numbering, on_bad, row_numbers)
            del table
            tell("placing")
            columns = by_place(columns)
            rows, generations, free = self._rows_for(columns.ids)
            if columns.people.size == 0:
                return imported.at(self._view.version, 0)
            before = self._view
            version = before.version + 1
            view = views.changed(before, rows, generations, columns, self._numbering.frozen(), version)
            tell("writing")
            since = self._since.later()
            self._write(view, self._changed_contacts(), rows, columns.contacts, self._sequence, self._hygiene, since)
            self._free = free
            return imported.at(version, view.people - before.people)

    # --- keeping ------------------------------------------------------------------------------------------------------

    def wants_compaction(self) -> bool:
        """Whether so many people changed since the last snapshot that a new one is due."""
        return self._changes >= self._compact_after

    def wants_rebuild(self) -> bool:
        """Whether the delta, which each change copies and each query scans too, is so large that a new base is due."""
        return self._view.delta.size >= limits.DELTA_ROWS_MAX

    def compact(self) -> bool:
        """Write the next snapshot and trim the log; False if nothing changed. Writers go on meanwhile."""
        with self._compaction:
            with self._lock:
                view, sequence, taken_in, since = self._view, self._sequence, self._hygiene, self._since.later()
                self._written = []
                if view.version == self._snapshot_version:
                    return False
            changes = self._changed_contacts(upto=sequence)
            self._write(view, changes, np.empty(0, np.uint32), {}, sequence, taken_in, since)
            return True

    def rebuild(self) -> None:
        """Merge the delta into a new base, in memory, beside readers and writers."""
        with self._compaction:
            with self._lock:
                view = self._view
                self._written = []
            base = views.merged(view)
            self._prepare(base)
            with self._lock:
                self._view = views.rebased(self._view, base, _joined(self._written))
                self._written = []

    # --- inside -------------------------------------------------------------------------------------------------------

    def _adopt(self, found: snapshot.Snapshot) -> None:
        """Stand on a snapshot just loaded."""
        self._contacts = found.contacts
        self._sequence = self._snapshot_sequence = found.sequence
        self._snapshot_version = found.version
        self._hygiene = found.hygiene
        self._since = Since(found.since)
        self._view = View(
            found.version, found.live_people, found.part.size, self._numbering.frozen(), found.part,
            views.empty_part(np.empty(0, np.uint32)), np.zeros(found.part.size, np.uint8),
        )  # fmt: skip

    def _replay(self) -> None:
        """Take in what the log has after the snapshot: the last word on each row, as one change."""
        last: dict[int, tuple[wire.Participant | None, int]] = {}
        dead: set[tuple[int, int]] = set()  # (channel, row) of people as the snapshot has them
        version = self._view.version
        for sequence, entry in entries.after(self._log, self._sequence):
            self._sequence, version = sequence, entry.version
            rows = entries.rows_of(entry)
            if isinstance(entry, entries.Dropped):
                self._hygiene = self._hygiene.after(entry)
                for channel, row in zip(entries.channels_of(entry).tolist(), rows.tolist(), strict=True):
                    if row in last:
                        one, generation = last[row]
                        last[row] = _without(one, channel), generation
                    else:
                        dead.add((channel, row))
            elif isinstance(entry, entries.Erased):
                held = self._view.take("generation", rows).tolist()
                for row, generation in zip(rows.tolist(), held, strict=True):
                    last[row] = (None, last[row][1] if row in last else generation)
            else:
                self._since.note(rows.tolist(), entry.at_ms)
                generations = entries.generations_of(entry).tolist()
                last.update(zip(rows.tolist(), zip(entry.participants, generations, strict=True), strict=True))
        there = [(row, one, generation) for row, (one, generation) in last.items() if one is not None]
        if there:
            rows = np.array([row for row, _, _ in there], np.uint32)
            at = np.array([generation for _, _, generation in there], np.uint16)
            columns = ingest.of_participants([one for _, one, _ in there], self._numbering)
            self._view = views.changed(self._view, rows, at, columns, self._numbering.frozen(), version)
        gone = sorted((row, generation) for row, (one, generation) in last.items() if one is None)
        if gone:
            rows, at = (np.array(column) for column in zip(*gone, strict=True))
            self._view = views.erased(self._view, rows.astype(np.uint32), at.astype(np.uint16), version)
        dead = {(channel, row) for channel, row in dead if row not in last}
        if dead:
            channels, rows = (np.array(column) for column in zip(*sorted(dead), strict=True))
            self._view = views.dropped(self._view, channels.astype(np.uint8), rows.astype(np.uint32), version)
        self._changes = self._view.delta.size

    def _rows_for(self, ids: Packed) -> tuple[Rows, NDArray[np.uint16], list[int]]:
        """The row and generation of each id, new ones given out; and what would be left of the free rows."""
        view = self._view
        found = view.rows_of(ids)
        new = np.flatnonzero(found < 0)
        reused = self._free[len(self._free) - min(new.size, len(self._free)) :]
        if view.rows + new.size - len(reused) > limits.PARTICIPANTS_MAX:
            raise Refused("registry_full", limit=limits.PARTICIPANTS_MAX)
        found[new[: len(reused)]] = reused
        found[new[len(reused) :]] = view.rows + np.arange(new.size - len(reused))
        rows = found.astype(np.uint32)
        generations = view.take("generation", rows)
        generations[new[: len(reused)]] += 1
        return rows, generations, self._free[: len(self._free) - len(reused)]

    def _changed_contacts(self, upto: int | None = None) -> tuple[Rows, dict[int, Packed]]:
        """Rows whose addresses changed since the snapshot, ascending, and the addresses they have now: from the log."""
        last: dict[int, tuple[wire.Address, ...]] = {}
        for sequence, entry in entries.after(self._log, self._snapshot_sequence):
            if upto is not None and sequence > upto:
                break
            rows = entries.rows_of(entry).tolist()
            if isinstance(entry, entries.Dropped):
                for row, channel in zip(rows, entries.channels_of(entry).tolist(), strict=True):
                    held = last[row] if row in last else self._snapshot_addresses(row)
                    last[row] = tuple(one for one in held if one.channel != wire.CHANNELS[channel])
            elif isinstance(entry, entries.Erased):
                last.update(dict.fromkeys(rows, ()))
            else:
                last.update(zip(rows, (tuple(one.addresses) for one in entry.participants), strict=True))
        order = sorted(last)
        values = {channel: [b""] * len(order) for channel in range(len(wire.CHANNELS))}
        for at, row in enumerate(order):
            for address in last[row]:
                values[wire.CHANNELS.index(address.channel)][at] = address.value.encode()
        contacts = {channel: packed.of_bytes(column) for channel, column in values.items() if any(column)}
        return np.array(order, np.uint32), contacts

    def _write(
        self,
        view: View,
        changes: tuple[Rows, dict[int, Packed]],
        imported: Rows,
        contacts: dict[int, Packed],
        sequence: int,
        taken_in: Hygiene,
        since: Mapping[int, int],
    ) -> None:
        """Make a view the next snapshot, stand on it, and let go of the log before it: up to `sequence`."""
        base = views.merged(view)
        rows, values = _overlaid(changes, imported, contacts)
        columns = {
            channel: Overlay(self._contacts.get(channel, packed.empty()), view.rows, rows,
                             values.get(channel, packed.empty(rows.size)))
            for channel in sorted({*self._contacts, *values})
        }  # fmt: skip
        snapshot.write(
            self._folder, base, view.names, columns,
            version=view.version, sequence=sequence, people=view.people, hygiene=taken_in,
            since=self._since.column(view.rows, since),
        )  # fmt: skip
        found = snapshot.load(self._folder, view.version, verify=False)
        self._prepare(found.part)
        with self._lock:
            now = self._view if self._view.version > view.version else view
            written = _joined(self._written)
            self._view = _with(views.rebased(now, found.part, written), live=self._view.live)
            self._written, self._changes = [], int(written.size)
            self._contacts = found.contacts
            self._since.stand_on(found.since, since)
            self._snapshot_sequence, self._snapshot_version = sequence, view.version
        self._log.trim(entries.STREAM, upto=sequence)
        snapshot.remove_others(self._folder, view.version)

    def _prepare(self, base: Part) -> None:
        for prepare in self._before_swap:
            prepare(base)

    def _changed(self, rows: Rows) -> None:
        self._written.append(rows)
        self._changes += int(rows.size)

    def _snapshot_addresses(self, row: int) -> tuple[wire.Address, ...]:
        """The addresses of a row as the snapshot has them, in no order."""
        return tuple(
            wire.Address(channel=wire.CHANNELS[channel], value=column.text(row))
            for channel, column in self._contacts.items()
            if row < column.rows and column.offsets[row] < column.offsets[row + 1]
        )

    def _forget(self, rows: Rows) -> None:
        if self._view.live is not None:
            self._view = _with(self._view, live=self._live.forget(rows))


def _without(one: wire.Participant | None, channel: int) -> wire.Participant | None:
    """A participant without the address on a channel."""
    if one is None:
        return None
    kept = [address for address in one.addresses if address.channel != wire.CHANNELS[channel]]
    return msgspec.structs.replace(one, addresses=kept)


def _with(view: View, *, live: Any) -> View:
    return View(view.version, view.people, view.rows, view.names, view.base, view.delta, view.stale, live)


def _joined(rows: list[Rows]) -> Rows:
    """Rows ascending, each once."""
    every = np.sort(np.concatenate(rows)) if rows else np.empty(0, np.uint32)
    once: Rows = every[np.append(True, every[1:] != every[:-1])[: every.size]]
    return once


def _overlaid(
    changes: tuple[Rows, dict[int, Packed]], imported: Rows, contacts: dict[int, Packed]
) -> tuple[Rows, dict[int, Packed]]:
    """Addresses of changed rows with those of an import over them: rows ascending, each once."""
    rows, values = changes
    if imported.size == 0:
        return rows, values
    kept = np.flatnonzero(~np.isin(rows, imported))
    every = np.concatenate([rows[kept], imported])
    order = np.argsort(every, kind="stable")
    merged: dict[int, Packed] = {}
    for channel in {*values, *contacts}:
        old = values[channel].take(kept) if channel in values else packed.empty(kept.size)
        new = contacts.get(channel, packed.empty(imported.size))
        merged[channel] = packed.concatenate([old, new]).take(order)
    return every[order], merged


def _lock(folder: Path) -> int:
    """Hold the folder's lock; the system lets go of it when this process ends, however it ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Refused("registry_locked", str(folder)) from None
    return descriptor
