"""Which form a ledger in Redis has: what an earlier version wrote is brought up to date, what a later one wrote is
refused.

Form 1 (which did not say so) had neither tallies nor the lists of batches by phase and channel: actions in it would
count nothing and their receipts find nobody. Form 2 has both; in form 3 tallies have a state more (`BOUNCED`); in form
4 batches that wait for their time stand by channel. An earlier database is looked through, once, and then says 4; a
crash half way is taken up by the next opening, and two that open at once do no harm, since each batch is brought up to
date by a transaction that watches it. No Redis library is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fanout.errors import Refused
from fanout.store import rows as row_logic
from fanout.store.redis_keys import ALL, BATCHES, PREFIX, batch_key, key_of, of_key, write_marks

FORMAT: Final = f"{PREFIX}format"
VERSION: Final = 4
_EARLIER: Final = (None, b"2", b"3")


def bring_up_to_date(client: Any, change: Callable[..., Any], address: str) -> None:
    """Make a ledger be of this version's form. `change(work, *watched)` runs a transaction.

    Errors: `Refused("file_version")` for one that a later version wrote.
    """
    given = client.get(FORMAT)
    if given == str(VERSION).encode():
        return
    if given not in _EARLIER:
        raise Refused("file_version", path=f"the ledger in Redis at {address}", given=given.decode(), known=VERSION)
    for action in client.zrange(ALL, 0, -1):
        _upgrade(client, change, int(action))
    client.set(FORMAT, VERSION)


def _upgrade(client: Any, change: Callable[..., Any], action: int) -> None:
    once = key_of(action, "later")
    for batch in client.lrange(key_of(action, "batches"), 0, -1):
        name = batch_key(action, int(batch))
        one = BATCHES.decode(client.hget(name, "meta"))
        listed = of_key(action, one.phase, one.channel)
        now = key_of(action, f"later{one.channel}")

        def work(pipe: Any, batch: bytes = batch, name: str = name, listed: str = listed, now: str = now) -> None:
            meta, status, reason, tally = pipe.hmget(name, "meta", "status", "reason", "tally")
            known, due_ms = batch in pipe.lrange(listed, 0, -1), pipe.zscore(once, batch)
            marks = np.frombuffer(status, np.uint8), np.frombuffer(reason, np.uint8)
            pipe.multi()
            if tally is None or len(tally) != row_logic.tally(*marks).nbytes:
                write_marks(pipe, BATCHES.decode(meta), marks)
            if not known:
                pipe.rpush(listed, batch)
            if due_ms is not None:
                pipe.zrem(once, batch)
                pipe.zadd(now, {batch: due_ms})

        change(work, name, listed)
