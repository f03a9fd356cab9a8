"""Each thing that can be wrong with an area has its own error, and says where."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout import limits, wire
from fanout.errors import Refused
from fanout.geo import PlaceIndex, from_geojson, shape_of, shapes
from fanout.geo.gate import check_size
from tests.geo import naive_geo, worlds

SQUARE = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0), (0.0, 0.0)]
NAN = math.nan


def polygon(*rings: list[tuple[float, float]]) -> wire.Polygon:
    return wire.Polygon(coordinates=[list(ring) for ring in rings])


def box(west: float, south: float, east: float, north: float) -> list[tuple[float, float]]:
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]


AROUND = wire.Circle(lon=5, lat=52, radius_m=1_000)

WRONG: list[tuple[str, wire.Area, str, str]] = [
    ("open", polygon(SQUARE[:-1]), "area_ring_not_closed", "area.coordinates[0][3]"),
    ("two points", polygon([(0, 0), (1, 1), (0, 0), (1, 1), (0, 0)]), "area_ring_too_short", "area.coordinates[0][2]"),
    ("no point", polygon([]), "area_ring_too_short", "area.coordinates[0]"),
    ("no ring", polygon(), "area_empty", "area.coordinates"),
    ("no part", wire.MultiPolygon(coordinates=[]), "area_empty", "area.coordinates"),
    ("bow tie", polygon([(0, 0), (4, 4), (4, 0), (0, 4), (0, 0)]), "area_self_crossing", "area.coordinates[0][0]"),
    ("there and back", polygon([(0, 0), (4, 0), (2, 0), (0, 0)]), "area_self_crossing", "area.coordinates[0][0]"),
    ("hole outside", polygon(SQUARE, box(9, 9, 10, 10)), "area_hole_outside", "area.coordinates[1][0]"),
    ("hole in a hole", polygon(SQUARE, box(1, 1, 3, 3), box(1.5, 1.5, 2, 2)), "area_holes_nested",
    "area.coordinates[2][0]"),
    ("hole across the border", polygon(SQUARE, box(3, 3, 6, 3.5)), "area_self_crossing", "area.coordinates[0][1]"),
    ("hole is all", polygon(SQUARE, SQUARE), "area_self_crossing", "area.coordinates[0]["),
    ("longitude", polygon([(0, 0), (181, 0), (4, 4), (0, 0)]), "area_coordinate_range", "area.coordinates[0][1]"),
    ("latitude", polygon([(0, 0), (4, 0), (4, 91), (0, 0)]), "area_coordinate_range", "area.coordinates[0][2]"),
    ("NaN", polygon([(0, 0), (4, NAN), (4, 4), (0, 0)]), "area_coordinate_not_finite", "area.coordinates[0][1]"),
    ("infinite", polygon([(0, 0), (4, math.inf), (4, 4), (0, 0)]), "area_coordinate_not_finite",
    "area.coordinates[0][1]"), (
        "parts overlap",
        wire.MultiPolygon(coordinates=[[box(0, 0, 4, 4)], [box(3, 3, 6, 6)]]),
        "area_parts_overlap",
        "area.coordinates[1][0][0]",
    ),
    ("radius", wire.Circle(lon=5, lat=52, radius_m=0), "area_radius_range", "area.radius_m"),
    ("radius NaN", wire.Circle(lon=5, lat=52, radius_m=NAN), "area_radius_range", "area.radius_m"),
    ("radius of two worlds", wire.Circle(lon=5, lat=52, radius_m=3e7), "area_radius_range", "area.radius_m"),
    ("centre", wire.Circle(lon=5, lat=92, radius_m=10), "area_coordinate_range", "area"),
    ("opposite points", wire.Corridor(line=[(5, 52), (6, 52), (-174, -52)], radius_m=10), "area_line_ambiguous",
    "area.line[2]"),
    ("flat after rounding", polygon(box(5, 52, 6, 52 + 1e-9)), "area_empty", "area.coordinates"),
    ("sound before rounding, and too small", wire.MultiPolygon(coordinates=[[box(5, 52, 5 + 1e-9, 52 + 1e-9)]]),
    "area_empty", "area.coordinates"),
    ("unsound before rounding", polygon([(5, 52), (5 + 1e-9, 52 + 1e-9), (5 + 1e-9, 52), (5, 52 + 1e-9), (5, 52)]),
    "area_ring_too_short", "area.coordinates[0][1]"),
    ("line", wire.Corridor(line=[(0, 0), (0, 99)], radius_m=10), "area_coordinate_range", "area.line[1]"),
    ("unknown", wire.Named(kind="municipality", name="Nowhere"), "area_unknown", "area"),
    ("no alternatives", wire.Union(of=[]), "area_empty", "area"),
    ("inner", wire.Union(of=[wire.Everyone(), polygon(SQUARE[:-1])]), "area_ring_not_closed",
    "area.of[1].coordinates[0][3]"), (
        "difference",
        wire.Difference(of=wire.Everyone(), without=wire.Circle(lon=0, lat=0, radius_m=-1)),
        "area_radius_range",
        "area.without.radius_m",
    ),
    ("nothing in common", wire.Intersection(of=[polygon(box(0, 0, 1, 1)), polygon(box(2, 0, 3, 1))]),
    "area_empty_result", "area"),
    ("a border in common", wire.Intersection(of=[polygon(box(0, 0, 1, 1)), polygon(box(1, 0, 2, 1))]),
    "area_empty_result", "area"),
    ("all taken away", wire.Difference(of=polygon(box(1, 1, 2, 2)), without=polygon(SQUARE)), "area_empty_result",
    "area"),
    ("nothing of nothing", wire.Union(of=[wire.Difference(of=AROUND, without=AROUND)] * 2), "area_empty_result",
    "area"),
]  # fmt: skip


@pytest.mark.parametrize(("area", "code", "where"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_wrong_is_named(area: wire.Area, code: str, where: str) -> None:
    with pytest.raises(Refused) as refusal:
        shape_of(area)
    assert (refusal.value.code, refusal.value.where[: len(where)]) == (code, where)
    assert "{" not in refusal.value.message


COMB = [(0, 0), (9, 0), (9, 5), (7, 5), (7.5, 4), (8, 6), (0, 6), (0, 0)]
SPIRAL = [(lon, 60) for lon in (0, 80, 160, -120, -40, 40, 120, -160, -80)] + [(0, 61), (0, 60)]


@pytest.mark.parametrize(("rings", "where", "edges"), [
    ([[(0, 0), (4, 4), (4, 0), (0, 4), (0, 0)]], "[0][0]", ("edge 0 (vertices 0 and 1) of ring 0", "edge 2 (")),
    ([COMB], "[0][2]", ("edge 2 (vertices 2 and 3) of ring 0", "edge 4 (vertices 4 and 5) of ring 0")),
    ([SQUARE, box(3, 3, 6, 3.5)], "[0][1]", ("edge 1 (vertices 1 and 2) of ring 0", "of ring 1")),
    ([SQUARE, [(1, 1), (2, 2), (2, 1), (1, 2), (1, 1)]], "[1][0]",
    ("edge 0 (vertices 0 and 1) of ring 1", "edge 2 (vertices 2 and 3) of ring 1")),
    ([[(175, 0), (-175, 4), (-175, 0), (175, 4), (175, 0)]], "[0][0]", ("edge 0 (", "edge 2 (")),
    ([SPIRAL], "[0][4]", ("edge 4 (vertices 4 and 5) is round the earth for the second time",)),
], ids=("bow tie", "comb", "hole across the border", "hole", "antimeridian", "twice round"))  # fmt: skip
def test_the_edges_that_cross_are_named(rings: list[Any], where: str, edges: tuple[str, ...]) -> None:
    """As the caller numbers rings and vertices, from 0."""
    with pytest.raises(Refused, match="area_self_crossing") as refusal:
        shape_of(polygon(*rings))
    assert refusal.value.where == f"area.coordinates{where}"
    assert all(edge in refusal.value.message for edge in edges), refusal.value.message


def test_a_hole_outside_a_ring_round_a_pole() -> None:
    cap = [(lon, 70) for lon in (0, 90, 180, -90, 0)]
    with pytest.raises(Refused, match="area_hole_outside") as refusal:
        shape_of(polygon(cap, [(10, 80), (20, 80), (20, 60), (10, 80)]))
    assert refusal.value.where == "area.coordinates[1][2]"


def test_parts_that_overlap_past_the_antimeridian() -> None:
    with pytest.raises(Refused, match="area_parts_overlap") as refusal:
        shape_of(
            wire.MultiPolygon(
                coordinates=[[box(170, 0, 180, 10)], [[(178, 4), (-178, 4), (-178, 6), (178, 6), (178, 4)]]]
            )
        )
    assert refusal.value.where in {
        "area.coordinates[1][0][0]",
        "area.coordinates[1][0][3]",
        "area.coordinates[1][0][4]",
    }


def test_too_many_vertices_and_too_deep() -> None:
    around = np.linspace(0, 2 * np.pi, limits.VERTICES_MAX + 1)
    ring = [(float(x), float(y)) for x, y in zip(np.cos(around), np.sin(around), strict=True)]
    ring[-1] = ring[0]
    half = [*ring[::2], ring[0]]
    route = [(5.0, 52.0), (5.1, 52.0)] * limits.CORRIDOR_VERTICES_MAX
    for area, where in (
        (polygon(ring), "area.coordinates[0][10000]"),
        (polygon(half, half), "area.coordinates[1][4998]"),
        (wire.Union(of=[polygon(half)] * 3), "area.of[1].coordinates[0][4998]"),
        (wire.Corridor(line=route, radius_m=10), "area.line[1000]"),
    ):
        with pytest.raises(Refused, match="area_too_many_vertices") as refusal:
            shape_of(area)
        assert refusal.value.where == where
    area: wire.Area = wire.Everyone()
    for _ in range(limits.AREA_DEPTH_MAX):
        area = wire.Union(of=[area])
    with pytest.raises(Refused, match="area_too_deep"):
        shape_of(area)
    crowd = wire.Union(of=[wire.Union(of=[AROUND] * 501)] * 2)
    with pytest.raises(Refused, match="area_too_many_parts"):
        shape_of(crowd)


def test_larger_than_the_caller_may_address() -> None:
    shape = shape_of(wire.Circle(lon=5, lat=52, radius_m=10_000))
    assert shape.area_km2 == pytest.approx(314.16, rel=1e-3)
    check_size(shape, 315)
    with pytest.raises(Refused, match="area_too_large"):
        check_size(shape, 314)
    one_degree = shape_of(polygon(box(5, 52, 6, 53)))
    assert one_degree.area_km2 == pytest.approx(7_530, rel=0.01)
    assert shape_of(polygon(box(-180, -90, 180, 90))).area_km2 == pytest.approx(510_066_000, rel=1e-4)


def test_touching_parts_and_touching_holes_are_fine() -> None:
    parts = wire.MultiPolygon(coordinates=[[box(0, 0, 4, 4)], [box(4, 0, 6, 4)], [box(6, 4, 8, 8)]])
    index = PlaceIndex.build([4.0, 5.0, 6.0, 9.0], [2.0, 2.0, 4.0, 9.0])
    assert sorted(index.select(shape_of(parts)).tolist()) == [0, 1, 2]
    hole = [(0.0, 2.0), (2.0, 1.0), (2.0, 3.0), (0.0, 2.0)]
    index = PlaceIndex.build([0.0, 1.0, 2.0, 3.0], [2.0, 2.0, 2.0, 2.0])
    assert sorted(index.select(shape_of(polygon(SQUARE, hole))).tolist()) == [0, 2, 3], "a hole's border is inside"


def test_what_rounding_leaves_no_ground_is_left_out() -> None:
    speck = box(2, 2, 2 + 2e-9, 2 + 3e-9)
    index = PlaceIndex.build([2.0, 7.0], [2.0, 7.0])
    with_hole, far = polygon(SQUARE, speck), wire.MultiPolygon(coordinates=[[speck], [box(6, 6, 8, 8)]])
    assert index.select(shape_of(with_hole)).tolist() == [0]
    assert shape_of(with_hole).area_km2 == shape_of(polygon(SQUARE)).area_km2
    assert index.select(shape_of(far)).tolist() == [1]
    sliver = polygon(SQUARE, [(1.0, 1.0), (3.0, 1.0), (3.0, 1 + 1e-8), (1.0, 1.0)])
    assert shape_of(sliver).area_km2 == shape_of(polygon(SQUARE)).area_km2


def test_a_polygon_that_rounding_cuts_in_two_with_a_line_between() -> None:
    """GEOS answers with a collection of a multipolygon and a line; a caller got an internal error."""
    ring = [
        (-156.4139324, -89.775), (-156.3889324, -89.75), (-156.3639324, -89.775), (-156.3389324, -89.7),
        (-156.3389324, -89.7), (-156.5139324, -89.875), (-156.3889324, -89.825), (-156.4139324, -89.775),
    ]  # fmt: skip
    index = PlaceIndex.build([*(lon for lon, _ in ring), -156.5], [*(lat for _, lat in ring), -89.7])
    assert sorted(index.select(shape_of(polygon(ring))).tolist()) == list(range(len(ring))), "all corners, and no more"


def test_altitudes_and_boxes_of_geojson_are_passed_over() -> None:
    ring = b"[[5,52,1],[6,52],[6,53,-2.5],[5,52,1]]"
    for text in (b'{"type":"Polygon","bbox":[5,52,6,53],"coordinates":[%b]}' % ring,
                 b'{"type":"MultiPolygon","bbox":[5,52,-3,6,53,1],"coordinates":[[%b]]}' % ring):  # fmt: skip
        area = msgspec.json.decode(text, type=wire.Area)
        flat = polygon([(5, 52), (6, 52), (6, 53), (5, 52)])
        assert shape_of(area).area_km2 == shape_of(flat).area_km2
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(area), type=wire.Area) == area
        assert b"bbox" not in msgspec.json.encode(flat), "what was not said is not repeated"
    line = msgspec.json.decode(b'{"type":"Corridor","line":[[5,52,7],[6,52],[6,53,-2.5]],"radius_m":9}', type=wire.Area)
    assert np.array_equal(shape_of(line).vectors, shapes.corridor([(5, 52), (6, 52), (6, 53)], 9).vectors)
    for text in (b'{"type":"Point","coordinates":[5,52,1]}',
                 b'{"type":"LineString","bbox":[5,52,6,52],"coordinates":[[5,52,1],[6,52]]}'):  # fmt: skip
        centre = msgspec.json.decode(text, type=wire.Centre)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(centre), type=wire.Centre) == centre
    for points in (b"[5]", b"[5,52,1,1]"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(b'{"type":"Point","coordinates":%b}' % points, type=wire.Centre)
    for points in (b"[[5]]", b"[[5,52,1,1]]"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(b'{"type":"Polygon","coordinates":[%b]}' % points, type=wire.Area)


# --- antimeridian and poles -------------------------------------------------------------------------------------------

EDGE_OF_THE_WORLD = ([179.5, -179.5, 178.0, 0.0, 180.0, -180.0], [0.5] * 6)


@pytest.mark.parametrize(
    "area",
    [
        polygon([(179, 0), (-179, 0), (-179, 1), (179, 1), (179, 0)]),
        polygon([(-179, 0), (-179, 1), (179, 1), (179, 0), (-179, 0)]),
        wire.MultiPolygon(coordinates=[[box(179, 0, 180, 1)], [box(-180, 0, -179, 1)]]),
    ],
    ids=["eastward", "westward", "cut in two, as RFC 7946 has it"],
)
def test_the_antimeridian_may_be_crossed_both_ways(area: wire.Area) -> None:
    rows = PlaceIndex.build(*EDGE_OF_THE_WORLD).select(shape_of(area))
    assert sorted(rows.tolist()) == [0, 1, 4, 5]
    assert shape_of(area).area_km2 == pytest.approx(2 * 111.2**2, rel=0.01)


@pytest.mark.parametrize("turned", [False, True])
def test_parts_that_overlap_across_the_antimeridian(turned: bool) -> None:
    across, west = [(179.0, 0.0), (-179.0, 0.0), (-179.0, 1.0), (179.0, 1.0), (179.0, 0.0)], box(-180, 0, -179.5, 1)
    parts = [[west], [across]] if turned else [[across], [west]]
    with pytest.raises(Refused, match="area_parts_overlap") as refusal:
        shape_of(wire.MultiPolygon(coordinates=parts))
    assert refusal.value.where == f"area.coordinates[1][0][{int(turned)}]", "the vertex nearest to what they share"
    beside = box(-179, 0, -178, 1)
    assert shape_of(wire.MultiPolygon(coordinates=[[across], [beside]])).area_km2 > 0, "they touch"


def test_a_hole_beyond_the_antimeridian() -> None:
    outer = [(178.0, -2.0), (-178.0, -2.0), (-178.0, 2.0), (178.0, 2.0), (178.0, -2.0)]
    index = PlaceIndex.build([-179.0, 179.0, -179.0], [0.0, 0.0, 1.5])
    assert index.select(shape_of(polygon(outer, box(-179.5, -1, -178.5, 1)))).tolist() == [1, 2]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_ring_round_a_pole_encloses_it(sign: int) -> None:
    ring = [(0.0, 60.0 * sign), (90.0, 70.0 * sign), (180.0, 60.0 * sign), (-90.0, 70.0 * sign), (0.0, 60.0 * sign)]
    hole = [(20.0, 80.0 * sign), (-20.0, 80.0 * sign), (-20.0, 85.0 * sign), (20.0, 85.0 * sign), (20.0, 80.0 * sign)]
    lon = [0.0, 45.0, 180.0, -180.0, 179.0, -45.0, 0.0, 0.0, -170.0, 0.0]
    lat = [90.0, 66.0, 60.0, 60.0, 59.0, 64.0, 60.0, 59.9, 82.0, 82.0]
    index = PlaceIndex.build(lon, [y * sign for y in lat])
    assert sorted(index.select(shape_of(polygon(ring))).tolist()) == [0, 1, 2, 3, 6, 8, 9]
    assert sorted(index.select(shape_of(polygon(ring, hole))).tolist()) == [0, 1, 2, 3, 6, 8]
    across = [
        (160.0, 80.0 * sign),
        (-160.0, 80.0 * sign),
        (-160.0, 85.0 * sign),
        (160.0, 85.0 * sign),
        (160.0, 80.0 * sign),
    ]
    assert sorted(index.select(shape_of(polygon(ring, across))).tolist()) == [0, 1, 2, 3, 6, 9]


# --- GeoJSON ----------------------------------------------------------------------------------------------------------


def test_geojson_objects() -> None:
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": [SQUARE]}
    far = {"type": "MultiPolygon", "coordinates": [[box(10, 10, 11, 11)]]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {}}
    index = PlaceIndex.build([1.0, 10.5], [1.0, 10.5])
    assert index.select(from_geojson(geometry)).tolist() == [0]
    assert index.select(from_geojson(feature)).tolist() == [0]
    both = {"type": "FeatureCollection", "features": [feature, {"type": "Feature", "geometry": far}]}
    assert index.count(from_geojson(both)) == 2
    assert index.count(from_geojson({"type": "GeometryCollection", "geometries": [geometry, far]})) == 2
    with pytest.raises(Refused, match="area_empty"):
        from_geojson({"type": "Point", "coordinates": [0, 0]})


@settings(max_examples=2_000)
@given(st.integers(0, 2**32 - 1), st.sampled_from(worlds.PLACES), st.sampled_from(worlds.POLYGONS))
def test_geojson_as_geos_reads_it(seed: int, place: str, case: str) -> None:
    """One kind an example: that it is read as drawn; `test_index.py` has two thousand of each."""
    random = np.random.default_rng(seed)
    on = worlds.frame(random, place)
    geometry = worlds.polygon(random, on, case)
    lon, lat = worlds.points(random, on, geometry)
    folded = shapely.transform(
        geometry, lambda xy: np.column_stack([np.where(xy[:, 0] > 1.8e9, xy[:, 0] - 3.6e9, xy[:, 0]), xy[:, 1]]) / 1e7
    )
    shape = from_geojson(shapely.geometry.mapping(folded))
    rows = PlaceIndex.build_ordered(lon, lat, shift=18)[0].select(shape)
    assert set(rows.tolist()) == naive_geo.covered(geometry, lon, lat), case


@settings(max_examples=2_000)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=8))
def test_the_gate_agrees_with_geos_on_validity(ring: list[tuple[int, int]]) -> None:
    closed = [(float(x), float(y)) for x, y in [*ring, ring[0]]]
    valid = len(set(closed)) >= 3 and shapely.Polygon(closed).is_valid
    taken = True
    try:
        shape_of(polygon(closed))
    except Refused:
        taken = False
    assert taken == valid
