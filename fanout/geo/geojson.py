"""GeoJSON, in whatever form it comes, to the coordinates of polygons and where each of them stood. Nothing is judged.

Rules:

1. A document is a mapping, its JSON as text or bytes, or a thing that has a `__geo_interface__` (shapely, geopandas,
   fiona …). Coordinates are lists, tuples or numpy arrays. All else is refused, naming the place.
2. What is GeoJSON and has no ground is passed over: points, lines, a feature without geometry, an empty polygon in a
   collection. Whether anything is left is for the gate to say. What is not GeoJSON is refused.
3. Collections nest `AREA_DEPTH_MAX` deep.

RFC 7946; its objects may be met at any depth, so that a collection of shapely geometries is one too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from fanout import limits
from fanout.errors import Refused


class HasGeoInterface(Protocol):
    """What can say itself as GeoJSON (the `__geo_interface__` protocol of Sean Gillies)."""

    @property
    def __geo_interface__(self) -> Mapping[str, Any]:
        """A GeoJSON object."""


GeoJson: TypeAlias = Mapping[str, Any] | str | bytes | HasGeoInterface


class Geometry(NamedTuple):
    """One Polygon or MultiPolygon: `polygons`, each a sequence of rings, and the place of each, as `coordinates[3]`."""

    polygons: Sequence[Sequence[Any]]
    wheres: list[str]


def geometries_of(document: GeoJson, where: str = "") -> Iterator[Geometry]:
    """Every polygonal geometry of a document, in its order; `where` goes before the names of places.

    Raises `Refused("area_unreadable" | "area_too_deep")`.
    """
    if isinstance(document, str | bytes | bytearray):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError) as error:
            raise Refused("area_unreadable", where, detail=f"it is no JSON: {error}") from None
    if document is None:
        raise Refused("area_unreadable", where, detail="there is none")
    yield from _walk(document, where, 1)


def _walk(thing: Any, where: str, depth: int) -> Iterator[Geometry]:
    if thing is None:
        return
    if depth > limits.AREA_DEPTH_MAX:
        raise Refused("area_too_deep", where.removesuffix("."), limit=limits.AREA_DEPTH_MAX)
    given = thing if isinstance(thing, Mapping) else getattr(thing, "__geo_interface__", None)
    if not isinstance(given, Mapping):
        raise _unreadable(where, f"{type(thing).__name__!r} is no GeoJSON object")
    match given.get("type"):
        case "Polygon":
            place = f"{where}coordinates"
            rings = _listed(given, "coordinates", where)
            if len(rings):
                yield Geometry([_checked(rings, place)], [place])
        case "MultiPolygon":
            polygons = _listed(given, "coordinates", where)
            wheres = [f"{where}coordinates[{at}]" for at in range(len(polygons))]
            if wheres:
                yield Geometry([_checked(*pair) for pair in zip(polygons, wheres, strict=True)], wheres)
        case "Feature":
            if "geometry" not in given:
                raise _unreadable(where, "the feature has no geometry")
            yield from _walk(given["geometry"], f"{where}geometry.", depth + 1)
        case "FeatureCollection":
            for at, feature in enumerate(_listed(given, "features", where)):
                yield from _walk(feature, f"{where}features[{at}].", depth + 1)
        case "GeometryCollection":
            for at, geometry in enumerate(_listed(given, "geometries", where)):
                yield from _walk(geometry, f"{where}geometries[{at}].", depth + 1)
        case "Point" | "MultiPoint" | "LineString" | "MultiLineString":
            return
        case other:
            raise _unreadable(where, f"its type is {other!r}")


def _listed(given: Mapping[str, Any], name: str, where: str) -> Sequence[Any]:
    if name not in given:
        raise _unreadable(where, f"it has no {name}")
    return _sequence(given[name], f"{where}{name}")


def _checked(rings: Any, where: str) -> Sequence[Any]:
    """A polygon as a sequence of rings; of these, the positions are looked at later."""
    return [_sequence(ring, f"{where}[{at}]") for at, ring in enumerate(_sequence(rings, where))]


def _sequence(thing: Any, where: str) -> Sequence[Any]:
    if isinstance(thing, list | tuple) or (isinstance(thing, np.ndarray) and thing.ndim > 0):
        return thing  # type: ignore[return-value]
    raise Refused("area_unreadable", where, detail=f"a list is expected, not {type(thing).__name__!r}")


def _unreadable(where: str, detail: str) -> Refused:
    return Refused("area_unreadable", where.removesuffix("."), detail=detail)
