"""One ring: from the positions somebody wrote down to a closed ring in one plane, in fixed point.

Rules:

1. A position is two finite numbers, longitude and latitude in range; a third, the altitude (RFC 7946), is passed over.
2. Edges are straight in the plane of longitude and latitude. An edge of more than half a turn may be meant two ways:
   as a long line over the map, or as a short step across the antimeridian from 179 to -179. It is read as a step if
   all edges of its ring are steps when each is taken the short way, of at most `STEP_DEG_MAX`: so are rings narrower
   than that, and rings round a pole. Else it is read as drawn, if the ring is valid so, and only else as crossing.
   Who draws half the world and wants no guess gives long edges points on the way.
3. An edge from exactly -180 to exactly 180 is a full parallel, as in the box of the world, unless another edge of its
   ring is a step across.
4. A ring that goes once round the earth encloses the pole it is nearer to, and is closed along that pole.

Unwrapped, a ring that crosses runs on past 180 degrees and is an ordinary ring: nothing after this module knows of the
antimeridian but for full turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from fanout.errors import Refused
from fanout.geo.fixed import EARTH_RADIUS_M, LAT_MAX, LON_MAX, SCALE, TURN
from fanout.geo.shapes import Ring

STEP_DEG_MAX: Final = 90
"""What crosses the antimeridian in one edge is the Pacific at the most: no country, search or sea area makes steps of a
quarter of the earth, and a map of half the world has edges of less than three quarters (270 degrees)."""

Degrees = NDArray[np.float64]
"""float64[n, 2], longitude and latitude, closed."""


def degrees(ring: Sequence[Any], where: str, distinct_min: int = 3) -> Degrees:
    """The positions of one closed ring, in range.

    Raises `Refused("area_unreadable" | "area_coordinate_not_finite" | "area_coordinate_range" | "area_ring_too_short" |
    "area_ring_not_closed")` naming the position.
    """
    if len(ring) == 0:
        raise Refused("area_ring_too_short", where, points=0)
    points = _numbers(ring, where)
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise Refused("area_coordinate_not_finite", f"{where}[{int(np.argmin(finite))}]")
    outside = (np.abs(points[:, 0]) > 180) | (np.abs(points[:, 1]) > 90)
    if outside.any():
        at = int(np.argmax(outside))
        raise Refused("area_coordinate_range", f"{where}[{at}]", lon=float(points[at, 0]), lat=float(points[at, 1]))
    if (distinct := _distinct(points)) < distinct_min:
        raise Refused("area_ring_too_short", f"{where}[{first_repeated(points)}]", points=distinct)
    if (points[0] != points[-1]).any():
        raise Refused("area_ring_not_closed", f"{where}[{len(points) - 1}]")
    return points


def unwrapped(points: Degrees, where: str) -> Ring:
    """The ring in fixed point and in one plane (rules 2 to 4)."""
    ring: Ring = np.rint(points * SCALE).astype(np.int64)
    steps = np.diff(ring[:, 0])
    full = np.abs(steps) == TURN
    across = (np.abs(steps) > LON_MAX) & ~full
    if not across.any():
        return ring
    short = np.where(across | full, steps - TURN * np.sign(steps), steps)
    if np.abs(short).max() > STEP_DEG_MAX * SCALE and (is_simple(ring) or is_simple(points)):
        return ring
    x = ring[0, 0] + np.concatenate([[0], np.cumsum(short)])
    ring = np.column_stack([x, ring[:, 1]])
    once_round = int(x[-1] - x[0])
    if once_round == 0:
        return ring
    if abs(once_round) != TURN:
        again = int(np.argmax(np.abs(ring[:, 0] - ring[0, 0]) > TURN)) - 1
        edges = f"edge {again} (vertices {again} and {again + 1}) is round the earth for the second time"
        raise Refused("area_self_crossing", f"{where}[{again}]", lon=folded(float(ring[again, 0])),
                      lat=float(ring[again, 1]) / SCALE, edges=edges)  # fmt: skip
    pole = LAT_MAX if ring[:, 1].mean() >= 0 else -LAT_MAX
    closing = np.array([[x[-1], pole], [x[0], pole], [x[0], ring[0, 1]]], np.int64)
    return np.concatenate([ring, closing])


def before_rounding(points: Degrees, ring: Ring) -> Degrees | None:
    """The points as given, in the plane in which `ring` is; None if the ring has points that nobody gave (rule 4)."""
    if len(points) != len(ring):
        return None
    moved = ring[:, 0] - np.rint(points[:, 0] * SCALE)
    return np.column_stack([points[:, 0] + moved / SCALE, points[:, 1]])


def is_simple(ring: NDArray[Any]) -> bool:
    """Whether a ring alone is a valid polygon."""
    return bool(shapely.is_valid(shapely.Polygon(ring)))


def first_repeated(ring: NDArray[Any]) -> int:
    """The number of the first vertex that is where an earlier one is; the last vertex if none is."""
    first = np.unique(ring, axis=0, return_index=True)[1]
    others = np.setdiff1d(np.arange(len(ring)), first)
    return int(others[0]) if others.size else len(ring) - 1


def is_flat(ring: Ring) -> bool:
    """Whether a ring that does not cross itself encloses nothing. Sums may wrap: of no ring do they by a whole turn."""
    x, y = (ring - ring[0]).T
    return int((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) == 0


def goes_round(ring: Ring) -> bool:
    """Whether a ring is as wide as the world."""
    return int(ring[:, 0].max() - ring[:, 0].min()) >= TURN


def beside(hole: Ring, outer: Ring) -> Ring:
    """The hole moved by full turns to where its outer ring is."""
    middle = (int(outer[:, 0].min()) + int(outer[:, 0].max())) // 2
    turns = round((middle - (int(hole[:, 0].min()) + int(hole[:, 0].max())) // 2) / TURN)
    return hole + np.array([turns * TURN, 0], np.int64)


def size_km2(ring: Ring) -> float:
    """Signed size of a ring on the sphere, its edges taken as straight in longitude and sine of latitude."""
    lon, sine = np.radians(ring[:, 0] / SCALE), np.sin(np.radians(ring[:, 1] / SCALE))
    return float((np.diff(lon) * (sine[1:] + sine[:-1]) / 2).sum()) * (EARTH_RADIUS_M / 1000) ** 2


def folded(x: float) -> float:
    """Unwrapped fixed-point longitude as degrees in [-180, 180)."""
    return (x / SCALE + 180) % 360 - 180


def _numbers(ring: Sequence[Any], where: str) -> Degrees:
    try:
        points = np.array([(point[0], point[1]) for point in ring])
        if points.ndim == 2 and points.dtype.kind in "iuf":
            return points.astype(np.float64)
    except (TypeError, ValueError, LookupError):
        pass
    at = next((at for at, point in enumerate(ring) if not _is_position(point)), 0)
    raise Refused("area_unreadable", f"{where}[{at}]", detail=f"a position is two numbers, not {_shown(ring[at])}")


def _is_position(point: Any) -> bool:
    try:
        return np.array([point[0], point[1]]).dtype.kind in "iuf"
    except (TypeError, ValueError, LookupError):
        return False


def _shown(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _distinct(points: Degrees) -> int:
    """1, 2, or 3 for as many or more."""
    others = points[(points != points[0]).any(axis=1)]
    if len(others) == 0:
        return 1
    return 3 if (others != others[0]).any() else 2
