"""The embedded store's statements about batches: claim, intend, settle, stop, receipts, counts.

Every function works inside a transaction that its caller has open, and leaves it to the caller to end it; so each is
whole or not at all, and none knows of connections, locks or files. What becomes of a row is decided in `rows`.

A batch moves between the stages of `schema`: ready → leased → ready … → done, and held while its action is paused.
`due_ms` is the time from when a claim may take it: not before, while it is ready; the end of its lease, while leased.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout.store import gathering
from fanout.store import rows as row_logic
from fanout.store.directory import Directories, Directory, Key, Part
from fanout.store.protocol import LEFT_MS, BatchCounts, BatchView, Bytes8, Lease, NewBatch, PhaseRecord, Receipts, Share
from fanout.store.schema import DONE, HELD, LEASED, READY
from fanout.store.states import Event, Reason, State


class Connection(Protocol):
    """What is used of an `sqlite3.Connection`."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Any: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...


class Batch(msgspec.Struct):
    """A batch while a transaction works on it; fields in the order of `_BATCH`. `state`: of its action."""

    id: int
    action: int
    phase: int
    lane: int
    channel: int
    language: str
    stage: int
    due_ms: int
    token: int
    attempt: int
    first_ms: int | None
    last_ms: int | None
    status: Bytes8
    reason: Bytes8
    state: str
    name: str
    stop_ms: int
    end_ms: int

    @property
    def stop(self) -> Event | None:
        """`CLOSE` or `END` where nothing of it may go out any more, as far as the action's state tells."""
        if self.name == "result":
            return None
        return _STOPS.get(self.state)


_BATCH: Final = (
    "SELECT b.id, b.action, b.phase, b.lane, b.channel, b.language, b.stage, b.due_ms, b.token, b.attempt, "
    "b.first_ms, b.last_ms, m.status, m.reason, a.state, p.name, p.stop_ms, p.end_ms FROM batches b "
    "JOIN marks m ON m.batch = b.id JOIN actions a ON a.id = b.action "
    "JOIN phases p ON p.action = b.action AND p.phase = b.phase "
)
_STOPS: Final = {"expired": Event.END, "closing": Event.CLOSE, "closed": Event.CLOSE, "cancelled": Event.CLOSE}
_GOES_OUT: Final = {"start": "open", "update": "open", "result": "closed"}
_STATES: Final = len(State)
_GROWING: Final = f"(token = 0 AND due_ms > 0 AND stage IN ({READY}, {HELD}))"
"""Batches that moved rows may still join; one that is not among them never will be again."""


def find(db: Connection, where: str, *values: Any) -> list[Batch]:
    """Batches with their marks. `where` names tables `b` (batches), `a` (actions), `p` (phases)."""
    found = []
    for row in db.execute(_BATCH + where, values).fetchall():
        values = (*row[:12], np.frombuffer(row[12], np.uint8), np.frombuffer(row[13], np.uint8), *row[14:])
        found.append(Batch(*values))
    return found


def insert_phase(db: Connection, action: int, phase: PhaseRecord) -> None:
    """Store one phase of an action, live."""
    db.execute(
        "INSERT INTO phases (action, phase, name, created_ms, end_ms, texts, titles, reference, stop_ms, live) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
        (
            action,
            phase.phase,
            phase.name,
            phase.created_ms,
            phase.end_ms,
            msgspec.msgpack.encode(phase.texts),
            msgspec.msgpack.encode(phase.titles),
            phase.reference,
            phase.end_ms,
        ),
    )


def insert(db: Connection, action: int, phase: int, lane: int, batches: Sequence[NewBatch], *, held: bool) -> None:
    """Store new batches of one phase, all rows pending."""
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()
    ids = range(last + 1, last + 1 + len(batches))
    stage = HELD if held else READY
    fresh = [
        (number, action, phase, lane, batch.channel, batch.language, batch.seq, stage, batch.not_before_ms, tally)
        for number, batch in zip(ids, batches, strict=True)
        for tally in (_fresh(len(batch.rows)),)
    ]
    db.executemany(
        "INSERT INTO batches (id, action, phase, lane, channel, language, seq, stage, due_ms, tally, token, attempt) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
        fresh,
    )
    db.executemany(
        "INSERT INTO contents (batch, rows, generations) VALUES (?, ?, ?)",
        (
            (
                number,
                batch.rows.astype("<u4", copy=False).tobytes(),
                batch.generations.astype("<u2", copy=False).tobytes(),
            )
            for number, batch in zip(ids, batches, strict=True)
        ),
    )
    db.executemany(
        "INSERT INTO marks (batch, status, reason) VALUES (?, zeroblob(?), zeroblob(?))",
        ((number, len(batch.rows), len(batch.rows)) for number, batch in zip(ids, batches, strict=True)),
    )


