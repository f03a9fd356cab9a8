"""(view, query) -> rows, nearest first. Each person once, and the same view and query give the same bytes.

Rules:

1. Places are found, people are answered: the nearest of a person's places that is in the shape, with its hours in
   force, decides their distance. A live position that counts is one more place, or the only one; it has no hours.
2. Order is by distance (great-circle metres, as float32), then by row. Where a shape suggests no centre and none is
   given, all distances are 0 and the order is by row.
3. All filters are applied in the one pass over candidates (`kernels`); nothing is selected first and refused later.
   A candidate's key is 8 bytes, distance above and row below: this is written for little-endian machines.
4. `Everyone` means people, wherever they are: hours of places do not matter to it, nor do live positions, but to order.
5. A live position counts until it expires, however old a query takes it.
6. The GIL is let go of in every part that grows with people. Callers with an event loop run it in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.geo import kernels as geo_kernels
from fanout.geo import shapes
from fanout.registry.view import Part, Rows, View
from fanout.selection import kernels
from fanout.selection.ordering import kernels as ordering
from fanout.selection.query import Filters, Query, filters_of, whole_world

_RADIX_MIN: Final = 1_024  # below, a comparison sort is quicker
_NONE8: Final = np.zeros(0, np.uint8)
_NONE64: Final = np.zeros(0, np.int64)
NOT_LOCATED: Final = (_NONE64, _NONE8, kernels.NO_ROWS, _NONE64, 0)
"""As `located_in`, of nobody."""
for _none in (_NONE8, _NONE64):
    _none.setflags(write=False)

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
    if isinstance(query.shape, shapes.Everyone):
        if query.centre is None:
            return _everyone(view, filters)
        filters = anywhere(filters)
    return _of_keys(_keys(view, query, filters), view.version)


def anywhere(filters: Filters) -> Filters:
    """The filters of `Everyone`: hours of places do not matter."""
    return filters._replace(in_force=np.ones_like(filters.in_force))


def _of_keys(keys: Keys, version: int) -> Selection:
    return Selection(keys.view(np.uint32)[::2].copy(), keys.view(np.float32)[1::2].copy(), version)


def _keys(view: View, query: Query, filters: Filters) -> Keys:
    """Keys of everybody in the shape, in order, each person once."""
    instead, since_ms = query.live == "instead", fresh_since_ms(view, query)
    located = located_in(view, since_ms) if instead else NOT_LOCATED
    parts = [_of_places(part, stale, query.shape, filters, located) for part, stale in parts_of(view)]
    if query.live != "ignore":
        parts += [found.keys for found in positions_in(view, query.shape, filters, since_ms)]
    found = [part for part in parts if part.size]
    keys = found[0] if len(found) == 1 else np.concatenate(parts)
    if keys.size > _RADIX_MIN:
        keys = ordering.sort_keys(keys, np.empty(keys.size, np.uint64))
    else:
        keys.sort()
    if not (view.base.single and view.delta.single and (instead or query.live == "ignore" or view.live is None)):
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


def parts_of(view: View) -> tuple[tuple[Part, NDArray[np.uint8]], ...]:
    """Base and delta, each with the flags of people to be passed over in it."""
    return (view.base, view.stale), (view.delta, _NONE8)


def _of_places(
    part: Part, stale: NDArray[np.uint8], shape: shapes.Shape, filters: Filters, located: tuple[Any, ...]
) -> Keys:
    """Keys of a part's places; `located`: who is not where they live (`located_in`)."""
    index, runs = part.index, part.index.runs(shape)
    keys = np.empty(geo_kernels.count_runs(runs), np.uint64)
    written = kernels.choose_places(
        runs, index.lon, index.lat, index.rows, part.kinds.place, filters.judged(part.kinds)[1], stale,
        kernels.NO_ROWS if part.rows is None else part.rows, filters.excluded, *located, filters.centre,
        keys.view(np.uint32), keys.view(np.float32),
    )  # fmt: skip
    return keys[:written]


# --- live positions ---------------------------------------------------------------------------------------------------


class Positions(NamedTuple):
    """Live positions that were found: `keys` uint64[n], and where they are, `lon`, `lat` int32[n] fixed-point."""

    keys: Keys
    lon: NDArray[np.int32]
    lat: NDArray[np.int32]


def fresh_since_ms(view: View, query: Query) -> int:
    """Live positions measured before this moment do not count."""
    expires_ms = view.live.expires_ms if view.live is not None else 0
    return query.at_ms - min(query.live_fresh_ms, expires_ms)


def located_in(view: View, since_ms: int) -> tuple[Any, ...]:
    """Who has a live position that counts, as kernels take it."""
    live = view.live
    if live is None:
        return NOT_LOCATED  # everybody counts where they live
    return live.base_at_ms, live.moved, live.delta_rows, live.delta_at_ms, since_ms


def positions_in(view: View, shape: shapes.Shape, filters: Filters, since_ms: int) -> Iterator[Positions]:
    """Live positions that count, in a shape, of people who pass the filters; a person has at most one."""
    live = view.live
    if live is None:
        return
    delta = view.delta
    assert delta.rows is not None, "a delta names its rows"
    people = (
        view.base.kinds.profile, filters.judged(view.base.kinds)[0], view.stale,
        delta.rows, delta.kinds.profile, filters.judged(delta.kinds)[0], filters.excluded, filters.centre,
    )  # fmt: skip
    for index, row_of, at_ms, moved in (
        (live.base, kernels.NO_ROWS, live.base_at_ms, live.moved),
        (live.delta, live.delta_rows, live.delta_at_ms, _NONE8),
    ):
        runs = index.runs(shape)
        most = geo_kernels.count_runs(runs)
        keys, at = np.empty(most, np.uint64), np.empty(most, np.uint32)
        written = kernels.choose_positions(
            runs, index.lon, index.lat, index.rows, row_of, at_ms, moved, since_ms, *people,
            keys.view(np.uint32), keys.view(np.float32), at,
        )  # fmt: skip
        yield Positions(keys[:written], index.lon[at[:written]], index.lat[at[:written]])


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


def _nearest(view: View, query: Query, shape: shapes.Nearest, filters: Filters) -> Selection:
    """The `count` nearest people that pass the filters."""
    circles = Circles(view, shape)
    own = filters_of(replace(query, centre=None), view) if query.centre is not None else filters
    while True:
        keys = _keys(view, replace(query, shape=circles.circle), own)
        nearest = _of_keys(keys[: shape.count], view.version)
        furthest_m = float(nearest.distance_m[-1]) if len(nearest) else 0.0
        if circles.enough(len(nearest), furthest_m):
            break
    if query.centre is None:
        return replace(nearest, furthest_m=furthest_m)
    keys = _keys(view, replace(query, shape=circles.circle), filters)
    keys = keys[np.isin(keys.view(np.uint32)[::2], nearest.rows)]
    return replace(_of_keys(keys, view.version), furthest_m=furthest_m)
