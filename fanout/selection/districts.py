"""Of which district each person reached is: the municipality of the place, or the live position, that decides.

    districts = Districts.of(areas, "municipality")
    districts.prepare(index)                         # once for each base of the registry, before it is in force
    districts.counts(reached)                        # {"Assen": 68, "Aa en Hunze": 3}

Rules:

1. Of a base, the district of every place is found beforehand and kept for as long as that base is: 342 municipalities
   over 2.5 million places take 40 ms, which no preview may wait for. One that was not prepared is when first asked for.
2. Of a delta and of live positions, which change all the time, only those reached are looked up, among the districts
   whose boxes they meet.
3. Where two districts overlap (a common border), the first by name has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fanout.geo import kernels as geo_kernels
from fanout.geo import shapes
from fanout.geo.areas import NamedAreas
from fanout.geo.fixed import LON_MAX, Int32s
from fanout.geo.index import PlaceIndex
from fanout.selection import kernels
from fanout.selection.preview import Reached

NOWHERE: Final = 0xFFFF
"""District of a place that lies in none."""


class Districts:
    """The areas of one kind, as numbers of places. Any thread may ask."""

    def __init__(self, areas: Mapping[str, shapes.Shape]) -> None:
        self._areas = dict(sorted(areas.items()))
        self._boxes = np.array([_box(shape) for shape in self._areas.values()], np.int64).reshape(-1, 4)
        self._of_index: WeakKeyDictionary[PlaceIndex, NDArray[np.uint16]] = WeakKeyDictionary()
        assert len(self._areas) < NOWHERE, "more districts than there are numbers"

    @classmethod
    def of(cls, areas: NamedAreas, kind: str) -> Districts:
        """All imported areas of a kind; none if the kind is not loaded."""
        return cls({name: shape for name in areas.names(kind) if (shape := areas(kind, name)) is not None})

    def counts(self, reached: Reached) -> dict[str, int]:
        """People by district, most first; those in no district are under the empty name."""
        total = np.zeros(NOWHERE + 1, np.int64)
        for one in reached.found:
            if one.part is reached.view.base:
                kernels.tally(one.places, self.prepare(one.part.index), total)
            elif one.rows.size:
                total += np.bincount(self._look_up(one.lon, one.lat), minlength=NOWHERE + 1)
        names = [*self._areas, ""]
        people = np.append(total[: len(self._areas)], total[NOWHERE])
        order = np.argsort(-people, kind="stable")
        return {names[at]: int(people[at]) for at in order.tolist() if people[at]}

    def prepare(self, index: PlaceIndex) -> NDArray[np.uint16]:
        """uint16[places]: the district of each place of a base, found now unless it is known."""
        known = self._of_index.get(index)
        if known is None:
            known = self._of_index[index] = self._fill(index, range(len(self._areas)))
        return known

    def _fill(self, index: PlaceIndex, numbers: range | NDArray[np.intp]) -> NDArray[np.uint16]:
        shape_of = list(self._areas.values())
        found = np.full(len(index), NOWHERE, np.uint16)
        for number in reversed(numbers):
            geo_kernels.fill_runs(index.runs(shape_of[number]), np.uint16(number), found)
        return found

    def _look_up(self, lon: Int32s, lat: Int32s) -> NDArray[np.uint16]:
        """uint16[n], in an order of its own: the district of each point."""
        west, south, east, north = self._boxes.T
        met = (south <= lat.max()) & (north >= lat.min()) & (west <= lon.max()) & (east >= lon.min())
        return self._fill(PlaceIndex.build(lon, lat), np.flatnonzero(met))


def _box(shape: shapes.Shape) -> tuple[int, int, int, int]:
    """West, south, east, north on the map; all round for what passes the antimeridian or has no box."""
    match shape:
        case shapes.Polygon(box=(west, south, east, north)) if west >= -LON_MAX and east <= LON_MAX:
            return west, south, east, north
    return -LON_MAX, -LON_MAX, LON_MAX, LON_MAX
