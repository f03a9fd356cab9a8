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

import numpy as np
from numpy.typing import NDArray

from fanout import wire
from fanout.geo import shapes
from fanout.geo.fixed import LAT_MAX, LON_MAX, SCALE
from fanout.registry.columns import choices_of
from fanout.registry.view import Rows, View
from fanout.selection.counting import kernels as counting
from fanout.selection.passing import Found, anywhere, each_once, passing
from fanout.selection.query import Query, filters_of
from fanout.selection.rings import nearest


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
        return Reached(view, *nearest(view, replace(query, centre=None), query.shape))
    filters = filters_of(query, view)
    found = passing(view, query, anywhere(query, filters))
    return Reached(view, each_once(view, query, filters.centre, found))


def by_kind(reached: Reached) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Records PERSON[k] that differ in something a filter or a preference sees, and int64[k], how many people are so.

    A few hundred rows stand for everybody: what is counted by channel or language is counted here. Generation and row
    of the records mean nothing.
    """
    view = reached.view
    base, delta = view.base.kinds, view.delta.kinds
    assert view.delta.rows is not None, "a delta names its rows"
    of_places = {id(kinds): np.zeros(kinds.place_profile.size, np.int64) for kinds in (base, delta)}
    of_people = [np.zeros(kinds.profiles.size, np.int64) for kinds in (base, delta)]
    for one in reached.found:
        if one.part is not None:
            counting.tally(one.places, one.part.kinds.place, of_places[id(one.part.kinds)])
        else:
            counting.tally_people(one.rows, base.profile, view.stale, view.delta.rows, delta.profile, *of_people)
    for kinds, people in zip((base, delta), of_people, strict=True):
        np.add.at(people, kinds.place_profile, of_places[id(kinds)])
    return np.concatenate([base.profiles, delta.profiles]), np.concatenate(of_people)


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
    box = np.array([LON_MAX, LAT_MAX, -LON_MAX, -LAT_MAX], np.int64)
    for one in found:
        counting.extend_box(one.places, one.over.lon, one.over.lat, box)
    for one in found:
        counting.count_cells(one.places, one.over.lon, one.over.lat, box, people)
    west, south, east, north = (box / SCALE).tolist()
    return Density(west, south, east, north, people)
