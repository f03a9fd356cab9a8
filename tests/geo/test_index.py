"""The index against slow and obvious answers: shapely's `covers`, and haversine in plain Python.

An example has a world of every kind of polygon, in one of three places, or of circles and the nearest one in every
place: so each kind has as many as there are examples, at a third of what they would cost one by one. Bands are no lower
than a nation's: lower ones take milliseconds to build and find nothing else (`selected` has them).
"""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fanout.errors import Refused
from fanout.geo import EVERYONE, PlaceIndex, arrayfile, circle, corridor, kernels, shapes
from tests.geo import naive_geo, worlds

EXAMPLES = settings(max_examples=2_000)
SEEDS = st.integers(0, 2**32 - 1)
SHIFTS = st.sampled_from((14, 16, 20, 24))


def built(lon: np.ndarray, lat: np.ndarray, shift: int) -> PlaceIndex:
    return PlaceIndex.build_ordered(lon, lat, shift=shift)[0]


def shape_of_geometry(geometry: shapely.Geometry) -> shapes.Polygon:
    rings = [
        np.rint(shapely.get_coordinates(ring)).astype(np.int64)
        for part in shapely.get_parts(geometry)
        for ring in (part.exterior, *part.interiors)
    ]
    return shapes.polygon(rings)


def check_answer(index: PlaceIndex, shape: shapes.Shape, wanted: set[int], case: str = "") -> None:
    rows = index.select(shape)
    assert rows.dtype == np.uint32
    assert len(rows) == len(set(rows.tolist())), f"{case}: a row was given twice"
    assert set(rows.tolist()) == wanted, case
    assert index.count(shape) == len(wanted), case
    runs = index.runs(shape)
    assert (runs[:, 0] < runs[:, 1]).all()
    assert (runs[1:, 0] > runs[:-1, 1]).all(), "runs are ascending, disjoint, and joined where they meet"


# --- polygons ---------------------------------------------------------------------------------------------------------


@EXAMPLES
@given(SEEDS, st.sampled_from(worlds.PLACES), SHIFTS)
def test_polygons_are_what_geos_covers(seed: int, place: str, shift: int) -> None:
    random = np.random.default_rng(seed)
    for case in worlds.POLYGONS:
        on = worlds.frame(random, place)
        geometry = worlds.polygon(random, on, case)
        lon, lat = worlds.points(random, on, geometry)
        check_answer(built(lon, lat, shift), shape_of_geometry(geometry), naive_geo.covered(geometry, lon, lat), case)


@EXAMPLES
@given(SEEDS, SHIFTS)
def test_set_operations_are_those_of_sets(seed: int, shift: int) -> None:
    random = np.random.default_rng(seed)
    on = worlds.frame(random, "anywhere")
    geometries = [worlds.polygon(random, on, case) for case in ("boxes", "star", "touching holes")]
    lon, lat = worlds.points(random, on, geometries[0])
    index = built(lon, lat, shift)
    one, two, three = (shape_of_geometry(geometry) for geometry in geometries)
    a, b, c = (naive_geo.covered(geometry, lon, lat) for geometry in geometries)
    check_answer(index, shapes.Union((one, two, three)), a | b | c)
    check_answer(index, shapes.Intersection((one, two, three)), a & b & c)
    check_answer(index, shapes.Difference(shapes.Union((one, two)), three), (a | b) - c)
    check_answer(index, shapes.Difference(EVERYONE, one), set(range(lon.size)) - a)


def test_the_whole_world_as_a_box_takes_everybody_once() -> None:
    lon = np.array([-180.0, 180.0, 0.0, 179.9999999, -179.9999999, 10.0])
    lat = np.array([0.0, 10.0, 90.0, -90.0, 45.0, 1.0])
    index = PlaceIndex.build(lon, lat)
    world = shape_of_geometry(shapely.box(-1_800_000_000, -900_000_000, 1_800_000_000, 900_000_000))
    check_answer(index, world, set(range(6)))
    check_answer(index, EVERYONE, set(range(6)))


