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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

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


def is_empty(shape: shapes.Shape) -> bool:
    """Whether a shape certainly has no ground. Leaves always have some: the gate sees to that."""
    return _Ground().is_empty(shape)


class _Ground:
    """The outlines of one question, on the map in fixed-point degrees: each is made when it is needed, once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bool], Any] = {}

    def is_empty(self, shape: shapes.Shape) -> bool:
        """Rule 1. Unions are asked member by member: the first with ground ends it, most often the very first."""
        match shape:
            case shapes.Union(of=parts):
                return all(map(self.is_empty, parts))
            case shapes.Difference(of=of, without=without):
                return all(self._is_taken(part, without) for part in _members(of))
            case shapes.Intersection(of=parts):
                if any(map(self.is_empty, parts)):
                    return True
                first = next((part for part in parts if isinstance(part, shapes.Union)), parts[0])
                others = [part for part in parts if part is not first]
                return not any(self._common([part, *others], around=True).area for part in _members(first))
        return False

    def within(self, shape: shapes.Shape) -> Any:
        """An outline that is all in the shape."""
        return self._outline(shape, False)

    def around(self, shape: shapes.Shape) -> Any:
        """An outline that has all of the shape in it."""
        return self._outline(shape, True)

    def _is_taken(self, part: shapes.Shape, without: shapes.Shape) -> bool:
        if _covers(without, part) or self.is_empty(part):
            return True
        around, within = self.around(part), self.within(without)
        shapely.prepare(within)  # members of a union are asked one after another, and covering is cheap to test
        return bool(shapely.covers(within, around) or _overlay(shapely.difference, around, within).area == 0)

    def _outline(self, shape: shapes.Shape, around: bool) -> Any:
        key = id(shape), around  # shapes outlive the question
        if key not in self._known:
            self._known[key] = self._made(shape, around)
        return self._known[key]

    def _made(self, shape: shapes.Shape, around: bool) -> Any:
        match shape:
            case shapes.Everyone():
                return _world()
            case shapes.Circle():
                return _of_circle(shape, around)
            case shapes.Polygon(edges=edges):
                return _of_edges(edges)
            case shapes.Corridor(vectors=vectors, radius_m=radius_m) if around:
                arcs = [shapes.round_arc(vectors[at : at + 2], radius_m) for at in range(len(vectors) - 1)]
                return shapely.union_all([self._made(arc, True) for arc in arcs])
            case shapes.Nearest() if around:
                return _world()
            case shapes.Corridor() | shapes.Nearest():
                return shapely.Polygon()
            case shapes.Union(of=parts):
                return shapely.union_all([self._outline(part, around) for part in parts])
            case shapes.Intersection(of=parts):
                return self._common(parts, around)
            case shapes.Difference(of=of, without=without):
                return _overlay(shapely.difference, self._outline(of, around), self._outline(without, not around))

    def _common(self, parts: Sequence[shapes.Shape], around: bool) -> Any:
        common = self._outline(parts[0], around)
        for part in parts[1:]:
            if common.is_empty:
                break
            common = _overlay(shapely.intersection, common, self._outline(part, around))
        return common


def _members(shape: shapes.Shape) -> Iterator[shapes.Shape]:
    """What a union is made of, at any depth; of any other shape itself."""
    if isinstance(shape, shapes.Union):
        for part in shape.of:
            yield from _members(part)
    else:
        yield shape


def on_map(solid: Any) -> Any:
    """An unwrapped polygon brought back between -180 and 180 degrees."""
    west, _, east, _ = solid.bounds if not solid.is_empty else (0, 0, 0, 0)
    if west >= -LON_MAX and east <= LON_MAX:
        return solid
    copies = [
        shapely.intersection(shapely.transform(solid, lambda xy, by=turn: xy + np.array([by, 0])), _world())
        for turn in (-2 * TURN, -TURN, 0, TURN, 2 * TURN)
    ]
    return areal(shapely.union_all(copies))


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


def _overlay(operation: Callable[..., Any], one: Any, other: Any) -> Any:
    return areal(operation(one, other, grid_size=_CENTIMETRE))


def areal(geometry: Any) -> Any:
    """The polygons of a geometry; lines and points in it are no ground."""
    parts = shapely.get_parts(shapely.get_parts(geometry))  # GEOS may put several polygons beside a line as one part
    return shapely.multipolygons(parts[shapely.get_dimensions(parts) == 2])


def _of_circle(circle: shapes.Circle, around: bool) -> Any:
    lat_rad, radius_rad = math.radians(circle.lat / SCALE), circle.radius_m / EARTH_RADIUS_M
    if radius_rad <= _FLAT_RAD and abs(lat_rad) + radius_rad <= _FLAT_LAT_RAD:
        return _rim(circle, radius_rad * (1 + _RIM if around else 1 - _RIM))
    if not around:
        return shapely.Polygon()
    reach = math.ceil(math.degrees(radius_rad) * SCALE) + 1
    south, north = max(-LAT_MAX, circle.lat - reach), min(LAT_MAX, circle.lat + reach)
    return shapely.box(-LON_MAX, south, LON_MAX, north)


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
