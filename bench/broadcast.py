"""The nation: everyone handed over, with a local action started in the middle; and what one recipient costs.

Everything is real, as in `life`: engine, one sender process, provider simulators over HTTP/2 and TLS, the ledger with
full sync, on the same cores. Quotas are raised far above the providers' own (FCM's would take 160 s for a nation), so
what shows is what this machine can do. Cases:

* `N people`: POST to the last row settled, in a run of its own per size; `cpu_us` is the processor time of the engine's
  processes per recipient (API and sender; not the simulators'), which should not grow with N.
* `local beside`: 5,000 people, started when half of the largest nation is through: POST to its first and last push.

With matplotlib installed, `broadcast.png` in the output folder shows the cost per recipient over N.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.harness import Options, Row, note
from fanout import app, wire
from fanout.demo.stage import Stage, open_stage

LOCAL_PEOPLE = 5_000
QUICK, FULL = (10_000, 100_000), (10_000, 100_000, 1_600_000)


def run(options: Options) -> Iterator[Row]:
    """One nation after another, the largest with a local action in the middle."""
    sizes: tuple[int, ...] = QUICK if options.quick else FULL
    if options.participants:
        sizes = (options.participants,)
    costs = []
    for people in sizes:
        note(f"broadcast: {people:,} people")
        with (
            tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder,
            open_stage(Path(folder), people, seed=options.seed, senders=1) as stage,
        ):
            for row in _nation(stage, people, local=people == max(sizes)):
                if "cpu_us" in row:
                    costs.append((people, row["cpu_us"]))
                yield row
    if len(costs) > 1:
        _plot(costs, options.out)


def _nation(stage: Stage, people: int, *, local: bool) -> Iterator[Row]:
    circle = wire.Circle(lon=4.88969, lat=52.37403, radius_m=_radius(stage, min(LOCAL_PEOPLE, people // 4)))
    warm = stage.engine.start(stage.request(circle, "warm"))
    stage.wait_settled(warm.id)
    processes = [process for process in psutil.Process().children(recursive=True) if _is_engine(process)]
    before_s, posted_ms, posted_s = _cpu_s(processes), app.clock_ms(), time.perf_counter()
    nation = stage.engine.start(stage.request(wire.Everyone(), "nation", kind="burglary"))
    beside: Row = {}
    if local:
        stage.wait_waiting(nation.id, nation.people // 2)
        began_ms = app.clock_ms()
        action = stage.engine.start(stage.request(circle, "local"))
        stage.wait_settled(action.id)
        seen = stage.seen(action.id)
        assert seen["doubled_count"] == 0, seen
        first_ms, last_ms = seen["first_ms"] - began_ms, seen["last_ms"] - began_ms
        beside = {"people": action.people, "first_ms": first_ms, "last_ms": last_ms}
    view = stage.wait_settled(nation.id)
    seconds, cpu_s = time.perf_counter() - posted_s, _cpu_s(processes) - before_s
    tally, seen = view.tallies[0], stage.seen(nation.id)
    others = tally.failed + tally.expired + tally.cancelled + tally.unknown
    assert tally.accepted + others == tally.selected, tally
    assert seen["total"] == seen["distinct"] == tally.accepted, (seen["total"], seen["distinct"], tally)
    yield {
        "case": f"{people:,} people",
        "system": "fanout",
        "seconds": round(seconds, 2),
        "rate_per_s": round(tally.selected / seconds),
        "first_ms": seen["first_ms"] - posted_ms,
        "cpu_us": round(1e6 * cpu_s / tally.selected, 1),
        "lost": tally.selected - tally.accepted - tally.failed,
        "doubled": seen["doubled_count"],
        "sender_rss_mb": round(max((_rss_mb(process) for process in processes if _is_sender(process)), default=0)),
    }
    if beside:
        yield {"case": "local beside", "system": "fanout"} | beside


def _radius(stage: Stage, people: int) -> float:
    low, high = 100.0, 300_000.0
    for _ in range(14):
        middle = (low + high) / 2
        area = wire.Circle(lon=4.88969, lat=52.37403, radius_m=middle)
        asked = wire.PreviewRequest(kind="missing_child", area=area, texts={"nl": "Vermist."})
        low, high = (middle, high) if stage.engine.preview(asked).people < people else (low, middle)
    return high


def _is_engine(process: psutil.Process) -> bool:
    return "fanout.simulators" not in " ".join(process.cmdline())


def _is_sender(process: psutil.Process) -> bool:
    return "sender" in " ".join(process.cmdline())


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _rss_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def _plot(costs: list[tuple[int, float]], folder: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        note("broadcast: no plot, matplotlib is not installed")
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*costs, strict=True), marker="o")
    axes.set(xscale="log", xlabel="people", ylabel="processor time per recipient (µs)", ylim=(0, None))
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "broadcast.png")
    note(f"broadcast: {folder / 'broadcast.png'}")
