"""The nation: everyone handed over, with local actions started in the middle; and what one recipient costs.

Everything is real, as in `life`: engine, one sender process, provider simulators over HTTP/2 and TLS, the ledger with
full sync, on the same cores. 60 % FCM, 30 % APNs, 6 % SMS, 3 % Web Push, 1 % voice. Quotas are raised far above the
providers' own (FCM's would take 160 s for a nation), so what shows is what this machine can do; but for voice, whose
suppliers ring 30 a second and would take nine minutes: once all others are told, the action is cancelled, as an
operator would with what is still queued, and `rung` of the `voice` ones had been called by then. Cases:

* `N people`: POST to the last row that is no voice call, in a run of its own per size. `cpu_us` is the processor time
  of the engine's processes per recipient, of which `api_us`, `push_us` and `calls_us` are the API's, the push sender's
  and those of all other channels; `sink_us` that of the simulators. The first should not grow with N. `sender_rss_mb`
  is what a sender has resident; of that `sender_own_mb` is its own, the rest are the pages of programs.
* `N people, CHANNEL`: when that channel's last row was taken.
* `local beside`: 5,000 people, several times from when a tenth of the largest nation is through: POST to the first
  push and to the last of all channels but voice.

`--curve` takes one size after another, up to `--participants`. With matplotlib installed, `broadcast.png` in the output
folder then shows the cost per recipient over N.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from bench.harness import Options, Row, note
from fanout import app, wire
from fanout.demo.stage import Stage, open_stage
from fanout.settings import load
from fanout.store.states import OPEN
from fanout.stores import open_store

LOCAL_PEOPLE = 5_000
LOCAL_MOST = 12
QUICK, FULL = (10_000, 100_000), (10_000, 100_000, 1_600_000, 10_000_000)
CURVE = (10_000, 30_000, 100_000, 400_000, 1_600_000, 10_000_000)
STORY = 1_600_000
"""The nation with local actions in its middle; larger ones are there for the cost alone."""
LOOK_EVERY_S = 0.5
"""How often the nation is looked at: each look sums two thousand batches, on the cores that are measured."""
VOICE_PER_S = 30.0
KINDS = ("api", "push", "calls")
"""The engine's processes by what they do; whatever is none of the senders is the API's."""
VOICE = wire.CHANNELS.index("voice")


def run(options: Options) -> Iterator[Row]:
    """One nation after another."""
    costs: list[tuple[int, Row]] = []
    sizes = _sizes(options)
    for people in sizes:
        note(f"broadcast: {people:,} people")
        with (
            tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder,
            open_stage(Path(folder), people, seed=options.seed, senders=1, voice_per_s=VOICE_PER_S) as stage,
        ):
            for row in _nation(stage, people, local=people == min(max(sizes), STORY)):
                if "cpu_us" in row:
                    costs.append((people, row))
                yield row
        if len(costs) > 1:
            _plot(costs, options.out)


def _sizes(options: Options) -> tuple[int, ...]:
    """How many people, from few to many."""
    if options.curve:
        most = options.participants or CURVE[-1]
        return (*(people for people in CURVE if people < most), most)
    if options.participants:
        return (options.participants,)
    return QUICK if options.quick else FULL


def _nation(stage: Stage, people: int, *, local: bool) -> Iterator[Row]:
    circle = wire.Circle(lon=4.88969, lat=52.37403, radius_m=_radius(stage, min(LOCAL_PEOPLE, people // 4)))
    warm = stage.engine.start(stage.request(circle, "warm"))
    stage.wait_settled(warm.id)
    processes = psutil.Process().children(recursive=True)
    ours, sink = [one for one in processes if _is_engine(one)], [one for one in processes if not _is_engine(one)]
    kinds = [_kind(one) for one in ours]
    before_s, sink_s, posted_ms = [_cpu_s([one]) for one in ours], _cpu_s(sink), app.clock_ms()
    nation = stage.engine.start(stage.request(wire.Everyone(), "nation", kind="burglary"))
    beside = list(_locals(stage, circle, nation)) if local else []
    _wait_but_voice(stage, nation.id)
    cpu_s = [_cpu_s([one]) - before for one, before in zip(ours, before_s, strict=True)]
    sink_s = _cpu_s(sink) - sink_s
    stage.engine.cancel(nation.id, wire.ReasonRequest(reference="enough", reason="all but voice are told"))
    view = stage.wait_settled(nation.id)
    senders = [_memory_mb(process) for process in ours if _is_sender(process)]
    everybody = view.tallies[0].selected + sum(row["people"] for row in beside)
    tally, seen = view.tallies[0], stage.seen(nation.id)
    others = tally.failed + tally.expired + tally.cancelled + tally.unknown
    assert tally.accepted + others == tally.selected, tally
    undelivered = tally.reasons.get("undelivered", 0)  # taken, and then a receipt said that it never rang
    assert seen["total"] == seen["distinct"] == tally.accepted + undelivered, (seen["total"], seen["distinct"], tally)
    took_s = _seconds(stage, nation.id, posted_ms)
    took_s.pop("voice", None)
    seconds = max(took_s.values())
    voice = tally.channels.get("voice", 0)
    yield {
        "case": f"{people:,} people",
        "system": "fanout",
        "seconds": round(seconds, 2),
        "rate_per_s": round((tally.selected - voice) / seconds),
        "voice": voice,
        "rung": tally.channels_accepted.get("voice", 0),
        "first_ms": seen["first_ms"] - posted_ms,
        "cpu_us": round(1e6 * sum(cpu_s) / everybody, 1),
        **{
            f"{kind}_us": round(1e6 * sum(s for s, of in zip(cpu_s, kinds, strict=True) if of == kind) / everybody, 1)
            for kind in KINDS
        },
        "sink_us": round(1e6 * sink_s / everybody, 1),
        "lost": tally.selected - tally.accepted - tally.failed - tally.cancelled,
        "doubled": seen["doubled_count"],
        "sender_rss_mb": round(max(rss for rss, _ in senders)),
        "sender_own_mb": round(max(own for _, own in senders)),
    }
    for channel, took in took_s.items():
        yield {
            "case": f"{people:,} people, {channel}",
            "system": "fanout",
            "people": tally.channels[channel],
            "seconds": round(took, 2),
        }
    if beside:
        figures: Row = {
            "case": "local beside",
            "system": "fanout",
            "people": beside[0]["people"],
            "repeats": len(beside),
        }
        for name in ("first_ms", "last_ms"):
            times = [row[name] for row in beside]
            for share in (50, 99):
                figures[f"{name.removesuffix('_ms')}_p{share}_ms"] = round(float(np.percentile(times, share)), 1)
        yield figures


def _locals(stage: Stage, circle: wire.Circle, nation: wire.ActionAccepted) -> Iterator[Row]:
    """Local actions one after another, from when a tenth of the nation is through until nine tenths are."""
    stage.wait_waiting(nation.id, nation.people * 9 // 10, every_s=LOOK_EVERY_S)
    for number in range(LOCAL_MOST):
        began_ms = app.clock_ms()
        action = stage.engine.start(stage.request(circle, f"local-{number}"))
        stage.wait_settled(action.id)
        seen = stage.seen(action.id)
        assert seen["doubled_count"] == 0, seen
        yield {
            "people": action.people,
            "first_ms": seen["first_ms"] - began_ms,
            "last_ms": max(one["last_ms"] for name, one in seen["channels"].items() if name != "voice") - began_ms,
        }
        if stage.engine.view(nation.id).tallies[0].waiting < nation.people // 10:
            return


def _wait_but_voice(stage: Stage, action: int) -> None:
    """Until only voice calls wait."""
    store = open_store(load(stage.scene.settings_file))
    try:
        end_s = time.monotonic() + stage.patience_s
        while any(
            sum(batch.states[state] for state in OPEN) for batch in store.counts(action) if batch.channel != VOICE
        ):
            assert time.monotonic() < end_s, "the nation is not told in time"
            time.sleep(LOOK_EVERY_S)
    finally:
        store.close_store()


def _seconds(stage: Stage, action: int, posted_ms: int) -> dict[str, float]:
    """By channel: when its last row was taken."""
    store = open_store(load(stage.scene.settings_file))
    try:
        last_ms: dict[str, int] = {}
        for batch in store.counts(action):
            if batch.last_ms is not None:
                name = wire.CHANNELS[batch.channel]
                last_ms[name] = max(batch.last_ms, last_ms.get(name, 0))
    finally:
        store.close_store()
    return {name: (ms - posted_ms) / 1000 for name, ms in last_ms.items()}


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
    name: str = process.name()
    return name.startswith("sender-")


def _kind(process: psutil.Process) -> str:
    if not _is_sender(process):
        return "api"
    return "push" if process.name().startswith(("sender-push", "sender-nearest")) else "calls"


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _memory_mb(process: psutil.Process) -> tuple[float, float]:
    """What is resident, and what of it is the process's own."""
    memory = process.memory_info()
    return memory.rss / 2**20, (memory.rss - memory.shared) / 2**20


def _plot(costs: list[tuple[int, Row]], folder: Path) -> None:
    """Lines over N: each kind of process, and all of them."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        note("broadcast: no plot, matplotlib is not installed")
        return
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    people = [size for size, _ in costs]
    names = {"cpu_us": "the engine", "push_us": "push sender", "calls_us": "SMS, voice, Web Push", "api_us": "API"}
    for name, label in names.items():
        axes.plot(people, [row[name] for _, row in costs], marker="o", label=label, lw=2 if name == "cpu_us" else 1)
    axes.set(xscale="log", xlabel="people", ylabel="processor time per recipient (µs)", ylim=(0, None))
    axes.set_xticks(people, [f"{size:,}" for size in people], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, fontsize="small")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "broadcast.png", dpi=120)
    note(f"broadcast: {folder / 'broadcast.png'}")
