"""The embedded store: what each call of the protocol says to SQLite. Calls about batches are in `sqlite_batches.py`.

Each writing call is one transaction and each reading call one statement; `sqlite_file.py` has the rules of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout.errors import Refused
from fanout.store import sqlite_batches as batch_sql
from fanout.store.directory import Directories
from fanout.store.protocol import (
    ActionRecord,
    BatchCounts,
    BatchView,
    Bytes8,
    Lease,
    NewBatch,
    PhaseRecord,
    Receipts,
    Rows,
    Share,
)
from fanout.store.schema import DONE, HELD, LEASED, READY
from fanout.store.sqlite_batches import Connection
from fanout.store.sqlite_file import SqliteFile
from fanout.store.states import OPEN, Event, among

_COLUMNS: Final = tuple(field.name for field in msgspec.structs.fields(ActionRecord))


class SqliteStore:
    """The `Store` protocol on one file. Made by `open`; every call may be made from any thread."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._directories = Directories()

    def __repr__(self) -> str:
        return f"<SqliteStore on {self._file}>"

    @classmethod
    def open(cls, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> SqliteStore:
        """Open the ledger, or make an empty one.

        Errors: `Refused("store_unavailable")`; `Refused("file_version")` for a file of another version of this program.
        """
        return cls(SqliteFile.open(path, synchronous=synchronous))

    def group(self) -> AbstractContextManager[None]:
        """See `Store.group`."""
        return self._file.group()

    def wait(self, timeout_s: float) -> bool:
        """See `Store.wait`."""
        return self._file.wait(timeout_s)

    def wait_for_work(self, timeout_s: float) -> bool:
        """See `Store.wait_for_work`."""
        return self._file.wait_for_work(timeout_s)

    def close_store(self) -> None:
        """See `Store.close_store`."""
        self._file.close()

    # --- actions ----------------------------------------------------------------------------------------------------

    def open_action(
        self, action: ActionRecord, phase: PhaseRecord, batches: Sequence[NewBatch]
    ) -> tuple[ActionRecord, bool]:
        """See `Ledger.open_action`."""
        with self._file.writing(rings=True) as db:
            found = _records(
                db, "SELECT * FROM actions WHERE tenant = ? AND reference = ?", action.tenant, action.reference
            )
            if found:
                if found[0].digest != action.digest:
                    raise Refused("reference_conflict", "reference", reference=action.reference)
                return found[0], False
            values = msgspec.structs.asdict(action)
            del values["id"]
            holes = ", ".join("?" * len(values))
            given = db.execute(
                f"INSERT INTO actions ({', '.join(values)}) VALUES ({holes})", tuple(values.values())
            ).lastrowid
            assert given is not None
            stored = msgspec.structs.replace(action, id=given)
            batch_sql.insert_phase(db, given, phase)
            batch_sql.insert(db, given, phase.phase, action.lane, batches, held=action.state == "paused")
            return stored, True

    def add_phase(
        self, action: int, phase: PhaseRecord, batches: Sequence[NewBatch], *, state: str, from_states: Sequence[str]
    ) -> bool:
        """See `Ledger.add_phase`."""
        with self._file.writing(rings=True) as db:
            record = _record(db, action)
            if record is None or record.state not in from_states:
                return False
            db.execute("UPDATE actions SET state = ? WHERE id = ?", (state, action))
            batch_sql.insert_phase(db, action, phase)
            batch_sql.insert(db, action, phase.phase, record.lane, batches, held=state == "paused")
            return True

    def close(
        self, action: int, *, state: str, now_ms: int, outcome: str | None = None, result_body: bytes | None = None
    ) -> bool:
        """See `Ledger.close`."""
        with self._file.writing(rings=True) as db:
            changed = db.execute(
                "UPDATE actions SET state = ?, closed_ms = ?, outcome = ?, result_body = ? "
                "WHERE id = ? AND state IN ('open', 'paused')",
                (state, now_ms, outcome, result_body, action),
            ).rowcount
            if not changed:
                return False
            db.execute("UPDATE phases SET stop_ms = min(stop_ms, ?) WHERE action = ?", (now_ms, action))
            event = Event.END if state == "expired" else Event.CLOSE
            for batch in batch_sql.find(db, "WHERE b.action = ? AND b.stage <> ?", action, DONE):
                batch_sql.stop(db, batch, event)
            return True

    def set_paused(self, action: int, paused: bool) -> bool:
        """See `Ledger.set_paused`."""
        before, after = ("open", "paused") if paused else ("paused", "open")
        with self._file.writing(rings=True) as db:
            changed = db.execute(
                "UPDATE actions SET state = ? WHERE id = ? AND state = ?", (after, action, before)
            ).rowcount
            if not changed:
                found = db.execute("SELECT state FROM actions WHERE id = ?", (action,)).fetchone()
                return found is not None and found[0] == after
            stages = (HELD, action, READY) if paused else (READY, action, HELD)
            db.execute("UPDATE batches SET stage = ? WHERE action = ? AND stage = ?", stages)
            return True

    def move_end(self, action: int, *, end_ms: int, now_ms: int) -> bool:
        """See `Ledger.move_end`."""
        with self._file.writing(rings=True) as db:
            return batch_sql.move_end(db, action, end_ms, now_ms)

    def hasten(self, action: int, *, below_seq: int) -> int:
        """See `Ledger.hasten`."""
        with self._file.writing(rings=True) as db:
            return batch_sql.hasten(db, action, below_seq)

    def action(self, action: int) -> ActionRecord | None:
        """See `Ledger.action`."""
        with self._file.reading() as db:
            return _record(db, action)

    def action_by_reference(self, tenant: str, reference: str) -> ActionRecord | None:
        """See `Ledger.action_by_reference`."""
        with self._file.reading() as db:
            found = _records(db, "SELECT * FROM actions WHERE tenant = ? AND reference = ?", tenant, reference)
            return found[0] if found else None

    def actions(self, states: Sequence[str] | None = None) -> list[ActionRecord]:
        """See `Ledger.actions`."""
        with self._file.reading() as db:
            if states is None:
                return _records(db, "SELECT * FROM actions ORDER BY id")
            holes = ", ".join("?" * len(states))
            return _records(db, f"SELECT * FROM actions WHERE state IN ({holes}) ORDER BY id", *states)

    def phases(self, action: int) -> list[PhaseRecord]:
        """See `Ledger.phases`."""
        with self._file.reading() as db:
            found = db.execute(
                "SELECT phase, name, created_ms, end_ms, texts, titles, reference FROM phases "
                "WHERE action = ? ORDER BY phase",
                (action,),
            ).fetchall()
        return [
            PhaseRecord(
                action=action,
                phase=phase,
                name=name,
                created_ms=created_ms,
                end_ms=end_ms,
                texts=msgspec.msgpack.decode(texts),
                titles=msgspec.msgpack.decode(titles),
                reference=reference,
            )
            for phase, name, created_ms, end_ms, texts, titles, reference in found
        ]

    # --- deliveries -------------------------------------------------------------------------------------------------

    def ready(self, *, channels: Sequence[int], lanes: Sequence[int], now_ms: int, share: Share = Share.ALL) -> bool:
        """See `Ledger.ready`."""
        with self._file.reading() as db:
            return batch_sql.has_work(db, channels, lanes, now_ms, share)

    def claim(
        self,
        owner: str,
        *,
        channels: Sequence[int],
        lanes: Sequence[int],
        now_ms: int,
        lease_ms: int,
        most: int,
        share: Share = Share.ALL,
    ) -> list[Lease]:
        """See `Ledger.claim`."""
        if not self.ready(channels=channels, lanes=lanes, now_ms=now_ms, share=share):
            return []
        with self._file.writing(flushed=False) as db:
            batch_sql.sweep(db, now_ms)
            return batch_sql.claim(db, owner, channels, lanes, now_ms, lease_ms, most, share)

    def intend(self, lease: Lease, index: NDArray[np.intp], *, now_ms: int) -> bool:
        """See `Ledger.intend`."""
        with self._file.writing() as db:
            return batch_sql.intend(db, lease, index, now_ms)

    def settle(
        self,
        lease: Lease,
        *,
        status: Bytes8,
        reason: Bytes8,
        first_ms: int | None,
        last_ms: int | None,
        done: bool,
        not_before_ms: int = 0,
        moved: Sequence[NewBatch] = (),
    ) -> None:
        """See `Ledger.settle`."""
        assert not (done and among(status, OPEN).any()), "a batch with open rows is not done"
        with self._file.writing(rings=any(not one.not_before_ms for one in moved)) as db:
            batch_sql.settle(db, lease, (status, reason), first_ms, last_ms, not_before_ms, moved)

    def renew(self, leases: Sequence[Lease], *, until_ms: int) -> None:
        """See `Ledger.renew`."""
        with self._file.writing() as db:
            db.executemany(
                "UPDATE batches SET due_ms = max(due_ms, ?) WHERE id = ? AND token = ? AND stage = ?",
                [(until_ms, lease.batch, lease.token, LEASED) for lease in leases],
            )

    def release(self, owner: str) -> int:
        """See `Ledger.release`."""
        with self._file.writing(rings=True) as db:
            leased = batch_sql.find(db, "WHERE b.stage = 1 AND b.owner = ?", owner)
            for batch in leased:
                batch.due_ms = 0
                batch_sql.let_go(db, batch, (batch.status, batch.reason), batch.stop)
            return len(leased)

    def apply_receipts(self, receipts: Sequence[Receipts]) -> list[int]:
        """See `Ledger.apply_receipts`."""
        with self._file.writing() as db:
            return batch_sql.receive(db, receipts, self._directories)

    def counts(self, action: int) -> list[BatchCounts]:
        """See `Ledger.counts`."""
        with self._file.reading() as db:
            return batch_sql.counts(db, action)

    def batches(self, action: int) -> Iterator[BatchView]:
        """See `Ledger.batches`."""
        with self._file.reading() as db:
            return iter(batch_sql.views(db, action))

    def open_rows(self) -> Rows:
        """See `Ledger.open_rows`."""
        with self._file.reading() as db:
            found = db.execute(
                "SELECT c.rows FROM contents c WHERE c.batch IN ("
                "SELECT b.id FROM batches b JOIN actions a ON a.id = b.action "
                "WHERE a.state IN ('open', 'paused', 'closing') UNION SELECT id FROM batches WHERE stage < 2)"
            ).fetchall()
        parts = [np.frombuffer(blob, np.uint32) for (blob,) in found]
        named = np.zeros(max((int(part.max()) for part in parts if len(part)), default=-1) + 1, np.bool_)
        for part in parts:
            named[part] = True
        return np.flatnonzero(named).astype(np.uint32)

    # --- logs and documents -----------------------------------------------------------------------------------------

    def append(self, stream: str, entries: Sequence[bytes]) -> int:
        """See `Log.append`."""
        with self._file.writing() as db:
            last = _last(db, stream)
            if entries:
                db.executemany(
                    "INSERT INTO entries (stream, number, entry) VALUES (?, ?, ?)",
                    ((stream, last + number, entry) for number, entry in enumerate(entries, 1)),
                )
                last += len(entries)
                db.execute("INSERT OR REPLACE INTO streams (stream, last) VALUES (?, ?)", (stream, last))
            return last

    def read(self, stream: str, *, after: int, most: int) -> list[tuple[int, bytes]]:
        """See `Log.read`."""
        with self._file.reading() as db:
            return db.execute(
                "SELECT number, entry FROM entries WHERE stream = ? AND number > ? ORDER BY number LIMIT ?",
                (stream, after, most),
            ).fetchall()

    def trim(self, stream: str, *, upto: int) -> None:
        """See `Log.trim`."""
        with self._file.writing() as db:
            db.execute("DELETE FROM entries WHERE stream = ? AND number <= ?", (stream, upto))

    def last(self, stream: str) -> int:
        """See `Log.last`."""
        with self._file.reading() as db:
            return _last(db, stream)

    def put(self, space: str, values: Iterable[tuple[str, bytes | None]]) -> None:
        """See `Documents.put`."""
        with self._file.writing() as db:
            for key, value in values:
                if value is None:
                    db.execute("DELETE FROM documents WHERE space = ? AND key = ?", (space, key))
                else:
                    db.execute(
                        "INSERT INTO documents (space, key, value) VALUES (?, ?, ?) "
                        "ON CONFLICT (space, key) DO UPDATE SET value = excluded.value",
                        (space, key, value),
                    )

    def get(self, space: str, key: str) -> bytes | None:
        """See `Documents.get`."""
        with self._file.reading() as db:
            found = db.execute("SELECT value FROM documents WHERE space = ? AND key = ?", (space, key)).fetchone()
        return None if found is None else found[0]

    def scan(self, space: str) -> list[tuple[str, bytes]]:
        """See `Documents.scan`."""
        with self._file.reading() as db:
            return db.execute("SELECT key, value FROM documents WHERE space = ? ORDER BY key", (space,)).fetchall()


# --- statements without a batch -------------------------------------------------------------------------------------


def _records(db: Connection, sql: str, *values: Any) -> list[ActionRecord]:
    return [ActionRecord(**dict(zip(_COLUMNS, row, strict=True))) for row in db.execute(sql, values).fetchall()]


def _record(db: Connection, action: int) -> ActionRecord | None:
    found = _records(db, "SELECT * FROM actions WHERE id = ?", action)
    return found[0] if found else None


def _last(db: Connection, stream: str) -> int:
    found = db.execute("SELECT last FROM streams WHERE stream = ?", (stream,)).fetchone()
    return 0 if found is None else int(found[0])
