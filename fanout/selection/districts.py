"""Of which district each person reached is: the municipality of the place, or the live position, that decides.

    districts = Districts.of(areas, "municipality")
    districts.prepare(index)                         # once for each base of the registry, before it is in force
    districts.counts(reached)                        # {"Assen": 68, "Aa en Hunze": 3}

Rules:

1. Of a base, the district of every place is found beforehand and kept for as long as that base is: 342 municipalities
   over 2.5 million places take some 50 ms, which no preview may wait for. Else when first asked.
2. Of a delta and of live positions, which change all the time, only those reached are looked up, on a map of cells.
3. Where two districts overlap (a common border), the first by name has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fanout.geo import shapes
from fanout.geo.areas import NamedAreas
from fanout.geo.fixed import LAT_MAX, LON_MAX
from fanout.geo.index import PlaceIndex
from fanout.registry.view import Rows
from fanout.selection.counting import kernels as counting
from fanout.selection.mapping import kernels
from fanout.selection.preview import Reached

CELLS: Final = 1_024
"""Of the map, either way: of a country, cells of some hundred metres."""


class Districts:
    """The areas of one kind, as numbers of places. Any thread may ask."""

    def __init__(self, areas: Mapping[str, shapes.Polygon]) -> None:
        self._names = sorted(areas)
        self._map = _Map([areas[name] for name in self._names])
        self._of_index: WeakKeyDictionary[PlaceIndex, NDArray[np.uint16]] = WeakKeyDictionary()
        assert len(self._names) < kernels.MIXED, "more districts than there are numbers"

    @classmethod
    def of(cls, areas: NamedAreas, kind: str) -> Districts:
        """All imported areas of a kind; none if the kind is not loaded."""
        shape_of = {name: areas(kind, name) for name in areas.names(kind)}
        return cls({name: shape for name, shape in shape_of.items() if isinstance(shape, shapes.Polygon)})

    def counts(self, reached: Reached) -> dict[str, int]:
        """People by district, most first; those in no district are under the empty name."""
        total = np.zeros(kernels.NOWHERE + 1, np.int64)
        for one in reached.found:
            if one.part is reached.view.base:
                counting.tally(one.places, self.prepare(one.over), total)
            elif one.rows.size:
                total += np.bincount(self._map.numbers(one.over, one.places), minlength=total.size)
        names = [*self._names, ""]
        people = np.append(total[: len(self._names)], total[kernels.NOWHERE])
        order = np.argsort(-people, kind="stable")
        return {names[at]: int(people[at]) for at in order.tolist() if people[at]}

    def prepare(self, index: PlaceIndex) -> NDArray[np.uint16]:
        """uint16[places]: the district of each place of a base, found now unless it is known."""
        known = self._of_index.get(index)
        if known is None:
            every = np.arange(len(index), dtype=np.uint32)
            known = self._of_index[index] = self._map.numbers(index, every)
        return known


class _Map:
    """Polygons as cells, and as strips of borders for the cells that a border passes through (see `mapping`)."""

    def __init__(self, polygons: list[shapes.Polygon]) -> None:
        # a polygon past the antimeridian is there once for every turn under which points can meet it
        copies = [
            (number, polygon.edges - np.array([turn, 0, turn, 0]))
            for number, polygon in enumerate(polygons)
            for turns in polygon.passes
            for turn in turns
        ]
        edges = np.concatenate([np.empty((0, 4), np.int64), *(of_copy for _, of_copy in copies)])
        copy_of = np.repeat(np.arange(len(copies)), [len(of_copy) for _, of_copy in copies])
        number_of = np.array([number for number, _ in copies], np.int64)
        self.box = _box(edges)
        _, south, _, height = self.box
        first, last = (edges[:, 1] - south) // height, (edges[:, 3] - south) // height
        times = last - first + 1
        every = np.repeat(np.arange(len(edges)), times)
        row_of = first[every] + np.arange(len(every)) - np.repeat(np.cumsum(times) - times, times)
        order = np.lexsort((copy_of[every], row_of))  # copies are in the order of their numbers
        every, row_of = every[order], row_of[order]
        self.edges, copy = np.ascontiguousarray(edges[every]), copy_of[every]
        begins = np.flatnonzero(np.diff(row_of, prepend=-1) | np.diff(copy, prepend=-1))
        ends = np.append(begins, len(every))[1:]
        low, high = self.edges[:, [0, 2]].min(axis=1), self.edges[:, [0, 2]].max(axis=1)
        sides = [np.minimum.reduceat(low, begins), np.maximum.reduceat(high, begins)] if len(every) else [low, high]
        self.strips = np.column_stack([number_of[copy[begins]], begins, ends, *sides])
        self.rows = np.searchsorted(row_of[begins], np.arange(CELLS + 1))
        self.cells = np.zeros((CELLS, CELLS), np.uint16)
        kernels.cross_cells(self.edges, row_of, self.box, self.cells)
        kernels.fill_cells(self.edges, self.strips, self.rows, self.box, self.cells)

    def numbers(self, index: PlaceIndex, places: Rows) -> NDArray[np.uint16]:
        """uint16[n]: the district of each place of an index."""
        out = np.empty(places.size, np.uint16)
        kernels.locate(
            places, index.lon, index.lat, self.edges, self.strips, self.rows, self.box, self.cells, out
        )  # fmt: skip
        return out


def _box(edges: shapes.Edges) -> NDArray[np.int64]:
    """int64[4]: west and south of all edges, as far as there are points, and the width and height of a cell."""
    if len(edges) == 0:
        return np.array([0, 0, 1, 1], np.int64)
    west, east = max(-LON_MAX, int(edges[:, [0, 2]].min())), min(LON_MAX, int(edges[:, [0, 2]].max()))
    south, north = max(-LAT_MAX, int(edges[:, 1].min())), min(LAT_MAX, int(edges[:, 3].max()))
    return np.array([west, south, (east - west) // CELLS + 1, (north - south) // CELLS + 1], np.int64)