def _fresh(count: int) -> bytes:
    tally = np.zeros(_STATES + len(Reason), np.uint32)
    tally[State.PENDING] = count
    return tally.tobytes()


def write(db: Connection, batch: Batch, status: Bytes8, reason: Bytes8) -> None:
    """Store a batch's marks where they changed, and all else that may have changed of it."""
    if status is not batch.status or reason is not batch.reason:
        db.execute(
            "UPDATE marks SET status = ?, reason = ? WHERE batch = ?", (status.tobytes(), reason.tobytes(), batch.id)
        )
    db.execute(
        "UPDATE batches SET stage = ?, due_ms = ?, token = ?, attempt = ?, first_ms = ?, last_ms = ?, tally = ? "
        "WHERE id = ?",
        (
            batch.stage,
            batch.due_ms,
            batch.token,
            batch.attempt,
            batch.first_ms,
            batch.last_ms,
            row_logic.tally(status, reason).tobytes(),
            batch.id,
        ),
    )


def hasten(db: Connection, action: int, below_seq: int) -> int:
    """Let batches that nobody had yet go out now."""
    changed: int = db.execute(
        "UPDATE batches SET due_ms = 0 WHERE action = ? AND seq < ? AND token = 0 AND due_ms > 0",
        (action, below_seq),
    ).rowcount
    return changed


def move_end(db: Connection, action: int, end_ms: int, now_ms: int) -> bool:
    """Let an action end at another time, its phases and what waits for its end with it."""
    found = db.execute(
        "SELECT end_ms FROM actions WHERE id = ? AND state IN ('open', 'paused') AND end_ms > ?", (action, now_ms)
    ).fetchone()
    if found is None:
        return False
    db.execute("UPDATE actions SET end_ms = ? WHERE id = ?", (end_ms, action))
    db.execute("UPDATE phases SET end_ms = ?, stop_ms = ? WHERE action = ?", (end_ms, end_ms, action))
    db.execute(
        "UPDATE batches SET due_ms = ? WHERE action = ? AND token = 0 AND due_ms >= ?", (end_ms, action, found[0])
    )
    return True


def stop(db: Connection, batch: Batch, event: Event) -> None:
    """Close one batch that a sender may be working on: what is on the wire stays its own."""
    status, reason = row_logic.stopped(batch.status, batch.reason, event)
    if not row_logic.has_open(status):
        batch.stage = DONE
    write(db, batch, status, reason)


def let_go(db: Connection, batch: Batch, stored: row_logic.Columns, stop: Event | None) -> None:
    """End a batch's lease; what is left of it is ready, held, or done."""
    status, reason = row_logic.let_go(*stored, batch.channel, stop)
    if not row_logic.has_open(status):
        batch.stage = DONE
    else:
        batch.stage = HELD if batch.state == "paused" else READY
    write(db, batch, status, reason)


# --- claiming -------------------------------------------------------------------------------------------------------


_OF_SHARE: Final = {
    Share.ALL: "",
    Share.NEAREST: "AND seq = 0 ",
    Share.OTHERS: "AND (seq > 0 OR token > 0 OR (SELECT created_ms FROM phases p "
    f"WHERE p.action = batches.action AND p.phase = batches.phase) <= ?3 - {LEFT_MS}) ",
}


def has_work(db: Connection, channels: Sequence[int], lanes: Sequence[int], now_ms: int, share: Share) -> bool:
    """Whether a claim could find anything to do: looks into small indexes, no lock, so that idle claims cost nobody."""
    if db.execute("SELECT 1 FROM phases WHERE live = 1 AND stop_ms <= ? LIMIT 1", (now_ms,)).fetchone() is not None:
        return True
    return any(_due(db, (channel,), lane, now_ms, 1, share) for lane in set(lanes) for channel in channels)


