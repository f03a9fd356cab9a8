"""What a selection would look like on a map and in a table, without making it: for every move of the mouse.

    reached = reach(view, query)                     # who, each at the place that decides; no order
    by_channel(reached, mask)                        # {"fcm": 61, "sms": 7}
    density(reached, columns=64, rows=48)            # a coarse grid to draw
    districts.counts(reached)                        # {"Assen": 68}, see `districts`

It answers with the same people as `choose`, whatever the query (a test holds them together), but as nobody is told
anything yet, nothing is sorted: the pass over candidates is nearly all there is.

Where a person has a place and a live position in the shape, the nearer to the centre is shown, as it is the one that
decides in a selection; the place, if they are as near.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout import wire
from fanout.geo import kernels as geo_kernels
from fanout.geo import shapes
from fanout.geo.fixed import SCALE
from fanout.registry.columns import choices_of
from fanout.registry.view import Part, Rows, View
from fanout.selection import kernels
from fanout.selection.choose import (
    NOT_LOCATED,
    Circles,
    anywhere,
    fresh_since_ms,
    located_in,
    parts_of,
    positions_in,
)
from fanout.selection.ordering import kernels as ordering
from fanout.selection.query import Filters, Query, filters_of


class Found(NamedTuple):
    """People of one part, each at a place: `rows`, `places` (positions in its index) uint32[n], `metres` float32[n]."""

    part: Part
    rows: Rows
    places: Rows
    metres: NDArray[np.float32]

    def only(self, keep: Any) -> Found:
        """Some of them."""
        return Found(self.part, self.rows[keep], self.places[keep], self.metres[keep])


class Located(NamedTuple):
    """People at their live positions: `rows` uint32[n], `metres` float32[n], `lon`, `lat` int32[n] fixed-point."""

    rows: Rows
    metres: NDArray[np.float32]
    lon: NDArray[np.int32]
    lat: NDArray[np.int32]

    def only(self, keep: Any) -> Located:
        """Some of them."""
        return Located(*(column[keep] for column in self))


@dataclass(frozen=True, slots=True)
class Reached:
    """`rows` uint32[n], each once, in no order; `lon`, `lat` int32[n] fixed-point, of the place that decides.

    `found`: by part of the view, those for whom a place decides; `located`: those for whom a live position does; in the
    order of `rows`. `furthest_m`: as a selection's.
    """

    view: View = field(repr=False)
    rows: Rows = field(repr=False)
    lon: NDArray[np.int32] = field(repr=False)
    lat: NDArray[np.int32] = field(repr=False)
    found: tuple[Found, ...] = field(repr=False)
    located: Located = field(repr=False)
    furthest_m: float = 0.0

    def __len__(self) -> int:
        return int(self.rows.size)


@dataclass(frozen=True, slots=True)
class Density:
    """`people` uint32[rows, columns], the south first, of a box in degrees."""

    west: float
    south: float
    east: float
    north: float
    people: NDArray[np.uint32] = field(repr=False)


def reach(view: View, query: Query) -> Reached:
    """Who would be selected, and where."""
    filters = filters_of(query, view)
    if isinstance(query.shape, shapes.Nearest):
        return _nearest(view, replace(query, centre=None), query.shape)
    if isinstance(query.shape, shapes.Everyone):
        filters = anywhere(filters)
    return _reached(view, *_find(view, query, filters, measured=False))


def _nearest(view: View, query: Query, shape: shapes.Nearest) -> Reached:
    """The `count` nearest: all in a circle that is large enough, as far as the last of them."""
    circles = Circles(view, shape)
    filters = filters_of(query, view)
    while True:
        found, located = _find(view, replace(query, shape=circles.circle), filters, measured=True)
        keys = [*(_keys(one.rows, one.metres) for one in found), _keys(located.rows, located.metres)]
        every = np.concatenate(keys)
        wanted = min(every.size, shape.count)
        last = np.uint64(ordering.key_at(every, wanted - 1)) if wanted else np.uint64(0)
        furthest_m = float(np.uint32(last >> np.uint64(32)).view(np.float32))
        if circles.enough(wanted, furthest_m):
            break
    if every.size > wanted:
        *kept, kept_live = (one <= last for one in keys)
        found = [one.only(keep) for one, keep in zip(found, kept, strict=True)]
        located = located.only(kept_live)
    return replace(_reached(view, found, located), furthest_m=furthest_m)


def _keys(rows: Rows, metres: NDArray[np.float32]) -> NDArray[np.uint64]:
    keys = np.empty(rows.size, np.uint64)
    keys.view(np.uint32)[::2], keys.view(np.float32)[1::2] = rows, metres
    return keys


def _find(view: View, query: Query, filters: Filters, *, measured: bool) -> tuple[list[Found], Located]:
    """Each person once, at the place or position that decides; all of them with their metres if `measured`."""
    since_ms = fresh_since_ms(view, query)
    instead = query.live == "instead"
    located = _located(view, query, filters, since_ms)
    kept = np.ones(located.rows.size, np.uint8)
    parts = []
    for part, stale in parts_of(view):
        index, runs = part.index, part.index.runs(query.shape)
        most = geo_kernels.count_runs(runs)
        rows, places, metres = np.empty(most, np.uint32), np.empty(most, np.uint32), np.empty(most, np.float32)
        row_of = kernels.NO_ROWS if part.rows is None else part.rows
        count = kernels.reached_places(
            runs, index.lon, index.lat, index.rows, part.kinds.place, filters.judged(part.kinds)[1], stale, row_of,
            filters.excluded, part.size, *(located_in(view, since_ms) if instead else NOT_LOCATED), filters.centre,
            part.single, measured, rows, places, metres,
        )  # fmt: skip
        if located.rows.size and not instead:
            count = kernels.nearer_of_both(
                rows[:count], places, metres, measured, index.lon, index.lat, filters.centre,
                located.rows, located.metres, kept,
            )  # fmt: skip
        parts.append(Found(part, rows[:count], places[:count], metres[:count]))
    return parts, located if kept.all() else located.only(kept != 0)


def _located(view: View, query: Query, filters: Filters, since_ms: int) -> Located:
    """Everybody whose live position counts and is in the shape."""
    if query.live == "ignore" or view.live is None:
        none = np.empty(0, np.int32)
        return Located(none.view(np.uint32), none.view(np.float32), none, none)
    both = positions_in(view, query.shape, filters, since_ms)
    keys, lon, lat = (np.concatenate(column) for column in zip(*both, strict=True))
    return Located(keys.view(np.uint32)[::2].copy(), keys.view(np.float32)[1::2].copy(), lon, lat)


def _reached(view: View, found: list[Found], located: Located) -> Reached:
    return Reached(
        view,
        np.concatenate([*(one.rows for one in found), located.rows]),
        np.concatenate([*(one.part.index.lon[one.places] for one in found), located.lon]),
        np.concatenate([*(one.part.index.lat[one.places] for one in found), located.lat]),
        tuple(found),
        located,
    )


def by_kind(reached: Reached) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Records PERSON[k] that differ in something a filter or a preference sees, and int64[k], how many people are so.

    A few hundred rows stand for everybody: what is counted by channel or language is counted here. Generation and row
    of the records mean nothing.
    """
    records, counts = [], []
    for part, _, places, _ in reached.found:
        kinds = part.kinds
        records.append(kinds.profiles[kinds.place_profile])
        counts.append(np.bincount(kinds.place[places], minlength=kinds.place_profile.size))
    if reached.located.rows.size:
        for part, numbers in reached.view.numbers(reached.located.rows):
            records.append(part.kinds.profiles)
            counts.append(np.bincount(part.kinds.profile[numbers], minlength=part.kinds.profiles.size))
    return np.concatenate(records), np.concatenate(counts)


def by_channel(reached: Reached, mask: int) -> dict[str, int]:
    """How many are reached first by each channel of a mask: the first of their preference that is in it."""
    people: dict[str, int] = {}
    records, counts = by_kind(reached)
    for word, count in zip(records["preference"].tolist(), counts.tolist(), strict=True):
        first = next((channel for channel in choices_of(word) if mask >> channel & 1), None)
        if first is not None and count:
            people[wire.CHANNELS[first]] = people.get(wire.CHANNELS[first], 0) + count
    return people


def density(reached: Reached, *, columns: int = 64, rows: int = 64) -> Density:
    """Count people in a grid over the box they are in; across the antimeridian the box is the world's width."""
    if not len(reached):
        return Density(0.0, 0.0, 0.0, 0.0, np.zeros((rows, columns), np.uint32))
    west, east = int(reached.lon.min()), int(reached.lon.max())
    south, north = int(reached.lat.min()), int(reached.lat.max())
    people = np.zeros((rows, columns), np.uint32)
    kernels.count_cells(reached.lon, reached.lat, west, south, east - west + 1, north - south + 1, people)
    return Density(west / SCALE, south / SCALE, east / SCALE, north / SCALE, people)
