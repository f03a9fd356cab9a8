"""Slow, obvious answers: what the index must say. Distances by haversine in plain Python, polygons by shapely."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray

RADIUS_M = 6_371_008.8
UNIT = 1e-7
TIE_M = 1e-6
"""Closer to the rim than this, both answers are right: a micrometre is what float64 leaves of a great circle."""


def haversine_m(lon0: int, lat0: int, lon: int, lat: int) -> float:
    """Great-circle metres between two points in fixed-point degrees."""
    a = math.sin(math.radians((lat - lat0) * UNIT) / 2) ** 2
    a += (
        math.cos(math.radians(lat0 * UNIT))
        * math.cos(math.radians(lat * UNIT))
        * math.sin(math.radians((lon - lon0) * UNIT) / 2) ** 2
    )
    return 2 * RADIUS_M * math.asin(min(1.0, math.sqrt(a)))


def distances_m(lon0: int, lat0: int, lon: NDArray[np.int32], lat: NDArray[np.int32]) -> NDArray[np.float64]:
    """The same to many points."""
    return np.array([haversine_m(lon0, lat0, x, y) for x, y in zip(lon.tolist(), lat.tolist(), strict=True)])


def to_arc_m(line: list[tuple[int, int]], lon: NDArray[np.int32], lat: NDArray[np.int32]) -> NDArray[np.float64]:
    """Distances to a polyline of great-circle arcs, by walking along it.

    24 steps, then again between the two beside the nearest, until a step is less than a millimetre. Along an arc
    shorter than half a turn there is one nearest place.
    """
    here = _vectors(lon, lat)
    best = np.full(lon.size, np.inf)
    for (x1, y1), (x2, y2) in pairwise(line):
        a, b = _vectors(np.array([x1, x2]), np.array([y1, y2]))
        low, high = np.zeros(lon.size), np.ones(lon.size)
        for _ in range(8):
            share = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 25)
            steps = a + (b - a) * share[..., None]
            steps /= np.linalg.norm(steps, axis=2)[..., None]
            chords = np.linalg.norm(steps - here[:, None, :], axis=2)
            at = chords.argmin(axis=1)
            every = np.arange(lon.size)
            low, high = share[every, np.maximum(at - 1, 0)], share[every, np.minimum(at + 1, 24)]
        best = np.minimum(best, 2 * np.arcsin(np.minimum(1.0, chords.min(axis=1) / 2)) * RADIUS_M)
    return best


def to_line_m(line: NDArray[np.int64], lon: NDArray[np.int32], lat: NDArray[np.int32]) -> NDArray[np.float64]:
    """The same in one step, `line` int64[v, 2]: to the foot on an arc's great circle if that is on the arc, else to the
    nearer end. All angles by arc tangents, which lose no digits near or far."""
    here, there = _vectors(lon, lat), _vectors(line[:, 0], line[:, 1])
    best = np.min([_angles(here, end) for end in there], axis=0)
    for a, b in pairwise(there):
        normal = np.cross(a, b)
        length = np.linalg.norm(normal)
        if length < 1e-15:
            continue
        normal /= length
        beside = (here @ np.cross(normal, a) >= 0) & (here @ np.cross(b, normal) >= 0)
        away = np.abs(np.pi / 2 - _angles(here, normal))
        best = np.where(beside, np.minimum(best, away), best)
    return best * RADIUS_M


def _angles(here: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.arctan2(np.linalg.norm(np.cross(here, to), axis=1), here @ to)


def _vectors(lon: NDArray[np.int32], lat: NDArray[np.int32]) -> NDArray[np.float64]:
    x, y = np.radians(lon * UNIT), np.radians(lat * UNIT)
    return np.column_stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])


def covered(geometry: shapely.Geometry, lon: NDArray[np.int32], lat: NDArray[np.int32]) -> set[int]:
    """Rows inside or on the border of a geometry in fixed-point coordinates, by GEOS; points also a full turn away."""
    inside = np.zeros(lon.size, np.bool_)
    west, _, east, _ = geometry.bounds
    for turn in (-3_600_000_000, 0, 3_600_000_000):
        if east - turn < -1_800_000_000 or west - turn > 1_800_000_000:
            continue
        inside |= shapely.covers(geometry, shapely.points(lon.astype(np.float64) + turn, lat.astype(np.float64)))
    return set(np.flatnonzero(inside).tolist())
