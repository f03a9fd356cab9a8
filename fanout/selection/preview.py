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
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout import wire
from fanout.geo import shapes
from fanout.geo.fixed import SCALE
from fanout.registry.columns import PERSON, choices_of
from fanout.registry.view import Rows, View
from fanout.selection import kernels
from fanout.selection.choose import Circles, keys_of
from fanout.selection.ordering import kernels as ordering
from fanout.selection.passing import Found, anywhere, each_once, passing
from fanout.selection.query import Query, filters_of

_NO_RECORDS: Final = np.empty(0, PERSON)


@dataclass(frozen=True, slots=True)
class Reached:
    """Who is reached, each once, in no order, at the place or position that decides, by where it was found.

    `furthest_m`: as a selection's.
    """

    view: View = field(repr=False)
    found: list[Found] = field(repr=False)
    furthest_m: float = 0.0

    def __len__(self) -> int:
        return sum(one.rows.size for one in self.found)

    @property
    def rows(self) -> Rows:
        """uint32[n]."""
        return np.concatenate([np.empty(0, np.uint32), *(one.rows for one in self.found)])


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
    if isinstance(query.shape, shapes.Nearest):
        return _nearest(view, replace(query, centre=None), query.shape)
    return Reached(view, each_once(view, query, passing(view, query, anywhere(query, filters_of(query, view)))))


def _nearest(view: View, query: Query, shape: shapes.Nearest) -> Reached:
    """The `count` nearest: all in a circle that is large enough, as far as the last of them."""
    circles, filters = Circles(view, shape), filters_of(query, view)
    while True:
        found = each_once(view, query, passing(view, replace(query, shape=circles.circle), filters))
        keys = keys_of(found)
        wanted = min(keys.size, shape.count)
        last = np.uint64(ordering.key_at(keys, wanted - 1)) if wanted else np.uint64(0)
        furthest_m = float(np.uint32(last >> np.uint64(32)).view(np.float32))
        if circles.enough(wanted, furthest_m):
            break
    if keys.size > wanted:
        keep, ends = (keys <= last).view(np.uint8), np.cumsum([one.rows.size for one in found]).tolist()
        found = [one.only(keep[end - one.rows.size : end]) for one, end in zip(found, ends, strict=True)]
    return Reached(view, found, furthest_m)


def by_kind(reached: Reached) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Records PERSON[k] that differ in something a filter or a preference sees, and int64[k], how many people are so.

    A few hundred rows stand for everybody: what is counted by channel or language is counted here. Generation and row
    of the records mean nothing.
    """
    records: list[NDArray[np.void]] = []
    counts: list[NDArray[np.int64]] = []
    for one in reached.found:
        if one.part is not None:
            kinds, of_kind = one.part.kinds, np.zeros(one.part.kinds.place_profile.size, np.int64)
            kernels.tally(one.places, kinds.place, of_kind)
            records.append(kinds.profiles[kinds.place_profile])
            counts.append(of_kind)
            continue
        for part, numbers in reached.view.numbers(one.rows):
            records.append(part.kinds.profiles)
            counts.append(np.bincount(part.kinds.profile[numbers], minlength=part.kinds.profiles.size))
    return np.concatenate([_NO_RECORDS, *records]), np.concatenate([np.empty(0, np.int64), *counts])


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
    people, found = np.zeros((rows, columns), np.uint32), [one for one in reached.found if one.rows.size]
    if not found:
        return Density(0.0, 0.0, 0.0, 0.0, people)
    west, east = min(int(one.lon.min()) for one in found), max(int(one.lon.max()) for one in found)
    south, north = min(int(one.lat.min()) for one in found), max(int(one.lat.max()) for one in found)
    for one in found:
        kernels.count_cells(one.lon, one.lat, west, south, east - west + 1, north - south + 1, people)
    return Density(west / SCALE, south / SCALE, east / SCALE, north / SCALE, people)
