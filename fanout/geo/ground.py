"""Whether an area has any ground: what is left of unions, intersections and differences, before anybody is looked up.

An operator who takes the whole from a part, or the common part of two towns that have none, has drawn nothing. That is
refused as a mistake of the drawing, as a ring that crosses itself is; an area that has ground and nobody on it is
another thing (`selection_empty`).

Rules:

1. Nothing is called empty that is not, but for strips narrower than a centimetre. Every shape is known by two outlines
   on the map, one within it and one around it: polygons by themselves; circles by rims a little too small and too
   large; what has no simple outline on a map (a circle round a pole, a corridor from within, people nearest to a point)
   by nothing and by all of the world. A result is empty if what is left of the outlines around it is.
2. A border is no ground: two areas that touch have nothing in common here, though a person on the border is in both.
3. It takes what GEOS takes, and is asked of set operations only, never of a participant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import shapely

from fanout.geo import shapes
from fanout.geo.fixed import EARTH_RADIUS_M, LAT_MAX, LON_MAX, SCALE, TURN

_CORNERS: Final = 64
_RIM: Final = (
    4e-3  # an outline of so many corners lies within this share of the radius of its circle: twice the sagitta
)
_FLAT_RAD: Final = 0.2  # larger circles, and those nearer to a pole than this latitude, are no circles on a map
_FLAT_LAT_RAD: Final = math.radians(75)
_CENTIMETRE: Final = 1.0  # one fixed-point unit: what the overlay is rounded to


class _Outlines(NamedTuple):
    """Geometries on the map in fixed-point degrees: all of `within` is in the shape, all of the shape in `around`."""

    within: Any
    around: Any


def is_empty(shape: shapes.Shape) -> bool:
    """Whether a shape certainly has no ground. Leaves always have some: the gate sees to that."""
    match shape:
        case shapes.Union(of=parts):
            return all(map(is_empty, parts))
        case shapes.Intersection(of=parts) if any(map(is_empty, parts)):
            return True
        case shapes.Difference(of=of, without=without) if _covers(without, of):
            return True
        case shapes.Intersection() | shapes.Difference():
            return bool(_outlines(shape).around.area == 0)
    return False


def on_map(solid: Any) -> Any:
    """An unwrapped polygon brought back between -180 and 180 degrees."""
    west, _, east, _ = solid.bounds if not solid.is_empty else (0, 0, 0, 0)
    if west >= -LON_MAX and east <= LON_MAX:
        return solid
    copies = [
        shapely.intersection(shapely.transform(solid, lambda xy, by=turn: xy + np.array([by, 0])), _world())
        for turn in (-2 * TURN, -TURN, 0, TURN, 2 * TURN)
    ]
    return _areal(shapely.union_all(copies))


def _world() -> Any:
    return shapely.box(-LON_MAX, -LAT_MAX, LON_MAX, LAT_MAX)


def _covers(whole: shapes.Shape, part: shapes.Shape) -> bool:
    """What needs no outline: everything is in everyone, a circle in a larger one, a thing in itself."""
    match whole, part:
        case shapes.Everyone(), _:
            return True
        case shapes.Union(of=wholes), _:
            return any(_covers(one, part) for one in wholes)
        case shapes.Circle(), shapes.Circle():
            return _apart_m(whole, part) + part.radius_m <= whole.radius_m
        case shapes.Corridor(), shapes.Corridor():
            return np.array_equal(whole.line, part.line) and part.radius_m <= whole.radius_m
        case shapes.Nearest(), shapes.Nearest():
            return (whole.lon, whole.lat) == (part.lon, part.lat) and part.count <= whole.count
    return False


def _apart_m(one: shapes.Circle, other: shapes.Circle) -> float:
    lon = math.radians((one.lon - other.lon) / SCALE)
    south, north = math.radians(one.lat / SCALE), math.radians(other.lat / SCALE)
    a = math.sin((north - south) / 2) ** 2 + math.cos(south) * math.cos(north) * math.sin(lon / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(a)))


def _outlines(shape: shapes.Shape) -> _Outlines:
    match shape:
        case shapes.Everyone():
            return _Outlines(_world(), _world())
        case shapes.Circle():
            return _of_circle(shape)
        case shapes.Polygon():
            solid = _of_edges(shape.edges)
            return _Outlines(solid, solid)
        case shapes.Corridor(vectors=vectors, radius_m=radius_m):
            arcs = [shapes.round_arc(vectors[at : at + 2], radius_m) for at in range(len(vectors) - 1)]
            return _Outlines(shapely.Polygon(), shapely.union_all([_outlines(arc).around for arc in arcs]))
        case shapes.Nearest():
            return _Outlines(shapely.Polygon(), _world())
        case shapes.Union(of=parts):
            every = [_outlines(part) for part in parts]
            return _Outlines(*(shapely.union_all(list(side)) for side in zip(*every, strict=True)))
        case shapes.Intersection(of=parts):
            first, *others = (_outlines(part) for part in parts)
            within, around = first
            for other in others:
                within = _overlay(shapely.intersection, within, other.within)
                around = _overlay(shapely.intersection, around, other.around)
            return _Outlines(within, around)
        case shapes.Difference(of=of, without=without):
            one, other = _outlines(of), _outlines(without)
            return _Outlines(
                _overlay(shapely.difference, one.within, other.around),
                _overlay(shapely.difference, one.around, other.within),
            )


def _overlay(operation: Callable[..., Any], one: Any, other: Any) -> Any:
    return _areal(operation(one, other, grid_size=_CENTIMETRE))


def _areal(geometry: Any) -> Any:
    """The polygons of a geometry; lines and points in it are no ground."""
    parts = shapely.get_parts(geometry)
    return shapely.multipolygons(parts[shapely.get_dimensions(parts) == 2])


def _of_circle(circle: shapes.Circle) -> _Outlines:
    lat_rad, radius_rad = math.radians(circle.lat / SCALE), circle.radius_m / EARTH_RADIUS_M
    if radius_rad > _FLAT_RAD or abs(lat_rad) + radius_rad > _FLAT_LAT_RAD:
        reach = math.ceil(math.degrees(radius_rad) * SCALE) + 1
        south, north = max(-LAT_MAX, circle.lat - reach), min(LAT_MAX, circle.lat + reach)
        return _Outlines(shapely.Polygon(), shapely.box(-LON_MAX, south, LON_MAX, north))
    return _Outlines(_rim(circle, radius_rad * (1 - _RIM)), _rim(circle, radius_rad * (1 + _RIM)))


def _rim(circle: shapes.Circle, radius_rad: float) -> Any:
    """A polygon through points at a distance from the centre, in all directions (the direct problem on a sphere)."""
    towards = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    lat0 = math.radians(circle.lat / SCALE)
    sine = math.sin(lat0) * math.cos(radius_rad) + math.cos(lat0) * math.sin(radius_rad) * np.cos(towards)
    across = np.sin(towards) * math.sin(radius_rad) * math.cos(lat0)
    lon = circle.lon + np.degrees(np.arctan2(across, math.cos(radius_rad) - math.sin(lat0) * sine)) * SCALE
    return on_map(shapely.Polygon(np.column_stack([lon, np.degrees(np.arcsin(sine)) * SCALE])))


def _of_edges(edges: shapes.Edges) -> Any:
    """The ground inside a polygon's edges, even-odd, as a valid geometry on the map."""
    lines = shapely.linestrings(edges.reshape(-1, 2, 2).astype(np.float64))
    faces = shapely.get_parts(shapely.polygonize([shapely.union_all(lines)]))
    points = [face.representative_point() for face in faces]
    inside = [face for face, point in zip(faces, points, strict=True) if _odd(edges, point.x, point.y)]
    return on_map(shapely.union_all(inside))


def _odd(edges: shapes.Edges, x: float, y: float) -> bool:
    """Whether a ray to the west from a point crosses an odd number of edges."""
    crossed = edges[(edges[:, 1] <= y) & (edges[:, 3] > y)].astype(np.float64)
    at = crossed[:, 0] + (y - crossed[:, 1]) * (crossed[:, 2] - crossed[:, 0]) / (crossed[:, 3] - crossed[:, 1])
    return bool((at < x).sum() % 2)
