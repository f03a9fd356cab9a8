"""GeoJSON and TopoJSON documents to features: (properties, list of polygons), nothing judged.

TopoJSON (Bostock, specification 1.0) shares borders between neighbours as *arcs*: delta-coded, quantised integers. A
ring is a list of arc numbers; `~n` is arc n backwards; the first point of each further arc repeats the last of the one
before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from fanout.errors import Refused

_ROUNDING: Final = 1e-6

Ring = list[tuple[float, float]]


class Feature(NamedTuple):
    """One named thing: its properties (its id among them, as `id`), and its polygons as lists of rings."""

    properties: dict[str, Any]
    polygons: list[list[Ring]]


def features_of(document: Mapping[str, Any], where: str) -> Iterator[Feature]:
    """Every feature of a document. Raises `Refused("areas_unreadable")` if it is neither GeoJSON nor TopoJSON."""
    try:
        match document.get("type"):
            case "FeatureCollection":
                for feature in document["features"]:
                    if feature.get("geometry"):
                        yield Feature(_properties(feature), _polygons(feature["geometry"]))
            case "Topology":
                arcs = _arcs(document)
                for collection in document["objects"].values():
                    for geometry in collection.get("geometries", [collection]):
                        if "arcs" in geometry:
                            yield Feature(_properties(geometry), _assembled(geometry, arcs))
            case other:
                raise Refused("areas_unreadable", where, detail=f"its type is {other!r}")
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise Refused("areas_unreadable", where, detail=f"{type(error).__name__}: {error}") from None


def _properties(thing: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(thing.get("properties") or {})
    if "id" in thing:
        given.setdefault("id", thing["id"])
    return given


def _polygons(geometry: Mapping[str, Any]) -> list[list[Ring]]:
    match geometry["type"]:
        case "Polygon":
            return [geometry["coordinates"]]
        case "MultiPolygon":
            return list(geometry["coordinates"])
        case "GeometryCollection":
            return [polygon for part in geometry["geometries"] for polygon in _polygons(part)]
        case _:
            return []


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


def _assembled(geometry: Mapping[str, Any], arcs: list[Ring]) -> list[list[Ring]]:
    match geometry["type"]:
        case "Polygon":
            return [[_ring(numbers, arcs) for numbers in geometry["arcs"]]]
        case "MultiPolygon":
            return [[_ring(numbers, arcs) for numbers in rings] for rings in geometry["arcs"]]
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
