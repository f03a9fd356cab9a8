"""What a selection would look like on a map and in a table, without making it: for every move of the mouse.

    reached = reach(view, query)                     # who, each at the place that decides; no order
    by_channel(reached, mask)                        # {"fcm": 61, "sms": 7}
    density(reached, columns=64, rows=48)            # a coarse grid to draw
    Districts.of(areas, "municipality").counts(view, reached)   # {"Assen": 68}

It answers with the same people as `choose` (a test holds them together), but as nobody is told anything yet, nothing is
sorted: the pass over candidates is nearly all there is. Live positions are left aside: a preview shows places.

Which district a place lies in is found once for each base of the registry (342 municipalities over 2.5 million places
take 40 ms) and kept for as long as that base is; a delta's is found when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fanout import wire
from fanout.geo import kernels as geo_kernels
from fanout.geo import shapes
from fanout.geo.areas import NamedAreas
from fanout.geo.fixed import SCALE
from fanout.geo.index import PlaceIndex
from fanout.registry.columns import choices_of
from fanout.registry.view import Part, Rows, View
from fanout.selection import kernels
from fanout.selection.choose import choose, parts_of
from fanout.selection.query import Filters, Query, filters_of

NOWHERE: Final = 0xFFFF
"""District of a place that lies in none."""


@dataclass(frozen=True, slots=True)
class Reached:
    """`rows` uint32[n], each once, in no order; `lon`, `lat` int32[n] fixed-point, of the place that decides.

    `places`: the parts of the view, each with the positions in its index, in the order of `rows`.
    """

    rows: Rows = field(repr=False)
    lon: NDArray[np.int32] = field(repr=False)
    lat: NDArray[np.int32] = field(repr=False)
    places: tuple[tuple[Part, Rows], ...] = field(repr=False)

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
    """Who would be selected, and where. `Nearest` and `Everyone` too; `query.live` is left aside."""
    everyone = isinstance(query.shape, shapes.Everyone)
    if isinstance(query.shape, shapes.Nearest):
        query = _around(view, query, query.shape)
    filters = filters_of(query, view)
    if everyone:
        filters = filters._replace(in_force=np.ones_like(filters.in_force))
    found = [_of_part(part, stale, query, filters) for part, stale in parts_of(view)]
    places = tuple((part, at) for (part, _), (_, at) in zip(parts_of(view), found, strict=True))
    return Reached(
        np.concatenate([rows for rows, _ in found]),
        np.concatenate([part.index.lon[at] for part, at in places]),
        np.concatenate([part.index.lat[at] for part, at in places]),
        places,
    )


def by_kind(reached: Reached) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Records PERSON[k] that differ in something a filter or a preference sees, and int64[k], how many people are so.

    A few hundred rows stand for everybody: what is counted by channel or language is counted here. Generation and row
    of the records mean nothing.
    """
    records, counts = [], []
    for part, positions in reached.places:
        kinds = part.kinds
        records.append(kinds.profiles[kinds.place_profile])
        counts.append(np.bincount(kinds.place[positions], minlength=kinds.place_profile.size))
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


class Districts:
    """The areas of one kind, as numbers of places. Where two overlap (a common border), the first by name has it."""

    def __init__(self, areas: Mapping[str, shapes.Shape]) -> None:
        self._areas = dict(sorted(areas.items()))
        self._of_index: WeakKeyDictionary[PlaceIndex, NDArray[np.uint16]] = WeakKeyDictionary()
        assert len(self._areas) < NOWHERE, "more districts than there are numbers"

    @classmethod
    def of(cls, areas: NamedAreas, kind: str) -> Districts:
        """All imported areas of a kind; none if the kind is not loaded."""
        return cls({name: shape for name in areas.names(kind) if (shape := areas(kind, name)) is not None})

    def counts(self, view: View, reached: Reached) -> dict[str, int]:
        """People of `view` by district, most first; those in no district are under the empty name."""
        total = np.zeros(NOWHERE + 1, np.int64)
        for (part, _), (_, positions) in zip(parts_of(view), reached.places, strict=True):
            total += np.bincount(self._districts(part.index)[positions], minlength=total.size)
        names = [*self._areas, ""]
        people = np.append(total[: len(self._areas)], total[NOWHERE])
        order = np.argsort(-people, kind="stable")
        return {names[at]: int(people[at]) for at in order.tolist() if people[at]}

    def prepare(self, view: View) -> None:
        """Find the districts of a view's places now, rather than when first asked."""
        for part, _ in parts_of(view):
            self._districts(part.index)

    def _districts(self, index: PlaceIndex) -> NDArray[np.uint16]:
        known = self._of_index.get(index)
        if known is None:
            known = np.full(len(index), NOWHERE, np.uint16)
            for number, runs in reversed(list(self._runs(index))):
                geo_kernels.fill_runs(runs, np.uint16(number), known)
            self._of_index[index] = known
        return known

    def _runs(self, index: PlaceIndex) -> Iterator[tuple[int, NDArray[np.int64]]]:
        for number, shape in enumerate(self._areas.values()):
            yield number, index.runs(shape)


def _of_part(part: Part, stale: NDArray[np.uint8], query: Query, filters: Filters) -> tuple[Rows, Rows]:
    """Rows of a part's people, and the position of the place that decides for each."""
    index, runs = part.index, part.index.runs(query.shape)
    most = geo_kernels.count_runs(runs)
    rows, positions, metres = np.empty(most, np.uint32), np.empty(most, np.uint32), np.empty(most, np.float32)
    row_of = kernels.NO_ROWS if part.rows is None else part.rows
    count = kernels.reached_places(
        runs, index.lon, index.lat, index.rows, part.kinds.place, filters.judged(part.kinds)[1], stale, row_of,
        filters.excluded, part.size, filters.lon0, filters.lat0, filters.line, part.single, rows, positions, metres,
    )  # fmt: skip
    return rows[:count], positions[:count]


def _around(view: View, query: Query, shape: shapes.Nearest) -> Query:
    """The circle that has the nearest people in it, as a query."""
    found = choose(view, query)
    radius_m = float(found.distance_m[-1]) * (1 + 1e-6) + 1e-3 if len(found) else 1.0
    return replace(query, shape=shapes.Circle(shape.lon, shape.lat, radius_m), centre=None)
