"""The life of a local action on a running engine: POST to durable, POST to first and last push at the provider.

Everything is real: the engine's own processes, the provider simulators over HTTP/2 and TLS, the API over TCP. Times to
first and last are taken by the simulator when a request has arrived there, on the same machine's clock.

Cases: `quiet`, one action after another; `national`, the same while an action to everyone is being sent; `preview`,
what a map asks for while a circle of 100,000 people is dragged over it, with the density grid.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.harness import Options, Row, timing_of
from fanout import app, wire
from fanout.demo.stage import Stage, open_stage

LOCAL_PEOPLE, PREVIEW_PEOPLE = 5_000, 100_000
"""The circles are made as large as they must be to hold about so many."""
PREVIEWS = 200
GRID = 48


def run(options: Options) -> Iterator[Row]:
    """Rows for `accepted` (POST to durable answer), `first` and `last` push: quiet, then beside a national action."""
    people = options.participants or (200_000 if options.quick else 1_600_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_stage(Path(folder), people, seed=options.seed) as stage,
    ):
        area = _area_of(stage, LOCAL_PEOPLE)
        _actions(stage, area, 3)
        yield from _rows("quiet", _actions(stage, area, 20 if options.quick else 100))
        yield _previews(stage, _area_of(stage, min(people // 2, PREVIEW_PEOPLE)))
        national = stage.engine.start(stage.request(wire.Everyone(), "national"))
        yield from _rows("national", _actions(stage, area, 5 if options.quick else 15))
        tally = stage.engine.view(national.id).tallies[0]
        yield {"case": "national", "system": "fanout", "still_waiting": tally.waiting, "selected": tally.selected}


class _Times:
    def __init__(self) -> None:
        self.accepted_s: list[float] = []
        self.first_s: list[float] = []
        self.last_s: list[float] = []
        self.people = 0


def _rows(case: str, times: _Times) -> Iterator[Row]:
    for name, seconds in (("accepted", times.accepted_s), ("first", times.first_s), ("last", times.last_s)):
        figures = timing_of([second * 1e6 for second in seconds]).row()
        yield {"case": f"{case}: POST to {name}", "system": "fanout", "people": times.people} | figures


def _previews(stage: Stage, circle: wire.Circle) -> Row:
    """Previews one after another, each a little further, as a mouse drags it."""
    seconds, people = [], 0
    for number in range(PREVIEWS):
        moved = wire.Circle(lon=circle.lon + number * 1e-4, lat=circle.lat, radius_m=circle.radius_m)
        request = wire.PreviewRequest(kind="missing_child", area=moved, texts={"nl": "Vermist."}, grid=GRID)
        begun_s = time.perf_counter()
        people = stage.engine.preview(request).people
        seconds.append(time.perf_counter() - begun_s)
    figures = timing_of([second * 1e6 for second in seconds]).row()
    return {"case": "preview through the API", "system": "fanout", "people": people} | figures


def _actions(stage: Stage, area: wire.Area, count: int) -> _Times:
    times = _Times()
    for number in range(count):
        request = stage.request(area, f"local-{number}-{time.monotonic_ns()}")
        posted_ms, posted_s = app.clock_ms(), time.perf_counter()
        accepted = stage.engine.start(request)
        times.accepted_s.append(time.perf_counter() - posted_s)
        times.people = accepted.people
        view = stage.wait_settled(accepted.id)
        seen = stage.seen(accepted.id)
        assert seen["doubled_count"] == 0, seen
        assert view.tallies[0].unknown == 0, view
        times.first_s.append((seen["first_ms"] - posted_ms) / 1_000)
        times.last_s.append((seen["last_ms"] - posted_ms) / 1_000)
    return times


def _area_of(stage: Stage, people: int) -> wire.Circle:
    """A circle in Amsterdam with about so many people."""
    low, high = 100.0, 60_000.0
    for _ in range(12):
        middle = (low + high) / 2
        circle = wire.Circle(lon=4.88969, lat=52.37403, radius_m=middle)
        action = wire.PreviewRequest(kind="missing_child", area=circle, texts={"nl": "Vermist."})
        low, high = (middle, high) if stage.engine.preview(action).people < people else (low, middle)
    return wire.Circle(lon=4.88969, lat=52.37403, radius_m=high)
