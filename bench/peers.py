"""The others, each in the best way we found to ask it the same question. Answers are rows, to be compared.

What each can do differs: a method that is not there is a question it cannot be asked. All measure on the same sphere,
or are given a radius scaled to theirs. Those in this process are here, servers in `peer_servers`.

`precision_m` is stated of each, in metres: how far from a border (the rim of a circle, the edge of a polygon, the
distance of the k-th nearest) a person may stand of whom it says something else than we do, because it rounds
coordinates or computes chords. `Question.differences` verifies that person by person; anybody further away ends the
bench. `bytes_a_person` is what building it takes at its peak, roughly, and `us_a_person` how long, as it was among 1.6
million on a slow core: where that is more than is free, or than `FILL_S_MAX`, a peer is left out (`fits`), and said to
be, so that a run with tens of millions ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.harness import note
from fanout.geo.fixed import EARTH_RADIUS_M

Floats = NDArray[np.float64]
Rows = NDArray[Any]


def distance_m(lon0: float, lat0: float, lon: Floats, lat: Floats) -> Floats:
    """Haversine in numpy, the common measure of those that have none."""
    x, y = np.radians(lon - lon0), np.radians(lat - lat0)
    a = np.sin(y / 2) ** 2 + np.cos(np.radians(lat)) * np.cos(np.radians(lat0)) * np.sin(x / 2) ** 2
    metres: Floats = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(a))
    return metres


FILL_S_MAX = 120.0
"""How long a peer may take to take in everybody."""


def fits(kind: Any, people: int) -> bool:
    """Whether there is memory, and time, for a peer that knows so many people; if not, it says so."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        free = next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemAvailable" in line)
        wanted = kind.bytes_a_person * people
        if wanted > 0.8 * free:
            needed = f"needs some {wanted / 1e9:.0f} GB for {people:,}, and {free / 1e9:.0f} GB are free"
            note(f"left out: {kind.name} {needed}")
            return False
    wanted_s = kind.us_a_person * people / 1e6
    if wanted_s > FILL_S_MAX:
        note(f"left out: {kind.name} takes some {wanted_s:,.0f} s to take in {people:,}; at most {FILL_S_MAX:.0f} s")
        return False
    return True


@dataclass(frozen=True, slots=True)
class Question:
    """What all systems are asked: a method of theirs, its arguments, and how far rows are from the border."""

    method: str
    given: tuple[Any, ...]
    border_m: Callable[[Rows], Floats]

    def differences(self, ours: Any, theirs: Any, precision_m: float, candidates: Rows) -> list[str]:
        """What a system may not say, in words: rows in one answer only that are not at the border, or a row twice.

        For counts `candidates` are rows among which those at the border are found.
        """
        if isinstance(ours, int):
            doubtful = int((self.border_m(candidates) <= precision_m).sum())
            return [] if abs(ours - theirs) <= doubtful else [f"counts {theirs} instead of {ours}"]
        mine, other = np.unique(ours), np.unique(theirs)
        wrong = [f"says {len(theirs)} rows, but {other.size} people"] if other.size != len(theirs) else []
        differ = np.setxor1d(mine, other)
        if self.method == "nearest" and len(theirs) != len(ours):
            wrong.append(f"says {len(theirs)} people instead of {len(ours)}")
        metres = self.border_m(differ)
        wrong += [
            f"{'has' if row in other else 'has not'} row {row}, {border:.3f} m from the border"
            for row, border in zip(differ.tolist(), metres.tolist(), strict=True)
            if border > precision_m
        ]
        return wrong


class Numpy:
    """Brute force: a box first, then every point in it."""

    name: ClassVar = "numpy"
    precision_m: ClassVar = 0.01
    bytes_a_person: ClassVar = 60
    us_a_person: ClassVar = 0.0

    def __init__(self, lon: Floats, lat: Floats) -> None:
        self.lon, self.lat = lon, lat

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        dlat = np.degrees(radius_m / EARTH_RADIUS_M) * 1.001
        dlon = dlat / np.cos(np.radians(abs(lat) + dlat))
        near = np.flatnonzero((np.abs(self.lon - lon) <= dlon) & (np.abs(self.lat - lat) <= dlat))
        rows: Rows = near[distance_m(lon, lat, self.lon[near], self.lat[near]) <= radius_m]
        return rows

    def polygon(self, geometry: Any) -> Rows:
        """Rows in or on a shapely geometry."""
        import shapely

        west, south, east, north = geometry.bounds
        near = np.flatnonzero((self.lon >= west) & (self.lon <= east) & (self.lat >= south) & (self.lat <= north))
        shapely.prepare(geometry)
        rows: Rows = near[shapely.intersects_xy(geometry, self.lon[near], self.lat[near])]
        return rows

    def nearest(self, lon: float, lat: float, k: int) -> Rows:
        """The k nearest, nearest first."""
        metres, k = distance_m(lon, lat, self.lon, self.lat), min(k, self.lon.size)
        first = np.argpartition(metres, k - 1)[:k]
        return first[np.argsort(metres[first], kind="stable")]


