"""(view, query) -> rows, nearest first. Each person once, and the same view and query give the same bytes.

Rules:

1. Places are found, people are answered: the nearest of a person's places that is in the shape, with its hours in
   force, decides their distance.
2. Order is by distance (great-circle metres, as float32), then by row. Where a shape suggests no centre and none is
   given, all distances are 0 and the order is by row.
3. All filters are applied in the one pass over candidates (`kernels`); nothing is selected first and refused later.
   A candidate's key is 8 bytes, distance above and row below: this is written for little-endian machines.
4. `Everyone` means people, wherever they are: hours of places do not matter to it.
5. The GIL is let go of in every part that grows with people. Callers with an event loop run it in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.geo import kernels as geo_kernels
from fanout.geo import shapes
from fanout.registry.live import LiveView
from fanout.registry.view import Part, Rows, View
from fanout.selection import kernels
from fanout.selection.query import Filters, Query, filters_of, whole_world

_RADIX_MIN: Final = 1_024  # below, a comparison sort is quicker
_NONE8: Final = np.zeros(0, np.uint8)
_NONE64: Final = np.zeros(0, np.int64)
_NOT_LOCATED: Final = (_NONE64, _NONE8, kernels.NO_ROWS, _NONE64)
for _none in (_NONE8, _NONE64):
    _none.setflags(write=False)

Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Selection:
    """`rows` uint32[n], each once, nearest first; `distance_m` float32[n]; `version` of the view they are rows of."""

    rows: Rows = field(repr=False)
    distance_m: NDArray[np.float32] = field(repr=False)
    version: int

    def __len__(self) -> int:
        return int(self.rows.size)


def choose(view: View, query: Query) -> Selection:
    """Select people. O(candidates) in kernels that release the GIL, and a sort of those selected."""
    if isinstance(query.shape, shapes.Nearest):
        return _nearest(view, query, query.shape)
    if isinstance(query.shape, shapes.Everyone) and query.centre is None and query.live == "ignore":
        return _everyone(view, filters_of(query, view))
    filters = filters_of(query, view)
    if isinstance(query.shape, shapes.Everyone):
        filters = filters._replace(in_force=np.ones_like(filters.in_force))
    live = view.live if query.live != "ignore" else None
    since_ms = query.at_ms - query.live_fresh_ms
    instead = live if query.live == "instead" else None
    parts = [_of_places(part, stale, query.shape, filters, instead, since_ms) for part, stale in parts_of(view)]
    if live is not None:
        parts += _of_positions(view, live, query.shape, filters, since_ms)
    found = [part for part in parts if part.size]
    keys = found[0] if len(found) == 1 else np.concatenate(parts)
    if keys.size > _RADIX_MIN:
        keys = kernels.sort_keys(keys, np.empty(keys.size, np.uint64))
    else:
        keys.sort()
    if not (view.base.single and view.delta.single and live is None):
        keys = keys[: kernels.first_of_each(keys, view.rows)]
    return Selection(keys.view(np.uint32)[::2].copy(), keys.view(np.float32)[1::2].copy(), view.version)


def _everyone(view: View, filters: Filters) -> Selection:
    """All people that pass, by row: no place is looked at."""
    base = np.empty(view.base.size, np.uint32)
    delta = np.empty(view.delta.size, np.uint32)
    found = [
        out[: kernels.choose_people(
            part.kinds.profile, filters.judged(part.kinds)[0], stale,
            kernels.NO_ROWS if part.rows is None else part.rows, filters.excluded, out,
        )]
        for out, (part, stale) in zip((base, delta), parts_of(view), strict=True)
    ]  # fmt: skip
    rows = found[0] if found[1].size == 0 else np.sort(np.concatenate(found))
    return Selection(rows, np.zeros(rows.size, np.float32), view.version)


def parts_of(view: View) -> tuple[tuple[Part, NDArray[np.uint8]], ...]:
    """Base and delta, each with the flags of people to be passed over in it."""
    return (view.base, view.stale), (view.delta, _NONE8)


def _of_places(
    part: Part, stale: NDArray[np.uint8], shape: shapes.Shape, filters: Filters, live: LiveView | None, since_ms: int
) -> Keys:
    """Keys of a part's places; `live`: those who have a fresh position count there instead."""
    index, runs = part.index, part.index.runs(shape)
    keys = np.empty(geo_kernels.count_runs(runs), np.uint64)
    located = _NOT_LOCATED if live is None else (live.base_at_ms, live.moved, live.delta_rows, live.delta_at_ms)
    written = kernels.choose_places(
        runs, index.lon, index.lat, index.rows, part.kinds.place, filters.judged(part.kinds)[1], stale,
        kernels.NO_ROWS if part.rows is None else part.rows, filters.excluded, *located, since_ms, filters.lon0,
        filters.lat0, filters.line, keys.view(np.uint32), keys.view(np.float32),
    )  # fmt: skip
    return keys[:written]


def _of_positions(view: View, live: LiveView, shape: shapes.Shape, filters: Filters, since_ms: int) -> list[Keys]:
    """Keys of fresh live positions."""
    found = []
    for index, at_ms, moved, rows_of in (
        (live.base, live.base_at_ms, live.moved, None),
        (live.delta, live.delta_at_ms, _NONE8, live.delta_rows),
    ):
        runs = index.runs(shape)
        at = np.empty(geo_kernels.count_runs(runs), np.int64)
        at = at[: kernels.fresh_positions(runs, index.rows, at_ms, moved, since_ms, at)]
        rows = index.rows[at] if rows_of is None else rows_of[index.rows[at]]
        keys = np.empty(rows.size, np.uint64)
        written = kernels.choose_positions(
            index.lon[at], index.lat[at], rows, view.records(rows), filters.channels, filters.kinds, filters.tenants,
            filters.languages, filters.age_groups, filters.excluded, filters.lon0, filters.lat0, filters.line,
            keys.view(np.uint32), keys.view(np.float32),
        )  # fmt: skip
        found.append(keys[:written])
    return found


def _nearest(view: View, query: Query, shape: shapes.Nearest) -> Selection:
    """The `count` nearest people that pass the filters: circles that grow until there are enough."""
    radius_m = view.base.index.radius_of(shape.lon, shape.lat, 2 * shape.count)
    while True:
        found = choose(view, replace(query, shape=shapes.Circle(shape.lon, shape.lat, radius_m), centre=None))
        if len(found) >= shape.count or whole_world(radius_m):
            return Selection(found.rows[: shape.count], found.distance_m[: shape.count], found.version)
        radius_m *= 2