def test_points_on_the_antimeridian_belong_to_a_polygon_on_either_side() -> None:
    index = PlaceIndex.build(np.array([180.0, -180.0]), np.array([1.0, 1.0]))
    west, east = (
        shapely.box(1_790_000_000, 0, 1_800_000_000, 20_000_000),
        shapely.box(-1_800_000_000, 0, -1_790_000_000, 20_000_000),
    )
    check_answer(index, shape_of_geometry(west), {0, 1})
    check_answer(index, shape_of_geometry(east), {0, 1})
    check_answer(index, shape_of_geometry(shapely.union_all([west, east])), {0, 1})


# --- circles, lines, nearest ------------------------------------------------------------------------------------------

RADII = st.one_of(
    st.sampled_from((0.01, 200.0, 1_500.0, 10_000.0, 1e6, 5e6, 10_007_557.0, 1.5e7, 20_037_508.0)), st.floats(0.02, 2e7)
)


@EXAMPLES
@given(SEEDS, RADII, SHIFTS)
def test_circles_are_what_haversine_measures(seed: int, radius_m: float, shift: int) -> None:
    for place in worlds.PLACES:
        check_circle(np.random.default_rng(seed), radius_m, place, shift)


def check_circle(random: np.random.Generator, radius_m: float, place: str, shift: int) -> None:
    on = worlds.frame(random, place)
    lon, lat = worlds.points(random, on)
    spread = max(1, int(radius_m / 0.011_132 * 1.2))  # most points near the rim's distance, whatever the radius
    lon = (
        (lon + random.integers(-spread, spread + 1, lon.size) + 1_800_000_000) % 3_600_000_000 - 1_800_000_000
    ).astype(np.int32)
    lat = np.clip(lat + random.integers(-spread, spread + 1, lat.size), -900_000_000, 900_000_000).astype(np.int32)
    x, y = (on.west + 1_800_000_000) % 3_600_000_000 - 1_800_000_000, min(on.south + 12 * on.step, 900_000_000)
    if place == "poles" and random.integers(3) == 0:
        y = 900_000_000 if y > 0 else -900_000_000
    metres = naive_geo.distances_m(x, y, lon, lat)
    index = built(lon, lat, shift)
    rows = index.select(shapes.Circle(x, y, radius_m))
    assert len(rows) == len(set(rows.tolist())) == index.count(shapes.Circle(x, y, radius_m))
    found = np.isin(np.arange(lon.size), rows)
    assert found[metres < radius_m - naive_geo.TIE_M].all(), f"{place}: somebody inside was left out"
    assert not found[metres > radius_m + naive_geo.TIE_M].any(), f"{place}: somebody outside was taken"


@EXAMPLES
@given(SEEDS, SHIFTS, st.integers(0, 150))
def test_nearest_are_the_nearest_in_order(seed: int, shift: int, count: int) -> None:
    for place in worlds.PLACES:
        check_nearest(np.random.default_rng(seed), place, shift, count)


def check_nearest(random: np.random.Generator, place: str, shift: int, count: int) -> None:
    on = worlds.frame(random, place)
    lon, lat = worlds.points(random, on)
    x, y = (on.west + 1_800_000_000) % 3_600_000_000 - 1_800_000_000, on.south
    metres = naive_geo.distances_m(x, y, lon, lat)
    rows = built(lon, lat, shift).select(shapes.Nearest(x, y, count))
    assert len(set(rows.tolist())) == len(rows) == min(count, lon.size)
    given_m = metres[rows]
    assert (np.diff(given_m) > -naive_geo.TIE_M).all(), f"{place}: nearest first"
    np.testing.assert_allclose(given_m, np.sort(metres)[: len(rows)], atol=naive_geo.TIE_M)


@EXAMPLES
@given(SEEDS, st.sampled_from(worlds.PLACES), st.floats(10, 200_000))
def test_corridors_are_what_walking_the_line_measures(seed: int, place: str, radius_m: float) -> None:
    random = np.random.default_rng(seed)
    on = worlds.frame(random, place)
    lon, lat = (column[:16] for column in worlds.points(random, on))
    line = [
        (((on.west + int(dx) * on.step + 1_800_000_000) % 3_600_000_000 - 1_800_000_000) / 1e7,
         (on.south + int(dy) * on.step) / 1e7)
        for dx, dy in random.integers(0, 24, (3, 2))
    ]  # fmt: skip
    found = np.isin(np.arange(lon.size), built(lon, lat, 16).select(corridor(line, radius_m)))
    metres = naive_geo.to_arc_m([(round(x * 1e7), round(y * 1e7)) for x, y in line], lon, lat)
    sure = np.abs(metres - radius_m) > 0.002  # the walk has steps of a millimetre
    assert (found[sure] == (metres < radius_m)[sure]).all()


