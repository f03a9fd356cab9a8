"""The file of the embedded store, which the API process and all senders have open at once. The only sqlite3 import.

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from fanout import limits
from fanout.errors import Refused
from fanout.store.bells import Bell, ring
from fanout.store.schema import set_up

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
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


class SqliteFile:
    """Transactions of one file, and waiting for those of others. Made by `open`; any thread may make any call."""

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
        self._level: str = synchronous  # of the writing connection, now
        with self._in_turn():
            self._writer = self._connect()
            self._prepare()
        self._writer.execute("PRAGMA busy_timeout = 0")  # rule 2: the waiting is ours
        self._waiter = self._connect()
        self._seen = self._seen_work = self._data_version()
        self._bell = Bell(path)

    def __repr__(self) -> str:
        return f"<SqliteFile {self._path.name}, synchronous {self._synchronous}>"

    @classmethod
    def open(cls, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> SqliteFile:
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
    def writing(self, *, flushed: bool = True, rings: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction of its own, or a savepoint of the group that this thread has open.

        `flushed`: it is on the disk at the end. `rings`: it gives senders work, or takes it from them (rule 5).
        """
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
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the last commit, or what the group of this thread has written."""
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

    def close(self) -> None:
        """See `Store.close_store`."""
        self._bell.close()
        with self._lock, self._wait_lock:
            self._waiter.close()
            while self._readers:
                self._readers.pop().close()
            self._writer.close()
            os.close(self._turn)


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
