"""Receipts and counts of the Redis store: both read what they are about, and no more.

A receipt finds its batch by a directory that is kept here (`directory.py`); the batches concerned are then watched,
read in one go, and written in one transaction with their new marks and tally. Rules:

1. `BATCHES_MOST` to a transaction: many receipts at once are few round trips, and a sender that settles one of those
   batches meanwhile makes little be done again. What is done stays done if this is cut short: receipts are idempotent,
   and whoever brings them and gets no answer brings them again.
2. Inside a group receipts are written together at its end, whoever brought them: providers that send one receipt a body
   cost what others do. How many rows change is told from the ledger as it was read in the group, and what the group did
   to it; what is written is worked out anew at its end, from the ledger as it is then.
3. Counts are summed from tallies of some hundred bytes, and never read a row.

No Redis library is imported here: `RedisStore` brings the client and the transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fanout.store import rows as row_logic
from fanout.store.directory import Directories, Key, Part
from fanout.store.protocol import BatchCounts, Rows
from fanout.store.redis_keys import (
    ACTIONS,
    BATCHES,
    Action,
    batch_key,
    key_of,
    marks_of,
    of_key,
    write_batch,
    write_marks,
)
from fanout.store.redis_shelves import RedisShelves
from fanout.store.states import State

BATCHES_MOST: Final = 64
_STATES: Final = len(State)

Places: TypeAlias = NDArray[np.intp]
Goods: TypeAlias = NDArray[np.bool_]
News: TypeAlias = Sequence[tuple[int, Places, Goods]]
"""Batches, each with places in it and what their receipts say."""


class _Group:
    """The receipts of one group. `marks`: batches as they were read, and what the group has done to them."""

    def __init__(self) -> None:
        self.batches: dict[Key, int] = {}
        self.marks: dict[tuple[int, int], row_logic.Columns] = {}
        self.news: dict[int, dict[int, list[tuple[Places, Goods]]]] = {}  # by action and batch


class RedisReceipts(RedisShelves):
    """`apply_receipts` and `counts` of the store protocol."""

    def __init__(self) -> None:
        self._directories = Directories()
        self._groups = threading.local()

    @contextmanager
    def group(self) -> Iterator[None]:
        """See `Store.group`. Redis flushes for all clients at once, so only receipts have something to share."""
        group = self._groups.current = _Group()
        try:
            yield
        finally:
            self._groups.current = None
        for action, batches in group.news.items():
            self._receive_all(action, [_joined(number, parts) for number, parts in sorted(batches.items())])

    def apply_receipts(self, action: int, phase: int, channel: int, rows: Rows, delivered: NDArray[np.bool_]) -> int:
        """See `Ledger.apply_receipts`."""
        key, group = (action, phase, channel), getattr(self._groups, "current", None)
        with self._told_plainly():
            batches = None if group is None else group.batches.get(key)
            if batches is None:
                batches = int(self._redis.llen(of_key(*key)))
            where = self._directories.current(key, batches, lambda: self._parts(key))
        found = where.find(rows, delivered)
        if group is None:
            return self._receive_all(action, found)
        group.batches[key] = batches
        return self._gather(group, action, found)

    def _gather(self, group: _Group, action: int, news: News) -> int:
        """Keep receipts until the group ends; returns how many rows change by them."""
        unknown = [number for number, _, _ in news if (action, number) not in group.marks]
        if unknown:
            with self._told_plainly():
                found, batches = self._read_marks(action, unknown)
            for number, (meta, status, reason) in zip(unknown, batches, strict=True):
                group.marks[action, number] = marks_of(found, BATCHES.decode(meta), status, reason)
        changed = 0
        for number, place, good in news:
            before = group.marks[action, number]
            after = group.marks[action, number] = row_logic.received(before, place, good)
            moved = int((after[0] != before[0]).sum())
            if moved:
                group.news.setdefault(action, {}).setdefault(number, []).append((place, good))
                changed += moved
        return changed

    def _receive_all(self, action: int, news: News) -> int:
        return sum(
            self._receive(action, news[begin : begin + BATCHES_MOST]) for begin in range(0, len(news), BATCHES_MOST)
        )

    def _read_marks(self, action: int, numbers: Sequence[int]) -> tuple[Action, list[list[bytes]]]:
        """The action, and `meta`, `status`, `reason` of batches of it, in one round trip."""
        with self._redis.pipeline(transaction=False) as reader:
            reader.get(key_of(action, "action"))
            for number in numbers:
                reader.hmget(batch_key(action, number), "meta", "status", "reason")
            raw, *batches = reader.execute()
        return ACTIONS.decode(raw), batches

    def _parts(self, key: Key) -> list[Part]:
        """The rows of all batches of one (action, phase, channel)."""
        numbers = [int(number) for number in self._redis.lrange(of_key(*key), 0, -1)]
        with self._redis.pipeline(transaction=False) as pipe:
            for number in numbers:
                pipe.hget(batch_key(key[0], number), "rows")
            return list(zip(numbers, pipe.execute(), strict=True))

    def _receive(self, action: int, news: News) -> int:
        numbers = [number for number, _, _ in news]

        def work(pipe: Any) -> int:
            found, batches = self._read_marks(action, numbers)  # on a connection beside the watch, which holds it
            changed = 0
            pipe.multi()
            for (_, place, good), (meta, status, reason) in zip(news, batches, strict=True):
                changed += _mark(pipe, found, meta, status, reason, place, good)
            return changed

        return self._change(work, key_of(action, "action"), *(batch_key(action, number) for number in numbers))

    def counts(self, action: int) -> list[BatchCounts]:
        """See `Ledger.counts`."""
        with self._told_plainly():
            numbers = [int(number) for number in self._redis.lrange(key_of(action, "batches"), 0, -1)]
            with self._redis.pipeline(transaction=True) as pipe:  # one moment of all of them
                pipe.get(key_of(action, "action"))
                for number in numbers:
                    pipe.hmget(batch_key(action, number), "meta", "tally")
                raw, *found = pipe.execute()
        if raw is None:
            return []
        whole = ACTIONS.decode(raw)
        counted = []
        for meta, stored in found:
            one = BATCHES.decode(meta)
            tally = np.frombuffer(stored, np.uint32)
            if (stop := whole.stop(one.phase)) is not None:
                tally = row_logic.stopped_tally(tally, stop)
            counted.append((one, tally.tolist()))
        counted.sort(key=lambda pair: (pair[0].phase, pair[0].seq, pair[0].channel, pair[0].id))
        return [
            BatchCounts(
                phase=one.phase,
                channel=one.channel,
                states=tuple(tally[:_STATES]),
                reasons=tuple(tally[_STATES:]),
                first_ms=one.first_ms,
                last_ms=one.last_ms,
            )
            for one, tally in counted
        ]


def _joined(number: int, parts: Sequence[tuple[Places, Goods]]) -> tuple[int, Places, Goods]:
    places, goods = zip(*parts, strict=True)
    return number, np.concatenate(places), np.concatenate(goods)


def _mark(
    pipe: Any,
    found: Action,
    meta: bytes,
    status: bytes,
    reason: bytes,
    place: Places,
    good: Goods,
) -> int:
    """Queue what receipts make of one batch; returns how many rows change."""
    one = BATCHES.decode(meta)
    stored = marks_of(found, one, status, reason)
    after = row_logic.received(stored, place, good)
    changed = int((after[0] != stored[0]).sum())
    if not changed:
        return 0
    if row_logic.has_open(after[0]) == row_logic.has_open(np.frombuffer(status, np.uint8)):
        write_marks(pipe, one, after)  # it stands where it stood
    else:
        write_batch(pipe, one, after)
    return changed