def _due(db: Connection, channels: Sequence[int], lane: int, now_ms: int, most: int, share: Share) -> list[int]:
    """Batches of one lane that may be taken, in their order.

    One channel and lane at a time and LIMIT: walks `batches_by_turn` in its order and stops early, no sort. A channel
    that nothing waits for is known at once, however much does for others.
    """
    found: list[tuple[int, int]] = []
    for channel in channels:
        found += db.execute(
            "SELECT seq, id FROM batches WHERE stage < 2 AND channel = ?1 AND lane = ?2 AND due_ms <= ?3 "
            f"{_OF_SHARE[share]}ORDER BY seq, id LIMIT ?4",
            (channel, lane, now_ms, most),
        ).fetchall()
    return [number for _, number in sorted(found)[:most]]


def sweep(db: Connection, now_ms: int) -> None:
    """Settle what nobody works on in phases that were closed or have ended."""
    ended = db.execute(
        "SELECT action, phase FROM phases WHERE live = 1 AND stop_ms <= ? ORDER BY stop_ms", (now_ms,)
    ).fetchall()
    for action, phase in ended:
        left = 0
        for batch in find(db, "WHERE b.action = ? AND b.phase = ? AND b.stage <> ?", action, phase, DONE):
            if batch.stage == LEASED and batch.due_ms > now_ms:
                left += 1
            else:
                let_go(db, batch, (batch.status, batch.reason), batch.stop or Event.END)
        if not left:
            db.execute("UPDATE phases SET live = 0 WHERE action = ? AND phase = ?", (action, phase))


def claim(
    db: Connection,
    owner: str,
    channels: Sequence[int],
    lanes: Sequence[int],
    now_ms: int,
    lease_ms: int,
    most: int,
    share: Share,
) -> list[Lease]:
    """Lease up to `most` batches, lanes in order, `seq` in order; resolves what a lost lease left."""
    leases: list[Lease] = []
    for lane in sorted(set(lanes)):
        while len(leases) < most:
            found = _due(db, channels, lane, now_ms, most - len(leases), share)
            for number in found:
                lease = _lease(db, find(db, "WHERE b.id = ?", number)[0], owner, now_ms + lease_ms)
                if lease is not None:
                    leases.append(lease)
            if not found:
                break
    return leases


def _lease(db: Connection, batch: Batch, owner: str, until_ms: int) -> Lease | None:
    status, reason = row_logic.let_go(batch.status, batch.reason, batch.channel, batch.stop)
    if batch.state == "paused" or not row_logic.has_open(status):
        let_go(db, batch, (batch.status, batch.reason), batch.stop)
        return None
    batch.stage, batch.due_ms, batch.token = LEASED, until_ms, batch.token + 1
    write(db, batch, status, reason)
    db.execute("UPDATE batches SET owner = ? WHERE id = ?", (owner, batch.id))
    rows, generations, seq = db.execute(
        "SELECT c.rows, c.generations, b.seq FROM contents c JOIN batches b ON b.id = c.batch WHERE b.id = ?",
        (batch.id,),
    ).fetchone()
    return Lease(
        batch=batch.id,
        token=batch.token,
        action=batch.action,
        phase=batch.phase,
        lane=batch.lane,
        channel=batch.channel,
        language=batch.language,
        attempt=batch.attempt,
        until_ms=until_ms,
        rows=np.frombuffer(rows, np.uint32),
        generations=np.frombuffer(generations, np.uint16),
        status=status,
        reason=reason,
        seq=seq,
    )


# --- the sender's word ----------------------------------------------------------------------------------------------


def intend(db: Connection, lease: Lease, index: NDArray[np.intp], now_ms: int) -> bool:
    """The check just before the wire: the lease, the action, the pause, the end."""
    (batch,) = find(db, "WHERE b.id = ?", lease.batch)
    held = batch.stage == LEASED and batch.token == lease.token
    if not held or batch.state != _GOES_OUT[batch.name] or now_ms >= batch.stop_ms:
        return False
    write(db, batch, row_logic.intended(batch.status, index), batch.reason)
    return True