@EXAMPLES
@given(SEEDS, st.sampled_from((16, 20, 24, 31)))
def test_corridors_through_crowds(seed: int, shift: int) -> None:
    """So many people that whole stretches are inside or outside: from a lane to half the world, over both poles."""
    random = np.random.default_rng(seed)
    reach = float(10 ** random.uniform(2, 9))
    middle = random.uniform([-1.8e9, -9e8], [1.8e9, 9e8])
    if random.integers(2):
        middle = np.array([1.8e9, 9e8]) * random.choice([-1, 0, 1], 2)
    spots = middle + random.normal(0, reach, (int(random.integers(2, 13)), 2)) * [1, 0.5]
    spots[:, 0] = (spots[:, 0] + 1.8e9) % 3.6e9 - 1.8e9
    line = np.rint(np.clip(spots, [-1.8e9, -9e8], [1.8e9 - 1, 9e8])).astype(np.int64)
    crowd = line[random.integers(0, len(line), 250)] + random.normal(0, reach * random.choice([0.01, 0.3, 1]), (250, 2))
    crowd = np.concatenate([crowd, np.repeat(crowd[:1], 20, axis=0)])
    lon = np.rint((crowd[:, 0] + 1.8e9) % 3.6e9 - 1.8e9).clip(max=1.8e9 - 1).astype(np.int32)
    lat = np.rint(np.clip(crowd[:, 1], -9e8, 9e8)).astype(np.int32)
    radius_m = float(min(2e7, max(1.0, reach * 0.01 * 10 ** random.uniform(-1.5, 0.5))))
    try:
        shape = corridor([(x / 1e7, y / 1e7) for x, y in line.tolist()], radius_m)
    except Refused:  # two of its points are opposite
        reject()
    found = np.isin(np.arange(lon.size), built(lon, lat, shift).select(shape))
    metres = naive_geo.to_line_m(line, lon, lat)
    sure = np.abs(metres - radius_m) > naive_geo.TIE_M + 1e-12 * metres
    assert (found[sure] == (metres < radius_m)[sure]).all()


@EXAMPLES
@given(SEEDS, st.sampled_from((1, 7, 100, 1_000)), st.sampled_from((16, 20, 24)))
def test_the_nearest_of_crowds_and_villages(seed: int, count: int, shift: int) -> None:
    """People as they live: most at a few spots, some at one coordinate, the centre in the middle of nowhere or not."""
    random = np.random.default_rng(seed)
    spots = random.integers([-10_000_000, 460_000_000], [110_000_000, 580_000_000], (int(random.integers(1, 5)), 2))
    spread = random.choice([0, 10, 10_000, 1_000_000], len(spots))
    of = random.integers(0, len(spots), int(random.integers(1, 1_500)))
    lon, lat = (
        (spots[of, axis] + np.rint(random.standard_normal(of.size) * spread[of])).astype(np.int32) for axis in (0, 1)
    )
    x, y = (int(value) for value in (spots[0] if random.integers(2) else random.integers(0, 400_000_000, 2)))
    lon1, lat1 = np.radians(lon / 1e7), np.radians(lat / 1e7)
    a = np.sin((lat1 - math.radians(y / 1e7)) / 2) ** 2
    a += math.cos(math.radians(y / 1e7)) * np.cos(lat1) * np.sin((lon1 - math.radians(x / 1e7)) / 2) ** 2
    metres = 2 * naive_geo.RADIUS_M * np.arcsin(np.sqrt(a))
    index = built(lon, lat, shift)
    rows = index.select(shapes.Nearest(x, y, count))
    assert len(set(rows.tolist())) == len(rows) == min(count, lon.size)
    np.testing.assert_allclose(metres[rows], np.sort(metres)[: len(rows)], atol=2e-3)  # arc sines of tiny angles
    assert index.count(shapes.Circle(x, y, index.radius_of(x, y, count))) >= len(rows)


