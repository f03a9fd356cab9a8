"""The validity gate: what a caller calls an area becomes a `Shape`, or is refused with the ring and the vertex named.

Rules:

1. Geometry is a precondition. What is missing, open, crossing itself or out of range is refused, never repaired: a
   repaired polygon is an area that nobody drew.
2. GeoJSON as it is (RFC 7946): longitude first, rings closed, edges straight in the plane of longitude and latitude,
   orientation of rings ignored. A border point is inside. `geojson.py` reads its documents.
3. Edges over more than half a turn of longitude, the antimeridian and the poles: `rings.py` says how they are read. In
   short: a ring in steps of at most 90 degrees may step from 179 to -179, or be cut in two as RFC 7946 has it; any
   other long edge is the line that is drawn over the map.
4. Parts may touch, not overlap, also across the antimeridian, however each is written.
5. Validity is judged where the shape lives: in fixed point and unwrapped. A polygon that is valid as given but touches
   itself after rounding to 1 cm is taken; parts and holes of it that rounding leaves no ground are dropped, and if that
   is all of it the area is empty.
6. A set operation that leaves no ground is refused (`ground.py`), one that leaves ground without people is not.
7. Size on the sphere is `shape.area_km2`; who may address how much is the caller's to say (`check_size`).
8. One request is one gate: its vertices and parts are counted over all it has.

shapely (GEOS) decides validity: it is the reference of the field. It is never asked about a participant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import shapely

from fanout import limits, wire
from fanout.errors import Refused
from fanout.geo import faults, geojson, rings, shapes
from fanout.geo.centre import centre_of_polygons
from fanout.geo.ground import areal, is_empty, on_map
from fanout.geo.rings import Degrees
from fanout.geo.shapes import Ring

Named = Callable[[str, str], shapes.Shape | None]
"""Finds an imported area by (kind, name or code)."""


def shape_of(area: wire.Area, named: Named | None = None, *, where: str = "area") -> shapes.Shape:
    """The shape of an area as it came over the wire.

    Raises `Refused` with a code `area_*`; `where` is the path in the caller's body, as `area.coordinates[0][17]`.
    """
    shape = _Gate(named).shape(area, where, 1)
    if is_empty(shape):
        raise Refused("area_empty_result", where)
    return shape


def from_geojson(document: geojson.GeoJson) -> shapes.Shape:
    """The shape of a GeoJSON document: Polygon, MultiPolygon, GeometryCollection, Feature or FeatureCollection.

    `document`: a mapping, its JSON as str or bytes, or what has a `__geo_interface__`. Of a collection the union of
    what has ground. Raises `Refused` with a code `area_*`, as `shape_of`; `where` is the path in the document, as
    `features[3].geometry.coordinates[0][17]`. `area_unreadable`: it is no GeoJSON; `area_empty`: it has no polygon.
    """
    gate = _Gate(None)
    parts: list[shapes.Shape] = []
    for geometry in geojson.geometries_of(document):
        gate.another(geometry.wheres[0])
        found = gate.polygons(*geometry)
        if found is not None:
            parts.append(found)
    if not parts:
        raise Refused("area_empty")
    return parts[0] if len(parts) == 1 else shapes.Union(tuple(parts))


def lenient(polygons: Sequence[Sequence[Any]], where: str) -> shapes.Polygon:
    """The shape of a map maker's polygons: coordinates and rings are checked, crossings are read even-odd.

    Raises as `from_geojson`; `Refused("area_empty")` if all of it is one point, or none.
    """
    found: list[list[Ring]] = []
    for part, polygon in enumerate(polygons):
        of_part = []
        for at, given in enumerate(polygon):
            here = f"{where}, polygon {part}, ring {at}"
            of_part.append(rings.unwrapped(rings.degrees(given, here, distinct_min=1), here))
        if any(map(rings.goes_round, of_part)):
            flat = shapely.Polygon()
            for ring in of_part:
                flat = shapely.symmetric_difference(flat, on_map(shapely.make_valid(shapely.Polygon(ring))))
            found += _rings_of(flat)
        elif of_part:
            found.append([of_part[0], *(rings.beside(hole, of_part[0]) for hole in of_part[1:])])
    every = [ring for of_part in found for ring in of_part]
    if not any((ring != ring[0]).any() for ring in every):
        raise Refused("area_empty", where)
    return shapes.polygon(every, _even_odd_km2(every), centre_of_polygons(found))


def check_size(shape: shapes.Shape, limit_km2: float, *, where: str = "area") -> None:
    """Refuse an area larger than the caller may address: `Refused("area_too_large")`."""
    if shape.area_km2 > limit_km2:
        raise Refused("area_too_large", where, area_km2=shape.area_km2, limit_km2=limit_km2)


class _Gate:
    """One request's way through: counts vertices and areas over all its parts."""

    def __init__(self, named: Named | None) -> None:
        self.named = named
        self.vertices = 0
        self.areas = 0

    def shape(self, area: wire.Area, where: str, depth: int) -> shapes.Shape:
        self.another(where)
        if depth > limits.AREA_DEPTH_MAX:
            raise Refused("area_too_deep", where, limit=limits.AREA_DEPTH_MAX)
        match area:
            case wire.Circle(lon=lon, lat=lat, radius_m=radius_m):
                x, y = shapes.fixed_point(lon, lat, where)
                return shapes.Circle(x, y, shapes.check_radius(radius_m, f"{where}.radius_m"))
            case wire.Polygon(coordinates=of_part):
                return self._ground([of_part], [f"{where}.coordinates"], where)
            case wire.MultiPolygon(coordinates=parts):
                return self._ground(parts, [f"{where}.coordinates[{at}]" for at in range(len(parts))], where)
            case wire.Everyone():
                return shapes.EVERYONE
            case wire.Nearest(lon=lon, lat=lat, count=count):
                x, y = shapes.fixed_point(lon, lat, where)
                return shapes.Nearest(x, y, count)
            case wire.Corridor(line=line, radius_m=radius_m):
                self._spend(len(line), f"{where}.line")
                if len(line) > limits.CORRIDOR_VERTICES_MAX:
                    first_over = f"{where}.line[{limits.CORRIDOR_VERTICES_MAX}]"
                    raise Refused("area_too_many_vertices", first_over, limit=limits.CORRIDOR_VERTICES_MAX,
                                  vertices=len(line))  # fmt: skip
                return shapes.corridor(line, radius_m, where=f"{where}.")
            case wire.Union(of=parts):
                return shapes.Union(tuple(self._parts(parts, where, depth)))
            case wire.Intersection(of=parts):
                return shapes.Intersection(tuple(self._parts(parts, where, depth)))
            case wire.Difference(of=of, without=without):
                return shapes.Difference(
                    self.shape(of, f"{where}.of", depth + 1), self.shape(without, f"{where}.without", depth + 1)
                )
            case wire.Named(kind=kind, name=name):
                found = self.named(kind, name) if self.named is not None else None
                if found is None:
                    raise Refused("area_unknown", where, kind=kind, name=name)
                return found

    def _parts(self, parts: Sequence[wire.Area], where: str, depth: int) -> list[shapes.Shape]:
        if not parts:
            raise Refused("area_empty", where)
        return [self.shape(part, f"{where}.of[{at}]", depth + 1) for at, part in enumerate(parts)]

    def another(self, where: str) -> None:
        """Count one more area of the request."""
        self.areas += 1
        if self.areas > limits.AREA_PARTS_MAX:
            raise Refused("area_too_many_parts", where, limit=limits.AREA_PARTS_MAX)

    def _spend(self, vertices: int, where: str) -> None:
        """Count the vertices of one ring or line; what is one too many is named."""
        left = limits.VERTICES_MAX - self.vertices
        self.vertices += vertices
        if vertices > left:
            raise Refused("area_too_many_vertices", f"{where}[{left}]", limit=limits.VERTICES_MAX,
                          vertices=self.vertices)  # fmt: skip

    # --- polygons -----------------------------------------------------------------------------------------------------

    def _ground(self, parts: Sequence[Sequence[Any]], wheres: Sequence[str], where: str) -> shapes.Polygon:
        found = self.polygons(parts, wheres)
        if found is None:
            raise Refused("area_empty", f"{where}.coordinates")
        return found

    def polygons(self, parts: Sequence[Sequence[Any]], wheres: Sequence[str]) -> shapes.Polygon | None:
        """One shape of several polygons, each a list of rings; `wheres` names each. None if rounding leaves nothing."""
        found: list[list[Ring]] = []
        solids: list[Any] = []
        drawn: list[tuple[str, Sequence[Any]]] = []
        size_km2 = 0.0
        for part, where in zip(parts, wheres, strict=True):
            solid, pieces = self._polygon(part, where)
            if not pieces:
                continue
            solids.append(solid)
            drawn.append((where, part))
            found += pieces
            for outer, *holes in pieces:
                size_km2 += abs(rings.size_km2(outer)) - sum(abs(rings.size_km2(hole)) for hole in holes)
        if not found:
            return None
        faults.refuse_overlap(solids, drawn)
        return shapes.polygon([ring for of_part in found for ring in of_part], size_km2, centre_of_polygons(found))

    def _polygon(self, part: Sequence[Any], where: str) -> tuple[Any, list[list[Ring]]]:
        """The polygon for GEOS, and the rings of its pieces: one; of what goes round a pole maybe several, or none."""
        if len(part) == 0:
            raise Refused("area_empty", where)
        for at, ring in enumerate(part):
            self._spend(len(ring), f"{where}[{at}]")
        given = [rings.degrees(ring, f"{where}[{at}]") for at, ring in enumerate(part)]
        of_part = [rings.unwrapped(ring, f"{where}[{at}]") for at, ring in enumerate(given)]
        if any(map(rings.goes_round, of_part)):
            return self._round_a_pole(of_part, [len(ring) for ring in part], where)
        of_part[1:] = [rings.beside(hole, of_part[0]) for hole in of_part[1:]]
        solid = shapely.Polygon(of_part[0], of_part[1:])
        if not shapely.is_valid(solid):
            if not _valid_as_given(given, of_part):
                faults.refuse_invalid(solid, of_part, [len(ring) for ring in part], where)
            if rings.is_flat(of_part[0]):
                return shapely.Polygon(), []
            of_part[1:] = [hole for hole in of_part[1:] if not rings.is_flat(hole)]
            solid = areal(shapely.make_valid(shapely.Polygon(of_part[0], of_part[1:])))
        return solid, [of_part]

    def _round_a_pole(self, of_part: list[Ring], lengths: list[int], where: str) -> tuple[Any, list[list[Ring]]]:
        """A polygon with a ring round a pole, cut at the antimeridian: the one place where rings are computed anew."""
        flat = []
        for at, ring in enumerate(of_part):
            solid = shapely.Polygon(ring)
            if not shapely.is_valid(solid):
                faults.refuse_invalid(solid, [ring], lengths[at : at + 1], where, at)
            flat.append(on_map(solid))
        whole = flat[0]
        for at, hole in enumerate(flat[1:], 1):
            if not shapely.covers(whole, hole):
                outside = faults.first_outside(whole, of_part[at][: lengths[at]])
                raise Refused("area_hole_outside", f"{where}[{at}][{outside}]")
            whole = shapely.difference(whole, hole)
        return whole, _rings_of(whole)


