"""Selection against everything that can answer the same question on this machine, and against a copy of the answer.

Cases: circles of 200 m, 1.5 km and 10 km round people drawn at random; a municipality of 100 and of 1,000 vertices; a
province; everyone; the nearest 1 to 100,000; a count; the making of the index; a whole selection (people, filters,
order) of a registry; whole previews (`previews`); and circles, a municipality, the nearest and counts while 200,000
positions a second come in (`streaming`). Then the cost curve, and the same questions to all among fewer and more
people. Parts, each of which `--part` runs alone: `peers`, `people` (selections), `previews`, `streaming`, `curve`.

`ratio` is how many times as long as ours a system takes (p50). `memory copy` is what copying our answer's rows out of
an array costs: the floor for anything that gives rows out. Every system's rows are compared with ours: who is in one
answer only must stand at the border, as near as that system's stated precision, or the bench ends with an error. A
peer that has not the memory, or would take longer than `peers.FILL_S_MAX` to take in so many people, is left out by
name.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from bench import peer_servers, peers, previews, streaming, world
from bench.harness import Options, Row, Timing, compared, machine, measure, note, timing_of
from bench.peers import Question
from fanout import selection
from fanout.geo import EVERYONE, PlaceIndex, circle, from_geojson
from fanout.registry.entries import STREAM
from fanout.registry.registry import Registry
from fanout.selection import Query, choose
from fanout.simulators import nation

RADII_M = (200.0, 1_500.0, 10_000.0)
NEAREST = (1, 10, 1_000, 100_000)
NOON_MS = 1_790_596_800_000
CENTRES = 32
FEW = ("circle, 1.5 km", "municipality, 1,000 vertices", "nearest 1,000")
"""What is asked of the peers among other numbers of people."""
ALL_CASES_MAX = 2_000_000
"""Above, a peer takes minutes for a province."""
PARTS = ("peers", "people", "previews", "streaming", "curve")


def run(options: Options) -> Iterator[Row]:
    """Every case; `--participants` sets the size of the comparison and leaves the other sizes out."""
    if options.part not in (None, *PARTS):
        raise SystemExit(f"bench selection has no part {options.part!r}; it has {', '.join(PARTS)}")
    selection.warm()
    people = options.participants or (250_000 if options.quick else 1_600_000)
    further = () if options.participants else ((100_000,) if options.quick else (100_000, 16_000_000, 50_000_000))
    seconds = 0.25 if options.quick else 1.5
    wanted = PARTS if options.part is None else (options.part,)
    if "peers" in wanted:
        yield from _against_peers(options, people, seconds, None if people <= ALL_CASES_MAX else FEW)
    if set(wanted) & {"people", "previews", "streaming"}:
        registered = people if options.participants else min(people, 200_000) if options.quick else people
        yield from _registry(options, registered, seconds, wanted)
    if "curve" in wanted and not options.participants:
        curve = list(_curve(options, tuple(sorted((people, *further)))))
        yield from curve
        _plot(curve, options.out)
    if "peers" in wanted:
        for size in further:
            yield from _against_peers(options, size, seconds, FEW)


# --- the same question to all -----------------------------------------------------------------------------------------


def _against_peers(options: Options, people: int, seconds: float, only: tuple[str, ...] | None) -> Iterator[Row]:
    """All systems among so many; `only`: of the cases, None for all."""
    note(f"making {people:,} people")
    count = {"participants": people}
    here = world.make(people, options.seed)
    index, ours = _built(lambda: PlaceIndex.build(here.lon, here.lat), 5)
    yield compared(f"build, {people:,}", "fanout", ours, None, people, bytes_per_place=round(index.nbytes / people, 1),
                   **count)  # fmt: skip
    # what the index answers is of rounded coordinates, and so must the others
    lon, lat = np.empty(people), np.empty(people)
    lon[index.rows], lat[index.rows] = index.lon / 1e7, index.lat / 1e7
    with ExitStack() as stack:
        systems: list[Any] = []
        for make in _makers(stack, lon, lat):
            try:
                system, taken = _built(make, 1)
            except ImportError as missing:
                note(f"  not here: {missing}")
                continue
            systems.append(system)
            if system.name != "numpy":
                yield compared(f"build, {people:,}", system.name, taken, ours, people, **count)
        for asked in _cases(options, index, lon, lat, here.areas, systems):
            if only is None or asked.name in only:
                for row in _case(index, systems, seconds, asked):
                    yield row | count


def _makers(stack: ExitStack, lon: Any, lat: Any) -> Iterator[Callable[[], Any]]:
    """What builds each peer that is here; servers live as long as `stack`."""
    for kind in peers.PEERS:
        if peers.fits(kind, lon.size):
            note(f"building {kind.name}")  # type: ignore[attr-defined]
            yield partial(kind, lon, lat)
    for start, server in (
        (peer_servers.redis_server, peer_servers.Redis),
        (peer_servers.postgis_server, peer_servers.PostGIS),
        (peer_servers.tile38_server, peer_servers.Tile38),
    ):
        if not peers.fits(server, lon.size):
            continue
        client = stack.enter_context(start(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        if client is None:
            note(f"not here: {server.name}")
            continue
        note(f"filling {server.name}")
        yield partial(server, client, lon, lat)


class _Asked(NamedTuple):
    """A case: what we are asked, and the same questions for the others."""

    name: str
    mine: Sequence[Callable[[], Any]]
    questions: Sequence[Question]


def _cases(
    options: Options, index: PlaceIndex, lon: Any, lat: Any, areas: dict[str, Any], systems: list[Any]
) -> Iterator[_Asked]:
    random = np.random.default_rng(options.seed)
    at = random.integers(0, lon.size, CENTRES)
    centres = list(zip(lon[at].tolist(), lat[at].tolist(), strict=True))

    def rim(x: float, y: float, radius_m: float, rows: Any) -> Any:
        return np.abs(peers.distance_m(x, y, lon[rows], lat[rows]) - radius_m)

    def round_about(method: str, radius_m: float) -> list[Question]:
        return [Question(method, (x, y, radius_m), partial(rim, x, y, radius_m)) for x, y in centres]

    for radius_m in RADII_M:
        mine = [partial(index.select, circle(x, y, radius_m)) for x, y in centres]
        yield _Asked(f"circle, {radius_m / 1000:g} km", mine, round_about("circle", radius_m))
    mine_counts = [partial(index.count, circle(x, y, 1_500.0)) for x, y in centres]
    yield _Asked("count, 1.5 km", mine_counts, round_about("count", 1_500.0))
    for name, geometry in areas.items():
        geos = shapely.geometry.shape(geometry)
        edge = partial(_edge_m, geos.boundary, lon, lat)
        yield _Asked(name, [partial(index.select, from_geojson(geometry))], [Question("polygon", (geos,), edge)])
    for k in NEAREST:
        few = centres[: 4 if k < 100_000 else 2]
        questions = []
        for x, y in few:
            last = index.nearest(x, y, k)[-1:]
            furthest_m = float(peers.distance_m(x, y, lon[last], lat[last])[0])
            questions.append(Question("nearest", (x, y, k), partial(rim, x, y, furthest_m)))
            for system in systems:
                if hasattr(system, "expect"):
                    system.expect(x, y, k, furthest_m)
        yield _Asked(f"nearest {k:,}", [partial(index.nearest, x, y, k) for x, y in few], questions)
    yield _Asked("everyone", [partial(index.select, EVERYONE)], [])


def _edge_m(border: Any, lon: Any, lat: Any, rows: Any) -> Any:
    """Metres, at least, between people and a border."""
    return shapely.distance(border, shapely.points(lon[rows], lat[rows])) * 111_195.0 * 0.5


def _case(index: PlaceIndex, systems: list[Any], seconds: float, asked: _Asked) -> Iterator[Row]:
    """Measure ours, a copy of our answer, and every peer that can be asked; compare the answers."""
    name, mine, questions = asked
    answers = [call() for call in mine]
    hits = int(np.median([_hits(answer) for answer in answers]))
    ours = measure(mine, seconds=seconds)
    yield compared(name, "fanout", ours, None, hits)
    if not isinstance(answers[0], int):
        copies = [index.rows[: _hits(answer)].copy for answer in answers]
        yield compared(name, "memory copy", measure(copies, seconds=seconds / 2), ours, hits)
    for system in systems:
        calls = [partial(getattr(system, one.method), *one.given) for one in questions if hasattr(system, one.method)]
        if not calls:
            continue
        for answer, question, call in zip(answers, questions, calls, strict=True):
            wrong = question.differences(answer, call(), system.precision_m, _near(index, question))
            if wrong:
                raise SystemExit(f"bench selection: {system.name} disagrees on {name}: {'; '.join(wrong[:3])}")
        yield compared(name, system.name, measure(calls, warm_up=0, seconds=seconds, most=300), ours, hits)


def _near(index: PlaceIndex, question: Question) -> Any:
    """Rows among which those at the rim of a counted circle are."""
    if question.method != "count":
        return index.rows[:0]
    lon, lat, radius_m = question.given
    return index.select(circle(lon, lat, radius_m + 10.0))


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


def _registry(options: Options, people: int, seconds: float, wanted: Sequence[str]) -> Iterator[Row]:
    note(f"importing {people:,} people with several places each")
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry.open(Path(folder) / "registry", _NoLog())
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
        for name, asked in queries.items() if "people" in wanted else ():
            hits = int(np.median([len(choose(view, query)) for query in asked]))
            timing = measure([partial(choose, view, query) for query in asked], seconds=seconds)
            yield compared(name, "fanout", timing, None, hits, participants=people)
        if "previews" in wanted:
            yield from previews.rows(registry, Path(folder), seconds)
        if "streaming" in wanted:
            areas = world.make(1_000, options.seed).areas
            yield from streaming.rows(registry, queries["select people, 1.5 km"], areas, options)
        registry.close()


# --- the cost curve ---------------------------------------------------------------------------------------------------


def _curve(options: Options, sizes: tuple[int, ...]) -> Iterator[Row]:
    for people in sizes:
        note(f"cost curve: {people:,} people")
        here = world.make(people, options.seed)
        index, taken = _built(partial(PlaceIndex.build, here.lon, here.lat), 2)
        yield compared("cost curve: build", "fanout", taken, None, people, participants=people,
                   bytes_per_place=round(index.nbytes / people, 1))  # fmt: skip
        at = np.random.default_rng(options.seed).integers(0, people, CENTRES)
        centres = list(zip(here.lon[at].tolist(), here.lat[at].tolist(), strict=True))
        asked = {
            f"circle, {radius_m / 1000:g} km": [partial(index.select, circle(x, y, radius_m)) for x, y in centres]
            for radius_m in RADII_M
        }
        town = from_geojson(here.areas["municipality, 1,000 vertices"])
        asked["municipality, 1,000 vertices"] = [partial(index.select, town)]
        asked["nearest 1,000"] = [partial(index.nearest, x, y, 1_000) for x, y in centres]
        asked["everyone"] = [partial(index.select, EVERYONE)]
        for name, calls in asked.items():
            hits = [len(call()) for call in calls]
            typical = int(np.median(hits))
            timing = measure(calls, seconds=0.5)
            yield compared(f"cost curve: {name}", "fanout", timing, None, typical, participants=people)
            copy = measure([index.rows[:count].copy for count in hits], seconds=0.2)
            yield compared(f"cost curve: {name}", "memory copy", copy, timing, typical, participants=people)


def _plot(curve: list[Row], folder: Path) -> None:
    """Latency against population and against hits, as a PNG; dashed, what a copy of the same rows takes."""
    try:
        import matplotlib
    except ImportError:
        note("no plot: matplotlib is not here")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 5.6), layout="constrained", sharey=True)
    rows = [row for row in curve if "build" not in row["case"] and row["hits"]]
    for axis, by in zip(axes, ("participants", "hits"), strict=True):
        for number, case in enumerate(dict.fromkeys(row["case"] for row in rows)):
            mine = [row for row in rows if row["case"] == case and row["system"] == "fanout"]
            x, y = ([row[name] for row in mine] for name in (by, "p50_us"))
            axis.loglog(x, y, "o-", color=f"C{number}", markersize=5, label=case.partition(": ")[2])
        axis.set_xlabel({"participants": "people in the index", "hits": "people in the answer"}[by])
        axis.grid(visible=True, which="major", alpha=0.3)
    sizes = sorted({row["participants"] for row in rows})
    axes[0].xaxis.set_major_locator(FixedLocator(sizes))
    axes[0].xaxis.set_minor_locator(NullLocator())
    floor = sorted((row["hits"], row["p50_us"]) for row in rows if row["system"] == "memory copy")
    axes[1].loglog(*zip(*floor, strict=True), "--", color="grey", label="copy of the same rows")
    for axis in axes:
        axis.xaxis.set_major_formatter(FuncFormatter(_shown_people))
    axes[0].set_ylabel("one query, p50")
    axes[0].yaxis.set_major_formatter(FuncFormatter(_shown_us))
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"Selection: latency against the size of the nation, and of the answer\n{machine()}", fontsize=11)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "selection.png", dpi=120)
    pyplot.close(figure)
    note(f"plot: {folder / 'selection.png'}")


def _shown_people(people: float, _at: int) -> str:
    return f"{people / 1e6:g} M" if people >= 1e6 else f"{people:,.0f}"


def _shown_us(us: float, _at: int) -> str:
    return f"{us / 1000:g} ms" if us >= 1000 else f"{us:g} µs"