def test_many_parts_are_the_union_of_each_and_are_merged_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(8)
    index = PlaceIndex.build(random.uniform(4, 6, 40_000), random.uniform(51, 53, 40_000))
    t = np.linspace(0, 1, 300)
    line = np.column_stack([5 + 0.8 * t * np.cos(30 * t), 52 + 0.5 * t * np.sin(30 * t)]).tolist()
    merged = 0

    def counting(a: np.ndarray, b: np.ndarray, *keep: bool) -> np.ndarray:
        nonlocal merged
        merged += len(a) + len(b)
        return combine(a, b, *keep)

    combine = kernels.combine_runs
    monkeypatch.setattr(kernels, "combine_runs", counting)
    for whole, parts in (
        (corridor(line, 2_000.0), [corridor(list(arc), 2_000.0) for arc in pairwise(line)]),
        (shapes.Union(circles := tuple(circle(x, y, 2_000.0) for x, y in line)), circles),
    ):
        wanted = {row for part in parts for row in index.select(part).tolist()}
        merged = 0
        assert set(index.select(whole).tolist()) == wanted
        assert merged < 80 * len(index.runs(whole)), "rows looked at do not grow with the square of the parts"


def test_a_hundred_thousand_nearest_and_all_of_them() -> None:
    random = np.random.default_rng(4)
    index = PlaceIndex.build(random.uniform(3, 7, 150_000), random.uniform(51, 53, 150_000))
    thousand, most, every = (index.nearest(5.0, 52.0, k) for k in (1_000, 100_000, 1_000_000))
    assert np.array_equal(thousand, most[:1_000]), "the order does not depend on how many are asked for"
    assert np.array_equal(most, every[:100_000])
    assert np.array_equal(np.sort(every), np.arange(150_000))
    assert index.nearest(5.0, 52.0, 0).size == 0


# --- the nasty cases, each by name ----------------------------------------------------------------------------------

M = 10_000_000  # fixed-point units of a degree


def selected(geometry: shapely.Geometry, *points: tuple[int, int]) -> list[bool]:
    """Which points a polygon takes, the same for every height of a band, and as GEOS says."""
    lon, lat = (np.array(column, np.int32) for column in zip(*points, strict=True))
    answers = [
        np.isin(np.arange(lon.size), built(lon, lat, s).select(shape_of_geometry(geometry))) for s in (13, 16, 24)
    ]
    covered = naive_geo.covered(geometry, lon, lat)
    assert all(set(np.flatnonzero(answer).tolist()) == covered for answer in answers)
    return answers[0].tolist()


def test_points_exactly_on_vertices() -> None:
    star = shapely.Polygon([(0, 0), (3 * M, 1), (M, M), (1, 3 * M), (-7, M), (0, 0)])
    corners = [(int(x), int(y)) for x, y in shapely.get_coordinates(star)[:-1]]
    assert all(selected(star, *corners))
    assert not any(selected(star, *((x - 9, y - 9) for x, y in corners if (x, y) != (M, M))))


def test_points_exactly_on_edges() -> None:
    slope = shapely.Polygon([(0, 0), (7 * M, 3 * M), (0, 3 * M), (0, 0)])
    on = [(7 * k, 3 * k) for k in (1, 2, 65_536, 65_537, M - 1)]
    assert all(selected(slope, *on))
    assert not any(selected(slope, *((x + 3, y) for x, y in on)))
    assert all(selected(slope, *((x - 3, y) for x, y in on[2:])))


def test_points_level_with_horizontal_edges() -> None:
    steps = shapely.Polygon([(0, 0), (4, 0), (4, 2), (8, 2), (8, 0), (12, 0), (12, 4), (6, 4), (6, 6), (0, 6), (0, 0)])
    steps = shapely.transform(steps, lambda xy: xy * M)
    assert selected(steps, *((x * M, 2 * M) for x in (-1, 0, 2, 4, 6, 8, 12, 13))) == [False, *[True] * 6, False]
    assert selected(steps, *((x * M, 0) for x in (-1, 0, 4, 6, 8, 12, 13))) == [
        False,
        True,
        True,
        False,
        True,
        True,
        False,
    ]
    assert selected(steps, *((x * M, 4 * M) for x in (-1, 3, 6, 9, 12, 13))) == [False, True, True, True, True, False]


