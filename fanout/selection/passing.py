"""Who passes all filters of a query, and where: the arrays that a selection puts in order and a preview counts.

    found = passing(view, query, filters)        # places and live positions, a person as often as there are any
    found = each_once(view, query, centre, found)    # the nearest of each

Rules:

1. A view is up to five sources: base and delta of the registry, three levels of live positions. Each is asked once, in
   this order, and those without anybody not at all.
2. A live position counts until it expires, however old a query takes it. It has no hours.
3. Where a place and a live position are as near as each other, the place decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fanout.geo import kernels as geo_kernels
from fanout.geo import shapes
from fanout.geo.fixed import Int32s
from fanout.geo.index import PlaceIndex, Runs
from fanout.registry.view import Part, Rows, View
from fanout.selection import kernels
from fanout.selection.counting import kernels as counting
from fanout.selection.query import Centre, Filters, Query

RunsOf: TypeAlias = Callable[[PlaceIndex], Runs]

_NONE8: Final = np.zeros(0, np.uint8)
_NONE64: Final = np.zeros(0, np.int64)
for _none in (_NONE8, _NONE64):
    _none.setflags(write=False)
_NOT_LOCATED: Final = (_NONE8, _NONE64, kernels.NO_ROWS, _NONE64, kernels.NO_ROWS, _NONE64, 0)


class Found(NamedTuple):
    """n people of one source: of a part of the registry, or (`part` None) of live positions.

    `rows`, `places` (positions in its index, `over`) uint32[n].
    """

    part: Part | None
    over: PlaceIndex
    rows: Rows
    places: Rows

    @property
    def lon(self) -> Int32s:
        """int32[n], fixed-point."""
        return self.over.lon[self.places]

    @property
    def lat(self) -> Int32s:
        """int32[n], fixed-point."""
        return self.over.lat[self.places]

    def metres(self, centre: Centre) -> NDArray[np.float32]:
        """float32[n]: how far each is from a centre."""
        out = np.empty(self.places.size, np.float32)
        kernels.measure(self.places, self.over.lon, self.over.lat, centre, out)
        return out

    def first(self, count: int) -> Found:
        """So many of them."""
        return Found(self.part, self.over, self.rows[:count], self.places[:count])

    def only(self, keep: NDArray[np.uint8]) -> Found:
        """Those to be kept. This one is no more: its arrays are used again."""
        return self.first(counting.only(keep, self.rows, self.places))

    def room(self) -> Found:
        """As many, and nobody yet."""
        return Found(self.part, self.over, np.empty_like(self.rows), np.empty_like(self.places))


def passing(view: View, query: Query, filters: Filters, runs_of: RunsOf | None = None) -> list[Found]:
    """Everybody who passes, at each of their places and positions in the shape. Not for `Nearest`.

    `runs_of`: asks an index for the runs of the shape; None: as an index does.
    """
    runs_of = partial(_runs, query.shape) if runs_of is None else runs_of
    return [*_places(view, query, filters, runs_of), *_positions(view, query, filters, runs_of)]


def each_once(view: View, query: Query, centre: Centre, found: list[Found]) -> list[Found]:
    """Everybody once, where they are nearest to the centre; a source may be there twice. `found` is no more."""
    if view.base.single and view.delta.single and (query.live != "beside" or view.live is None):
        return found
    met = nobody_yet(view)
    firsts, agains = [], []
    for one in found:
        again = one.room()
        left, more = counting.meet(one.rows, one.places, met, again.rows, again.places)
        firsts.append(one.first(left))
        agains.append(again.first(more))
    if not any(again.rows.size for again in agains):
        return firsts
    several = nobody_yet(view)
    for again in agains:
        counting.mark(again.rows, several)
    sure, doubtful = [], []
    for one, again in zip(firsts, agains, strict=True):
        before = one.room()
        left, more = counting.take_out(one.rows, one.places, several, before.rows, before.places)
        sure.append(one.first(left))
        doubtful += [before.first(more), again]
    rows = np.concatenate([one.rows for one in doubtful])
    keep = np.ones(rows.size, np.uint8)
    counting.settle(rows, np.concatenate([one.metres(centre) for one in doubtful]), several, keep)
    ends = np.cumsum([one.rows.size for one in doubtful]).tolist()
    return sure + [one.only(keep[end - one.rows.size : end]) for one, end in zip(doubtful, ends, strict=True)]


def nobody_yet(view: View) -> NDArray[np.uint64]:
    """A bit for every row, none of them set."""
    return np.zeros((view.rows >> 6) + 1, np.uint64)


def _runs(shape: shapes.Shape, index: PlaceIndex) -> Runs:
    return index.runs(shape)


def parts_of(view: View) -> tuple[tuple[Part, NDArray[np.uint8]], ...]:
    """Base and delta, each with the flags of people to be passed over in it."""
    return (view.base, view.stale if view.delta.size else _NONE8), (view.delta, _NONE8)


def _places(view: View, query: Query, filters: Filters, runs_of: RunsOf) -> Iterator[Found]:
    since_ms, live = _since_ms(view, query), view.live
    located: tuple[Any, ...] = _NOT_LOCATED
    if query.live == "instead" and live is not None:
        moved, fresh = live.moved, live.fresh
        located = (live.level, live.base_at_ms, moved.rows, moved.at_ms, fresh.rows, fresh.at_ms, since_ms)
    for part, stale in parts_of(view):
        if part.size == 0:
            continue
        index = part.index
        runs = runs_of(index)
        out = _room(geo_kernels.count_runs(runs))
        count = kernels.candidates(
            runs, index.rows, part.kinds.place, filters.judged(part.kinds)[1], stale,
            kernels.NO_ROWS if part.rows is None else part.rows, filters.excluded, *located, *out,
        )  # fmt: skip
        yield Found(part, index, *out).first(count)


def _positions(view: View, query: Query, filters: Filters, runs_of: RunsOf) -> Iterator[Found]:
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
        (
            (live.base, kernels.NO_ROWS, live.base_since_ms),
            (live.moved.places, live.moved.rows, live.moved.since_ms),
            (live.fresh.places, live.fresh.rows, live.fresh.since_ms),
        )
    ):
        if not len(index):
            continue
        runs = runs_of(index)
        out = _room(geo_kernels.count_runs(runs))
        count = kernels.positions(runs, index.rows, row_of, at_ms, live.level, level, since_ms, *people, *out)
        yield Found(None, index, *out).first(count)


def _since_ms(view: View, query: Query) -> int:
    """Live positions measured before this moment do not count."""
    expires_ms = view.live.expires_ms if view.live is not None else 0
    return query.at_ms - min(query.live_fresh_ms, expires_ms)


def _room(size: int) -> tuple[Rows, Rows]:
    """Rows and positions in the index, for so many."""
    return np.empty(size, np.uint32), np.empty(size, np.uint32)


def anywhere(query: Query, filters: Filters) -> Filters:
    """The filters as they are for a query's shape: to `Everyone` hours of places do not matter."""
    if isinstance(query.shape, shapes.Everyone):
        return filters._replace(in_force=np.ones_like(filters.in_force))
    return filters
