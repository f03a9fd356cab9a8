"""An area as it can be drawn on a map: "the nearest N people" become the circle they live in.

`Nearest` counts people, and boards are no people: what they are to show, what an area is that has it as a part, and how
large it is, is said of the ground. Rules:

1. The circle is about the same point, and its radius the distance of the furthest of the N people who pass the
   filters; so a board shows the action where the people told of it are. With nobody to be told it has a centimetre.
2. By itself, `Nearest` selects exactly N people, ties at the rim by row, and its circle is known once they are
   (`circle_of`). As a part of another area it is its circle: "the nearest 1,000, but not in that town" is fewer than
   1,000.
3. An area without `Nearest` in it is given back as it is.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from fanout import wire
from fanout.geo import shapes
from fanout.registry.view import View
from fanout.selection.choose import rim_m
from fanout.selection.preview import reach
from fanout.selection.query import Query


def drawn(view: View, query: Query, area: wire.Area) -> wire.Area:
    """The area with every `Nearest` in it replaced; `query` has the filters, its shape is left aside."""
    match area:
        case wire.Nearest(lon=lon, lat=lat):
            x, y = shapes.fixed_point(lon, lat, "area")
            return circle_of(area, reach(view, replace(query, shape=shapes.Nearest(x, y, area.count))).furthest_m)
        case wire.Union(of=parts) | wire.Intersection(of=parts):
            made = [drawn(view, query, part) for part in parts]
            same = all(one is other for one, other in zip(made, parts, strict=True))
            return area if same else msgspec.structs.replace(area, of=made)
        case wire.Difference(of=of, without=without):
            one, other = drawn(view, query, of), drawn(view, query, without)
            return area if one is of and other is without else wire.Difference(of=one, without=other)
    return area


def circle_of(area: wire.Nearest, furthest_m: float) -> wire.Circle:
    """The circle of the nearest people, the furthest of whom is so far from the point."""
    return wire.Circle(lon=area.lon, lat=area.lat, radius_m=rim_m(furthest_m))