def settle(
    db: Connection,
    lease: Lease,
    reported: row_logic.Columns,
    first_ms: int | None,
    last_ms: int | None,
    not_before_ms: int,
    moved: Sequence[NewBatch],
) -> None:
    """Merge a report and end the lease, or take the good news out of a late one."""
    (batch,) = find(db, "WHERE b.id = ?", lease.batch)
    held = batch.stage == LEASED and batch.token == lease.token
    stored = (batch.status, batch.reason)
    merged = row_logic.settled(stored, reported, held=held, over=batch.stop is not None)
    if not held and np.array_equal(merged[0], batch.status):
        return
    batch.first_ms = min((ms for ms in (batch.first_ms, first_ms) if ms is not None), default=None)
    batch.last_ms = max((ms for ms in (batch.last_ms, last_ms) if ms is not None), default=None)
    if not held:
        if batch.stage != LEASED and not row_logic.has_open(merged[0]):
            batch.stage = DONE
        write(db, batch, *merged)
        return
    batch.due_ms, batch.attempt = not_before_ms, batch.attempt + 1
    let_go(db, batch, merged, batch.stop)
    further = row_logic.moved_batches(lease.rows, batch.status, merged[0], moved)
    held = batch.state == "paused"
    further = [one for one in further if held or not _joined(db, batch, one)]
    if further:
        insert(db, batch.action, batch.phase, batch.lane, further, held=held)


def _joined(db: Connection, moved_from: Batch, fresh: NewBatch) -> bool:
    """Put moved rows into a batch like theirs that waits for its time and was never claimed, if there is one with room.

    Nobody has heard of its rows yet, no sender and no provider, so it may still change.
    """
    found = db.execute(
        "SELECT b.id, c.rows, c.generations, m.status, m.reason FROM batches b JOIN contents c ON c.batch = b.id "
        "JOIN marks m ON m.batch = b.id WHERE b.stage < 2 AND b.channel = ? AND b.lane = ? AND b.due_ms > 0 "
        "AND b.due_ms <= ? AND b.token = 0 AND b.stage = ? AND b.action = ? AND b.phase = ? AND b.language = ? "
        "AND length(c.rows) <= ? LIMIT 1",
        (
            fresh.channel,
            moved_from.lane,
            fresh.not_before_ms,
            READY,
            moved_from.action,
            moved_from.phase,
            fresh.language,
            (fresh.joins_up_to - len(fresh.rows)) * fresh.rows.itemsize,
        ),
    ).fetchone()
    if found is None:
        return False
    number, rows, generations, status, reason = found
    more = bytes(len(fresh.rows))
    rows += fresh.rows.astype("<u4", copy=False).tobytes()
    generations += fresh.generations.astype("<u2", copy=False).tobytes()
    marks = (status + more, reason + more)
    db.execute("UPDATE contents SET rows = ?, generations = ? WHERE batch = ?", (rows, generations, number))
    db.execute("UPDATE marks SET status = ?, reason = ? WHERE batch = ?", (*marks, number))
    tally = row_logic.tally(*(np.frombuffer(column, np.uint8) for column in marks)).tobytes()
    db.execute("UPDATE batches SET tally = ? WHERE id = ?", (tally, number))
    return True


# --- counting and reading -------------------------------------------------------------------------------------------


def counts(db: Connection, action: int) -> list[BatchCounts]:
    """Counts by batch, from the small columns alone."""
    found = db.execute(
        "SELECT phase, channel, tally, first_ms, last_ms FROM batches WHERE action = ? "
        "ORDER BY phase, seq, channel, id",
        (action,),
    ).fetchall()
    tallies = np.frombuffer(b"".join(row[2] for row in found), np.uint32).reshape(len(found), _STATES + len(Reason))
    return [
        BatchCounts(
            phase=phase,
            channel=channel,
            states=tuple(tally[:_STATES]),
            reasons=tuple(tally[_STATES:]),
            first_ms=first_ms,
            last_ms=last_ms,
        )
        for (phase, channel, _, first_ms, last_ms), tally in zip(found, tallies.tolist(), strict=True)
    ]


