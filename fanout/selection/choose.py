"""(view, query) -> rows, nearest first. Each person once, and the same view and query give the same bytes.

Rules:

1. Places are found, people are answered: the nearest of a person's places that is in the shape, with its hours in
   force, decides their distance. A live position that counts is one more place, or the only one; it has no hours.
2. Order is by distance (great-circle metres, as float32), then by row. Where a shape suggests no centre and none is
   given, all distances are 0 and the order is by row.
3. All filters are applied in the one pass over candidates (`passing`); nothing is selected first and refused later.
   A person's key is 8 bytes, distance above and row below: this is written for little-endian machines.
4. `Everyone` means people, wherever they are: hours of places do not matter to it, nor do live positions, but to order.
5. The GIL is let go of in every part that grows with people. Callers with an event loop run it in a thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout import limits
from fanout.geo import shapes
from fanout.registry.view import Rows, View
from fanout.selection import kernels
from fanout.selection.ordering import kernels as ordering
from fanout.selection.passing import Found, anywhere, parts_of, passing
from fanout.selection.query import Centre, Filters, Query, filters_of, whole_world

_RADIX_MIN: Final = 1_024  # below, a comparison sort is quicker
_LEAST_M: Final = 0.01  # of a circle: as fine as coordinates are
_ROUNDED: Final = 2e-7  # of a distance: more than float32 rounds off

Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Selection:
    """`rows` uint32[n], each once, nearest first; `distance_m` float32[n]; `version` of the view they are rows of.

    `furthest_m`: of `Nearest`, how far from its point the furthest of them is; else 0.
    """

    rows: Rows = field(repr=False)
    distance_m: NDArray[np.float32] = field(repr=False)
    version: int
    furthest_m: float = 0.0

    def __len__(self) -> int:
        return int(self.rows.size)


def choose(view: View, query: Query) -> Selection:
    """Select people. O(candidates) in kernels that release the GIL, and a sort of those selected."""
    filters = filters_of(query, view)
    if isinstance(query.shape, shapes.Nearest):
        return _nearest(view, query, query.shape, filters)
    if isinstance(query.shape, shapes.Everyone) and query.centre is None:
        return _everyone(view, filters)
    return _of_keys(_in_order(view, query, anywhere(query, filters)), view.version)


def _of_keys(keys: Keys, version: int) -> Selection:
    return Selection(keys.view(np.uint32)[::2].copy(), keys.view(np.float32)[1::2].copy(), version)


def keys_of(found: list[Found], centre: Centre) -> Keys:
    """uint64[n]: the keys of all of them, in the order they were found, by how far they are from a centre."""
    keys = np.empty(sum(one.rows.size for one in found), np.uint64)
    start = 0
    for one in found:
        out = keys[start : start + one.rows.size]
        kernels.pack(one.rows, one.metres(centre), out.view(np.uint32), out.view(np.float32))
        start += one.rows.size
    return keys


def _in_order(view: View, query: Query, filters: Filters) -> Keys:
    """Keys of everybody in the shape, nearest first, each person once."""
    keys = keys_of(passing(view, query, filters), filters.centre)
    if keys.size > _RADIX_MIN:
        keys = ordering.sort_keys(keys, np.empty(keys.size, np.uint64))
    else:
        keys.sort()
    if not (view.base.single and view.delta.single and (query.live != "beside" or view.live is None)):
        keys = keys[: ordering.first_of_each(keys, view.rows)]
    return keys


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


# --- nearest ----------------------------------------------------------------------------------------------------------


class Circles:
    """Circles about a point, each larger than the one before: `circle` until `enough` says that it has them all.

    Not the index's own nearest: that counts places, and people have several, closed at this hour, or pass no filter.
    """

    def __init__(self, view: View, shape: shapes.Nearest) -> None:
        self._shape = shape
        self._radius_m = max(1.0, view.base.index.radius_of(shape.lon, shape.lat, shape.count))

    @property
    def circle(self) -> shapes.Circle:
        """The one at hand."""
        return shapes.Circle(self._shape.lon, self._shape.lat, self._radius_m)

    def enough(self, people: int, furthest_m: float) -> bool:
        """Whether `people` in the circle, the `count`-th of them `furthest_m` away, are enough; else it has grown.

        Who is further away by less than float32 tells apart might be outside, so nobody may stand at the rim.
        """
        wanted = self._shape.count
        if whole_world(self._radius_m) or (people >= wanted and furthest_m < self._radius_m * (1 - 1e-6)):
            return True
        self._radius_m *= min(8.0, max(1.1, math.sqrt(1.3 * wanted / max(1, people))))
        return False


def rim_m(furthest_m: float) -> float:
    """The radius of the circle in which the nearest people are: no one of them is left out by rounding to float32."""
    return min(limits.RADIUS_M_MAX, max(_LEAST_M, furthest_m * (1 + _ROUNDED)))


def _nearest(view: View, query: Query, shape: shapes.Nearest, filters: Filters) -> Selection:
    """The `count` nearest people that pass the filters; of their places those among the nearest count in their
    order.

    Not who is in the circle they were looked for in: its radius is a guess, another one after a rebuild.
    """
    circles = Circles(view, shape)
    own = filters_of(replace(query, centre=None), view) if query.centre is not None else filters
    while True:
        keys = _in_order(view, replace(query, shape=circles.circle), own)
        nearest = _of_keys(keys[: shape.count], view.version)
        furthest_m = float(nearest.distance_m[-1]) if len(nearest) else 0.0
        if circles.enough(len(nearest), furthest_m):
            break
    if query.centre is None:
        return replace(nearest, furthest_m=furthest_m)
    around = shapes.Circle(shape.lon, shape.lat, rim_m(furthest_m))
    keys = _in_order(view, replace(query, shape=around), filters)
    keys = keys[np.isin(keys.view(np.uint32)[::2], nearest.rows)]
    return replace(_of_keys(keys, view.version), furthest_m=furthest_m)