class KDTree:
    """scipy's cKDTree over unit vectors: a chord is exact on the sphere."""

    name: ClassVar = "scipy.cKDTree"
    precision_m: ClassVar = 0.01
    bytes_a_person: ClassVar = 70
    us_a_person: ClassVar = 2.0

    def __init__(self, lon: Floats, lat: Floats) -> None:
        from scipy.spatial import cKDTree

        self.tree = cKDTree(_vectors(lon, lat), leafsize=32, balanced_tree=False, compact_nodes=True)

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        chord = 2 * np.sin(min(np.pi, radius_m / EARTH_RADIUS_M) / 2)
        found = self.tree.query_ball_point(_vectors(np.array([lon]), np.array([lat]))[0], chord, return_sorted=False)
        return np.array(found, np.uint32)

    def count(self, lon: float, lat: float, radius_m: float) -> int:
        """How many within a radius."""
        chord = 2 * np.sin(min(np.pi, radius_m / EARTH_RADIUS_M) / 2)
        point = _vectors(np.array([lon]), np.array([lat]))[0]
        return int(self.tree.query_ball_point(point, chord, return_length=True))

    def nearest(self, lon: float, lat: float, k: int) -> Rows:
        """The k nearest, nearest first."""
        k = min(k, self.tree.n)  # it names places that are not there for those that are missing
        return np.atleast_1d(self.tree.query(_vectors(np.array([lon]), np.array([lat]))[0], k)[1])


class STRtree:
    """shapely's STRtree: boxes for circles, then haversine; GEOS with a prepared polygon for areas."""

    name: ClassVar = "shapely.STRtree"
    precision_m: ClassVar = 0.01
    bytes_a_person: ClassVar = 360
    us_a_person: ClassVar = 1.5

    def __init__(self, lon: Floats, lat: Floats) -> None:
        import shapely

        self.lon, self.lat = lon, lat
        self.tree = shapely.STRtree(shapely.points(lon, lat), node_capacity=16)
        self.tree.query(shapely.box(0, 0, 0, 0))  # it builds on the first question

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        import shapely

        dlat = np.degrees(radius_m / EARTH_RADIUS_M) * 1.001
        dlon = dlat / np.cos(np.radians(abs(lat) + dlat))
        near = self.tree.query(shapely.box(lon - dlon, lat - dlat, lon + dlon, lat + dlat))
        rows: Rows = near[distance_m(lon, lat, self.lon[near], self.lat[near]) <= radius_m]
        return rows

    def polygon(self, geometry: Any) -> Rows:
        """Rows in or on a shapely geometry."""
        rows: Rows = self.tree.query(geometry, predicate="intersects")
        return rows


class H3:
    """H3 cells (resolution 8, 460 m): a disk of cells, a binary search for each, then haversine."""

    name: ClassVar = "h3"
    precision_m: ClassVar = 0.01
    bytes_a_person: ClassVar = 130
    us_a_person: ClassVar = 1.2

    def __init__(self, lon: Floats, lat: Floats) -> None:
        import h3.api.numpy_int as h3

        self.h3 = h3
        cells = np.array(
            [h3.latlng_to_cell(y, x, 8) for x, y in zip(lon.tolist(), lat.tolist(), strict=True)], np.uint64
        )
        self.order = np.argsort(cells, kind="stable")
        self.cells = cells[self.order]
        self.lon, self.lat = lon[self.order], lat[self.order]

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        edge_m = 400.0  # the least distance between the middles of rings of cells, with room
        disk = self.h3.grid_disk(self.h3.latlng_to_cell(lat, lon, 8), int(radius_m / edge_m / 1.5) + 2)
        disk = np.sort(np.asarray(disk, np.uint64))
        starts, ends = np.searchsorted(self.cells, disk), np.searchsorted(self.cells, disk, side="right")
        near = np.concatenate(
            [np.arange(start, end) for start, end in zip(starts, ends, strict=True) if start < end] or [starts[:0]]
        )
        rows: Rows = self.order[near[distance_m(lon, lat, self.lon[near], self.lat[near]) <= radius_m]]
        return rows


class DuckDB:
    """DuckDB with its spatial extension: an R-tree for polygons and boxes, then metres on the sphere."""

    name: ClassVar = "DuckDB spatial"
    precision_m: ClassVar = 0.01
    bytes_a_person: ClassVar = 150
    us_a_person: ClassVar = 10.0

    def __init__(self, lon: Floats, lat: Floats) -> None:
        import duckdb

        self.lon, self.lat = lon, lat
        self.ask = duckdb.connect(":memory:", config={"threads": 1})
        try:
            self.ask.install_extension("spatial")
            self.ask.load_extension("spatial")
        except duckdb.Error as error:
            raise ImportError(f"DuckDB's spatial extension cannot be had: {str(error).splitlines()[0]}") from None
        self.ask.register("given", {"id": np.arange(lon.size, dtype=np.uint32), "lon": lon, "lat": lat})
        self.ask.execute(
            "CREATE TABLE people AS SELECT id, ST_Point(lon, lat) AS place FROM given ORDER BY ST_Hilbert(lon, lat)"
        )
        self.ask.execute("CREATE INDEX places ON people USING RTREE (place)")

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        dlat = np.degrees(radius_m / EARTH_RADIUS_M) * 1.001
        dlon = dlat / np.cos(np.radians(abs(lat) + dlat))
        box = (lon - dlon, lat - dlat, lon + dlon, lat + dlat)
        near = self._rows("SELECT id FROM people WHERE ST_Within(place, ST_MakeEnvelope(?, ?, ?, ?))", *box)
        rows: Rows = near[distance_m(lon, lat, self.lon[near], self.lat[near]) <= radius_m]
        return rows

    def polygon(self, geometry: Any) -> Rows:
        """Rows in or on a shapely geometry."""
        return self._rows("SELECT id FROM people WHERE ST_Intersects(place, ST_GeomFromWKB(?))", geometry.wkb)

    def _rows(self, query: str, *given: Any) -> Rows:
        rows: Rows = self.ask.execute(query, given).fetchnumpy()["id"]
        return rows


PEERS: tuple[Callable[[Floats, Floats], Any], ...] = (KDTree, STRtree, Numpy, H3, DuckDB)


def _vectors(lon: Floats, lat: Floats) -> Floats:
    x, y = np.radians(lon), np.radians(lat)
    return np.column_stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])
