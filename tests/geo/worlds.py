"""Worlds for the property tests: points and areas that are as awkward as the real ones, and more often.

Everything is drawn on a lattice, so that points fall on vertices, on edges, on horizontal edges and on band borders all
the time, not once in a lifetime. A world is made from a seed that Hypothesis draws, so that it shrinks to a small seed
and a case by name, and a thousand of them take a second.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

STEPS = (1, 7, 1 << 13, 65_536, 1_000_003)
"""Lattice constants in fixed-point units: slivers of a centimetre, band borders, tens of kilometres."""


class Frame(NamedTuple):
    """Where a lattice lies: its corner and its constant."""

    west: int
    south: int
    step: int


def frame(random: np.random.Generator, where: str) -> Frame:
    """A lattice of 24 by 24 in a part of the world."""
    step = int(random.choice(STEPS))
    width = 24 * step
    if where == "antimeridian":
        return Frame(1_800_000_000 - int(random.integers(0, width + 1)), int(random.integers(-5e8, 5e8)), step)
    if where == "poles":
        north = bool(random.integers(2))
        return Frame(int(random.integers(-1_800_000_000, 1_800_000_000 - width)),
                     900_000_000 - width if north else -900_000_000, step)  # fmt: skip
    south = int(random.integers(0, 1000)) * 65_536 - int(random.integers(0, 2))
    return Frame(int(random.integers(-1_700_000_000, 1_700_000_000 - width)), south, step)


def points(random: np.random.Generator, on: Frame, geometry: shapely.Geometry | None = None) -> tuple[
    NDArray[np.int32], NDArray[np.int32]
]:  # fmt: skip
    """Up to some hundred points: on the lattice, a unit beside it, on vertices, on the middles of edges."""
    count = int(random.choice([0, 1, 2, 30, 120]))
    x = on.west + random.integers(-2, 27, count) * on.step
    y = on.south + random.integers(-2, 27, count) * on.step
    nudged = random.random(count) < 0.3
    x = x + np.where(nudged, random.integers(-1, 2, count), 0)
    y = y + np.where(nudged, random.integers(-1, 2, count), 0)
    if geometry is not None and count:
        vertices = np.rint(shapely.get_coordinates(geometry)).astype(np.int64)
        middles = (vertices[:-1] + vertices[1:]) // 2
        special = np.concatenate([vertices, middles])
        x, y = np.concatenate([x, special[:, 0]]), np.concatenate([y, special[:, 1]])
        twice = random.integers(0, x.size, 5)
        x, y = np.concatenate([x, x[twice]]), np.concatenate([y, y[twice]])
    x = (x + 1_800_000_000) % 3_600_000_000 - 1_800_000_000
    y = np.clip(y, -900_000_000, 900_000_000)
    return x.astype(np.int32), y.astype(np.int32)


def polygon(random: np.random.Generator, on: Frame, case: str) -> shapely.Geometry:
    """A valid (multi)polygon on the lattice, of a kind by name."""

    def corner() -> tuple[int, int]:
        return int(random.integers(0, 22)), int(random.integers(0, 22))

    def box() -> shapely.Geometry:
        x, y = corner()
        return shapely.box(x, y, x + int(random.integers(1, 24 - x + 1)), y + int(random.integers(1, 24 - y + 1)))

    def star() -> shapely.Geometry:
        n = int(random.integers(3, 12))
        around = np.sort(random.random(n)) * 2 * np.pi
        reach = random.integers(1, 13, n)
        xy = np.column_stack([12 + reach * np.cos(around), 12 + reach * np.sin(around)])
        made = shapely.Polygon(np.rint(xy))
        return made if made.is_valid else shapely.convex_hull(made)

    def sliver() -> shapely.Geometry:
        (x, y), (u, v) = corner(), corner()
        return shapely.Polygon([(x, y), (u, v), (u + 1, v), (x, y)])

    if case == "star":
        made = star()
    elif case == "sliver":
        made = sliver()
    elif case == "boxes":  # horizontal edges, corners that touch, several parts
        made = shapely.union_all([box() for _ in range(int(random.integers(1, 6)))])
    elif case == "touching holes":
        made = box()
        for _ in range(4):
            made = shapely.difference(made, box())
    elif case == "comb":
        return comb(random, on)
    else:
        made = shapely.difference(star(), shapely.Polygon([(10, 11), (14, 12), (11, 14), (10, 11)]))
    made = shapely.transform(made, np.rint)
    if made.is_empty or not made.is_valid or made.area == 0 or made.geom_type not in ("Polygon", "MultiPolygon"):
        made = shapely.box(3, 4, 9, 11)
    return shapely.transform(made, lambda xy: xy * on.step + [on.west, on.south])


def comb(random: np.random.Generator, on: Frame) -> shapely.Geometry:
    """Forty teeth, bent over so that in every band many edges lie over each other."""
    number = np.arange(80)
    tip = number % 2 == 1
    for bend in (int(random.integers(0, 90)), 0):
        x = number * 3 + np.where(tip, bend, 0)
        y = np.where(tip, random.integers(13, 25, 80), random.integers(4, 12, 80) if bend == 0 else 4)
        made = shapely.Polygon([*np.column_stack([x, y]).tolist(), (330, 0), (-1, 0)])
        if made.is_valid:
            break
    return shapely.transform(made, lambda xy: xy * [max(1, on.step // 12), on.step] + [on.west, on.south])


POLYGONS = ("comb", "star", "sliver", "boxes", "touching holes", "hole in a star")
PLACES = ("anywhere", "antimeridian", "poles")
