"""The validity gate: what a caller calls an area becomes a `Shape`, or is refused with the ring and the vertex named.

Rules:

1. Geometry is a precondition. What is missing, open, crossing itself or out of range is refused, never repaired: a
   repaired polygon is an area that nobody drew.
2. GeoJSON as it is (RFC 7946): longitude first, rings closed, edges straight in the plane of longitude and latitude,
   orientation of rings ignored. A border point is inside.
3. An edge that spans more than half a turn is read the short way round, across the antimeridian. So a ring may cross it
   either as RFC 7946 has it (cut in two parts) or by stepping from 179 to -179. An edge from exactly -180 to exactly
   180 is a full parallel, as in the box of the world.
4. A ring that goes once round the earth encloses the pole it is nearer to, and is closed along that pole.
5. Validity is judged where the shape lives: in fixed point and unwrapped. A polygon that is valid as given but touches
   itself after rounding to 1 cm is taken.
6. A set operation that leaves no ground is refused (`ground.py`), one that leaves ground without people is not.
7. Size on the sphere is `shape.area_km2`; who may address how much is the caller's to say (`check_size`).

shapely (GEOS) decides validity: it is the reference of the field. It is never asked about a participant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from fanout import limits, wire
from fanout.errors import Refused
from fanout.geo import shapes
from fanout.geo.fixed import EARTH_RADIUS_M, LAT_MAX, LON_MAX, SCALE, TURN
from fanout.geo.ground import is_empty, on_map

Named = Callable[[str, str], shapes.Shape | None]
"""Finds an imported area by (kind, name or code)."""

_PLACE: Final = re.compile(r"\[(\S+) (\S+?)\]")


def shape_of(area: wire.Area, named: Named | None = None, *, where: str = "area") -> shapes.Shape:
    """The shape of an area as it came over the wire.

    Raises `Refused` with a code `area_*`; `where` is the path in the caller's body, as `area.coordinates[0][17]`.
    """
    shape = _Gate(named).shape(area, where, 1)
    if is_empty(shape):
        raise Refused("area_empty_result", where)
    return shape


def from_geojson(obj: Mapping[str, Any]) -> shapes.Shape:
    """The shape of a GeoJSON object: Polygon, MultiPolygon, GeometryCollection, Feature or FeatureCollection (a union).

    Raises `Refused` with a code `area_*`, as `shape_of`; an object of another type is `area_empty`.
    """
    gate = _Gate(None)
    match obj.get("type"):
        case "Polygon":
            return gate.polygons([obj["coordinates"]], ["coordinates"])
        case "MultiPolygon":
            parts = obj["coordinates"]
            return gate.polygons(parts, [f"coordinates[{at}]" for at in range(len(parts))])
        case "Feature" if obj.get("geometry"):
            return from_geojson(obj["geometry"])
        case "FeatureCollection" if obj.get("features"):
            return _union([from_geojson(feature) for feature in obj["features"]])
        case "GeometryCollection" if obj.get("geometries"):
            return _union([from_geojson(geometry) for geometry in obj["geometries"]])
    raise Refused("area_empty")


def lenient(polygons: Sequence[Sequence[Any]], where: str) -> shapes.Polygon:
    """The shape of a map maker's polygons: coordinates and rings are checked, crossings are read even-odd."""
    rings: list[shapes.Ring] = []
    for part, polygon in enumerate(polygons):
        of_part = []
        for at, given in enumerate(polygon):
            here = f"{where}, polygon {part}, ring {at}"
            points = _degrees(given, here, distinct_min=1)
            of_part.append(_unwrapped(np.rint(points * SCALE).astype(np.int64), here))
        if any(map(_goes_round, of_part)):
            flat = shapely.Polygon()
            for ring in of_part:
                flat = shapely.symmetric_difference(flat, on_map(shapely.make_valid(shapely.Polygon(ring))))
            of_part = _rings_of(flat)
        else:
            of_part[1:] = [_beside(hole, of_part[0]) for hole in of_part[1:]]
        rings += of_part
    return shapes.polygon(rings, _even_odd_km2(rings))