def views(db: Connection, action: int) -> list[BatchView]:
    """Every batch of an action with its rows, in the order in which people were told."""
    found = db.execute(
        "SELECT b.id, b.phase, b.channel, b.language, b.seq, c.rows, c.generations, m.status, m.reason, "
        "b.first_ms, b.last_ms FROM batches b JOIN contents c ON c.batch = b.id JOIN marks m ON m.batch = b.id "
        "WHERE b.action = ? ORDER BY b.phase, b.seq, b.channel, b.id",
        (action,),
    ).fetchall()
    return [
        BatchView(
            batch=number,
            phase=phase,
            channel=channel,
            language=language,
            seq=seq,
            rows=np.frombuffer(rows, np.uint32),
            generations=np.frombuffer(generations, np.uint16),
            status=np.frombuffer(status, np.uint8),
            reason=np.frombuffer(reason, np.uint8),
            first_ms=first_ms,
            last_ms=last_ms,
        )
        for number, phase, channel, language, seq, rows, generations, status, reason, first_ms, last_ms in found
    ]


# --- receipts -------------------------------------------------------------------------------------------------------


def directory(db: Connection, known: Directories, key: Key, rows: NDArray[np.uint32]) -> Directory:
    """Where rows of an (action, phase, channel) are. Batches that may still grow are left out: nobody has sent them."""

    def count() -> int:
        where = f"WHERE action = ? AND phase = ? AND channel = ? AND NOT {_GROWING}"
        return int(db.execute(f"SELECT count(*) FROM batches {where}", key).fetchone()[0])

    def parts() -> list[Part]:
        found: list[Part] = db.execute(
            "SELECT b.id, c.rows FROM batches b JOIN contents c ON c.batch = b.id "
            f"WHERE b.action = ? AND b.phase = ? AND b.channel = ? AND NOT {_GROWING} ORDER BY b.id",
            key,
        ).fetchall()
        return found

    return known.current(key, rows, count, parts)


def receive(db: Connection, receipts: Sequence[Receipts], known: Directories) -> list[int]:
    """Apply receipts; how many rows changed by each."""
    changed = np.zeros(len(receipts), np.int64)
    met = list(gathering.news(receipts, partial(directory, db, known)))
    if not met:
        return changed.tolist()
    query = "SELECT status, reason FROM marks WHERE batch = ?"
    marks = [db.execute(query, (one.batch,)).fetchone() for one in met]
    met = [_if_it_goes_on(db, one) if one.bounced.any() else one for one in met]
    sizes = [len(status) for status, _ in marks]
    before, why = (np.frombuffer(b"".join(column), np.uint8) for column in zip(*marks, strict=True))
    all_of_it = gathering.end_to_end(met, sizes)
    status, reason = row_logic.received((before, why), all_of_it.place, all_of_it.delivered, all_of_it.bounced)
    if not gathering.count_changes(all_of_it, before, status, changed):
        return changed.tolist()
    bounds = [0, *accumulate(sizes)]
    moved = np.logical_or.reduceat(before != status, bounds[:-1]).tolist()
    tallies = row_logic.tallies(status, reason, sizes)
    written = [place for place, has_moved in enumerate(moved) if has_moved]
    parts = [(slice(bounds[place], bounds[place + 1]), met[place].batch) for place in written]
    db.executemany(
        "UPDATE marks SET status = ?, reason = ? WHERE batch = ?",
        [(status[part].tobytes(), reason[part].tobytes(), batch) for part, batch in parts],
    )
    db.executemany(
        "UPDATE batches SET tally = ? WHERE id = ?", [(tallies[place].tobytes(), met[place].batch) for place in written]
    )
    bounced = np.logical_or.reduceat((status == State.BOUNCED) & (before != status), bounds[:-1])
    _take_up_again(db, [met[place].batch for place in np.flatnonzero(bounced)])
    return changed.tolist()


def _if_it_goes_on(db: Connection, one: gathering.News) -> gathering.News:
    """News of bounced rows, as they count in an action that may be closed."""
    (batch,) = find(db, "WHERE b.id = ?", one.batch)
    return one if batch.stop is None else gathering.in_action_that_is_over(one)


def _take_up_again(db: Connection, batches: Sequence[int]) -> None:
    """Let batches in which rows bounced be claimed, even if they were done; those in hand come to it by themselves."""
    for number in batches:
        db.execute(
            "UPDATE batches SET stage = CASE (SELECT state FROM actions a WHERE a.id = batches.action) "
            "WHEN 'paused' THEN ? ELSE ? END WHERE id = ? AND stage = ?",
            (HELD, READY, number, DONE),
        )
        db.execute(
            "UPDATE phases SET live = 1 WHERE live = 0 AND (action, phase) = "
            "(SELECT b.action, b.phase FROM batches b WHERE b.id = ?)",
            (number,),
        )
