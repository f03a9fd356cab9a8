"""Where, on the wire: areas as a tagged union, and points and lines. Part of `wire`, and imported from there.

An area says its `type`, as GeoJSON does, and GeoJSON geometries (longitude first, WGS 84) are areas as they are. Only
the shape of the input is checked here; whether a ring is closed is for `geo.gate` to say.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from fanout import limits

GroundPosition: TypeAlias = Annotated[tuple[float, ...], Meta(min_length=2, max_length=3)]
"""Longitude, latitude, and the altitude that RFC 7946 allows for and nobody here asks after."""
BoundingBox: TypeAlias = Annotated[list[float], Meta(min_length=4, max_length=6)]
"""What RFC 7946 lets a geometry say of its extent; the coordinates say it too, and count."""


class _Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller sends."""


class Circle(_Given, frozen=True, kw_only=True, tag="Circle", tag_field="type"):
    """All within `radius_m` great-circle metres of the centre, the rim included."""

    lon: float
    lat: float
    radius_m: float


class Polygon(_Given, frozen=True, kw_only=True, tag="Polygon", tag_field="type"):
    """GeoJSON: rings of positions, the outer one first, then holes. Border points are inside."""

    coordinates: list[list[GroundPosition]]
    bbox: BoundingBox | msgspec.UnsetType = msgspec.UNSET


class MultiPolygon(_Given, frozen=True, kw_only=True, tag="MultiPolygon", tag_field="type"):
    """GeoJSON: a list of polygons."""

    coordinates: list[list[list[GroundPosition]]]
    bbox: BoundingBox | msgspec.UnsetType = msgspec.UNSET


class Everyone(_Given, frozen=True, kw_only=True, tag="Everyone", tag_field="type"):
    """Every participant, wherever they are."""


class Named(_Given, frozen=True, kw_only=True, tag="Named", tag_field="type"):
    """An imported area by its kind and its name or code: `("municipality", "Assen")`, `("country", "BEL")`."""

    kind: Annotated[str, Meta(min_length=1, max_length=40)]
    name: Annotated[str, Meta(min_length=1, max_length=120)]


class Nearest(_Given, frozen=True, kw_only=True, tag="Nearest", tag_field="type"):
    """The `count` people nearest to a point."""

    lon: float
    lat: float
    count: Annotated[int, Meta(ge=1, le=10_000_000)]


class Corridor(_Given, frozen=True, kw_only=True, tag="Corridor", tag_field="type"):
    """All within `radius_m` great-circle metres of a line, as an escape route."""

    line: Annotated[list[GroundPosition], Meta(min_length=2)]
    radius_m: float


class Union(_Given, frozen=True, kw_only=True, tag="Union", tag_field="type"):
    """What is in any of the areas."""

    of: Annotated[list[Area], Meta(min_length=1, max_length=limits.AREA_PARTS_MAX)]


class Intersection(_Given, frozen=True, kw_only=True, tag="Intersection", tag_field="type"):
    """What is in all of the areas."""

    of: Annotated[list[Area], Meta(min_length=1, max_length=limits.AREA_PARTS_MAX)]


class Difference(_Given, frozen=True, kw_only=True, tag="Difference", tag_field="type"):
    """What is in `of` and not in `without`."""

    of: Area
    without: Area


Area: TypeAlias = (
    Circle | Polygon | MultiPolygon | Everyone | Named | Nearest | Corridor | Union | Intersection | Difference
)


class Point(_Given, frozen=True, kw_only=True, tag="Point", tag_field="type"):
    """GeoJSON: one place."""

    coordinates: GroundPosition
    bbox: BoundingBox | msgspec.UnsetType = msgspec.UNSET


class LineString(_Given, frozen=True, kw_only=True, tag="LineString", tag_field="type"):
    """GeoJSON: a line, as the way somebody went. Its points are joined by great-circle arcs."""

    coordinates: Annotated[list[GroundPosition], Meta(min_length=2, max_length=limits.CENTRE_VERTICES_MAX)]
    bbox: BoundingBox | msgspec.UnsetType = msgspec.UNSET


Centre: TypeAlias = Point | LineString
"""From where "nearest first" counts."""
