"""Exact selection of places on the globe, in microseconds.

    from fanout.geo import PlaceIndex, circle, from_geojson

    index = PlaceIndex.build(lon, lat)            # degrees float64[n], or int32[n] of degrees x 1e7
    index.select(circle(6.5665, 53.2194, 1_500))  # uint32 rows, border included, great-circle metres
    index.count(from_geojson(geometry))           # GeoJSON as a mapping, as text, or of shapely
    index.nearest(6.5665, 53.2194, 1_000)         # nearest first
    index.save(path); PlaceIndex.load(path)       # mapped, shared between processes without a copy

`warm()` compiles everything; without it the first query waits for the compiler (or its cache).

What judges areas (`from_geojson`, `shape_of`) stands on shapely and is loaded when first asked for: a process that only
sends needs no GEOS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fanout.geo.index import PlaceIndex, warm
from fanout.geo.shapes import EVERYONE, Shape, circle, corridor

if TYPE_CHECKING:
    from fanout.geo.areas import from_geojson, shape_of

__all__ = ["EVERYONE", "PlaceIndex", "Shape", "circle", "corridor", "from_geojson", "shape_of", "warm"]


def __getattr__(name: str) -> Any:
    if name not in ("from_geojson", "shape_of"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fanout.geo import areas

    return getattr(areas, name)
