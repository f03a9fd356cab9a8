"""The embedded store: one SQLite file that the API process and all senders have open at once. The only sqlite3 import.

Rules:

1. A writing call is one `BEGIN IMMEDIATE` transaction on the one writing connection of this process, or one savepoint
   of the group its thread has open. WAL with `synchronous = FULL`: `COMMIT` returns after the log is on the disk. Not
   so a claim: an intent comes before anything goes out, and flushes both; what a power cut takes is claimed again.
2. Writers of all processes take turns. SQLite's own busy handler sleeps longer and longer, so a process that commits
   without pause can starve the others. Here the next in turn holds a file lock (`ledger.db-turn`) while it waits, so
   it alone contends with the writer, and gets in within one `PAUSE_S` of its commit. Both locks die with their holder.
3. Reading calls are one statement each, on a connection out of a pool: a consistent snapshot, and no writer waits.
4. What the disk or the file does to us is `Refused("store_unavailable")` with what to do; a statement that is wrong is
   our bug and stays an `sqlite3.Error`.
5. `wait` looks at `PRAGMA data_version`: at once when new work was committed, which rings (`bells.py`), else every
   `POLL_S`. The question takes 3 µs, but a thread that wakes for it up to 100, so senders `wait_for_work`: for the bell
   alone. What a commit tells them that does not ring (a pause of retries that is over, a lease that ran out) has its
   own time.

Why not one connection per thread: trio's threads come and go, and each connection has a page cache of its own.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout import limits
from fanout.errors import Refused
from fanout.store import sqlite_batches as batch_sql
from fanout.store.bells import Bell, ring
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
from fanout.store.schema import DONE, HELD, LEASED, READY, set_up
from fanout.store.states import OPEN, Event, among

POLL_S: Final = 0.02
PAUSE_S: Final = 0.0003
CHECKPOINT_PAGES: Final = 1_000  # 4 MB of log: beside other writers a pause of 75 ms at worst, where 16 MB took 380

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk of {path} is full; free some space, then send it again",
    sqlite3.SQLITE_READONLY: "{path} may not be written; check the owner and rights of the file and of its folder",
    sqlite3.SQLITE_PERM: "{path} may not be opened; check the owner and rights of the file and of its folder",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened; check that its folder is there and may be written",
    sqlite3.SQLITE_IOERR: "reading or writing {path} failed ({name}); check the disk and the file size limits",
    sqlite3.SQLITE_CORRUPT: "{path} is damaged; stop the engine and put back a backup of the folder",
    sqlite3.SQLITE_NOTADB: "{path} is damaged or is no ledger; stop the engine and put back a backup of the folder",
    sqlite3.SQLITE_BUSY: "another program has held {path} for {wait_s:.0f} s; look for one that hangs",
    sqlite3.SQLITE_LOCKED: "another program has held {path} for {wait_s:.0f} s; look for one that hangs",
    sqlite3.SQLITE_PROTOCOL: "another program has held {path} for {wait_s:.0f} s; look for one that hangs",
    sqlite3.SQLITE_NOMEM: "there was no memory left to work on {path}; give the engine more",
}
_COLUMNS: Final = tuple(field.name for field in msgspec.structs.fields(ActionRecord))
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


class SqliteStore:
    """The `Store` protocol on one file. Made by `open`; every call may be made from any thread."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._path = path
        self._synchronous = synchronous
        self._turn = os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()  # around the writing connection
        self._group_thread: int | None = None
        self._group_broken = ""
        self._readers: deque[sqlite3.Connection] = deque()
        self._wait_lock = threading.Lock()  # around the waiting connection
        self._rings = False  # what is being written
        self._directories = Directories()
        self._level: str = synchronous  # of the writing connection, now
        with self._in_turn():
            self._writer = self._connect()
            self._prepare()
        self._writer.execute("PRAGMA busy_timeout = 0")  # rule 2: the waiting is ours
        self._waiter = self._connect()
        self._seen = self._seen_work = self._data_version()
        self._bell = Bell(path)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path.name}, synchronous {self._synchronous}>"

    @classmethod
    def open(cls, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> SqliteStore:
        """Open the ledger, or make an empty one.

        Errors: `Refused("store_unavailable")`; `Refused("file_version")` for a file of another version of this program.
        """
        with _told_plainly(path):
            return cls(path, synchronous)

    # --- connections and transactions -------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path,
            timeout=limits.STORE_WAIT_S_MAX,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 16384}")
        db.execute("PRAGMA temp_store = MEMORY")
        return db

    def _prepare(self) -> None:
        """Make the tables of an empty file, all or none; refuse a file that is not ours."""
        db = self._writer
        db.execute("BEGIN IMMEDIATE")
        try:
            set_up(db, str(self._path))
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            db.close()
            raise
        folder = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(folder)  # the new file's name, too, must survive a power cut
        os.close(folder)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Be the one that is next (rule 2)."""
        give_up_s = time.monotonic() + limits.STORE_WAIT_S_MAX
        while True:
            try:
                fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_s:
                    raise _busy(self._path) from None
                time.sleep(PAUSE_S)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _begin(self) -> None:
        give_up_s = time.monotonic() + limits.STORE_WAIT_S_MAX
        with self._in_turn():
            while True:
                try:
                    self._writer.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF not in _BUSY:
                        raise
                    if time.monotonic() > give_up_s:
                        raise _busy(self._path) from None
                time.sleep(PAUSE_S)

    @contextmanager
    def _transaction(self, *, flushed: bool = True, rings: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, _told_plainly(self._path):
            level = self._synchronous if flushed else "NORMAL"
            if level != self._level:
                self._writer.execute(f"PRAGMA synchronous = {level}")
                self._level = level
            self._begin()
            self._rings = rings
            try:
                yield self._writer
                if not self._group_broken:
                    self._writer.execute("COMMIT")
                    if self._rings:
                        ring(self._path)
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself: disk full
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def group(self) -> Iterator[None]:
        """See `Store.group`."""
        with self._transaction():
            self._group_thread = threading.get_ident()
            try:
                yield
            finally:
                self._group_thread = None
                broken, self._group_broken = self._group_broken, ""
            if broken:
                raise Refused("store_unavailable", detail=broken)

    @contextmanager
    def _writing(self, *, flushed: bool = True, rings: bool = False) -> Iterator[sqlite3.Connection]:
        if self._group_thread != threading.get_ident():
            with self._transaction(flushed=flushed, rings=rings) as db:
                yield db
            return
        db = self._writer
        if self._group_broken:
            raise Refused("store_unavailable", detail=self._group_broken)
        self._rings = self._rings or rings
        with _told_plainly(self._path):
            db.execute("SAVEPOINT call")
            try:
                yield db
                db.execute("RELEASE call")
            except BaseException as error:
                try:
                    db.execute("ROLLBACK TO call")
                    db.execute("RELEASE call")
                except sqlite3.Error:  # the whole transaction is gone, and with it the calls before this one
                    self._group_broken = f"a call in the same commit failed: {error}"
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._group_thread == threading.get_ident():
            yield self._writer
            return
        with _told_plainly(self._path):
            try:
                db = self._readers.pop()
            except IndexError:
                db = self._connect()
                db.execute("PRAGMA query_only = 1")
            try:
                yield db
            finally:
                self._readers.append(db)

    def _data_version(self) -> int:
        return int(self._waiter.execute("PRAGMA data_version").fetchone()[0])

    def wait(self, timeout_s: float) -> bool:
        """See `Store.wait`."""
        end_s = time.monotonic() + timeout_s
        start = self._seen
        while True:
            with self._wait_lock, _told_plainly(self._path):
                if self._bell.closed:
                    return False
                version = self._data_version()
            if version != start:
                self._seen = version
                return True
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._bell.wait(min(POLL_S, left_s))

    def wait_for_work(self, timeout_s: float) -> bool:
        """See `Store.wait_for_work`."""
        rung = self._bell.wait(timeout_s)
        with self._wait_lock, _told_plainly(self._path):
            if self._bell.closed:
                return False
            before, self._seen_work = self._seen_work, self._data_version()
        return rung or self._seen_work != before

    def close_store(self) -> None:
        """See `Store.close_store`."""
        self._bell.close()
        with self._lock, self._wait_lock:
            self._waiter.close()
            while self._readers:
                self._readers.pop().close()
            self._writer.close()
            os.close(self._turn)

    # --- actions ----------------------------------------------------------------------------------------------------

    def open_action(
        self, action: ActionRecord, phase: PhaseRecord, batches: Sequence[NewBatch]
    ) -> tuple[ActionRecord, bool]:
        """See `Ledger.open_action`."""
        with self._writing(rings=True) as db:
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
        with self._writing(rings=True) as db:
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
        with self._writing(rings=True) as db:
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
        with self._writing(rings=True) as db:
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
        with self._writing(rings=True) as db:
            return batch_sql.move_end(db, action, end_ms, now_ms)

    def hasten(self, action: int, *, below_seq: int) -> int:
        """See `Ledger.hasten`."""
        with self._writing(rings=True) as db:
            return batch_sql.hasten(db, action, below_seq)

    def action(self, action: int) -> ActionRecord | None:
        """See `Ledger.action`."""
        with self._reading() as db:
            return _record(db, action)

    def action_by_reference(self, tenant: str, reference: str) -> ActionRecord | None:
        """See `Ledger.action_by_reference`."""
        with self._reading() as db:
            found = _records(db, "SELECT * FROM actions WHERE tenant = ? AND reference = ?", tenant, reference)
            return found[0] if found else None

    def actions(self, states: Sequence[str] | None = None) -> list[ActionRecord]:
        """See `Ledger.actions`."""
        with self._reading() as db:
            if states is None:
                return _records(db, "SELECT * FROM actions ORDER BY id")
            holes = ", ".join("?" * len(states))
            return _records(db, f"SELECT * FROM actions WHERE state IN ({holes}) ORDER BY id", *states)

    def phases(self, action: int) -> list[PhaseRecord]:
        """See `Ledger.phases`."""
        with self._reading() as db:
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
        with self._reading() as db:
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
        with self._writing(flushed=False) as db:
            batch_sql.sweep(db, now_ms)
            return batch_sql.claim(db, owner, channels, lanes, now_ms, lease_ms, most, share)

    def intend(self, lease: Lease, index: NDArray[np.intp], *, now_ms: int) -> bool:
        """See `Ledger.intend`."""
        with self._writing() as db:
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
        with self._writing(rings=any(not one.not_before_ms for one in moved)) as db:
            batch_sql.settle(db, lease, (status, reason), first_ms, last_ms, not_before_ms, moved)

    def renew(self, leases: Sequence[Lease], *, until_ms: int) -> None:
        """See `Ledger.renew`."""
        with self._writing() as db:
            db.executemany(
                "UPDATE batches SET due_ms = max(due_ms, ?) WHERE id = ? AND token = ? AND stage = ?",
                [(until_ms, lease.batch, lease.token, LEASED) for lease in leases],
            )

    def release(self, owner: str) -> int:
        """See `Ledger.release`."""
        with self._writing(rings=True) as db:
            leased = batch_sql.find(db, "WHERE b.stage = 1 AND b.owner = ?", owner)
            for batch in leased:
                batch.due_ms = 0
                batch_sql.let_go(db, batch, (batch.status, batch.reason), batch.stop)
            return len(leased)

    def apply_receipts(self, receipts: Sequence[Receipts]) -> list[int]:
        """See `Ledger.apply_receipts`."""
        with self._writing() as db:
            return batch_sql.receive(db, receipts, self._directories)

    def counts(self, action: int) -> list[BatchCounts]:
        """See `Ledger.counts`."""
        with self._reading() as db:
            return batch_sql.counts(db, action)

    def batches(self, action: int) -> Iterator[BatchView]:
        """See `Ledger.batches`."""
        with self._reading() as db:
            return iter(batch_sql.views(db, action))

    def open_rows(self) -> Rows:
        """See `Ledger.open_rows`."""
        with self._reading() as db:
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
        with self._writing() as db:
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
        with self._reading() as db:
            return db.execute(
                "SELECT number, entry FROM entries WHERE stream = ? AND number > ? ORDER BY number LIMIT ?",
                (stream, after, most),
            ).fetchall()

    def trim(self, stream: str, *, upto: int) -> None:
        """See `Log.trim`."""
        with self._writing() as db:
            db.execute("DELETE FROM entries WHERE stream = ? AND number <= ?", (stream, upto))

    def last(self, stream: str) -> int:
        """See `Log.last`."""
        with self._reading() as db:
            return _last(db, stream)

    def put(self, space: str, values: Iterable[tuple[str, bytes | None]]) -> None:
        """See `Documents.put`."""
        with self._writing() as db:
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
        with self._reading() as db:
            found = db.execute("SELECT value FROM documents WHERE space = ? AND key = ?", (space, key)).fetchone()
        return None if found is None else found[0]

    def scan(self, space: str) -> list[tuple[str, bytes]]:
        """See `Documents.scan`."""
        with self._reading() as db:
            return db.execute("SELECT key, value FROM documents WHERE space = ? ORDER BY key", (space,)).fetchall()


# --- statements without a batch -------------------------------------------------------------------------------------


def _records(db: sqlite3.Connection, sql: str, *values: Any) -> list[ActionRecord]:
    return [ActionRecord(**dict(zip(_COLUMNS, row, strict=True))) for row in db.execute(sql, values).fetchall()]


def _record(db: sqlite3.Connection, action: int) -> ActionRecord | None:
    found = _records(db, "SELECT * FROM actions WHERE id = ?", action)
    return found[0] if found else None


def _last(db: sqlite3.Connection, stream: str) -> int:
    found = db.execute("SELECT last FROM streams WHERE stream = ?", (stream,)).fetchone()
    return 0 if found is None else int(found[0])


# --- bad days -------------------------------------------------------------------------------------------------------


@contextmanager
def _told_plainly(path: Path) -> Iterator[None]:
    """Rule 4. Errors: `Refused("store_unavailable")` in the place of what the disk did."""
    try:
        yield
    except sqlite3.Error as error:
        advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if advice is None:
            raise
        name = getattr(error, "sqlite_errorname", "")
        detail = advice.format(path=path, name=name, wait_s=limits.STORE_WAIT_S_MAX)
        raise Refused("store_unavailable", detail=detail) from error
    except OSError as error:
        raise Refused("store_unavailable", detail=f"{path}: {error.strerror}; check the folder and the disk") from error


def _busy(path: Path) -> Refused:
    detail = _ADVICE[sqlite3.SQLITE_BUSY].format(path=path, wait_s=limits.STORE_WAIT_S_MAX)
    return Refused("store_unavailable", detail=detail)