def test_holes_that_touch_the_border_and_each_other() -> None:
    holes = [[(0, 4), (4, 2), (4, 6)], [(4, 2), (8, 2), (8, 4)], [(8, 8), (9, 8), (9, 10)]]
    town = shapely.Polygon([(0, 0), (10, 0), (10, 10), (0, 10)], holes)
    assert town.is_valid
    town = shapely.transform(town, lambda xy: xy * M)
    where = [(0, 4), (2, 4), (4, 2), (7, 2.5), (8, 4), (8.8, 8.4), (9, 10), (9, 9), (5, 9)]
    taken = [True, False, True, False, True, False, True, True, True]
    assert selected(town, *((int(x * M), int(y * M)) for x, y in where)) == taken


def test_slivers_of_a_centimetre() -> None:
    sliver = shapely.Polygon([(0, 0), (5 * M, 2 * M), (5 * M + 1, 2 * M), (0, 0)])
    assert selected(sliver, (0, 0), (5 * M, 2 * M), (5 * M + 1, 2 * M), (5 * M + 2, 2 * M)) == [True, True, True, False]
    assert selected(sliver, (5, 2), (5 * 65_536, 2 * 65_536), (5 * M - 5, 2 * M - 2), (6, 2), (5, 3)) == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_the_poles_have_every_longitude() -> None:
    index = PlaceIndex.build([0.0, 90.0, -180.0, 10.0, 10.0], [90.0, 90.0, 90.0, 89.9999, -90.0])
    assert sorted(index.select(circle(123.4, 90.0, 0.01)).tolist()) == [0, 1, 2], "all at one spot"
    assert sorted(index.select(circle(190.0 - 360, 89.9999, 11.2)).tolist()) == [0, 1, 2]
    assert index.nearest(-77.0, -90.0, 1).tolist() == [4]
    cap = shape_of_geometry(shapely.box(-180 * M, 89 * M, 180 * M, 90 * M))
    check_answer(index, cap, {0, 1, 2, 3})


# --- many at one place, few, none -------------------------------------------------------------------------------------


def test_a_hundred_thousand_people_at_one_coordinate() -> None:
    lon, lat = np.full(100_000, 52_000_000, np.int32), np.full(100_000, 520_000_000, np.int32)
    index = PlaceIndex.build(lon, lat)
    assert index.count(circle(5.2, 52.0, 1.0)) == 100_000
    assert np.array_equal(index.select(circle(5.2, 52.0, 1.0)), np.arange(100_000)), "ties in the order of rows"
    corner = shape_of_geometry(shapely.box(52_000_000, 520_000_000, 52_000_010, 520_000_010))
    assert index.count(corner) == 100_000
    assert index.count(shape_of_geometry(shapely.box(52_000_001, 520_000_000, 52_000_010, 520_000_010))) == 0
    assert np.array_equal(index.nearest(5.2, 52.0, 7), np.arange(7))
    assert np.array_equal(index.nearest(-70.0, -30.0, 99_999), np.arange(99_999)), "from the other side of the world"


@pytest.mark.parametrize("shape", [circle(5.2, 52.0, 1e6), EVERYONE, corridor([(5.0, 52.0), (6.0, 52.0)], 1e6)])
def test_one_person_and_nobody(shape: shapes.Shape) -> None:
    assert PlaceIndex.build([5.2], [52.0]).select(shape).tolist() == [0]
    nobody = PlaceIndex.build([], [])
    assert nobody.select(shape).size == nobody.count(shape) == nobody.nearest(0, 0, 3).size == 0


@pytest.mark.parametrize("count", [2, 2.0, np.int8(2), np.float32(2), np.uint64(2)])
def test_a_count_may_be_of_any_whole_type(count: float) -> None:
    index = PlaceIndex.build([5.0, 6.0, 7.0], [52, 52, 52])
    assert index.nearest(5, 52, count).tolist() == [0, 1]
    assert index.nearest(np.float32(5), np.int64(52), 2**80).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [2.5, math.nan, math.inf, "2", None])
def test_what_is_no_count_is_said(count: float) -> None:
    with pytest.raises(TypeError, match="whole number"):
        PlaceIndex.build([5.0], [52.0]).nearest(5.0, 52.0, count)


