"""The registry: import, cold start, memory, changes, and what a sender waits for an address.

Cases: a nation from Parquet; a restart from its snapshot; resident memory of a process that has done nothing but
open it and select; batches of 1 and of 5,000 upserts (durable in SQLite); a compaction; addresses of a batch of 2,048
rows, for neighbours (an action) and for rows drawn at random (the worst there is).
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from bench.harness import Options, Row, measure, note
from fanout import selection, wire
from fanout.geo import EVERYONE, circle
from fanout.registry.importing import import_file
from fanout.registry.registry import Registry
from fanout.registry.replica import Replica
from fanout.selection import Query, choose
from fanout.simulators import nation
from fanout.store.sqlite_store import SqliteStore

BATCH_ROWS = 2_048


def run(options: Options) -> Iterator[Row]:
    """Every case, on a registry and a ledger in a folder of their own."""
    people = options.participants or (200_000 if options.quick else 1_600_000)
    selection.warm()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        note(f"making {people:,} people")
        made_s, table = _timed(lambda: nation.spread(people, options.seed))
        yield {"case": "make a nation", "system": "fanout", "participants": people, "seconds": made_s}
        pq.write_table(table, folder / "people.parquet")
        del table
        yield _apart(_import, folder, people)
        yield _apart(_open, folder, people)
        store = SqliteStore.open(folder / "ledger.db", synchronous="FULL")
        registry = Registry.open(folder / "registry", store)
        yield from _changes(registry, people, 0.5 if options.quick else 3.0)
        seconds, _ = _timed(registry.compact)
        yield {"case": "compaction", "system": "fanout", "participants": people, "seconds": seconds}
        yield from _addresses(registry, Replica.open(folder / "registry", store))
        registry.close()
        store.close_store()


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start_s = time.perf_counter()
    value = call()
    return round(time.perf_counter() - start_s, 3), value


def _apart(step: Callable[[Path, int], Row], folder: Path, people: int) -> Row:
    """Do a step in a process of its own, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step, (folder, people))


def _import(folder: Path, people: int) -> Row:
    store = SqliteStore.open(folder / "ledger.db", synchronous="FULL")
    registry = Registry.open(folder / "registry", store)
    seconds, report = _timed(lambda: import_file(registry, folder / "people.parquet"))
    registry.close()
    store.close_store()
    return {"case": "import from Parquet", "system": "fanout", "participants": report.imported, "seconds": seconds,
            "bytes_on_disk": _bytes_on_disk(folder / "registry")}  # fmt: skip


def _bytes_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _open(folder: Path, people: int) -> Row:
    selection.warm()
    memory = psutil.Process()
    before = memory.memory_info().rss
    store = SqliteStore.open(folder / "ledger.db", synchronous="FULL")
    seconds, registry = _timed(lambda: Registry.open(folder / "registry", store))
    view = registry.view()
    first_s, found = _timed(lambda: choose(view, Query(shape=circle(4.9, 52.37, 2_000.0))))
    everyone = choose(view, Query(shape=EVERYONE))
    rss = memory.memory_info().rss
    row = {"case": "cold start", "system": "fanout", "participants": len(everyone), "seconds": seconds,
           "first_selection_ms": round(first_s * 1e3, 2), "hits": len(found), "rss_mb": round(rss / 1e6),
           "rss_of_registry_mb": round((rss - before) / 1e6)}  # fmt: skip
    registry.close()
    store.close_store()
    return row


def _changes(registry: Registry, people: int, seconds: float) -> Iterator[Row]:
    ids = registry.view().id_of(np.arange(0, min(people, 50_000), 7, dtype=np.uint32))
    for size in (1, 5_000):
        numbers = iter(range(1 << 30))

        def batch(size: int = size, numbers: Iterator[int] = numbers) -> None:
            start = next(numbers) * size
            registry.upsert([_person(ids[(start + at) % len(ids)], start + at) for at in range(size)])

        timing = measure([batch], seconds=seconds, most=200)
        yield {"case": f"upsert of {size:,}, durable", "system": "fanout"} | timing.row() | {
            "rate_per_s": round(size / timing.p50_us * 1e6), "delta": registry.statistics()["delta"]}  # fmt: skip


def _person(name: str, number: int) -> wire.Participant:
    place = wire.Place(lon=5.0 + number % 1_000 / 1_000, lat=52.0)
    return wire.Participant(
        id=name, places=[place], addresses=[wire.Address(channel="sms", value=f"+316{number % 10**8:08d}")]
    )


def _addresses(registry: Registry, replica: Replica) -> Iterator[Row]:
    view = registry.view()
    near = choose(view, Query(shape=EVERYONE, centre=(4.9, 52.37))).rows
    far = np.random.default_rng(1).permutation(near)
    for name, rows in (("neighbours", near), ("rows at random", far)):
        batches = [rows[start : start + BATCH_ROWS] for start in range(0, min(rows.size, 64 * BATCH_ROWS), BATCH_ROWS)]
        calls = [partial(replica.addresses, 0, rows, view.take("generation", rows)) for rows in batches]
        timing = measure(calls, seconds=0.5)
        yield {"case": f"addresses of {BATCH_ROWS:,}, {name}", "system": "fanout"} | timing.row() | {
            "rate_per_s": round(BATCH_ROWS / timing.p50_us * 1e6)}  # fmt: skip
