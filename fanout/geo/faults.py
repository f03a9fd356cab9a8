"""What is wrong with a polygon, and where: the ring and the vertices, as whoever drew it numbered them.

GEOS says that a polygon is invalid, why, and at what place. A place helps nobody who has a list of positions at hand,
so here it becomes numbers: of the edges that meet there, or of the vertex that is nearest. Rings are numbered from 0,
the outer one first, and so are vertices; edge 3 leads from vertex 3 to vertex 4.

What a single position or ring says by itself (a coordinate out of range, a ring that is open) is found in `rings`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import numpy as np
import shapely
from numpy.typing import NDArray

from fanout.errors import Refused
from fanout.geo import rings
from fanout.geo.fixed import LAT_MAX, LON_MAX, SCALE, TURN
from fanout.geo.shapes import Ring

_PLACE: Final = re.compile(r"\[(\S+) (\S+?)\]")
_MEETS: Final = 0.5  # fixed-point units: nearer to an edge than this, GEOS means that edge

Vertex = tuple[int, int]
"""Numbers of a ring and of a vertex in it."""


def refuse_invalid(solid: Any, of_part: list[Ring], lengths: Sequence[int], where: str, first: int = 0) -> NoReturn:
    """Refuse an invalid polygon. `lengths`: of its rings as they were given; `first`: the number of the first of them.

    Always raises `Refused("area_ring_too_short" | "area_holes_nested" | "area_hole_outside" | "area_self_crossing")`.
    """
    for at, ring in enumerate(of_part, first):
        if (distinct := len(np.unique(ring, axis=0))) < 3:
            raise Refused("area_ring_too_short", f"{where}[{at}][{rings.first_repeated(ring)}]", points=distinct)
    reason = str(shapely.is_valid_reason(solid))
    place = _PLACE.search(reason)
    x, y = (float(place[1]), float(place[2])) if place else (float(of_part[0][0, 0]), float(of_part[0][0, 1]))
    if "nested" in reason or "Hole" in reason:
        at, vertex = _nearest_vertex(of_part, x, y)
        code = "area_holes_nested" if "nested" in reason else "area_hole_outside"
        raise Refused(code, f"{where}[{first + at}][{min(vertex, lengths[at] - 1)}]")
    here, there = ((at, min(edge, lengths[at] - 2)) for at, edge in _meeting(of_part, x, y))
    edges = " and ".join(
        f"edge {edge} (vertices {edge} and {edge + 1}) of ring {first + at}" for at, edge in (here, there)
    )
    raise Refused("area_self_crossing", f"{where}[{first + here[0]}][{here[1]}]", lon=rings.folded(x), lat=y / SCALE,
                  edges=edges)  # fmt: skip


def refuse_overlap(solids: list[Any], drawn: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Refuse polygons of one area that share ground, each also a turn away. `drawn`: the name and the rings of each."""
    if len(solids) < 2:
        return
    bounds = shapely.bounds(solids)
    numbers, copies = list(range(len(solids))), list(solids)
    for turn in (-TURN, TURN):
        for at in np.flatnonzero(
            (bounds[:, 0] + turn < bounds[:, 2].max()) & (bounds[:, 2] + turn > bounds[:, 0].min())
        ).tolist():
            numbers.append(at)
            copies.append(shapely.transform(solids[at], lambda xy, by=turn: xy + np.array([by, 0])))
    for number, other in shapely.STRtree(solids).query(copies, predicate="intersects").T:
        if numbers[number] >= other:
            continue
        common = shapely.intersection(copies[number], solids[other])
        if common.area > 0:
            point = common.representative_point()
            where, given = drawn[other]
            flat = [rings.degrees(ring, where) * SCALE for ring in given]
            turned = [ring + np.rint((point.x - ring[:, :1]) / TURN) * [TURN, 0] for ring in flat]
            at, vertex = _nearest_vertex(turned, point.x, point.y)
            raise Refused("area_parts_overlap", f"{where}[{at}][{vertex}]", lon=rings.folded(point.x),
                          lat=point.y / SCALE)  # fmt: skip


def first_outside(solid: Any, ring: Ring) -> int:
    """The number of the first vertex that is not in a polygon on the map; 0 if only edges leave it."""
    x = (ring[:, 0] + LON_MAX) % TURN - LON_MAX
    outside = ~shapely.covers(solid, shapely.points(x, np.clip(ring[:, 1], -LAT_MAX, LAT_MAX)))
    return int(np.argmax(outside))


def _nearest_vertex(of_part: Sequence[NDArray[Any]], x: float, y: float) -> Vertex:
    best = min(
        (float(distances.min()), at, int(distances.argmin()))
        for at, ring in enumerate(of_part)
        for distances in [np.hypot(ring[:, 0] - x, ring[:, 1] - y)]
    )
    return best[1], best[2]


def _meeting(of_part: list[Ring], x: float, y: float) -> tuple[Vertex, Vertex]:
    """The first and another of the edges that meet at a place: the last that is not the first's neighbour, if any."""
    found: list[tuple[float, Vertex]] = []
    for at, ring in enumerate(of_part):
        away = _to_edges(ring.astype(np.float64), x, y)
        found += [(float(away[edge]), (at, int(edge))) for edge in np.argsort(away, kind="stable")[:8]]
    found.sort()
    near = sorted(edge for metres, edge in found if metres <= _MEETS) or [edge for _, edge in found[:2]]
    first = near[0]
    size = len(of_part[first[0]]) - 1
    apart = [edge for edge in near[1:] if edge[0] != first[0] or (edge[1] - first[1]) % size not in (0, 1, size - 1)]
    return first, (apart or near)[-1]


def _to_edges(ring: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    """How far a place is from every edge of a ring, in the plane."""
    start, along = ring[:-1], np.diff(ring, axis=0)
    length2 = (along**2).sum(axis=1)
    share = ((np.array([x, y]) - start) * along).sum(axis=1) / np.where(length2 > 0, length2, 1.0)
    foot = start + along * np.clip(share, 0, 1)[:, None]
    away: NDArray[np.float64] = np.hypot(foot[:, 0] - x, foot[:, 1] - y)
    return away
