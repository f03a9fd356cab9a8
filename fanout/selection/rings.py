"""The nearest N people without putting anybody in order: ring after ring about a point, and only the last is measured.

    found, furthest_m = nearest(view, query, shape)

Rules:

1. A ring is what a circle has more than the one before. Whoever is met in it and was not before is nearest there, so
   an inner ring is only counted. The ring that has the N-th person is measured, and of it the nearest are taken.
2. It answers as `choose` does, who orders everybody by (distance as float32, row). Where float32 cannot tell the N-th
   person from somebody on the other side of one of the two rims, all of a larger circle is measured instead.
3. How wide the next ring is follows from how many of the places of the last one had people who pass: places are quick
   to count. A wrong guess costs time and nothing else.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.geo import kernels as geo_kernels
from fanout.geo import shapes
from fanout.geo.index import PlaceIndex, Runs
from fanout.registry.view import View
from fanout.selection.choose import keys_of
from fanout.selection.counting import kernels as counting
from fanout.selection.ordering import kernels as ordering
from fanout.selection.passing import Found, each_once, nobody_yet, passing
from fanout.selection.query import Centre, Query, filters_of, whole_world

AT_ONCE: Final = 2_000
"""So many are looked for in one circle: rings are for crowds."""
_GUESSES: Final = 4
_TOLD_APART: Final = 1e-6  # of a distance: more than float32 rounds off


def nearest(view: View, query: Query, shape: shapes.Nearest) -> tuple[list[Found], float]:
    """The `count` nearest people who pass the filters, each where they are nearest; and how far the furthest is."""
    filters = filters_of(query, view)
    rings = _Rings(view, shape)
    inner: list[Found] = []
    met = nobody_yet(view)
    while True:
        found = passing(view, query, filters, rings.runs)
        if inner:
            found = [one.first(counting.unmet(one.rows, one.places, met)) for one in found]
        found = each_once(view, query, filters.centre, found)
        people = sum(one.rows.size for one in found)
        if people < rings.left and not rings.whole_world:
            for one in found:
                counting.mark(one.rows, met)
            inner += found
            rings.grow(people)
            continue
        wanted, furthest_m = min(people, rings.left), 0.0
        if wanted:
            found, furthest_m = _nearest_of(found, filters.centre, wanted)
        if rings.sure(wanted, furthest_m):
            return inner + found, furthest_m
        rings.measure_all()
        inner, met = [], nobody_yet(view)


def _nearest_of(found: list[Found], centre: Centre, wanted: int) -> tuple[list[Found], float]:
    """So many of those found, and how far the last of them is. `found` is no more."""
    keys = keys_of(found, centre)
    last = np.uint64(ordering.key_at(keys, wanted - 1))
    if keys.size > wanted:
        keep: NDArray[np.uint8] = (keys <= last).view(np.uint8)
        ends = np.cumsum([one.rows.size for one in found]).tolist()
        found = [one.only(keep[end - one.rows.size : end]) for one, end in zip(found, ends, strict=True)]
    return found, float(np.uint32(last >> np.uint64(32)).view(np.float32))


class _Rings:
    """The ring at hand: from `_inner_m` to `_outer_m` about a point; `left` people are still wanted."""

    def __init__(self, view: View, shape: shapes.Nearest) -> None:
        self._shape, self.left = shape, shape.count
        self._base, self._known = view.base.index, dict[float, Runs]()
        places = shape.count if shape.count <= AT_ONCE else shape.count // 4
        self._inner_m, self._outer_m = 0.0, max(1.0, view.base.index.radius_of(shape.lon, shape.lat, places))
        self._before: dict[int, Runs] = {}  # of the circle within, by index
        self._here: dict[int, Runs] = {}

    @property
    def whole_world(self) -> bool:
        """Whether nobody is outside."""
        return whole_world(self._outer_m)

    def runs(self, index: PlaceIndex) -> Runs:
        """Of the places in the ring."""
        outer_m = self._outer_m
        runs = self._circle(outer_m) if index is self._base else index.runs(self._about(outer_m))
        self._here[id(index)] = runs
        before = self._before.get(id(index))
        ring: Runs = runs if before is None else geo_kernels.combine_runs(runs, before, True, False, False)
        return ring

    def grow(self, people: int) -> None:
        """Go on to the next ring, as so many were in this one: wide enough for those left, if people are as before."""
        self.left -= people
        places = self._places_at(self._outer_m) - (self._places_at(self._inner_m) if self._inner_m else 0)
        self._inner_m, self._before, self._here = self._outer_m, self._here, {}
        least = self._places_at(self._inner_m) + (1.1 * self.left + 3 * math.sqrt(self.left) + 10) * (
            max(1, places) / max(1, people)
        )
        self._outer_m = self._radius_of(least)

    def _radius_of(self, least: float) -> float:
        """A radius with about so many places within it, and if a few guesses find one, at most a fifth more."""
        low_m, low = self._inner_m, self._places_at(self._inner_m)
        high_m, high, radius_m = math.inf, 0, low_m
        for _ in range(_GUESSES):
            ground = low_m**2 * (1.1 * least - low) / max(1, low) + low_m**2
            if high_m < math.inf:
                ground = low_m**2 + (high_m**2 - low_m**2) * (1.1 * least - low) / (high - low)
            radius_m = min(max(math.sqrt(ground), 1.01 * self._inner_m), 4 * low_m)
            places = self._places_at(radius_m)
            if places < least:
                low_m, low = radius_m, places
            else:
                high_m, high = radius_m, places
                if places <= 1.2 * least:
                    break
            if whole_world(radius_m):
                break
        return high_m if high_m < math.inf else radius_m

    def _places_at(self, radius_m: float) -> int:
        """How many places of the base are in a circle."""
        return int(geo_kernels.count_runs(self._circle(radius_m)))

    def _circle(self, radius_m: float) -> Runs:
        """A circle's runs of the base: a guess that turns out to be the next ring is not asked for again."""
        if radius_m not in self._known:
            self._known[radius_m] = self._base.runs(self._about(radius_m))
        return self._known[radius_m]

    def _about(self, radius_m: float) -> shapes.Circle:
        return shapes.Circle(self._shape.lon, self._shape.lat, radius_m)

    def sure(self, wanted: int, furthest_m: float) -> bool:
        """Whether the last of those taken stands clear of both rims."""
        within = self.whole_world or (wanted == self.left and furthest_m < self._outer_m * (1 - _TOLD_APART))
        return within and (self._inner_m == 0 or (wanted > 0 and furthest_m > self._inner_m * (1 + _TOLD_APART)))

    def measure_all(self) -> None:
        """Begin again with a circle that is a little larger."""
        self.left = self._shape.count
        self._inner_m, self._outer_m, self._before, self._here = 0.0, 1.1 * self._outer_m, {}, {}
