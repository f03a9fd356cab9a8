"""Who passes all filters of a query, and where: the arrays that a selection puts in order and a preview counts.

    found = passing(view, query, filters)        # places and live positions, a person as often as there are any
    found = each_once(view, found)               # the nearest of each

Rules:

1. A view is up to five sources: base and delta of the registry, three levels of live positions. Each is asked once, in
   this order, and those without anybody not at all.
2. A live position counts until it expires, however old a query takes it. It has no hours.
3. Where a place and a live position are as near as each other, the place decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.geo import kernels as geo_kernels
from fanout.geo import shapes
from fanout.registry.view import Part, Rows, View
from fanout.selection import kernels
from fanout.selection.query import Filters, Query

_NONE8: Final = np.zeros(0, np.uint8)
_NONE64: Final = np.zeros(0, np.int64)
for _none in (_NONE8, _NONE64):
    _none.setflags(write=False)
_NOT_LOCATED: Final = (_NONE8, _NONE64, kernels.NO_ROWS, _NONE64, kernels.NO_ROWS, _NONE64, 0)


class Found(NamedTuple):
    """n people of one source: of a part of the registry, or (`part` None) of live positions.

    `rows`, `places` (positions in the source's index) uint32[n]; `lon`, `lat` int32[n] fixed-point; `metres`
    float32[n] from the query's centre.
    """

    part: Part | None
    rows: Rows
    places: Rows
    lon: NDArray[np.int32]
    lat: NDArray[np.int32]
    metres: NDArray[np.float32]

    def only(self, keep: NDArray[np.uint8]) -> Found:
        """Those to be kept. This one is no more: its arrays are used again."""
        part, rows, places, lon, lat, metres = self
        left = kernels.only(keep, rows, places, lon, lat, metres)
        return Found(part, rows[:left], places[:left], lon[:left], lat[:left], metres[:left])


def passing(view: View, query: Query, filters: Filters) -> list[Found]:
    """Everybody who passes, at each of their places and positions in the shape. Not for `Nearest`."""
    return [*_places(view, query, filters), *_positions(view, query, filters)]


def each_once(view: View, query: Query, found: list[Found]) -> list[Found]:
    """Everybody once, where they are nearest. `found` is no more."""
    if view.base.single and view.delta.single and (query.live != "beside" or view.live is None):
        return found
    if not found:
        return found
    rows, metres = (np.concatenate([one[column] for one in found]) for column in (1, 5))
    keep = np.ones(rows.size, np.uint8)
    kernels.settle(rows, metres, view.rows, keep)
    ends = np.cumsum([one.rows.size for one in found]).tolist()
    return [one.only(keep[end - one.rows.size : end]) for one, end in zip(found, ends, strict=True)]


def parts_of(view: View) -> tuple[tuple[Part, NDArray[np.uint8]], ...]:
    """Base and delta, each with the flags of people to be passed over in it."""
    return (view.base, view.stale if view.delta.size else _NONE8), (view.delta, _NONE8)


def _places(view: View, query: Query, filters: Filters) -> Iterator[Found]:
    since_ms, live = _since_ms(view, query), view.live
    located: tuple[Any, ...] = _NOT_LOCATED
    if query.live == "instead" and live is not None:
        moved, fresh = live.moved, live.fresh
        located = (live.level, live.base_at_ms, moved.rows, moved.at_ms, fresh.rows, fresh.at_ms, since_ms)
    for part, stale in parts_of(view):
        if part.size == 0:
            continue
        index = part.index
        runs = index.runs(query.shape)
        out = _room(geo_kernels.count_runs(runs))
        count = kernels.candidates(
            runs, index.lon, index.lat, index.rows, part.kinds.place, filters.judged(part.kinds)[1], stale,
            kernels.NO_ROWS if part.rows is None else part.rows, filters.excluded, *located, *out,
        )  # fmt: skip
        yield _measured(part, out, count, filters)


def _positions(view: View, query: Query, filters: Filters) -> Iterator[Found]:
    live, delta = view.live, view.delta
    if query.live == "ignore" or live is None:
        return
    assert delta.rows is not None, "a delta names its rows"
    since_ms = _since_ms(view, query)
    people = (
        view.base.kinds.profile, filters.judged(view.base.kinds)[0], view.stale,
        delta.rows, delta.kinds.profile, filters.judged(delta.kinds)[0], filters.excluded,
    )  # fmt: skip
    for level, (index, row_of, at_ms) in enumerate(
        ((live.base, kernels.NO_ROWS, live.base_at_ms), live.moved, live.fresh)
    ):
        if not len(index):
            continue
        runs = index.runs(query.shape)
        out = _room(geo_kernels.count_runs(runs))
        count = kernels.positions(
            runs, index.lon, index.lat, index.rows, row_of, at_ms, live.level, level, since_ms, *people, *out
        )
        yield _measured(None, out, count, filters)


def _since_ms(view: View, query: Query) -> int:
    """Live positions measured before this moment do not count."""
    expires_ms = view.live.expires_ms if view.live is not None else 0
    return query.at_ms - min(query.live_fresh_ms, expires_ms)


def _room(size: int) -> tuple[Rows, Rows, NDArray[np.int32], NDArray[np.int32]]:
    """Rows, positions in the index, longitudes and latitudes, for so many."""
    return (
        np.empty(size, np.uint32),
        np.empty(size, np.uint32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )


def _measured(part: Part | None, out: tuple[NDArray[Any], ...], count: int, filters: Filters) -> Found:
    rows, places, lon, lat = (column[:count] for column in out)
    metres = np.empty(count, np.float32)
    kernels.measure(lon, lat, filters.centre, metres)
    return Found(part, rows, places, lon, lat, metres)


def anywhere(query: Query, filters: Filters) -> Filters:
    """The filters as they are for a query's shape: to `Everyone` hours of places do not matter."""
    if isinstance(query.shape, shapes.Everyone):
        return filters._replace(in_force=np.ones_like(filters.in_force))
    return filters
