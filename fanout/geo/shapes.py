"""Shapes: areas that passed the validity gate, in fixed-point coordinates, ready to be asked of an index.

A shape is immutable and knows nothing of people. Longitudes of polygons are *unwrapped*: a ring that crosses the
antimeridian goes on past 180 degrees, and a ring round a pole is closed along that pole, so that every ring is an
ordinary ring in the plane and kernels need no special case; an index asks once per full turn that the box reaches.

Whoever makes a shape by hand (tests, benchmarks) uses `circle`, `polygon`, `corridor`; requests come through
`areas.shape_of`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fanout import limits
from fanout.errors import Refused
from fanout.geo.fixed import EARTH_RADIUS_M, LON_MAX, SCALE, TURN, to_fixed

Edges = NDArray[np.int64]
Ring = NDArray[np.int64]
"""int64[n, 2], x (longitude, unwrapped) and y, closed: the last is the first."""


@dataclass(frozen=True, slots=True)
class Circle:
    """All within `radius_m` great-circle metres of a centre in fixed-point degrees."""

    lon: int
    lat: int
    radius_m: float

    @property
    def area_km2(self) -> float:
        """Size on the sphere."""
        return _EARTH_KM2 / 2 * (1 - math.cos(min(math.pi, self.radius_m / EARTH_RADIUS_M)))


@dataclass(frozen=True, slots=True)
class Polygon:
    """Inside or on the border of rings, even-odd. `edges` int64[e, 4]: x1, y1, x2, y2 with y1 <= y2, sorted by y1.

    `passes`: what is added to a point's longitude before it is tested, west to east in the world, grouped so that no
    group meets a point twice.
    """

    edges: Edges = field(repr=False)
    passes: tuple[tuple[int, ...], ...]
    box: tuple[int, int, int, int]  # west, south, east, north; west and east unwrapped
    centre: tuple[int, int]  # from where people are ordered
    area_km2: float = 0.0


@dataclass(frozen=True, slots=True)
class Everyone:
    """The whole world."""

    @property
    def area_km2(self) -> float:
        """All of it."""
        return _EARTH_KM2


@dataclass(frozen=True, slots=True)
class Nearest:
    """The `count` nearest to a point in fixed-point degrees."""

    lon: int
    lat: int
    count: int

    @property
    def area_km2(self) -> float:
        """None: its bound is a number of people."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Corridor:
    """All within `radius_m` of a polyline of great-circle arcs. `line` int64[v, 2]; `vectors` float64[v, 3], unit."""

    line: NDArray[np.int64] = field(repr=False)
    vectors: NDArray[np.float64] = field(repr=False)
    radius_m: float

    @property
    def area_km2(self) -> float:
        """Of the strip and its round ends; where the line doubles back, counted twice."""
        chords = np.linalg.norm(self.vectors[1:] - self.vectors[:-1], axis=1)
        length_m = float(2 * np.arcsin(np.minimum(1, chords / 2)).sum()) * EARTH_RADIUS_M
        return (2 * length_m * self.radius_m + math.pi * self.radius_m**2) / 1e6


@dataclass(frozen=True, slots=True)
class Union:
    """In any of these."""

    of: tuple[Shape, ...]

    @property
    def area_km2(self) -> float:
        """At most: the sum of its parts."""
        return sum(part.area_km2 for part in self.of)


@dataclass(frozen=True, slots=True)
class Intersection:
    """In all of these."""

    of: tuple[Shape, ...]

    @property
    def area_km2(self) -> float:
        """At most: the smallest of its parts."""
        return min(part.area_km2 for part in self.of)


@dataclass(frozen=True, slots=True)
class Difference:
    """In the one and not in the other."""

    of: Shape
    without: Shape

    @property
    def area_km2(self) -> float:
        """At most: what it is taken from."""
        return self.of.area_km2


Shape: TypeAlias = Circle | Polygon | Everyone | Nearest | Corridor | Union | Intersection | Difference

EVERYONE: Final = Everyone()
_OPPOSITE: Final = 1e-6  # of a radius, 6 m: nearer to that, a centimetre turns the arc by a tenth of a degree or more
_EARTH_KM2: Final = 4 * math.pi * (EARTH_RADIUS_M / 1000) ** 2


def fixed_point(lon: float, lat: float, where: str) -> tuple[int, int]:
    """One coordinate, checked. As `to_fixed`, which a single point need not wait for."""
    lon, lat = float(lon), float(lat)  # a float32 would be multiplied as one
    if -180 <= lon <= 180 and -90 <= lat <= 90:  # NaN is in no range
        x = round(lon * SCALE)
        return (x if x < LON_MAX else -LON_MAX), round(lat * SCALE)
    lons, lats = to_fixed(lon, lat, where=where)
    return int(lons[0]), int(lats[0])


def check_radius(radius_m: float, where: str) -> float:
    """A radius that is more than nothing and at most half the equator."""
    radius_m = float(radius_m)
    if not 0 < radius_m <= limits.RADIUS_M_MAX:  # NaN is refused too
        raise Refused("area_radius_range", where, limit_m=limits.RADIUS_M_MAX, radius_m=radius_m)
    return radius_m