def _union(parts: list[shapes.Shape]) -> shapes.Shape:
    return parts[0] if len(parts) == 1 else shapes.Union(tuple(parts))


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
        self.areas += 1
        if depth > limits.AREA_DEPTH_MAX or self.areas > limits.AREA_PARTS_MAX:
            raise Refused("area_too_deep", where, limit=limits.AREA_DEPTH_MAX)
        match area:
            case wire.Circle(lon=lon, lat=lat, radius_m=radius_m):
                x, y = shapes.fixed_point(lon, lat, where)
                return shapes.Circle(x, y, shapes.check_radius(radius_m, f"{where}.radius_m"))
            case wire.Polygon(coordinates=rings):
                return self.polygons([rings], [f"{where}.coordinates"])
            case wire.MultiPolygon(coordinates=parts):
                return self.polygons(parts, [f"{where}.coordinates[{at}]" for at in range(len(parts))])
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
                for at, (lon, lat) in enumerate(line):
                    shapes.fixed_point(lon, lat, f"{where}.line[{at}]")
                shapes.check_radius(radius_m, f"{where}.radius_m")
                return shapes.corridor(line, radius_m)
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

    def _spend(self, vertices: int, where: str) -> None:
        """Count the vertices of one ring or line; what is one too many is named."""
        left = limits.VERTICES_MAX - self.vertices
        self.vertices += vertices
        if vertices > left:
            raise Refused("area_too_many_vertices", f"{where}[{left}]", limit=limits.VERTICES_MAX,
                          vertices=self.vertices)  # fmt: skip

    # --- polygons -----------------------------------------------------------------------------------------------------

    def polygons(self, parts: Sequence[Sequence[Any]], wheres: Sequence[str]) -> shapes.Polygon:
        """One shape of several polygons, each a list of rings; `wheres` names each."""
        rings: list[shapes.Ring] = []
        solids: list[Any] = []
        size_km2 = 0.0
        if not parts:
            raise Refused("area_empty", "area.coordinates")
        for part, where in zip(parts, wheres, strict=True):
            solid, of_part = self._polygon(part, where)
            solids.append(solid)
            rings += of_part
            size_km2 += abs(_ring_km2(of_part[0])) - sum(abs(_ring_km2(hole)) for hole in of_part[1:])
        _refuse_overlap(solids, wheres)
        return shapes.polygon(rings, size_km2)

    def _polygon(self, part: Sequence[Any], where: str) -> tuple[Any, list[shapes.Ring]]:
        if not part:
            raise Refused("area_empty", where)
        for at, ring in enumerate(part):
            self._spend(len(ring), f"{where}[{at}]")
        given = [_degrees(ring, f"{where}[{at}]") for at, ring in enumerate(part)]
        rings = [_unwrapped(np.rint(ring * SCALE).astype(np.int64), f"{where}[{at}]") for at, ring in enumerate(given)]
        if any(map(_goes_round, rings)):
            return self._round_a_pole(rings, where)
        outer = rings[0]
        rings[1:] = [_beside(hole, outer) for hole in rings[1:]]
        solid = shapely.Polygon(outer, rings[1:])
        if not shapely.is_valid(solid):
            _refuse_invalid(solid, given, rings, where)
        return solid, rings

    def _round_a_pole(self, rings: list[shapes.Ring], where: str) -> tuple[Any, list[shapes.Ring]]:
        """A polygon with a ring round a pole, cut at the antimeridian: the one place where rings are computed anew."""
        flat = []
        for at, ring in enumerate(rings):
            solid = shapely.Polygon(ring)
            if not shapely.is_valid(solid):
                _refuse_invalid(solid, [], [ring], f"{where}[{at}]"[: -len(f"[{at}]")])
            flat.append(on_map(solid))
        whole = flat[0]
        for at, hole in enumerate(flat[1:], 1):
            if not shapely.covers(whole, hole):
                raise Refused("area_hole_outside", f"{where}[{at}]")
            whole = shapely.difference(whole, hole)
        return whole, _rings_of(whole)


def _goes_round(ring: shapes.Ring) -> bool:
    return int(ring[:, 0].max() - ring[:, 0].min()) >= TURN


def _rings_of(flat: Any) -> list[shapes.Ring]:
    """Every ring of a flat geometry, in fixed point."""
    rings = []
    for polygon in shapely.get_parts(flat):
        if isinstance(polygon, shapely.Polygon) and not polygon.is_empty:
            lines = (polygon.exterior, *polygon.interiors)
            rings += [np.rint(shapely.get_coordinates(line)).astype(np.int64) for line in lines]
    return rings


def _even_odd_km2(rings: list[shapes.Ring]) -> float:
    """Size of what is inside an odd number of rings, if rings are whole or nested: by the depth of each."""
    solids = [shapely.Polygon(ring) for ring in rings]
    tree = shapely.STRtree(solids)
    inner, _ = tree.query([solid.representative_point() for solid in solids], predicate="within")
    depth = np.bincount(inner, minlength=len(rings))
    return float(
        sum(abs(_ring_km2(ring)) * (1 if around % 2 else -1) for ring, around in zip(rings, depth, strict=True))
    )


