"""The middle of polygons on the sphere: from where their people are ordered, nearest first.

1. **Centroid.** The mean of all points of the ground, as vectors, weighed by true size and put back on the sphere: it
   knows no antimeridian and no pole. The integrals over the ground are taken along its border (Green): of
   (cos lat cos lon, cos lat sin lon, sin lat) cos lat, in longitude and latitude, whose edges are straight. Edges are
   cut in pieces of a degree and each is integrated by Simpson's rule, which leaves an error far below a metre.
2. **Parts.** What a map maker cut at the antimeridian is one part again: polygons whose borders share a stretch of it.
3. **Far away.** The mean of France and Guyana is in the Atlantic. If the centroid lies in no part, and further from all
   than half the radius of a circle as large as all ground, the largest part's own centroid is taken.

Pure arithmetic in a fixed order: the same polygons have the same centre, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.geo.fixed import LON_MAX, SCALE, TURN
from fanout.geo.shapes import Ring

_PIECE_DEG: Final = 1.0
_NO_DIRECTION: Final = 1e-6  # shorter means, of unit vectors, point nowhere: a world, a belt along the equator
_NEAR: Final = 0.5  # of the radius of a circle as large as all ground

Vector = NDArray[np.float64]


def centre_of_polygons(polygons: Sequence[Sequence[Ring]]) -> tuple[int, int] | None:
    """Fixed-point longitude and latitude, or None if ground lies to all sides alike. Polygons: an outer ring, holes."""
    moments = [_moment(rings) for rings in polygons]
    whole = _direction(sum((moment for moment, _ in moments), np.zeros(3)), sum(size for _, size in moments))
    parts = _parts(polygons)
    if len(parts) == 1 or (whole is not None and _is_near(whole, polygons, sum(size for _, size in moments))):
        return None if whole is None else _fixed(whole)
    sizes = [sum(moments[at][1] for at in part) for part in parts]
    largest = parts[sizes.index(max(sizes))]
    found = _direction(sum((moments[at][0] for at in largest), np.zeros(3)), max(sizes))
    return None if found is None else _fixed(found)


def _moment(rings: Sequence[Ring]) -> tuple[Vector, float]:
    """The integral of unit vectors over a polygon, and of 1: its size in steradians. Holes are taken away."""
    moment, size = np.zeros(3), 0.0
    for at, ring in enumerate(rings):
        of_ring, ring_size = _ring_moment(ring)
        sign = math.copysign(1.0, ring_size) * (-1.0 if at else 1.0)
        moment, size = moment + sign * of_ring, size + sign * ring_size
    return moment, size


def _ring_moment(ring: Ring) -> tuple[Vector, float]:
    """As `_moment`, signed. Measured from the ring's first point, so that small rings do not lose their digits."""
    west = int(ring[0, 0])
    pieces: Vector = np.radians((_cut(ring) - [west, 0]) / SCALE)
    lat0 = float(pieces[0, 1])
    lon, lat = pieces.T
    middle_lon, middle_lat = (lon[1:] + lon[:-1]) / 2, (lat[1:] + lat[:-1]) / 2
    width = np.diff(lon) / 6

    def along(values: Vector, middles: Vector) -> float:
        return float((width * (values[:-1] + 4 * middles + values[1:])).sum())

    def belt(at: Vector) -> Vector:  # of cos^2, less what it is at the first point: round a ring that adds nothing
        return (at - lat0) / 2 + (np.sin(2 * at) - math.sin(2 * lat0)) / 4

    def height(at: Vector) -> Vector:
        return np.sin(at) - math.sin(lat0)

    size = along(height(lat), height(middle_lat))
    x = along(belt(lat) * np.cos(lon), belt(middle_lat) * np.cos(middle_lon))
    y = along(belt(lat) * np.sin(lon), belt(middle_lat) * np.sin(middle_lon))
    z = along((np.sin(lat) ** 2 - math.sin(lat0) ** 2) / 2, (np.sin(middle_lat) ** 2 - math.sin(lat0) ** 2) / 2)
    turn = math.radians(west / SCALE)
    cos, sin = math.cos(turn), math.sin(turn)
    return np.array([x * cos - y * sin, x * sin + y * cos, z]), size