def test_what_is_no_shape_is_said() -> None:
    index = PlaceIndex.build([5.0], [52.0])
    geometry: Any = {"type": "Polygon", "coordinates": []}
    for ask in (index.select, index.count, index.runs):
        with pytest.raises(TypeError, match="from_geojson"):
            ask(geometry)


def test_answers_do_not_depend_on_how_the_points_came_in() -> None:
    random = np.random.default_rng(5)
    lon, lat = random.uniform(3, 7, 5_000), random.uniform(51, 53, 5_000)
    one, two = PlaceIndex.build(lon, lat), PlaceIndex.build(lon, lat)
    shape = circle(5.0, 52.0, 30_000.0)
    assert one.select(shape).tobytes() == two.select(shape).tobytes()
    assert one.nbytes <= 16 * 5_000 + 4 * (one.offsets.size)


def test_bad_coordinates_are_named() -> None:
    with pytest.raises(Refused, match="area_coordinate_range") as refusal:
        PlaceIndex.build([5.0, 181.0], [52.0, 52.0])
    assert refusal.value.where == "row 1"
    with pytest.raises(Refused, match="area_coordinate_not_finite"):
        PlaceIndex.build([float("nan")], [52.0])


@pytest.mark.parametrize(
    ("lon", "lat", "where"),
    [
        ([5.0, 6.0], [52.0], "lat"), ([[5.0, 6.0]], [[52.0, 52.0]], "lon"), ([5.0], [[52.0]], "lat"),
        (["5"], [52.0], "lon"), ([5.0], [None], "lat"), ([[5.0], [5.0, 6.0]], [52.0, 52.0], "lon"),
    ],
)  # fmt: skip
def test_what_is_no_pair_of_columns_is_named(lon: Any, lat: Any, where: str) -> None:
    with pytest.raises(Refused, match="places_malformed") as refusal:
        PlaceIndex.build(lon, lat)
    assert refusal.value.where == where


# --- saving -----------------------------------------------------------------------------------------------------------


