"""GeoJSON and TopoJSON documents to features: (properties, list of polygons), nothing judged.

TopoJSON (Bostock, specification 1.0) shares borders between neighbours as *arcs*: delta-coded, quantised integers. A
ring is a list of arc numbers; `~n` is arc n backwards; the first point of each further arc repeats the last of the one
before.

A document may have several objects (`countries`, `land`), each with features of its own kind: a feature says of which
it is. Of collections, one whose members have properties is a list of features, another is one feature of many parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fanout import limits
from fanout.errors import Refused
from fanout.geo import geojson

_ROUNDING: Final = 1e-6

Ring = list[tuple[float, float]]


class Feature(NamedTuple):
    """One thing: its properties (its id among them, as `id`), its polygons as lists of rings, and the TopoJSON object
    that it is of (none: empty)."""

    properties: dict[str, Any]
    polygons: list[list[Ring]]
    of: str = ""


def features_of(document: Mapping[str, Any], where: str) -> Iterator[Feature]:
    """Every feature of a document that has a polygon.

    Raises `Refused("areas_unreadable")` if it is neither GeoJSON nor TopoJSON, `Refused("area_unreadable")` naming the
    feature whose coordinates are no coordinates.
    """
    try:
        match document.get("type"):
            case "Feature":
                yield from _of_geojson([document], where)
            case "FeatureCollection":
                yield from _of_geojson(document["features"], where)
            case "Topology":
                arcs = _arcs(document)
                for name, geometry in document["objects"].items():
                    yield from _of_object(geometry, arcs, name, where, 1)
            case other:
                raise Refused("areas_unreadable", where, detail=f"its type is {other!r}")
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise Refused("areas_unreadable", where, detail=f"{type(error).__name__}: {error}") from None


def _of_geojson(features: Sequence[Mapping[str, Any]], where: str) -> Iterator[Feature]:
    for number, feature in enumerate(features):
        found = geojson.geometries_of(feature, f"{where}, feature {number}, ") if feature.get("geometry") else ()
        polygons = [list(polygon) for geometry in found for polygon in geometry.polygons]
        if polygons:
            yield Feature(_properties(feature), polygons)


def _of_object(geometry: Mapping[str, Any], arcs: list[Ring], name: str, where: str, depth: int) -> Iterator[Feature]:
    if depth > limits.AREA_DEPTH_MAX:
        raise Refused("area_too_deep", f"{where}, object {name}", limit=limits.AREA_DEPTH_MAX)
    members = geometry["geometries"] if geometry.get("type") == "GeometryCollection" else []
    if any(map(_properties, members)):
        for member in members:
            yield from _of_object(member, arcs, name, where, depth + 1)
    elif polygons := _assembled(geometry, arcs, f"{where}, object {name}", depth):
        yield Feature(_properties(geometry), polygons, name)


def _properties(thing: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(thing.get("properties") or {})
    if "id" in thing:
        given.setdefault("id", thing["id"])
    return given


def _arcs(document: Mapping[str, Any]) -> list[Ring]:
    transform = document.get("transform")
    if transform is None:
        return [[(point[0], point[1]) for point in arc] for arc in document["arcs"]]
    (scale_x, scale_y), (shift_x, shift_y) = transform["scale"], transform["translate"]
    arcs = []
    for arc in document["arcs"]:
        x = y = 0
        points = []
        for step in arc:
            x, y = x + step[0], y + step[1]
            points.append((x * scale_x + shift_x, y * scale_y + shift_y))
        arcs.append(points)
    return arcs


def _assembled(geometry: Mapping[str, Any], arcs: list[Ring], where: str, depth: int) -> list[list[Ring]]:
    if depth > limits.AREA_DEPTH_MAX:
        raise Refused("area_too_deep", where, limit=limits.AREA_DEPTH_MAX)
    match geometry.get("type"):
        case "Polygon":
            return [[_ring(numbers, arcs) for numbers in rings] for rings in [geometry["arcs"]] if rings]
        case "MultiPolygon":
            return [[_ring(numbers, arcs) for numbers in rings] for rings in geometry["arcs"] if rings]
        case "GeometryCollection":
            parts = [_assembled(part, arcs, where, depth + 1) for part in geometry["geometries"]]
            return [polygon for part in parts for polygon in part]
        case _:
            return []


def _ring(numbers: list[int], arcs: list[Ring]) -> Ring:
    ring: Ring = []
    for number in numbers:
        points = arcs[number] if number >= 0 else arcs[~number][::-1]
        ring += points[1:] if ring else points
    return [(_settled(x, 180.0), _settled(y, 90.0)) for x, y in ring]


def _settled(value: float, most: float) -> float:
    """A coordinate that rounding took past the edge of the world, put back on it."""
    return math.copysign(most, value) if most < abs(value) <= most + _ROUNDING else value
