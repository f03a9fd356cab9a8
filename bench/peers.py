"""The others, each in the best way we found to ask it the same question. Answers are rows, to be compared.

What each can do differs: a method that is not there is a question it cannot be asked. All measure on the same sphere,
or are given a radius scaled to theirs. `tolerance`: how many rows in a thousand may differ (a system that rounds
coordinates).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fanout.geo.fixed import EARTH_RADIUS_M

Floats = NDArray[np.float64]
Rows = NDArray[Any]


def distance_m(lon0: float, lat0: float, lon: Floats, lat: Floats) -> Floats:
    """Haversine in numpy, the common measure of those that have none."""
    x, y = np.radians(lon - lon0), np.radians(lat - lat0)
    a = np.sin(y / 2) ** 2 + np.cos(np.radians(lat)) * np.cos(np.radians(lat0)) * np.sin(x / 2) ** 2
    metres: Floats = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(a))
    return metres


class Numpy:
    """Brute force: a box first, then every point in it."""

    name: ClassVar = "numpy"
    tolerance: ClassVar = 0

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
        metres = distance_m(lon, lat, self.lon, self.lat)
        first = np.argpartition(metres, k - 1)[:k]
        return first[np.argsort(metres[first], kind="stable")]


class KDTree:
    """scipy's cKDTree over unit vectors: a chord is exact on the sphere."""

    name: ClassVar = "scipy.cKDTree"
    tolerance: ClassVar = 0

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
        rows: Rows = self.tree.query(_vectors(np.array([lon]), np.array([lat]))[0], k)[1]
        return rows


class STRtree:
    """shapely's STRtree: boxes for circles, then haversine; GEOS with a prepared polygon for areas."""

    name: ClassVar = "shapely.STRtree"
    tolerance: ClassVar = 0

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
    tolerance: ClassVar = 0

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


class Redis:
    """Redis GEOSEARCH on a server of its own, over a Unix socket. Its geohash has 52 bits: half a metre of rounding."""

    name: ClassVar = "redis GEOSEARCH"
    tolerance: ClassVar = 20
    RADIUS_M: ClassVar = 6_372_797.560856  # its earth

    def __init__(self, client: Any, lon: Floats, lat: Floats) -> None:
        self.client = client
        for start in range(0, lon.size, 20_000):
            end = min(start + 20_000, lon.size)
            triples = zip(lon[start:end].tolist(), lat[start:end].tolist(), range(start, end), strict=True)
            values = [value for triple in triples for value in triple]
            client.execute_command("GEOADD", "people", *values)

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        scaled = radius_m * self.RADIUS_M / EARTH_RADIUS_M
        found = self.client.execute_command(
            "GEOSEARCH", "people", "FROMLONLAT", lon, lat, "BYRADIUS", scaled, "m"
        )  # fmt: skip
        return np.array(found, np.uint32)


@contextmanager
def redis_server(folder: Path) -> Iterator[Any]:
    """A Redis of our own on a Unix socket, gone afterwards; None if there is no redis-server."""
    import shutil

    import redis

    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    address = folder / "redis.sock"
    server = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(address), "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    try:
        client = redis.Redis(unix_socket_path=str(address), socket_timeout=60.0, decode_responses=False)
        for _ in range(200):
            try:
                client.ping()
                break
            except (redis.ConnectionError, OSError):
                time.sleep(0.02)
        yield client
        client.close()
    finally:
        server.terminate()
        server.wait(timeout=20)


PEERS: tuple[Callable[[Floats, Floats], Any], ...] = (KDTree, STRtree, Numpy, H3)


def _vectors(lon: Floats, lat: Floats) -> Floats:
    x, y = np.radians(lon), np.radians(lat)
    return np.column_stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])