def test_a_saved_index_is_the_same_index(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    index = PlaceIndex.build(random.uniform(-180, 180, 3_000), random.uniform(-90, 90, 3_000))
    index.save(tmp_path / "places")
    loaded = PlaceIndex.load(tmp_path / "places")
    loaded.save(str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == (tmp_path / "places").read_bytes()
    assert len(PlaceIndex.load(str(tmp_path / "again"))) == 3_000
    shape = circle(10.0, 10.0, 3e6)
    assert loaded.select(shape).tobytes() == index.select(shape).tobytes()
    assert not loaded.lon.flags.writeable


@EXAMPLES
@given(st.integers(0, 20_000), st.integers(1, 255))
def test_a_damaged_file_is_found_out(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    path, whole = folder / "damaged", folder / "whole"
    random = np.random.default_rng(3)
    index = PlaceIndex.build(random.uniform(3, 7, 1_000), random.uniform(50, 54, 1_000))
    if not whole.exists():
        index.save(whole)
    data = bytearray(whole.read_bytes())
    data[at % len(data)] ^= flip
    path.write_bytes(data)
    try:
        loaded = PlaceIndex.load(path)
    except Refused as refusal:
        code = refusal.code
    else:  # a byte of padding
        code = "file_as_it_was" if loaded.select(EVERYONE).tobytes() == index.select(EVERYONE).tobytes() else "lost"
    assert code.startswith("file_")


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    index = PlaceIndex.build([5.0, 6.0], [52.0, 53.0])
    path = tmp_path / "places"
    index.save(path)
    whole = path.read_bytes()

    def refused(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(Refused) as refusal:
            PlaceIndex.load(path)
        return refusal.value.code

    assert refused(b"not ours" + whole[8:]) == "file_magic"
    assert refused(whole[:8] + (99).to_bytes(4, "little") + whole[12:]) == "file_version"
    assert refused(whole[:-20]) == "file_count"
    assert refused(whole[:4096] + b"\x01" + whole[4097:]) == "file_checksum"
    assert refused(b"") == "file_magic"
    arrayfile.write(path, "names", {"lon": index.lon}, meta={})
    assert refused(path.read_bytes()) == "file_magic", "a file of ours that holds something else"
    columns = {"lon": index.lon.astype("<i8"), "lat": index.lat, "rows": index.rows, "offsets": index.offsets}
    arrayfile.write(path, "place index", columns, meta={"shift": index.shift})
    assert refused(path.read_bytes()) == "file_dtype"
    del columns["lon"]
    arrayfile.write(path, "place index", columns, meta={"shift": index.shift})
    assert refused(path.read_bytes()) == "file_dtype", "no such column"


def test_a_whole_file_whose_arrays_do_not_fit_is_refused(tmp_path: Path) -> None:
    """Kernels do not look where arrays end: what would lead them beyond is found at the door."""
    random = np.random.default_rng(3)
    lon, lat = random.uniform(3, 7, 1_000), random.uniform(50, 54, 1_000)
    index, order = PlaceIndex.build_ordered(lon, lat, np.arange(5_000, 6_000, dtype=np.uint32))
    sound = {"lon": index.lon, "lat": index.lat, "rows": index.rows, "offsets": index.offsets}
    meta = {"shift": index.shift, "rows_end": 6_000}
    path = tmp_path / "places"

    def refused(columns: dict[str, np.ndarray], header: dict[str, object]) -> str:
        arrayfile.write(path, "place index", sound | columns, meta=header)
        with pytest.raises(Refused, match="file_contradictory") as refusal:
            PlaceIndex.load(path)
        return refusal.value.message

    assert "counts differ: lon 10, lat 1000, rows 5" in refused({"lon": index.lon[:10], "rows": index.rows[:5]}, meta)
    for shift in (None, "16", -1, 64, 16.0):
        assert "height of bands" in refused({}, meta | {"shift": shift})
    assert "height of bands" in refused({}, {"rows_end": 6_000})
    assert "offsets" in refused({}, meta | {"shift": index.shift - 1})
    assert "offsets" in refused({"offsets": index.offsets[:-1]}, meta)
    begins, ends, falls = (index.offsets.copy() for _ in range(3))
    begins[0], ends[-1] = 1, 2_000
    falls[falls.size // 2] = 4_000_000_000
    for offsets in (begins, ends, falls):
        assert "do not ascend from 0 to 1000" in refused({"offsets": offsets}, meta)
    assert "a row is not below 5999" in refused({}, meta | {"rows_end": 5_999})
    arrayfile.write(path, "place index", sound, meta=meta)
    assert np.array_equal(PlaceIndex.load(path).rows, order + 5_000)


def test_processes_share_a_saved_index_without_a_copy(tmp_path: Path) -> None:
    """Three processes map one file: they answer alike, and what they hold of it are the pages of the system's cache."""
    random = np.random.default_rng(3)
    index = PlaceIndex.build(random.uniform(3, 7, 400_000), random.uniform(51, 53, 400_000))
    path = tmp_path / "places"
    index.save(path)
    wanted = index.select(circle(5.0, 52.0, 20_000.0))
    program = (
        "import sys, pathlib, hashlib\n"
        "from fanout.geo import PlaceIndex, circle\n"
        "index = PlaceIndex.load(pathlib.Path(sys.argv[1]))\n"
        "print(hashlib.sha256(index.select(circle(5.0, 52.0, 20_000.0)).tobytes()).hexdigest(), flush=True)\n"
        "sys.stdin.readline()\n"
        "copied, mapped, inside = 0, 0, False\n"
        "for line in open('/proc/self/smaps'):\n"
        "    if '-' in line.split(' ')[0]: inside = line.rstrip().endswith(sys.argv[1])\n"
        "    elif inside and line.startswith('Rss'): mapped += int(line.split()[1])\n"
        "    elif inside and line.startswith('Private_Dirty'): copied += int(line.split()[1])\n"
        "print(mapped, copied)\n"
    )
    run = [sys.executable, "-c", program, str(path)]
    readers = [subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    with ExitStack() as stack:
        pipes = []
        for reader in readers:
            stack.enter_context(reader)
            assert reader.stdin is not None
            assert reader.stdout is not None
            pipes.append((reader.stdin, reader.stdout))
        answers = {output.readline().strip() for _, output in pipes}
        kept = []
        for to, output in pipes:  # one after another, while all still have it
            to.write("\n")
            to.flush()
            kept.append(tuple(map(int, output.readline().split())))
    assert answers == {hashlib.sha256(wanted.tobytes()).hexdigest()}
    assert all(mapped > 0 and copied == 0 for mapped, copied in kept), "kB of the file in use, and of those copied"
