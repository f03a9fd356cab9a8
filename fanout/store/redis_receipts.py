"""Receipts and counts of the Redis store: both read what they are about, and no more.

A receipt finds its batch by a directory that is kept here (`directory.py`); the batches concerned are then watched,
read in one go, and written in one transaction with their new marks and tally. Rules:

1. `BATCHES_MOST` to a transaction: many receipts at once are few round trips, and a sender that settles one of those
   batches meanwhile makes little be done again. What is done stays done if this is cut short: receipts are idempotent,
   and whoever brings them and gets no answer brings them again.
2. Counts are summed from tallies of some hundred bytes, and never read a row.

No Redis library is imported here: `RedisStore` brings the client and the transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fanout.store import gathering
from fanout.store import rows as row_logic
from fanout.store.directory import Directories, Directory, Key, Part
from fanout.store.gathering import News
from fanout.store.protocol import BatchCounts, Receipts, Rows
from fanout.store.redis_keys import (
    ACTIONS,
    ACTIVE,
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


class RedisReceipts(RedisShelves):
    """`apply_receipts` and `counts` of the store protocol."""

    def __init__(self) -> None:
        self._directories = Directories()

    @contextmanager
    def group(self) -> Iterator[None]:
        """See `Store.group`. Redis flushes for all clients at once, so there is nothing to share."""
        yield

    def apply_receipts(self, receipts: Sequence[Receipts]) -> list[int]:
        """See `Ledger.apply_receipts`."""
        with self._told_plainly():
            found = list(gathering.news(receipts, self._directory))
        changed = np.zeros(len(receipts), np.int64)
        for action, of_action in groupby(found, attrgetter("action")):
            news = list(of_action)
            for begin in range(0, len(news), BATCHES_MOST):
                changed += self._receive(action, news[begin : begin + BATCHES_MOST], len(receipts))
        return changed.tolist()

    def _directory(self, key: Key, rows: Rows) -> Directory:
        def count() -> int:
            return int(self._redis.llen(of_key(*key)))

        return self._directories.current(key, rows, count, partial(self._parts, key))

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

    def _receive(self, action: int, news: Sequence[News], receipts: int) -> NDArray[np.int64]:
        numbers = [one.batch for one in news]

        def work(pipe: Any) -> NDArray[np.int64]:
            found, batches = self._read_marks(action, numbers)  # on a connection beside the watch, which holds it
            changed = np.zeros(receipts, np.int64)
            pipe.multi()
            for one, (meta, status, reason) in zip(news, batches, strict=True):
                _mark(pipe, found, one, (meta, status, reason), changed)
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


def _mark(pipe: Any, found: Action, news: News, stored: tuple[bytes, bytes, bytes], changed: NDArray[np.int64]) -> None:
    """Queue what receipts make of one batch, `stored` as its meta, status and reason; add to `changed` what they do."""
    meta, status, reason = stored
    one = BATCHES.decode(meta)
    before = marks_of(found, one, status, reason)
    if news.bounced.any() and found.stop(one.phase) is not None:
        news = gathering.in_action_that_is_over(news)
    after = row_logic.received(before, news.place, news.delivered, news.bounced)
    if not gathering.count_changes(news, before[0], after[0], changed):
        return
    if row_logic.has_open(after[0]) == row_logic.has_open(np.frombuffer(status, np.uint8)):
        write_marks(pipe, one, after)  # it stands where it stood
    else:
        write_batch(pipe, one, after)
        pipe.zadd(ACTIVE, {str(one.action): one.action})  # it may be one of which nothing was left to do
