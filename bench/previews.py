"""Whole previews, as `POST /v1/preview` works them out: part of the bench `selection`.

`Drafter.preview` from the request to the answer: checks, the shape, who is reached, districts, channels, the times of
quotas, SMS parts, renderings in two languages, a grid of 64 by 64. Left out is what is HTTP's, and boards, which have a
bench of their own. Shapes with about 100,000 people, where there are as many: a circle, the nearest, a corridor of 40
points; with and without live positions of a quarter of the people. And the first preview after a rebuild.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import numpy as np
import trio

from bench.harness import Row, compared, timing_of
from bench.world import shared_data
from fanout import wire
from fanout.drafts import DISTRICTS, Drafter
from fanout.geo import shapes
from fanout.geo.areas import NamedAreas
from fanout.posts import NOBODY
from fanout.registry.registry import Registry
from fanout.settings import KindSettings, load

WANTED: Final = 100_000
NOON_MS: Final = 1_790_596_800_000
TEXTS: Final = {"nl": "Vermist: meisje, 8 jaar, rode jas. Gezien? Bel 0800-0011.", "en": "Missing: girl, 8, red coat."}
_CENTRE: Final = (4.9, 52.2)


class _NoBoards:
    async def plan(self, action: wire.Action, shape: shapes.Shape, kind: KindSettings) -> wire.BoardPlan:
        return wire.BoardPlan()


def rows(registry: Registry, folder: Path, seconds: float) -> Iterator[Row]:
    """One row a shape: alone, with live positions, and right after a rebuild."""
    data, areas = shared_data(), NamedAreas.open(folder / "areas")
    if data is not None:
        file = data / "geo" / "gemeenten_342_detail.geojson"
        areas.import_file(file, kind=DISTRICTS, name_field="naam")
    settings = load(None, {}, engine={"data": str(folder)})
    drafter = Drafter(settings, registry, _NoBoards(), areas, lambda: NOON_MS, NOBODY, NOBODY)
    drafter.prepare(registry.view().base)
    people = registry.view().people
    wanted = min(WANTED, people // 2)
    made: dict[str, wire.Area] = {
        "circle": wire.Circle(lon=_CENTRE[0], lat=_CENTRE[1], radius_m=_radius_m(drafter, wanted)),
        f"nearest {wanted:,}": wire.Nearest(lon=_CENTRE[0], lat=_CENTRE[1], count=wanted),
        "corridor of 40": wire.Corridor(
            line=[(4.3 + 0.02 * at, 52.05 + 0.008 * at + 0.004 * (at % 3)) for at in range(40)], radius_m=2_500.0
        ),
    }
    for live in (False, True):
        if live:
            _locate(registry, people // 4)
        for name, area in made.items():
            taken, hits = trio.run(_measure, drafter, area, seconds)
            case = f"preview, {name}" + (", with live positions" if live else "")
            yield compared(case, "fanout", timing_of(taken), None, hits, participants=people)
    registry.rebuild()
    taken, hits = trio.run(_measure, drafter, made["circle"], 0.0)
    yield compared(
        "preview, circle, first after a rebuild", "fanout", timing_of(taken), None, hits, participants=people
    )


def _request(area: wire.Area) -> wire.PreviewRequest:
    return wire.PreviewRequest(kind="missing_child", area=area, texts=TEXTS, grid=64)


async def _measure(drafter: Drafter, area: wire.Area, seconds: float) -> tuple[list[float], int]:
    """Microseconds of each preview, again and again for so long, at least once; and how many people it reaches."""
    taken: list[float] = []
    while not taken or sum(taken) < seconds * 1e6:
        start_ns = perf_counter_ns()
        found = await drafter.preview("police", _request(area))
        taken.append((perf_counter_ns() - start_ns) / 1e3)
    return (taken[1:] or taken), found.people


def _radius_m(drafter: Drafter, wanted: int) -> float:
    """Of a circle with about so many people in it."""
    nearest = wire.Nearest(lon=_CENTRE[0], lat=_CENTRE[1], count=max(1, wanted))
    action = wire.PreviewRequest(kind="missing_child", area=nearest, texts=TEXTS)
    area, _ = trio.run(drafter.ground, "police", action)
    assert isinstance(area, wire.Circle)
    return area.radius_m


def _locate(registry: Registry, people: int) -> None:
    """Live positions of so many, a few kilometres from home."""
    view, random = registry.view(), np.random.default_rng(1)
    lon, lat = view.homes()
    for rows in np.array_split(random.permutation(view.rows)[:people], max(1, people // 20_000)):
        spots = zip(
            view.id_of(rows),
            np.clip(lon[rows] + random.normal(0, 0.05, rows.size), -180, 180).tolist(),
            np.clip(lat[rows] + random.normal(0, 0.03, rows.size), -90, 90).tolist(),
            strict=True,
        )
        registry.positions([wire.LivePosition(id=name, lon=x, lat=y, at_ms=NOON_MS) for name, x, y in spots], NOON_MS)
