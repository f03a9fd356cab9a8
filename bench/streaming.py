"""Questions of a registry alone, and while 200,000 positions a second come in: part of the bench `selection`.

Four kinds of question, all with live positions where people are selected: a circle, a municipality, the nearest, a
count. Each at a steady pace, 200 a second as from several control rooms, and a hundred mixed ones handed to a pool at
once. What streams in are the bodies of `POST /v1/positions` in msgpack, as phones' servers send them, decoded and taken
in by the same calls as the API's; which is all that is left of the API here. `positions_per_s` says how many were.

`ingest_cpu`: what that takes of a core. Everybody has a live position. `ratio`: to the same questions alone;
`p99_over_p50`: how long the tail is.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from bench.harness import Options, Row, Timing, compared, timing_of
from fanout import wire
from fanout.geo import from_geojson, shapes
from fanout.registry.bodies import positions
from fanout.registry.registry import Registry
from fanout.selection import Query, choose
from fanout.selection.preview import reach
from fanout.start import SWITCH_S

POSITIONS_PER_S: Final = 200_000
BATCHES_PER_S: Final = 50
NOON_MS: Final = 1_790_596_800_000


def rows(registry: Registry, queries: list[Query], areas: dict[str, Any], options: Options) -> Iterator[Row]:
    """Mixed questions alone and while positions stream in: by kind at a steady pace, then a hundred at once."""
    people, span_s, again = registry.view().people, 1.0 if options.quick else 6.0, 2 if options.quick else 5
    hits_of = [len(choose(registry.view(), query)) for query in queries]
    kinds = _kinds(queries[int(np.argsort(hits_of)[len(queries) // 2])].shape, areas)
    mixed = [one for asked in zip(*kinds.values(), strict=True) for one in asked]
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    stream = _Stream(registry, options.seed)
    try:
        stream.fill()
        alone = {kind: _paced(registry, asked, span_s) for kind, asked in kinds.items()}
        quiet = min((_burst(registry, mixed) for _ in range(again)), key=lambda timing: timing.p99_us)
        with stream:
            busy = {kind: _paced(registry, asked, span_s) for kind, asked in kinds.items()}
            burst = min((_burst(registry, mixed) for _ in range(again)), key=lambda timing: timing.p99_us)
    finally:
        sys.setswitchinterval(before_s)
    told = {"positions_per_s": round(stream.rate_per_s), "ingest_cpu": round(stream.cpu, 2), "participants": people}
    cases = {kind: (alone[kind], busy[kind], asked) for kind, asked in kinds.items()}
    cases["100 mixed at once"] = quiet, burst, mixed
    for kind, (before, during, asked) in cases.items():
        hits = int(np.median([one(registry) for one in asked]))
        yield compared(f"{kind}, with live positions", "fanout", before, None, hits, p99_over_p50=_tail(before),
                       participants=people)  # fmt: skip
        yield compared(f"{kind}, while they stream in", "fanout", during, before, hits, p99_over_p50=_tail(during),
                       **told)  # fmt: skip


def _tail(timing: Timing) -> float:
    return round(timing.p99_us / timing.p50_us, 1)


class _Stream:
    """Bodies of `POST /v1/positions` at a steady rate, each taken in whole as the API does, while the context is open.

    `rate_per_s`: positions that were; `cpu`: seconds of a core a second that it took.
    """

    def __init__(self, registry: Registry, seed: int) -> None:
        self._registry = registry
        view, random = registry.view(), np.random.default_rng(seed)
        lon, lat = view.homes()
        size = POSITIONS_PER_S // BATCHES_PER_S

        def body(rows: Any) -> bytes:
            spots = zip(view.id_of(rows), lon[rows].tolist(), lat[rows].tolist(), strict=True)
            sent = [wire.LivePosition(id=name, lon=x, lat=y, at_ms=NOON_MS) for name, x, y in spots if name]
            return wire.encode_msgpack(wire.PositionsRequest(positions=sent))

        everybody = np.arange(view.rows, dtype=np.uint32)
        self._everybody = [body(rows) for rows in np.array_split(everybody, -(-view.rows // 20_000))]
        self._bodies = [body(random.integers(0, view.rows, size).astype(np.uint32)) for _ in range(BATCHES_PER_S)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.rate_per_s = self.cpu = 0.0

    def fill(self) -> None:
        """Everybody's phone says where it is, once."""
        for body in self._everybody:
            self._take(body)

    def __enter__(self) -> None:
        self._thread.start()
        time.sleep(1.0)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        start_s, start_cpu_s, taken, number = time.monotonic(), time.thread_time(), 0, 0
        while not self._stop.is_set():
            taken += self._take(self._bodies[number % BATCHES_PER_S])
            number += 1
            self._stop.wait(max(0.0, start_s + number / BATCHES_PER_S - time.monotonic()))
        seconds = time.monotonic() - start_s
        self.rate_per_s, self.cpu = taken / seconds, (time.thread_time() - start_cpu_s) / seconds

    def _take(self, body: bytes) -> int:
        columns = positions(body)
        assert columns is not None, "a body as clients write it"
        return self._registry.positions_of(*columns, NOON_MS)[0]


Asked = Callable[[Registry], int]
"""A question of a registry as it is at that moment; answers with how many people."""


def _kinds(shape: shapes.Shape, areas: dict[str, Any]) -> dict[str, list[Asked]]:
    """Questions as control rooms ask them, 25 of each kind, all with live positions: one place a kind, a few metres on
    each time, so that the slowest is slow by chance and not by size."""
    assert isinstance(shape, shapes.Circle)
    around = [shapes.Circle(shape.lon + 500 * step, shape.lat, shape.radius_m) for step in range(25)]
    town = from_geojson(areas["municipality, 1,000 vertices"])

    def selects(query: Query) -> Asked:
        return lambda registry: len(choose(registry.view(), query))

    def counts(query: Query) -> Asked:
        return lambda registry: len(reach(registry.view(), query))

    return {
        "circle, 1.5 km": [selects(_located(one)) for one in around],
        "municipality": [selects(_located(town))] * 25,
        "nearest 1,000": [selects(_located(shapes.Nearest(one.lon, one.lat, 1_000))) for one in around],
        "count, 1.5 km": [counts(Query(shape=one, at_ms=NOON_MS)) for one in around],
    }


def _located(shape: shapes.Shape) -> Query:
    return Query(shape=shape, at_ms=NOON_MS, live="beside", live_fresh_ms=3_600_000)


def _paced(registry: Registry, asked: list[Asked], seconds: float) -> Timing:
    """Latency of questions that arrive at 200 a second, as from several control rooms."""
    for ask in asked:
        ask(registry)
    taken, number, start_s = [], 0, time.monotonic()
    while time.monotonic() < start_s + seconds:
        time.sleep(max(0.0, start_s + number / 200 - time.monotonic()))
        start_ns = time.perf_counter_ns()
        asked[number % len(asked)](registry)
        taken.append((time.perf_counter_ns() - start_ns) / 1e3)
        number += 1
    return timing_of(taken)


def _burst(registry: Registry, asked: list[Asked]) -> Timing:
    """Questions handed to a pool at the same moment: from then until each is answered."""
    start_ns = time.perf_counter_ns()

    def one(ask: Asked) -> float:
        ask(registry)
        return (time.perf_counter_ns() - start_ns) / 1e3

    with ThreadPoolExecutor(4) as pool:
        return timing_of(list(pool.map(one, asked)))
