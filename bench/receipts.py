"""Receipts: how many delivery receipts a second go from a provider's body into the ledger, on one core.

The whole way of a receipt below the HTTP server: signature, parsing, grouping, and the ledger's durable commit
(SQLite: WAL, full sync; Redis, where `redis-server` is installed: an append-only file, flushed at every write), in the
order they come in: shuffled over the action, some doubled, some for references nobody knows.
Bodies hold 1, 10 and 100 receipts, since providers differ; bodies that arrive together share a commit, as behind the
API. At the end every row's state is compared with what was reported, and the action is counted. What the Redis server
itself burns is not in `cpu_us`: it is another process. And one a request over HTTP, at the door of receipts and at the
API (`receipt_posts`).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from bench import receipt_posts
from bench.harness import Options, Row, measure, note
from fanout.inbound.receipts import SIGNATURE, read, sign
from fanout.store.protocol import ActionRecord, NewBatch, PhaseRecord, Store
from fanout.store.redis_store import RedisStore
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import Reason, State
from fanout.wire import CHANNELS
from signage.broker import free_port

SMS = CHANNELS.index("sms")
BATCH = 500
KEY = "bench"
TOGETHER = 50
"""Bodies in one commit: what waits while the one before is flushed."""


def accepted(store: Store, rows: int) -> int:
    """An action whose SMS were all taken; returns its id."""
    now_ms = time.time_ns() // 1_000_000
    end_ms = now_ms + 3_600_000
    record = ActionRecord(
        id=0,
        tenant="bench",
        reference=f"receipts-{rows}-{now_ms}",
        digest=b"",
        kind="missing_child",
        lane=0,
        state="open",
        created_ms=now_ms,
        end_ms=end_ms,
        snapshot_version=1,
        body=b"",
    )
    phase = PhaseRecord(action=0, phase=0, name="start", created_ms=now_ms, end_ms=end_ms, texts={"nl": "x"}, titles={})
    batches = [
        NewBatch(
            channel=SMS,
            language="nl",
            seq=seq,
            rows=np.arange(begin, min(rows, begin + BATCH), dtype=np.uint32),
            generations=np.zeros(min(rows, begin + BATCH) - begin, np.uint16),
        )
        for seq, begin in enumerate(range(0, rows, BATCH))
    ]
    action = store.open_action(record, phase, batches)[0].id
    while leases := store.claim("bench", channels=(SMS,), lanes=(0,), now_ms=now_ms, lease_ms=60_000, most=64):
        with store.group():
            for lease in leases:
                store.intend(lease, np.arange(len(lease.rows)), now_ms=now_ms)
                store.settle(
                    lease,
                    status=np.full(len(lease.rows), State.ACCEPTED, np.uint8),
                    reason=np.full(len(lease.rows), Reason.NONE, np.uint8),
                    first_ms=now_ms,
                    last_ms=now_ms,
                    done=True,
                )
    return action


def bodies(action: int, rows: int, size: int, seed: int) -> tuple[list[bytes], np.ndarray]:
    """Signed-to-be bodies of `size` receipts, and bool[rows]: who was delivered. One in twenty comes twice."""
    random = np.random.default_rng(seed)
    delivered = random.random(rows) < 0.97
    order = random.permutation(np.concatenate((np.arange(rows), random.integers(0, rows, rows // 20))))
    reports = [
        {"reference": f"{action}-0-{row}", "status": {"code": 2 if delivered[row] else 3}} for row in order.tolist()
    ]
    reports += [{"reference": f"unknown-{number}", "status": {"code": 2}} for number in range(rows // 100)]
    return [
        msgspec.json.encode({"messages": {"msg": reports[begin : begin + size]}})
        for begin in range(0, len(reports), size)
    ], delivered


def run(options: Options) -> Iterator[Row]:
    """Bodies of each size into a fresh action, on each store that is at hand."""
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        store = SqliteStore.open(Path(folder) / "ledger.db")
        yield from _measured("SQLite", store, options)
        yield _posted("1 a request, at the door", receipt_posts.at_the_door, 20_000, store, options)
        yield _posted("1 a request, at the API", receipt_posts.at_the_api, 5_000, store, options)
        store.close_store()
    if shutil.which("redis-server") is None:
        note("receipts: no redis-server here, so the store on Redis is not measured")
        return
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder, _redis(Path(folder)) as url:
        shared = RedisStore.open(url)
        yield from _measured("Redis", shared, options)
        shared.close_store()


def _measured(name: str, store: Store, options: Options) -> Iterator[Row]:
    for size, rows in ((1, 2_000), (10, 10_000), (100, 50_000)):
        rows = rows if options.quick else 5 * rows
        note(f"receipts: {rows:,} rows in bodies of {size} on {name}")
        action = accepted(store, rows)
        posted, delivered = bodies(action, rows, size, options.seed)
        signed = [(body, {SIGNATURE: sign(body, KEY)}) for body in posted]
        reports = 0
        cpu_s, begin_s = time.process_time(), time.perf_counter()
        for start in range(0, len(signed), TOGETHER):
            together = []
            for body, headers in signed[start : start + TOGETHER]:
                found = read("sms", headers, body, secret=KEY)
                reports += found.reports
                together += found.receipts
            store.apply_receipts(together)
        seconds, cpu_s = time.perf_counter() - begin_s, time.process_time() - cpu_s
        state = np.concatenate([batch.status for batch in store.batches(action)])
        assert ((state == State.DELIVERED) == delivered).all(), "every row is as its receipts say"
        counting = measure([partial(store.counts, action)], seconds=0.5)
        yield {
            "case": f"{size} a body",
            "system": f"fanout, {name}",
            "receipts": reports,
            "rate_per_s": round(reports / seconds),
            "rate_per_core_s": round(reports / cpu_s),
            "cpu_us": round(1e6 * cpu_s / reports, 1),
            "counts_ms": round(counting.p50_us / 1000, 2),
        }


def _posted(case: str, serving: receipt_posts.Serving, rows: int, store: Store, options: Options) -> Row:
    rows = rows // 5 if options.quick else rows
    note(f"receipts: {rows:,} rows, {case}, on SQLite")
    action = accepted(store, rows)
    posted, delivered = bodies(action, rows, 1, options.seed)
    told = receipt_posts.measured(store, [(body, {SIGNATURE: sign(body, KEY)}) for body in posted], KEY, serving)
    state = np.concatenate([batch.status for batch in store.batches(action)])
    assert ((state == State.DELIVERED) == delivered).all(), "every row is as its receipts say"
    return {"case": case, "system": "fanout, SQLite"} | told


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """A server of our own that flushes every write, as the embedded store does; killed at the end of the block."""
    port = free_port()
    command = [
        "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes",
        "--appendfsync", "always", "--save", "", "--daemonize", "no", "--loglevel", "warning",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()
