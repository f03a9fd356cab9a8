"""How long edges are read: as steps across the antimeridian, as drawn, or round a pole; and what rounding leaves."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.errors import Refused
from fanout.geo import PlaceIndex, from_geojson, rings
from fanout.geo.fixed import SCALE
from tests.geo import naive_geo

WORLD = [(x, y) for x in range(-180, 180, 10) for y in range(-90, 91, 10)]


def taken(*polygon: list[tuple[float, float]]) -> set[tuple[int, int]]:
    """Which crossings of a grid of ten degrees a polygon takes."""
    index = PlaceIndex.build(*np.array(WORLD, np.float64).T)
    rows = index.select(from_geojson({"type": "Polygon", "coordinates": polygon}))
    return {WORLD[row] for row in rows.tolist()}


def box(west: float, south: float, east: float, north: float) -> list[tuple[float, float]]:
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]


def test_edges_over_half_the_world_are_lines_over_the_map() -> None:
    assert taken(box(-100, -50, 100, 50)) == {(x, y) for x, y in WORLD if abs(x) <= 100 and abs(y) <= 50}
    assert (0, 20) in taken([(-100, 0), (100, 0), (0, 50), (-100, 0)]), "one long edge: no ring round the pole"
    assert (-170, 0) not in taken([(-100, 0), (100, 0), (0, 50), (-100, 0)])
    hole = taken(box(-150, -60, 110, 60), box(-120, -10, 100, 10))
    assert (0, 0) not in hole
    assert (0, 20) in hole


@pytest.mark.parametrize("width", [0.5, 2, 30, 60, 89])
def test_steps_across_the_antimeridian_are_steps(width: float) -> None:
    shape = from_geojson({"type": "Polygon", "coordinates": [box(180 - width / 2, 0, width / 2 - 180, 1)]})
    index = PlaceIndex.build([180.0, 179.8, -179.8, 0.0], [0.5] * 4)
    assert sorted(index.select(shape).tolist()) == [0, 1, 2]


def test_a_wide_strip_in_steps_and_one_that_can_only_cross() -> None:
    top = [(100.0, 11.0), (170.0, 13.0), (-170.0, 13.0), (-100.0, 11.0)]
    strip = [*top, *[(x, -y) for x, y in reversed(top)], top[0]]
    assert taken(strip) == {(x, y) for x, y in WORLD if abs(x) >= 100 and abs(y) <= 10}
    top = [(80.0, 10.0), (175.0, 10.0), (-175.0, 10.0), (-80.0, 10.0)]
    assert taken([*top, *[(x, -y) for x, y in reversed(top)], top[0]]) == {
        (x, y) for x, y in WORLD if abs(x) >= 80 and abs(y) <= 10
    }, "as drawn it lies on itself"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_ring_in_steps_round_a_pole_has_the_pole_however_its_edges_lie(sign: int) -> None:
    coast = [(x, sign * (66.0 if abs(x) == 170 else 70.0 + 5 * (x % 40 == 10))) for x in range(-170, 171, 20)]
    assert shapely.Polygon(coast).is_valid, "it could be read as drawn, too"
    assert {(x, y) for x, y in WORLD if y * sign >= 80} <= taken([*coast, coast[0]])
    assert (-180, sign * 70) in taken([*coast, coast[0]])


@settings(max_examples=2_000)
@given(st.integers(0, 2**32 - 1))
def test_polygons_as_wide_as_the_world_are_what_geos_covers(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(3, 12))
    around = np.sort(random.random(n)) * 2 * np.pi
    reach = random.uniform(0.2, 1, n)
    corners = np.column_stack([130 * reach * np.cos(around), 85 * reach * np.sin(around)])
    geometry = shapely.Polygon(np.rint(corners))
    if not geometry.is_valid or geometry.area == 0:
        geometry = shapely.convex_hull(geometry)
    if geometry.geom_type != "Polygon":
        geometry = shapely.box(-130, -5, 130, 5)
    vertices = shapely.get_coordinates(geometry)
    lon, lat = np.concatenate([random.uniform([-180, -90], [180, 90], (60, 2)), vertices]).T
    rows = PlaceIndex.build(lon, lat).select(from_geojson(geometry))
    fixed = shapely.transform(geometry, lambda xy: xy * SCALE)
    covered = naive_geo.covered(fixed, np.rint(lon * SCALE).astype(np.int32), np.rint(lat * SCALE).astype(np.int32))
    assert set(rows.tolist()) == covered


def test_a_ring_that_winds_twice_is_refused() -> None:
    twice = [(float((x + 180) % 360 - 180), 60 + x / 100) for x in range(0, 721, 60)]
    with pytest.raises(Refused, match="area_self_crossing"):
        rings.unwrapped(np.array([*twice, twice[0]]), "ring")


def test_what_is_flat() -> None:
    flat = np.array([(0, 0), (9 * SCALE, 0), (5 * SCALE, 0), (0, 0)], np.int64)
    whole = np.array(box(-180, -90, 180, 90)) * SCALE
    assert rings.is_flat(flat)
    assert not rings.is_flat(whole.astype(np.int64)), "twice its size is more than 63 bits hold"
    assert not rings.is_flat(np.array([(0, 0), (1, 0), (1, 1), (0, 0)], np.int64))