def _rings_of(flat: Any) -> list[list[Ring]]:
    """The rings of every polygon of a flat geometry, in fixed point."""
    return [
        [np.rint(shapely.get_coordinates(line)).astype(np.int64) for line in (polygon.exterior, *polygon.interiors)]
        for polygon in shapely.get_parts(flat)
        if isinstance(polygon, shapely.Polygon) and not polygon.is_empty
    ]


def _even_odd_km2(every: list[Ring]) -> float:
    """Size of what is inside an odd number of rings, if rings are whole or nested: by the depth of each."""
    solids = [shapely.Polygon(ring) for ring in every]
    tree = shapely.STRtree(solids)
    inner, _ = tree.query([solid.representative_point() for solid in solids], predicate="within")
    depth = np.bincount(inner, minlength=len(every))
    sizes = [abs(rings.size_km2(ring)) for ring in every]
    return float(sum(size * (1 if around % 2 else -1) for size, around in zip(sizes, depth, strict=True)))


def _valid_as_given(given: list[Degrees], of_part: list[Ring]) -> bool:
    """Whether a polygon is valid before rounding (rule 5)."""
    exact = [rings.before_rounding(points, ring) for points, ring in zip(given, of_part, strict=True)]
    return all(ring is not None for ring in exact) and bool(shapely.is_valid(shapely.Polygon(exact[0], exact[1:])))