def _cut(ring: Ring) -> Vector:
    """A ring's points with points between, so that no edge is longer than a degree either way."""
    steps = np.diff(ring, axis=0)
    counts = np.maximum(1, np.ceil(np.abs(steps).max(axis=1) / (_PIECE_DEG * SCALE))).astype(np.int64)
    of = np.repeat(np.arange(len(steps)), counts)
    share = (np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[of]
    return np.concatenate([ring[of] + steps[of] * share[:, None], ring[-1:]])


def _direction(moment: Vector, size: float) -> Vector | None:
    length = float(np.linalg.norm(moment))
    if length <= _NO_DIRECTION * size:
        return None
    vector: Vector = moment / length
    return vector


def _fixed(vector: Vector) -> tuple[int, int]:
    x, y, z = vector.tolist()
    across = math.hypot(x, y)
    lon = round(math.degrees(math.atan2(y, x)) * SCALE) if across > 1e-9 else 0
    return (lon if lon < LON_MAX else -LON_MAX), round(math.degrees(math.atan2(z, across)) * SCALE)


def _parts(polygons: Sequence[Sequence[Ring]]) -> list[list[int]]:
    """Numbers of polygons, by part (rule 2)."""
    seams: list[tuple[int, int, int]] = []
    for number, (outer, *_) in enumerate(polygons):
        on = (outer[1:, 0] == outer[:-1, 0]) & (outer[1:, 0] % TURN == LON_MAX)
        ends = np.sort(np.column_stack([outer[:-1, 1][on], outer[1:, 1][on]]), axis=1)
        seams += [(south, north, number) for south, north in ends.tolist()]
    part = list(range(len(polygons)))
    reach, last = -TURN, -1
    for south, north, number in sorted(seams):
        if south < reach:
            one, other = part[last], part[number]
            part = [min(one, other) if at in (one, other) else at for at in part]
        if north > reach:
            reach, last = north, number
    found: dict[int, list[int]] = {}
    for number, at in enumerate(part):
        found.setdefault(at, []).append(number)
    return list(found.values())


def _is_near(vector: Vector, polygons: Sequence[Sequence[Ring]], size: float) -> bool:
    """Rule 3: within a part, or nearer to one than its share of the ground's radius."""
    lon, lat = _fixed(vector)
    rings = [ring for rings in polygons for ring in rings]
    ends = np.concatenate([np.hstack([ring[:-1], ring[1:]]) for ring in rings]).astype(np.float64)
    x1, y1, x2, y2 = ends[(ends[:, 1] <= lat) != (ends[:, 3] <= lat)].T
    at = x1 + (lat - y1) * (x2 - x1) / (y2 - y1)
    if any(int((at < lon + turn).sum()) % 2 for turn in (-2 * TURN, -TURN, 0, TURN, 2 * TURN)):
        return True
    # to the border in the plane that touches the globe there: near is near, far is far in it too
    here = np.array([lon, lat, lon, lat]) + np.rint((ends[:, [0]] + ends[:, [2]] - 2 * lon) / (2 * TURN)) * [
        TURN, 0, TURN, 0,
    ]  # fmt: skip
    x1, y1, x2, y2 = (np.radians((ends - here) / SCALE) * ([math.cos(math.radians(lat / SCALE)), 1] * 2)).T
    along, up = x2 - x1, y2 - y1
    length2 = along**2 + up**2
    share = np.clip(-(x1 * along + y1 * up) / np.where(length2 > 0, length2, 1.0), 0, 1)
    apart = float(np.hypot(x1 + share * along, y1 + share * up).min())
    return apart <= _NEAR * math.sqrt(size / math.pi)
