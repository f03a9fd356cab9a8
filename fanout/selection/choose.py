"""(view, query) -> rows, nearest first. Each person once, and the same view and query give the same bytes.

Rules:

1. Places are found, people are answered: the nearest of a person's places that is in the shape, with its hours in
   force, decides their distance.
2. Order is by distance (great-circle metres, as float32), then by row. Where a shape suggests no centre and none is
   given, all distances are 0 and the order is by row.
3. All filters are applied in the one pass over candidates (`kernels`); nothing is selected first and refused later.
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
from fanout.registry.view import Part, Rows, View
from fanout.selection import kernels
from fanout.selection.query import Filters, Query, filters_of, whole_world

_NONE8: Final = np.zeros(0, np.uint8)
_NONE32: Final = np.zeros(0, np.uint32)
for _none in (_NONE8, _NONE32):
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
    parts = [_of_part(part, stale, query.shape, filters, _NONE8) for part, stale in _parts(view)]
    keys = np.concatenate(parts) if parts[1].size else parts[0]
    keys.sort()
    if not (view.base.single and view.delta.single):
        keys = keys[: kernels.first_of_each(keys, view.rows)]
    rows, bits = np.empty(keys.size, np.uint32), np.empty(keys.size, np.uint32)
    kernels.split(keys, rows, bits)
    return Selection(rows, bits.view(np.float32), view.version)


def _everyone(view: View, filters: Filters) -> Selection:
    """All people that pass, by row: no place is looked at."""
    base = np.empty(view.base.size, np.uint32)
    delta = np.empty(view.delta.size, np.uint32)
    found = [
        out[: kernels.choose_people(
            part.people, stale, _NONE32 if part.rows is None else part.rows, filters.channels, filters.kinds,
            filters.tenants, filters.languages, filters.age_groups, filters.excluded, out,
        )]
        for out, (part, stale) in zip((base, delta), _parts(view), strict=True)
    ]  # fmt: skip
    rows = found[0] if found[1].size == 0 else np.sort(np.concatenate(found))
    return Selection(rows, np.zeros(rows.size, np.float32), view.version)


def _parts(view: View) -> tuple[tuple[Part, NDArray[np.uint8]], ...]:
    return (view.base, view.stale), (view.delta, _NONE8)


def _of_part(
    part: Part, stale: NDArray[np.uint8], shape: shapes.Shape, filters: Filters, located: NDArray[np.uint8]
) -> Keys:
    runs = part.index.runs(shape)
    keys = np.empty(geo_kernels.count_runs(runs), np.uint64)
    index = part.index
    written = kernels.choose_places(
        runs, index.lon, index.lat, index.rows, part.hours, part.people, stale,
        _NONE32 if part.rows is None else part.rows, filters.in_force, filters.channels, filters.kinds,
        filters.tenants, filters.languages, filters.age_groups, filters.excluded, located, filters.lon0,
        filters.lat0, filters.line, np.empty(1, np.float32), keys,
    )  # fmt: skip
    return keys[:written]


def _nearest(view: View, query: Query, shape: shapes.Nearest) -> Selection:
    """The `count` nearest people that pass the filters: circles that grow until there are enough."""
    radius_m = view.base.index.radius_of(shape.lon, shape.lat, 2 * shape.count)
    while True:
        found = choose(view, replace(query, shape=shapes.Circle(shape.lon, shape.lat, radius_m)))
        if len(found) >= shape.count or whole_world(radius_m):
            return Selection(found.rows[: shape.count], found.distance_m[: shape.count], found.version)
        radius_m *= 2
