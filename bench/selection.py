"""Selection against everything that can answer the same question on this machine, and against a copy of the answer.

Cases: circles of 200 m, 1.5 km and 10 km round people drawn at random; a municipality of 100 and of 1,000 vertices; a
province; everyone; the nearest 1,000; a count; the making of the index; a whole selection (people, filters, order) of a
registry; and selections while 200,000 positions a second come in. Then the cost curve: the same circle among more
people.

`ratio` is how many times as long as ours a system takes (p50). `memory copy` is what copying our answer's rows out of
an array costs: the floor for anything that gives rows out. Every system's rows are compared with ours.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from bench import peers, world
from bench.harness import Options, Row, Timing, measure, note, timing_of
from fanout import selection
from fanout.geo import EVERYONE, PlaceIndex, circle, from_geojson
from fanout.registry import packed
from fanout.registry.entries import STREAM
from fanout.registry.registry import Registry
from fanout.selection import Query, choose
from fanout.selection.preview import by_channel, density, reach
from fanout.simulators import nation

RADII_M = (200.0, 1_500.0, 10_000.0)
POSITIONS_PER_S = 200_000
NOON_MS = 1_790_596_800_000
CENTRES = 32


def run(options: Options) -> Iterator[Row]:
    """Every case; `--participants` sets the size of the comparison and leaves the cost curve out."""
    selection.warm()
    people = options.participants or (400_000 if options.quick else 1_600_000)
    seconds = 0.25 if options.quick else 1.5
    yield from _against_peers(options, people, seconds)
    yield from _registry(options, people if options.participants else (200_000 if options.quick else people), seconds)
    if options.participants is None:
        curve = list(_curve(options, (100_000, people) if options.quick else (100_000, people, 16_000_000, 50_000_000)))
        yield from curve
        _plot(curve, options.out)


# --- the same question to all -----------------------------------------------------------------------------------------


def _against_peers(options: Options, people: int, seconds: float) -> Iterator[Row]:
    note(f"making {people:,} people")
    here = world.make(people, options.seed)
    index, ours = _built(lambda: PlaceIndex.build(here.lon, here.lat), 5)
    yield _row(f"build, {people:,}", "fanout", ours, None, people, bytes_per_place=round(index.nbytes / people, 1))
    # what the index answers is of rounded coordinates, and so must the others
    lon, lat = np.empty(people), np.empty(people)
    lon[index.rows], lat[index.rows] = index.lon / 1e7, index.lat / 1e7
    systems: list[Any] = []
    for make in peers.PEERS:
        note(f"building {make.name}")  # type: ignore[attr-defined]
        try:
            system, taken = _built(partial(make, lon, lat), 1)
        except ImportError as missing:
            note(f"  not here: {missing}")
            continue
        systems.append(system)
        if system.name != "numpy":
            yield _row(f"build, {people:,}", system.name, taken, ours, people)
    with tempfile.TemporaryDirectory() as folder, peers.redis_server(Path(folder)) as client:
        if client is None:
            note("  not here: redis-server")
        else:
            note("filling redis")
            system, taken = _built(partial(peers.Redis, client, lon, lat), 1)
            systems.append(system)
            yield _row(f"build, {people:,}", system.name, taken, ours, people)
        yield from _cases(options, index, lon, lat, here.areas, systems, seconds)
    note("PostGIS, Tile38 and DuckDB spatial are not asked: this bench has no client for them")


def _cases(
    options: Options, index: PlaceIndex, lon: Any, lat: Any, areas: dict[str, Any], systems: list[Any], seconds: float
) -> Iterator[Row]:
    random = np.random.default_rng(options.seed)
    at = random.integers(0, lon.size, CENTRES)
    centres = list(zip(lon[at].tolist(), lat[at].tolist(), strict=True))
    for radius_m in RADII_M:
        mine = [circle(x, y, radius_m) for x, y in centres]
        asked = {
            system.name: [partial(system.circle, x, y, radius_m) for x, y in centres]
            for system in systems
            if hasattr(system, "circle")
        }
        name = f"circle, {radius_m / 1000:g} km"
        yield from _case(name, index, [partial(index.select, shape) for shape in mine], asked, systems, seconds)
    mine = [circle(x, y, 1_500.0) for x, y in centres]
    asked = {s.name: [partial(s.count, x, y, 1_500.0) for x, y in centres] for s in systems if hasattr(s, "count")}
    yield from _case("count, 1.5 km", index, [partial(index.count, shape) for shape in mine], asked, systems, seconds)
    for name, geometry in areas.items():
        shape, geos = from_geojson(geometry), shapely.geometry.shape(geometry)
        asked = {s.name: [partial(s.polygon, geos)] for s in systems if hasattr(s, "polygon")}
        yield from _case(name, index, [partial(index.select, shape)], asked, systems, seconds)
    asked = {
        s.name: [partial(s.nearest, x, y, 1_000) for x, y in centres[:4]] for s in systems if hasattr(s, "nearest")
    }
    mine_near = [partial(index.nearest, x, y, 1_000) for x, y in centres[:4]]
    yield from _case("nearest 1,000", index, mine_near, asked, systems, seconds)
    yield from _case("everyone", index, [lambda: index.select(EVERYONE)], {}, systems, seconds)


def _case(
    name: str,
    index: PlaceIndex,
    mine: Sequence[Callable[[], Any]],
    asked: Mapping[str, Sequence[Callable[[], Any]]],
    systems: list[Any],
    seconds: float,
) -> Iterator[Row]:
    """Measure ours, a copy of our answer, and every peer; compare the answers."""
    answers = [call() for call in mine]
    hits = int(np.median([_hits(answer) for answer in answers]))
    ours = measure(mine, seconds=seconds)
    yield _row(name, "fanout", ours, None, hits)
    if not isinstance(answers[0], int):
        copies = [index.rows[: _hits(answer)].copy for answer in answers]
        yield _row(name, "memory copy", measure(copies, seconds=seconds / 2), ours, hits)
    tolerance = {system.name: system.tolerance for system in systems}
    for system, calls in asked.items():
        for answer, call in zip(answers, calls, strict=True):
            _compare(name, system, answer, call(), tolerance[system])
        few = measure(calls, warm_up=0, seconds=seconds, most=300)
        yield _row(name, system, few, ours, hits)


def _compare(case: str, system: str, ours: Any, theirs: Any, tolerance: int) -> None:
    """Stop the bench if a system says something else; a person exactly at the rim may fall either way in floats."""
    mine = set(np.atleast_1d(ours).tolist())
    other = set(np.atleast_1d(theirs).tolist())
    differ = len(mine ^ other)
    allowed = 2 + len(mine) * tolerance // 1000
    if differ > allowed:
        raise SystemExit(f"bench selection: {system} disagrees on {case}: {differ} of {len(mine)} rows")


def _built(make: Callable[[], Any], times: int) -> tuple[Any, Timing]:
    """Make something a few times, keep the last, and say how long it took."""
    taken, made = [], None
    for _ in range(times):
        start_ns = time.perf_counter_ns()
        made = make()
        taken.append((time.perf_counter_ns() - start_ns) / 1e3)
    return made, timing_of(taken)


def _hits(answer: Any) -> int:
    return answer if isinstance(answer, int) else len(answer)


def _row(case: str, system: str, timing: Timing, ours: Timing | None, hits: int, **more: Any) -> Row:
    ratio = 1.0 if ours is None else timing.p50_us / ours.p50_us
    return {"case": case, "system": system, "hits": hits} | timing.row() | {"ratio": round(ratio, 2)} | more


# --- a registry -------------------------------------------------------------------------------------------------------


class _NoLog:
    """A log that nothing is written to: a bench of selection writes no participants but by import."""

    def append(self, stream: str, entries: Any) -> int:
        raise AssertionError(f"nothing is appended to {stream} here")

    def read(self, stream: str, *, after: int, most: int) -> list[tuple[int, bytes]]:
        return []

    def trim(self, stream: str, *, upto: int) -> None:
        assert stream == STREAM

    def last(self, stream: str) -> int:
        return 0


def _registry(options: Options, people: int, seconds: float) -> Iterator[Row]:
    note(f"importing {people:,} people with several places each")
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry.open(Path(folder), _NoLog())
        registry.import_table(nation.spread(people, options.seed))
        view = registry.view()
        lon, lat = view.homes()
        at = np.random.default_rng(options.seed).integers(0, view.rows, CENTRES)
        queries = {
            f"select people, {radius_m / 1000:g} km": [
                Query(shape=circle(lon[row], lat[row], radius_m), at_ms=NOON_MS) for row in at
            ]
            for radius_m in RADII_M
        }
        queries["select people, everyone"] = [Query(shape=EVERYONE, at_ms=NOON_MS)]
        for name, asked in queries.items():
            hits = int(np.median([len(choose(view, query)) for query in asked]))
            timing = measure([partial(choose, view, query) for query in asked], seconds=seconds)
            yield _row(name, "fanout", timing, None, hits, participants=people)
        big = _query_for(view, 100_000)
        timing = measure([lambda: _preview(view, big)], seconds=seconds)
        yield _row("preview, 100,000 people", "fanout", timing, None, len(choose(view, big)), participants=people)
        yield from _under_updates(registry, queries["select people, 1.5 km"], options)
        registry.close()


def _preview(view: Any, query: Query) -> None:
    reached = reach(view, query)
    by_channel(reached, 0xFF)
    density(reached)


def _query_for(view: Any, people: int) -> Query:
    """A circle with about so many people in it."""
    low, high = 100.0, 500_000.0
    for _ in range(30):
        radius_m = (low + high) / 2
        if len(choose(view, Query(shape=circle(5.1, 52.1, radius_m), at_ms=NOON_MS))) < people:
            low = radius_m
        else:
            high = radius_m
    return Query(shape=circle(5.1, 52.1, high), at_ms=NOON_MS)


def _under_updates(registry: Registry, queries: list[Query], options: Options) -> Iterator[Row]:
    """The same selections, alone and while positions stream in; then a hundred at once."""
    view = registry.view()
    ids = packed.of_texts(view.id_of(np.arange(view.rows, dtype=np.uint32)))
    lon, lat = view.homes()
    stop, sent = threading.Event(), [0]
    random = np.random.default_rng(options.seed)
    batch = POSITIONS_PER_S // 50
    batches = []
    for _ in range(20):
        rows = random.integers(0, view.rows, batch)
        batches.append((ids.take(rows), lon[rows], lat[rows]))

    def stream() -> None:
        start_s, number = time.monotonic(), 0
        while not stop.is_set():
            names, east, north = batches[number % len(batches)]
            at_ms = NOON_MS + number
            registry.positions_of(names, east, north, np.full(batch, at_ms, np.int64), at_ms)
            number += 1
            sent[0] += batch
            stop.wait(max(0.0, start_s + number / 50 - time.monotonic()))

    hits_of = [len(choose(view, query)) for query in queries]
    typical = queries[int(np.argsort(hits_of)[len(queries) // 2])]  # one circle, so that p99 is not of larger ones
    live = [_located(typical)]
    span_s = 2.0 if options.quick else 6.0
    alone = _paced(registry, live, span_s)
    thread = threading.Thread(target=stream)
    thread.start()
    time.sleep(1.0)
    before, start_s = sent[0], time.monotonic()
    busy = _paced(registry, live, span_s)
    rate = (sent[0] - before) / (time.monotonic() - start_s)
    burst = _burst(registry, [_located(query) for query in queries] * (100 // len(queries) + 1))
    stop.set()
    thread.join()
    hits = int(np.median([len(choose(registry.view(), query)) for query in live]))
    yield _row("select people, 1.5 km, with live positions", "alone", alone, alone, hits)
    yield _row("select people, 1.5 km, with live positions", "while streaming", busy, alone, hits,
               positions_per_s=round(rate), p99_over_p50=round(busy.p99_us / busy.p50_us, 1))  # fmt: skip
    yield _row("100 selections at once, while streaming", "fanout", burst, None, hits)


def _located(query: Query) -> Query:
    return Query(shape=query.shape, at_ms=NOON_MS, live="beside", live_fresh_ms=3_600_000)


def _paced(registry: Registry, queries: list[Query], seconds: float) -> Timing:
    """Latency of selections that arrive at 200 a second, as from several control rooms."""
    taken, number, start_s = [], 0, time.monotonic()
    while time.monotonic() < start_s + seconds:
        time.sleep(max(0.0, start_s + number / 200 - time.monotonic()))
        start_ns = time.perf_counter_ns()
        choose(registry.view(), queries[number % len(queries)])
        taken.append((time.perf_counter_ns() - start_ns) / 1e3)
        number += 1
    return timing_of(taken)


def _burst(registry: Registry, queries: list[Query]) -> Timing:
    """A hundred selections handed to a pool at the same moment: from then until each is answered."""
    start_ns = time.perf_counter_ns()

    def one(query: Query) -> float:
        choose(registry.view(), query)
        return (time.perf_counter_ns() - start_ns) / 1e3

    with ThreadPoolExecutor(4) as pool:
        return timing_of(list(pool.map(one, queries[:100])))


# --- the cost curve ---------------------------------------------------------------------------------------------------


def _curve(options: Options, sizes: tuple[int, ...]) -> Iterator[Row]:
    for people in sizes:
        note(f"cost curve: {people:,} people")
        here = world.make(people, options.seed)
        index, taken = _built(partial(PlaceIndex.build, here.lon, here.lat), 2)
        yield _row("cost curve: build", "fanout", taken, None, people, participants=people,
                   bytes_per_place=round(index.nbytes / people, 1))  # fmt: skip
        at = np.random.default_rng(options.seed).integers(0, people, CENTRES)
        for radius_m in RADII_M:
            shapes = [circle(here.lon[row], here.lat[row], radius_m) for row in at]
            hits = int(np.median([index.count(shape) for shape in shapes]))
            timing = measure([partial(index.select, shape) for shape in shapes], seconds=0.5)
            yield _row(f"cost curve: circle, {radius_m / 1000:g} km", "fanout", timing, None, hits, participants=people)
        shape = from_geojson(here.areas["municipality, 1,000 vertices"])
        timing = measure([partial(index.select, shape)], seconds=0.5)
        yield _row(
            "cost curve: municipality, 1,000 vertices", "fanout", timing, None, index.count(shape), participants=people
        )


def _plot(curve: list[Row], folder: Path) -> None:
    """Latency against population and against hits, as a PNG."""
    try:
        import matplotlib
    except ImportError:
        note("no plot: matplotlib is not here")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    for axis, by in zip(axes, ("participants", "hits"), strict=True):
        for case in dict.fromkeys(row["case"] for row in curve if "build" not in row["case"]):
            rows = [row for row in curve if row["case"] == case and row["hits"]]
            axis.loglog(
                [row[by] for row in rows], [row["p50_us"] for row in rows], marker="o", label=case.split(": ")[1]
            )
        axis.set_xlabel(by)
        axis.grid(visible=True, which="major", alpha=0.3)
    axes[0].set_ylabel("p50, microseconds")
    axes[0].legend(fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "selection.png", dpi=120)
    note(f"plot: {folder / 'selection.png'}")
