"""The store beyond one machine: the same promises on one Redis primary. The only redis import.

Rules:

1. A writing call is one `WATCH` … `MULTI` … `EXEC` on the keys it read; if any changed it is done again from the start.
   What becomes of rows is decided in Python by `rows`, as in the embedded store; Redis only compares and swaps.
2. A close is one small write: the action's state. What it means for batches is applied whenever one is looked at, and
   written when a claim sweeps it up. So a national action closes in a millisecond, at once for every sender.
3. Every batch that wants work stands in one sorted set of its action: by `seq` while it is ready and by time while it
   must wait, those of each channel in their own; by the end of its lease while somebody has it. A claim reads the heads
   of these and no more: of a nation hundreds wait whose time has come, for a supplier of calls that takes 30 a second.
4. All keys of one action have one hash tag, `{a7}`. What spans actions (ids, references, the set of active actions, the
   count of commits) has keys of its own and shares the transactions, which needs one primary (replicas are welcome).
5. Redis must keep an append-only file (`appendonly yes`), or an acknowledged action could be lost: without it the store
   refuses to open. `appendfsync always` is what survives a power cut, as `synchronous = FULL` does.
6. No retries by the library: a reply that is lost leaves it open whether the call was done, and callers know what that
   means for them.

`wait` polls a counter: like `PRAGMA data_version` it misses nothing between two calls, which a subscription does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import redis
from numpy.typing import NDArray
from redis.backoff import NoBackoff
from redis.retry import Retry

from fanout import limits
from fanout.errors import Refused
from fanout.store import rows as row_logic
from fanout.store.protocol import LEFT_MS, ActionRecord, BatchView, Bytes8, Lease, NewBatch, PhaseRecord, Rows, Share
from fanout.store.redis_format import bring_up_to_date
from fanout.store.redis_keys import (
    ACTIONS,
    ACTIVE,
    ALL,
    BATCHES,
    COMMITS,
    NEWS,
    PREFIX,
    Action,
    Batch,
    add_batches,
    batch_key,
    key_of,
    lease_of,
    marks_of,
    read,
    read_action,
    view_of,
    write_action,
    write_batch,
)
from fanout.store.redis_receipts import RedisReceipts
from fanout.store.states import OPEN, Event, among
from fanout.wire import CHANNELS

POLL_S: Final = 0.005
_GOES_OUT: Final = {"start": "open", "update": "open", "result": "closed"}
_LIVING: Final = ("open", "paused", "closing")
_LATER: Final = tuple(f"later{channel}" for channel in range(len(CHANNELS)))
_UNLEASED: Final = (*_LATER, *(f"turn{channel}" for channel in range(len(CHANNELS))))

T = TypeVar("T")


class RedisStore(RedisReceipts):
    """The `Store` protocol on one Redis. Made by `open`; every call may be made from any thread."""

    def __init__(self, client: Any, address: str) -> None:
        super().__init__()
        self._redis = client
        self._address = address
        self._closing = threading.Event()
        self._seen = 0
        self._seen_work = (0, 0)  # commits, news

    def __repr__(self) -> str:
        return f"<RedisStore {self._address}>"

    @classmethod
    def open(cls, url: str) -> RedisStore:
        """Connect, and see that what is acknowledged will be kept.

        Errors: `Refused("store_unavailable")` if no Redis answers, or it keeps no append-only file;
        `Refused("file_version")` for a ledger of a later version of this program; an earlier one is brought up to date.
        """
        address = url.rpartition("@")[2].removeprefix("redis://").removeprefix("rediss://")
        client = redis.Redis.from_url(
            url,
            socket_timeout=limits.STORE_WAIT_S_MAX,
            socket_connect_timeout=limits.STORE_WAIT_S_MAX,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        store = cls(client, address)
        with store._told_plainly():
            if client.config_get("appendonly").get("appendonly") != "yes":
                client.close()
                detail = f"Redis at {address} keeps no append-only file; set `appendonly yes` there"
                raise Refused("store_unavailable", detail=detail)
            bring_up_to_date(client, store._change, address)
            store._seen_work = store._counted()
            store._seen = store._seen_work[0]
        return store

    # --- transactions -----------------------------------------------------------------------------------------------

    @contextmanager
    def _told_plainly(self) -> Iterator[None]:
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError) as error:
            detail = f"no Redis answers at {self._address} ({error}); start it there, or name another in store.redis"
            raise Refused("store_unavailable", detail=detail) from error
        except redis.ResponseError as error:
            detail = f"Redis at {self._address} refuses to write: {error}; see to its memory, disk and rights"
            raise Refused("store_unavailable", detail=detail) from error

    def _change(self, work: Callable[[Any], T], *watched: str) -> T:
        """Run `work(pipe)` until nobody came between. It reads, calls `pipe.multi()`, and queues its writes."""
        give_up_s = time.monotonic() + limits.STORE_WAIT_S_MAX
        with self._told_plainly(), self._redis.pipeline(transaction=True) as pipe:
            while True:
                try:
                    if watched:
                        pipe.watch(*watched)
                    result = work(pipe)
                    if len(pipe):
                        pipe.incr(COMMITS)
                        pipe.execute()
                    else:
                        pipe.reset()
                    return result
                except redis.WatchError:
                    if time.monotonic() > give_up_s:
                        detail = f"Redis at {self._address} is too busy: a write was overtaken for too long"
                        raise Refused("store_unavailable", detail=detail) from None

    def wait(self, timeout_s: float) -> bool:
        """See `Store.wait`."""
        end_s, start = time.monotonic() + timeout_s, self._seen
        while not self._closing.is_set():
            with self._told_plainly():
                commits = int(self._redis.get(COMMITS) or 0)
            if commits != start:
                self._seen = commits
                return True
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._closing.wait(min(POLL_S, left_s))
        return False

    def wait_for_work(self, timeout_s: float) -> bool:
        """See `Store.wait_for_work`."""
        end_s = time.monotonic() + timeout_s
        while not self._closing.is_set():
            with self._told_plainly():
                found = self._counted()
            left_s = end_s - time.monotonic()
            if found[1] != self._seen_work[1] or left_s <= 0:
                before, self._seen_work = self._seen_work, found
                return found != before
            self._closing.wait(min(POLL_S, left_s))
        return False

    def _counted(self) -> tuple[int, int]:
        """Commits so far, and news among them."""
        commits, news = self._redis.mget(COMMITS, NEWS)
        return int(commits or 0), int(news or 0)

    def close_store(self) -> None:
        """See `Store.close_store`."""
        self._closing.set()
        self._redis.close()

    # --- actions ----------------------------------------------------------------------------------------------------

    def open_action(
        self, action: ActionRecord, phase: PhaseRecord, batches: Sequence[NewBatch]
    ) -> tuple[ActionRecord, bool]:
        """See `Ledger.open_action`."""
        reference = f"{PREFIX}references:{action.tenant}"

        def work(pipe: Any) -> tuple[ActionRecord, bool]:
            known = pipe.hget(reference, action.reference)
            if known is not None:
                found = read_action(pipe, int(known))
                assert found is not None
                if found.record.digest != action.digest:
                    raise Refused("reference_conflict", "reference", reference=action.reference)
                return found.record, False
            number = int(pipe.incr(f"{PREFIX}ids"))
            first = int(pipe.incrby(f"{PREFIX}batches", len(batches))) - len(batches) + 1
            stored = msgspec.structs.replace(action, id=number)
            pipe.multi()
            pipe.hset(reference, action.reference, str(number))
            pipe.zadd(ALL, {str(number): number})
            write_action(pipe, Action(stored, [msgspec.structs.replace(phase, action=number)]))
            add_batches(pipe, stored, phase.phase, first, batches)
            return stored, True

        return self._change(work, reference)

    def add_phase(
        self, action: int, phase: PhaseRecord, batches: Sequence[NewBatch], *, state: str, from_states: Sequence[str]
    ) -> bool:
        """See `Ledger.add_phase`."""

        def work(pipe: Any) -> bool:
            found = read_action(pipe, action)
            if found is None or found.record.state not in from_states:
                return False
            first = int(pipe.incrby(f"{PREFIX}batches", len(batches))) - len(batches) + 1
            record = msgspec.structs.replace(found.record, state=state)
            pipe.multi()
            write_action(pipe, Action(record, [*found.phases, msgspec.structs.replace(phase, action=action)]))
            add_batches(pipe, record, phase.phase, first, batches)
            return True

        return self._change(work, key_of(action, "action"))

    def close(
        self, action: int, *, state: str, now_ms: int, outcome: str | None = None, result_body: bytes | None = None
    ) -> bool:
        """See `Ledger.close`."""
        return self._set_state(
            action, ("open", "paused"), state=state, closed_ms=now_ms, outcome=outcome, result_body=result_body
        )

    def set_paused(self, action: int, paused: bool) -> bool:
        """See `Ledger.set_paused`."""
        return self._set_state(action, ("open", "paused"), state="paused" if paused else "open")

    def _set_state(self, action: int, from_states: Sequence[str], **values: Any) -> bool:
        def work(pipe: Any) -> bool:
            found = read_action(pipe, action)
            if found is None or found.record.state not in from_states:
                return False
            pipe.multi()
            write_action(pipe, Action(msgspec.structs.replace(found.record, **values), found.phases))
            return True

        return self._change(work, key_of(action, "action"))

    def move_end(self, action: int, *, end_ms: int, now_ms: int) -> bool:
        """See `Ledger.move_end`. What waits for the end is never due before it, wherever this is cut short."""
        with self._told_plainly():
            before = read_action(self._redis, action)
        if before is None:
            return False

        def work(pipe: Any) -> bool:
            found = read_action(pipe, action)
            if found is None or found.record.state not in ("open", "paused") or found.record.end_ms <= now_ms:
                return False
            phases = [msgspec.structs.replace(phase, end_ms=end_ms) for phase in found.phases]
            pipe.multi()
            write_action(pipe, Action(msgspec.structs.replace(found.record, end_ms=end_ms), phases))
            return True

        def wait() -> None:
            self._reschedule(action, end_ms, lambda batch: batch.due_ms >= before.record.end_ms)

        if end_ms >= before.record.end_ms:
            wait()
            return self._change(work, key_of(action, "action"))
        moved = self._change(work, key_of(action, "action"))
        if moved:
            wait()
        return moved

    def hasten(self, action: int, *, below_seq: int) -> int:
        """See `Ledger.hasten`. One transaction a batch: those done stay done if this is cut short."""
        return self._reschedule(action, 0, lambda batch: batch.seq < below_seq and batch.due_ms > 0)

    def _reschedule(self, action: int, due_ms: int, which: Callable[[Batch], bool]) -> int:
        """Let batches that wait for their time and that no sender ever had be due at another one."""
        with self._told_plainly():
            batches = self._read_batches(action, self._unfinished(action, _LATER))
        changed = 0
        for known in batches:
            if known.token or not which(known):
                continue

            def work(pipe: Any, batch: int = known.id) -> int:
                _, one, stored = read(pipe, action, batch)
                if one.token or not which(one):
                    return 0
                one.due_ms = due_ms
                pipe.multi()
                write_batch(pipe, one, stored)
                pipe.incr(NEWS)
                return 1

            changed += self._change(work, key_of(action, "action"), batch_key(action, known.id))
        return changed

    def action(self, action: int) -> ActionRecord | None:
        """See `Ledger.action`."""
        with self._told_plainly():
            found = read_action(self._redis, action)
        return None if found is None else found.record

    def action_by_reference(self, tenant: str, reference: str) -> ActionRecord | None:
        """See `Ledger.action_by_reference`."""
        with self._told_plainly():
            known = self._redis.hget(f"{PREFIX}references:{tenant}", reference)
        return None if known is None else self.action(int(known))

    def actions(self, states: Sequence[str] | None = None) -> list[ActionRecord]:
        """See `Ledger.actions`. Those not over are few and found at once; the others are looked for in all."""
        among = ACTIVE if states is not None and set(states) <= set(_LIVING) else ALL
        with self._told_plainly():
            found = self._read_actions(among)
        return [one.record for one in found if states is None or one.record.state in states]

    def phases(self, action: int) -> list[PhaseRecord]:
        """See `Ledger.phases`."""
        with self._told_plainly():
            found = read_action(self._redis, action)
        return [] if found is None else found.phases

    def _read_actions(self, among: str) -> list[Action]:
        numbers = [int(number) for number in self._redis.zrange(among, 0, -1)]
        with self._redis.pipeline(transaction=False) as pipe:
            for number in numbers:
                pipe.get(key_of(number, "action"))
            return [ACTIONS.decode(one) for one in pipe.execute() if one is not None]

    # --- deliveries -------------------------------------------------------------------------------------------------

    def ready(self, *, channels: Sequence[int], lanes: Sequence[int], now_ms: int, share: Share = Share.ALL) -> bool:
        """See `Ledger.ready`. Yes: the question would cost as much as a claim."""
        return True

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
        with self._told_plainly():
            active = self._read_actions(ACTIVE)
            for action in active:
                self._sweep(action, now_ms)
            candidates = [
                one for action in active for one in self._waiting(action, channels, lanes, now_ms, most, share)
            ]
        leases: list[Lease] = []
        for _, _, batch, action_id in sorted(candidates):
            if len(leases) < most:
                leases += self._take(action_id, batch, owner, now_ms, now_ms + lease_ms)
        return leases

    def _waiting(
        self, action: Action, channels: Sequence[int], lanes: Sequence[int], now_ms: int, most: int, share: Share
    ) -> list[tuple[int, int, int, int]]:
        """(lane, seq, batch, action) of batches that may be taken; of those ready no more than are asked for."""
        number, paused = action.record.id, action.record.state == "paused"
        if action.record.lane not in lanes or not most:
            return []
        found: set[int] = set()
        for index in ("leased", *(f"later{channel}" for channel in channels)):
            found |= {int(one) for one in self._redis.zrangebyscore(key_of(number, index), "-inf", now_ms)}
        if not paused:
            for channel in channels:
                turn = key_of(number, f"turn{channel}")
                found |= {int(one) for one in self._redis.zrange(turn, 0, most - 1)}
                if share is Share.OTHERS:
                    found |= {int(one) for one in self._redis.zrangebyscore(turn, 1, "+inf", start=0, num=most)}
        return [
            (batch.lane, batch.seq, batch.id, number)
            for batch in self._read_batches(number, sorted(found))
            if batch.channel in channels
            and (batch.owner is not None or not paused)
            and _is_of(share, batch, action, now_ms)
        ]

    def _take(self, action: int, batch: int, owner: str, now_ms: int, until_ms: int) -> list[Lease]:
        def work(pipe: Any) -> list[Lease]:
            found, one, stored = read(pipe, action, batch)
            if one.due_ms > now_ms or not row_logic.has_open(stored[0]):
                return []
            status, reason = row_logic.let_go(*stored, one.channel, found.stop(one.phase))
            paused = found.record.state == "paused"
            wanted = row_logic.has_open(status) and not paused
            rows, generations = pipe.hmget(batch_key(action, batch), "rows", "generations")
            if wanted:
                one.owner, one.due_ms, one.token = owner, until_ms, one.token + 1
            else:
                one.owner = None
            pipe.multi()
            write_batch(pipe, one, (status, reason))
            if not wanted:
                return []
            return [lease_of(one, rows, generations, (status, reason))]

        return self._change(work, key_of(action, "action"), batch_key(action, batch))

    def _sweep(self, action: Action, now_ms: int) -> None:
        """Settle what nobody works on in phases that are over, and forget an action that wants nothing more."""
        number = action.record.id
        over = {phase.phase for phase in action.phases if action.is_over(phase.phase, now_ms)}
        if not over:
            return
        unleased = self._unfinished(number, _UNLEASED)
        lost = [int(one) for one in self._redis.zrangebyscore(key_of(number, "leased"), "-inf", now_ms)]
        for batch in self._read_batches(number, [*unleased, *lost]):
            if batch.phase in over:  # a phase that came since the action was read is not
                self._end(number, batch.id, now_ms)
        if action.record.state not in _LIVING:
            self._forget(number)

    def _forget(self, action: int) -> None:
        """Look no more at an action of which no batch wants work; one that comes to it meanwhile is not overlooked."""
        wanted = [key_of(action, index) for index in ("leased", *_UNLEASED)]  # an empty set is no key

        def work(pipe: Any) -> None:
            if not pipe.exists(*wanted):
                pipe.multi()
                pipe.zrem(ACTIVE, str(action))

        if not self._redis.exists(*wanted):
            self._change(work, *wanted)

    def _end(self, action: int, batch: int, now_ms: int) -> None:
        def work(pipe: Any) -> None:
            found, one, stored = read(pipe, action, batch)
            held = one.owner is not None and one.due_ms > now_ms
            if held or not found.is_over(one.phase, now_ms):
                return
            one.owner = None
            pipe.multi()
            write_batch(pipe, one, row_logic.let_go(*stored, one.channel, found.stop(one.phase) or Event.END))

        self._change(work, key_of(action, "action"), batch_key(action, batch))

    def _unfinished(self, action: int, indexes: Sequence[str]) -> list[int]:
        """Batches that want work, by the sets they stand in."""
        with self._redis.pipeline(transaction=False) as pipe:
            for index in indexes:
                pipe.zrange(key_of(action, index), 0, -1)
            return sorted(int(one) for part in pipe.execute() for one in part)

    def intend(self, lease: Lease, index: NDArray[np.intp], *, now_ms: int) -> bool:
        """See `Ledger.intend`."""

        def work(pipe: Any) -> bool:
            found, one, (status, reason) = read(pipe, lease.action, lease.batch)
            held = one.owner is not None and one.token == lease.token
            phase = found.phases[one.phase]
            if not held or found.record.state != _GOES_OUT[phase.name] or now_ms >= phase.end_ms:
                return False
            pipe.multi()
            write_batch(pipe, one, (row_logic.intended(status, index), reason))
            return True

        return self._change(work, key_of(lease.action, "action"), batch_key(lease.action, lease.batch))

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

        def work(pipe: Any) -> None:
            found, one, stored = read(pipe, lease.action, lease.batch)
            held = one.owner is not None and one.token == lease.token
            stop = found.stop(one.phase)
            merged = row_logic.settled(stored, (status, reason), held=held, over=stop is not None)
            if not held and np.array_equal(merged[0], stored[0]):
                return
            one.first_ms = min((ms for ms in (one.first_ms, first_ms) if ms is not None), default=None)
            one.last_ms = max((ms for ms in (one.last_ms, last_ms) if ms is not None), default=None)
            further = row_logic.moved_batches(lease.rows, stored[0], merged[0], moved) if held else []
            first = int(pipe.incrby(f"{PREFIX}batches", len(further))) - len(further) + 1
            if held:
                one.owner, one.due_ms, one.attempt = None, not_before_ms, one.attempt + 1
                merged = row_logic.let_go(*merged, one.channel, stop)
            pipe.multi()
            write_batch(pipe, one, merged)
            add_batches(pipe, found.record, one.phase, first, further)

        self._change(work, key_of(lease.action, "action"), batch_key(lease.action, lease.batch))

    def renew(self, leases: Sequence[Lease], *, until_ms: int) -> None:
        """See `Ledger.renew`."""
        for lease in leases:

            def work(pipe: Any, lease: Lease = lease) -> None:
                _, one, stored = read(pipe, lease.action, lease.batch)
                if one.owner is not None and one.token == lease.token and one.due_ms < until_ms:
                    one.due_ms = until_ms
                    pipe.multi()
                    write_batch(pipe, one, stored)

            self._change(work, key_of(lease.action, "action"), batch_key(lease.action, lease.batch))

    def release(self, owner: str) -> int:
        """See `Ledger.release`."""
        released = 0
        with self._told_plainly():
            active = self._read_actions(ACTIVE)
        for action in active:
            number = action.record.id
            for batch in self._read_batches(number, self._unfinished(number, ("leased",))):
                if batch.owner == owner:
                    work = partial(_release, action=number, batch=batch.id, owner=owner)
                    released += self._change(work, key_of(number, "action"), batch_key(number, batch.id))
        return released

    def batches(self, action: int) -> Iterator[BatchView]:
        """See `Ledger.batches`."""
        with self._told_plainly():
            numbers = [int(number) for number in self._redis.lrange(key_of(action, "batches"), 0, -1)]
            with self._redis.pipeline(transaction=True) as pipe:  # one moment of all of them
                pipe.get(key_of(action, "action"))
                for number in numbers:
                    pipe.hmget(batch_key(action, number), "meta", "status", "reason", "rows", "generations")
                raw, *read = pipe.execute()
        if raw is None:
            return iter(())
        found = ACTIONS.decode(raw)
        views = []
        for meta, status, reason, rows, generations in read:
            one = BATCHES.decode(meta)
            views.append(view_of(one, rows, generations, marks_of(found, one, status, reason)))
        return iter(sorted(views, key=lambda view: (view.phase, view.seq, view.channel, view.batch)))

    def open_rows(self) -> Rows:
        """See `Ledger.open_rows`."""
        with self._told_plainly():
            active = self._read_actions(ACTIVE)
        parts = [np.empty(0, np.uint32)]
        for action in active:
            living = action.record.state in _LIVING
            parts += [view.rows for view in self.batches(action.record.id) if living or row_logic.has_open(view.status)]
        return np.unique(np.concatenate(parts))

    def _read_batches(self, action: int, numbers: Sequence[int]) -> list[Batch]:
        with self._redis.pipeline(transaction=False) as pipe:
            for number in numbers:
                pipe.hget(batch_key(action, number), "meta")
            return [BATCHES.decode(meta) for meta in pipe.execute()]


def _release(pipe: Any, action: int, batch: int, owner: str) -> int:
    found, one, stored = read(pipe, action, batch)
    if one.owner != owner:
        return 0
    one.owner, one.due_ms = None, 0
    pipe.multi()
    write_batch(pipe, one, row_logic.let_go(*stored, one.channel, found.stop(one.phase)))
    pipe.incr(NEWS)
    return int(row_logic.has_open(stored[0]))  # one that a close left nothing of ended with that


def _is_of(share: Share, batch: Batch, action: Action, now_ms: int) -> bool:
    """Whether a batch is among those that a claim is for; a phase that the action had not when it was read is new."""
    if share is Share.OTHERS and not batch.seq and not batch.token:
        return batch.phase < len(action.phases) and action.phases[batch.phase].created_ms <= now_ms - LEFT_MS
    return share is not Share.NEAREST or not batch.seq