def _degrees(ring: Sequence[Any], where: str, distinct_min: int = 3) -> NDArray[np.float64]:
    """float64[n, 2] of one closed ring in range."""
    if len(ring) == 0:
        raise Refused("area_ring_too_short", where, points=0)
    points = np.array([(point[0], point[1]) for point in ring], np.float64)
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise Refused("area_coordinate_not_finite", f"{where}[{int(np.argmin(finite))}]")
    outside = (np.abs(points[:, 0]) > 180) | (np.abs(points[:, 1]) > 90)
    if outside.any():
        at = int(np.argmax(outside))
        raise Refused("area_coordinate_range", f"{where}[{at}]", lon=float(points[at, 0]), lat=float(points[at, 1]))
    distinct = len(np.unique(np.rint(points * SCALE), axis=0))
    if distinct < distinct_min:
        raise Refused("area_ring_too_short", where, points=distinct)
    if (points[0] != points[-1]).any():
        raise Refused("area_ring_not_closed", f"{where}[{len(points) - 1}]")
    return points


def _unwrapped(ring: shapes.Ring, where: str) -> shapes.Ring:
    """The ring in one plane: longitudes run on past 180 (rule 3); a ring round a pole is closed along it (rule 4)."""
    steps = np.diff(ring[:, 0])
    full = np.abs(steps) == TURN
    across = (np.abs(steps) > LON_MAX) & ~full
    if across.any():  # a ring in steps across the antimeridian: there, -180 and 180 are one place
        steps = np.where(across | full, steps - TURN * np.sign(steps), steps)
    x = ring[0, 0] + np.concatenate([[0], np.cumsum(steps)])
    ring = np.column_stack([x, ring[:, 1]])
    once_round = int(x[-1] - x[0])
    if once_round == 0:
        return ring
    if abs(once_round) != TURN:
        raise Refused("area_self_crossing", where, lon=float(ring[0, 0]) / SCALE, lat=float(ring[0, 1]) / SCALE)
    pole = LAT_MAX if ring[:, 1].mean() >= 0 else -LAT_MAX
    closing = np.array([[x[-1], pole], [x[0], pole], [x[0], ring[0, 1]]], np.int64)
    return np.concatenate([ring, closing])


def _beside(hole: shapes.Ring, outer: shapes.Ring) -> shapes.Ring:
    """The hole moved by full turns to where its outer ring is."""
    middle = (int(outer[:, 0].min()) + int(outer[:, 0].max())) // 2
    turns = round((middle - (int(hole[:, 0].min()) + int(hole[:, 0].max())) // 2) / TURN)
    return hole + np.array([turns * TURN, 0], np.int64)


def _refuse_invalid(solid: Any, given: list[NDArray[np.float64]], rings: list[shapes.Ring], where: str) -> None:
    """Refuse an invalid polygon, unless only rounding made it so (rule 5)."""
    exact = [ring if len(ring) == len(whole) else None for ring, whole in zip(given, rings, strict=True)]
    plain = all(ring is not None and (np.abs(np.diff(ring[:, 0])) <= 180).all() for ring in exact)
    if plain and shapely.is_valid(shapely.Polygon(given[0], given[1:])):
        return
    reason = str(shapely.is_valid_reason(solid))
    place = _PLACE.search(reason)
    x, y = (float(place[1]), float(place[2])) if place else (float(rings[0][0, 0]), float(rings[0][0, 1]))
    at, vertex = _nearest_vertex(rings, x, y)
    if "nested" in reason:
        raise Refused("area_holes_nested", f"{where}[{at}][{vertex}]")
    if "Hole" in reason:
        raise Refused("area_hole_outside", f"{where}[{at}][{vertex}]")
    raise Refused("area_self_crossing", f"{where}[{at}][{vertex}]", lon=_folded(x), lat=y / SCALE)


def _refuse_overlap(solids: list[Any], wheres: Sequence[str]) -> None:
    """Refuse polygons of one area that share ground; they may touch."""
    if len(solids) < 2:
        return
    for one, other in shapely.STRtree(solids).query(solids, predicate="intersects").T:
        if one >= other:
            continue
        common = shapely.intersection(solids[one], solids[other])
        if common.area > 0:
            point = common.representative_point()
            raise Refused("area_parts_overlap", wheres[other], lon=_folded(point.x), lat=point.y / SCALE)


def _nearest_vertex(rings: list[shapes.Ring], x: float, y: float) -> tuple[int, int]:
    best = min(
        (float(distances.min()), at, int(distances.argmin()))
        for at, ring in enumerate(rings)
        for distances in [np.hypot(ring[:, 0] - x, ring[:, 1] - y)]
    )
    return best[1], best[2]


def _folded(x: float) -> float:
    """Unwrapped fixed-point longitude as degrees in [-180, 180)."""
    return (x / SCALE + 180) % 360 - 180


def _ring_km2(ring: shapes.Ring) -> float:
    """Signed size of a ring on the sphere, its edges taken as straight in longitude and sine of latitude."""
    lon, sine = np.radians(ring[:, 0] / SCALE), np.sin(np.radians(ring[:, 1] / SCALE))
    return float((np.diff(lon) * (sine[1:] + sine[:-1]) / 2).sum()) * (EARTH_RADIUS_M / 1000) ** 2
