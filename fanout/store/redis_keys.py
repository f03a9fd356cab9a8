"""How the ledger lies in Redis: keys, values, and the reads and writes that one transaction is made of.

An action with its phases is one value; a batch is a hash (`meta`, `status`, `reason`, `tally`, `rows`, `generations`),
so that a settle sends back its few kilobytes and no rows, and a count reads tallies alone. Batches are listed for the
whole action, and for each phase and channel, in the order in which they came. Beside them are sorted sets of the
batches that want work (`write_batch` says in which a batch stands). No key has a time to live: a ledger forgets nothing
by itself.

Everything here works on a pipeline that its caller has opened, and the caller decides when reading ends and `MULTI`
begins. No Redis library is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from fanout.store import rows as row_logic
from fanout.store.protocol import ActionRecord, BatchView, Lease, NewBatch, PhaseRecord
from fanout.store.states import Event

PREFIX: Final = "fanout:"
COMMITS: Final = f"{PREFIX}commits"
NEWS: Final = f"{PREFIX}news"
"""How many commits there were, and of these the ones that senders wait for (`Store.wait_for_work`)."""
ACTIVE: Final = f"{PREFIX}active"
"""Actions that are not over, or have batches that want work."""
ALL: Final = f"{PREFIX}actions"
_STOPS: Final = {"expired": Event.END, "closing": Event.CLOSE, "closed": Event.CLOSE, "cancelled": Event.CLOSE}


class Action(msgspec.Struct):
    """An action with its phases, as one value."""

    record: ActionRecord
    phases: list[PhaseRecord]

    def stop(self, phase: int) -> Event | None:
        """What keeps a phase's rows back, as far as the state tells."""
        return None if self.phases[phase].name == "result" else _STOPS.get(self.record.state)

    def is_over(self, phase: int, now_ms: int) -> bool:
        return self.stop(phase) is not None or now_ms >= self.phases[phase].end_ms


class Batch(msgspec.Struct):
    """A batch without its rows. `owner` is None while nobody has it."""

    id: int
    action: int
    phase: int
    lane: int
    channel: int
    language: str
    seq: int
    owner: str | None = None
    due_ms: int = 0
    token: int = 0
    attempt: int = 0
    first_ms: int | None = None
    last_ms: int | None = None


ACTIONS: Final = msgspec.msgpack.Decoder(Action)
BATCHES: Final = msgspec.msgpack.Decoder(Batch)
_pack = msgspec.msgpack.encode


def key_of(action: int, what: str) -> str:
    return f"{PREFIX}{{a{action}}}:{what}"


def batch_key(action: int, batch: int) -> str:
    return key_of(action, f"b{batch}")


def of_key(action: int, phase: int, channel: int) -> str:
    """The list of batches of one phase and channel."""
    return key_of(action, f"of{phase}:{channel}")


# --- inside a transaction -------------------------------------------------------------------------------------------


def read_action(pipe: Any, action: int) -> Action | None:
    raw = pipe.get(key_of(action, "action"))
    return None if raw is None else ACTIONS.decode(raw)


def read(pipe: Any, action: int, batch: int) -> tuple[Action, Batch, row_logic.Columns]:
    """A batch as it is, with what its action's close has made of it (rule 2)."""
    found = read_action(pipe, action)
    assert found is not None
    meta, status, reason = pipe.hmget(batch_key(action, batch), "meta", "status", "reason")
    one = BATCHES.decode(meta)
    return found, one, marks_of(found, one, status, reason)


def marks_of(found: Action, one: Batch, status: bytes, reason: bytes) -> row_logic.Columns:
    columns = np.frombuffer(status, np.uint8), np.frombuffer(reason, np.uint8)
    stop = found.stop(one.phase)
    return columns if stop is None else row_logic.stopped(*columns, stop)


def write_action(pipe: Any, action: Action) -> None:
    number = action.record.id
    pipe.set(key_of(number, "action"), _pack(action))
    pipe.zadd(ACTIVE, {str(number): number})
    pipe.incr(NEWS)


def write_batch(pipe: Any, one: Batch, marks: row_logic.Columns) -> None:
    """Store a batch, and where it stands (rule 3)."""
    write_marks(pipe, one, marks)
    pipe.hset(batch_key(one.action, one.id), "meta", _pack(one))
    turn, later = (key_of(one.action, f"{index}{one.channel}") for index in ("turn", "later"))
    leased = key_of(one.action, "leased")
    for index in (turn, later, leased):
        pipe.zrem(index, str(one.id))
    if not row_logic.has_open(marks[0]):
        return
    if one.owner is not None:
        pipe.zadd(leased, {str(one.id): one.due_ms})
    elif one.due_ms > 0:
        pipe.zadd(later, {str(one.id): one.due_ms})
    else:
        pipe.zadd(turn, {str(one.id): one.seq})


def write_marks(pipe: Any, one: Batch, marks: row_logic.Columns) -> None:
    """Store a batch's marks alone, with their tally: what it is and where it stands do not change."""
    status, reason = marks
    values = {"status": status.tobytes(), "reason": reason.tobytes(), "tally": row_logic.tally(*marks).tobytes()}
    pipe.hset(batch_key(one.action, one.id), mapping=values)


def add_batches(pipe: Any, record: ActionRecord, phase: int, first: int, batches: Sequence[NewBatch]) -> None:
    for number, batch in enumerate(batches, first):
        marks = np.zeros(len(batch.rows), np.uint8), np.zeros(len(batch.rows), np.uint8)
        one = Batch(number, record.id, phase, record.lane, batch.channel, batch.language, batch.seq)
        one.due_ms = batch.not_before_ms
        contents = {
            "rows": batch.rows.astype("<u4", copy=False).tobytes(),
            "generations": batch.generations.astype("<u2", copy=False).tobytes(),
        }
        pipe.hset(batch_key(record.id, number), mapping=contents)
        for name in (key_of(record.id, "batches"), of_key(record.id, phase, batch.channel)):
            pipe.rpush(name, str(number))
        write_batch(pipe, one, marks)
    if any(not batch.not_before_ms for batch in batches):
        pipe.incr(NEWS)


# --- as callers get them --------------------------------------------------------------------------------------------


def lease_of(one: Batch, rows: bytes, generations: bytes, marks: row_logic.Columns) -> Lease:
    """A batch that was just claimed."""
    return Lease(
        batch=one.id,
        token=one.token,
        action=one.action,
        phase=one.phase,
        lane=one.lane,
        channel=one.channel,
        language=one.language,
        attempt=one.attempt,
        until_ms=one.due_ms,
        rows=np.frombuffer(rows, np.uint32),
        generations=np.frombuffer(generations, np.uint16),
        status=marks[0],
        reason=marks[1],
        seq=one.seq,
    )


def view_of(one: Batch, rows: bytes, generations: bytes, marks: row_logic.Columns) -> BatchView:
    """A batch for those who read."""
    return BatchView(
        batch=one.id,
        phase=one.phase,
        channel=one.channel,
        language=one.language,
        seq=one.seq,
        rows=np.frombuffer(rows, np.uint32),
        generations=np.frombuffer(generations, np.uint16),
        status=marks[0],
        reason=marks[1],
        first_ms=one.first_ms,
        last_ms=one.last_ms,
    )
