"""How every bench measures, and how it says what it measured.

Rules:

1. A figure has its unit in its name and its machine and seed beside it. `p50_us` of a call is over `repeats` calls
   after a warm-up; `min_us` is there because noise only ever adds.
2. Peers are measured in the same run, on the same points, and their answers are compared with ours: a disagreement is
   an error of the bench, not a footnote. A peer that is not installed is told of, not guessed.
3. With `--json` standard output is one object a line and nothing else; without it, a table. Progress and errors go to
   standard error; an error is also a row, so that whoever keeps the rows alone sees that some are missing.
4. Nothing is asserted about time: who compares runs has the rows. A row that has a goal (`goals.py`) says whether it
   is met.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.goals import goals_of

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for. `participants`: None is what the bench thinks right. `out`: folder for plots.
    `curve`: each size up to `participants`. `part`: one part alone, None for all."""

    quick: bool = False
    json: bool = False
    seed: int = 1
    participants: int | None = None
    out: Path = Path("out")
    curve: bool = False
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds of one call: over all repeats."""

    repeats: int
    min_us: float
    p50_us: float
    p99_us: float

    def row(self) -> Row:
        """The figures as a row has them."""
        return {name: round(getattr(self, name), 2) for name in ("min_us", "p50_us", "p99_us")} | {
            "repeats": self.repeats
        }


def measure(
    calls: Iterable[Callable[[], object]], *, warm_up: int = 1, seconds: float = 1.0, most: int = 2_000
) -> Timing:
    """Time calls, going round them for `seconds` or `most` repeats, whichever is first, but each at least once.

    Several calls (circles at several places) give one figure over all; garbage collection is off meanwhile.
    """
    ring = list(calls)
    for call in ring * warm_up:
        call()
    taken: list[float] = []
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end_s = time.perf_counter() + seconds
        while len(taken) < len(ring) or (time.perf_counter() < end_s and len(taken) < most):
            call = ring[len(taken) % len(ring)]
            start_ns = time.perf_counter_ns()
            call()
            taken.append((time.perf_counter_ns() - start_ns) / 1e3)
    finally:
        if enabled:
            gc.enable()
    return timing_of(taken)


def timing_of(taken_us: list[float]) -> Timing:
    """The figures of a list of durations."""
    p50, p99 = np.percentile(taken_us, [50, 99])
    return Timing(len(taken_us), min(taken_us), float(p50), float(p99))


def compared(case: str, system: str, timing: Timing, ours: Timing | None, hits: int, **more: Any) -> Row:
    """A row of a comparison. `hits`: how large an answer is (the median of several); `ratio`: how many times as long as
    ours it takes (p50), 1 without one."""
    ratio = 1.0 if ours is None else timing.p50_us / ours.p50_us
    return {"case": case, "system": system, "hits": hits} | timing.row() | {"ratio": round(ratio, 2)} | more


def machine() -> str:
    """What this runs on, in one line."""
    cores = len(os.sched_getaffinity(0))
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{cores} cores of {model}, Python {platform.python_version()}"


def note(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def tell(name: str, run: Callable[[Options], Iterable[Row]], options: Options) -> bool:
    """Run a bench and print its rows; False if it failed, or had none."""
    shown = 0

    def counted() -> Iterator[Row]:
        nonlocal shown
        for row in run(options):
            yield row
            shown += 1

    error = ""
    try:
        show(name, counted(), options)
        error = "" if shown else "no rows"
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
        if not isinstance(failure, Exception):  # somebody ends the program
            raise
        traceback.print_exc()
    finally:
        if error:
            note(f"{name}: FAILED after {shown} rows: {error}")
            if options.json:
                print(json.dumps({"bench": name, "error": error, "rows": shown}), flush=True)
    return not error


def show(name: str, rows: Iterable[Row], options: Options) -> None:
    """Print rows as they come: JSON lines, or a line of figures under its case."""
    here = machine()
    if not options.json:
        print(f"{name}: {here}, seed {options.seed}")
    case = ""
    for row in rows:
        goals = [(str(goal), met) for goal, met in goals_of(name, row)]
        if options.json:
            asked = {"goals": [{"goal": goal, "met": met} for goal, met in goals]} if goals else {}
            print(json.dumps({"bench": name} | row | asked | {"seed": options.seed, "machine": here}), flush=True)
            continue
        if row["case"] != case:
            case = row["case"]
            print(f"\n{case}")
        figures = "  ".join(f"{key} {_shown(value)}" for key, value in row.items() if key not in ("case", "system"))
        print(f"  {row['system']:<22} {figures}", flush=True)
        if goals:
            print(
                "    goals: " + " · ".join(f"{goal} ({'met' if met else 'SHORT'})" for goal, met in goals), flush=True
            )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