def circle(lon: float, lat: float, radius_m: float) -> Circle:
    """A circle: centre in degrees, radius in great-circle metres.

    Raises `Refused("area_coordinate_range" | "area_coordinate_not_finite" | "area_radius_range")`.
    """
    x, y = fixed_point(lon, lat, "centre")
    return Circle(x, y, check_radius(radius_m, "radius_m"))


def corridor(line: Sequence[Sequence[float]], radius_m: float, *, where: str = "") -> Corridor:
    """A line with a width: points in degrees (a third number, the altitude, is passed over), joined by great-circle
    arcs; `radius_m` to all sides.

    One point is a line of no length, and its corridor a circle. Raises as `circle`, and `Refused("area_empty")` without
    a point, `Refused("area_line_ambiguous")` where two points are opposite. `where`: what places are named after.
    """
    if len(line) == 0:
        raise Refused("area_empty", f"{where}line")
    spots = [fixed_point(lon, lat, f"{where}line[{at}]") for at, (lon, lat, *_) in enumerate(line)]
    points = np.array(spots if len(spots) > 1 else spots * 2, np.int64)
    radians = np.radians(points / SCALE)
    lons, lats = radians[:, 0], radians[:, 1]
    vectors = np.column_stack([np.cos(lats) * np.cos(lons), np.cos(lats) * np.sin(lons), np.sin(lats)])
    opposite = np.linalg.norm(vectors[1:] + vectors[:-1], axis=1) < _OPPOSITE
    if opposite.any():
        raise Refused("area_line_ambiguous", f"{where}line[{int(np.argmax(opposite)) + 1}]")
    return Corridor(points, np.ascontiguousarray(vectors), check_radius(radius_m, f"{where}radius_m"))


def round_arc(arc: NDArray[np.float64], radius_m: float) -> Circle | Everyone:
    """A circle that has all within `radius_m` of an arc in it; `arc` float64[2, 3], two unit vectors."""
    (ax, ay, az), (bx, by, bz) = arc.tolist()  # as floats: a corridor asks a thousand times
    x, y, z = ax + bx, ay + by, az + bz
    length = math.hypot(x, y, z)
    if length < 1e-9:  # opposite ends of the world: no one arc joins them
        return EVERYONE
    half_rad = math.atan2(math.hypot(bx - ax, by - ay, bz - az), length)
    lon = round(math.degrees(math.atan2(y, x)) * SCALE)
    lat = round(math.degrees(math.atan2(z, math.hypot(x, y))) * SCALE)
    return Circle(lon, lat, (half_rad * EARTH_RADIUS_M + radius_m) * (1 + 1e-9) + 1.0)


def polygon(rings: Sequence[Ring], area_km2: float = 0.0, centre: tuple[int, int] | None = None) -> Polygon:
    """A polygon of closed, unwrapped rings that were checked; points that repeat are dropped.

    `centre`: from where its people are ordered (`centre.centre_of_polygons`); None: the middle of its box.
    """
    parts = [np.hstack([ring[:-1], ring[1:]]) for ring in rings]
    edges = np.concatenate(parts) if parts else np.empty((0, 4), np.int64)
    edges = edges[(edges[:, 0] != edges[:, 2]) | (edges[:, 1] != edges[:, 3])]
    down = edges[:, 1] > edges[:, 3]
    edges[down] = edges[down][:, [2, 3, 0, 1]]
    edges = np.ascontiguousarray(edges[np.lexsort((edges[:, 0], edges[:, 1]))])
    west, east = int(edges[:, [0, 2]].min()), int(edges[:, [0, 2]].max())
    south, north = int(edges[:, 1].min()), int(edges[:, 3].max())
    edges.setflags(write=False)
    centre = centre or (((west + east) // 2 + LON_MAX) % TURN - LON_MAX, (south + north) // 2)
    return Polygon(edges, _passes(west, east), (west, south, east, north), centre, area_km2)


def _passes(west: int, east: int) -> tuple[tuple[int, ...], ...]:
    """The turns under which points (in [-180, 180)) can meet a box, the westernmost points first."""
    turns = [
        turn for turn in (2 * TURN, TURN, 0, -TURN, -2 * TURN) if west - turn < LON_MAX and east - turn >= -LON_MAX
    ]
    if east - west >= TURN:  # a full turn: points on its seam are met from both sides
        return tuple((turn,) for turn in turns)
    return (tuple(turns),)


def centre_of(shape: Shape) -> tuple[int, int] | None:
    """The point, fixed-point, from which a shape's people are ordered; None if it suggests none.

    Of a polygon its centroid on the sphere, or that of its largest part; of a union or a difference that of the first.
    """
    match shape:
        case Circle(lon=lon, lat=lat) | Nearest(lon=lon, lat=lat):
            return lon, lat
        case Polygon(centre=centre):
            return centre
        case Union(of=parts) | Intersection(of=parts):
            return next(filter(None, map(centre_of, parts)), None)
        case Difference(of=of):
            return centre_of(of)
        case Everyone() | Corridor():
            return None
