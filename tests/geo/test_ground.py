"""What is called empty is empty, and what has ground is not: against GEOS for polygons, by sampling for circles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.geo import EVERYONE, circle, corridor, ground, shapes
from fanout.geo.areas import NamedAreas
from fanout.geo.ground import _Ground, is_empty
from tests.geo import naive_geo, worlds
from tests.geo.test_index import shape_of_geometry

Difference, Intersection, Union = shapes.Difference, shapes.Intersection, shapes.Union
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=2_000)
@given(SEEDS, st.sampled_from(("anywhere", "antimeridian")), st.sampled_from(worlds.POLYGONS[1:]))
def test_set_operations_on_polygons_have_the_ground_that_geos_finds(seed: int, place: str, case: str) -> None:
    random = np.random.default_rng(seed)
    on = worlds.frame(random, place)._replace(step=int(random.choice([7, 65_536])))
    one, two = (worlds.polygon(random, on, kind) for kind in (case, "boxes"))
    if random.random() < 0.3:
        two = shapely.envelope(one)
    a, b = shape_of_geometry(one), shape_of_geometry(two)
    shape, left = (
        lambda: (Intersection((a, b)), shapely.intersection(one, two)),
        lambda: (Difference(a, b), shapely.difference(one, two)),
        lambda: (Difference(Union((a, b)), a), shapely.difference(two, one)),
        lambda: (Difference(Intersection((a, b)), b), shapely.Polygon()),
    )[int(random.integers(4))]()
    if left.area == 0 or not shapely.buffer(left, -1).is_empty:  # a sliver narrower than that may be called nothing
        assert is_empty(shape) == (left.area == 0)


@settings(max_examples=2_000)
@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(1, 2e7), SEEDS)
def test_a_circle_lies_between_its_outlines(lon: float, lat: float, radius_m: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    around = circle(lon, lat, radius_m)
    within, outer = _Ground().within(around), _Ground().around(around)
    towards, share = random.uniform(0, 2 * np.pi, 16), random.choice([0.99, 0.9999, 1.0001, 1.01], 16)
    step = share * radius_m / naive_geo.RADIUS_M
    here = np.radians(around.lat / 1e7)
    sine = np.sin(here) * np.cos(step) + np.cos(here) * np.sin(step) * np.cos(towards)
    east = np.arctan2(np.sin(towards) * np.sin(step) * np.cos(here), np.cos(step) - np.sin(here) * sine)
    x = (around.lon + np.degrees(east) * 1e7 + 1.8e9) % 3.6e9 - 1.8e9
    y = np.degrees(np.arcsin(np.clip(sine, -1, 1))) * 1e7
    inside = naive_geo.distances_m(around.lon, around.lat, np.rint(x).astype(np.int64), np.rint(y)) <= radius_m
    points = shapely.points(x, y)
    room = 2.0  # a unit or two of rounding, when a circle is a few metres wide
    assert shapely.dwithin(points[inside], outer, room).all()
    sure = shapely.covers(within, points) & ~shapely.dwithin(within.boundary, points, room)
    assert not (sure & ~inside).any()


NEAR, FAR = circle(5.0, 52.0, 1_000), circle(6.0, 52.0, 1_000)
ROUTE = corridor([(4.9, 52.0), (5.1, 52.0)], 500)
TOWN = shape_of_geometry(shapely.box(49_000_000, 519_000_000, 51_000_000, 521_000_000))
CLOSEST = shapes.Nearest(50_000_000, 520_000_000, 10)
POLE = circle(0.0, 89.0, 500_000)


@pytest.mark.parametrize(
    "shape",
    [
        Difference(NEAR, NEAR), Difference(NEAR, circle(5.0, 52.001, 1_200)), Intersection((NEAR, FAR)),
        Difference(NEAR, EVERYONE), Difference(ROUTE, ROUTE), Difference(CLOSEST, CLOSEST),
        Difference(CLOSEST, EVERYONE), Difference(NEAR, TOWN), Intersection((ROUTE, FAR)),
        Difference(TOWN, circle(5.0, 52.0, 30_000)), Intersection((NEAR, Difference(TOWN, NEAR), FAR)),
        Union((Difference(NEAR, NEAR), Intersection((NEAR, FAR)))), Difference(NEAR, Union((FAR, NEAR))),
        Intersection((POLE, NEAR)),
    ],
)  # fmt: skip
def test_empty_by_construction(shape: shapes.Shape) -> None:
    assert is_empty(shape)


@pytest.mark.parametrize(
    "shape",
    [
        NEAR, ROUTE, EVERYONE, CLOSEST, Difference(NEAR, FAR), Difference(circle(5.0, 52.0, 1_001), NEAR),
        Difference(NEAR, ROUTE), Difference(EVERYONE, TOWN), Intersection((NEAR, ROUTE)), Difference(NEAR, CLOSEST),
        Intersection((CLOSEST, FAR)), Union((NEAR, Difference(FAR, FAR))), Difference(POLE, circle(0.0, 90.0, 300_000)),
        Intersection((POLE, circle(120.0, 88.0, 1_000))),
    ],
)  # fmt: skip
def test_not_empty_or_not_certainly(shape: shapes.Shape) -> None:
    assert not is_empty(shape)


def test_the_first_of_many_with_ground_ends_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Union(tuple(circle(4.0 + at / 400, 52.0, 5_000) for at in range(900)))
    made: list[shapes.Circle] = []
    outline = ground._of_circle
    monkeypatch.setattr(ground, "_of_circle", lambda one, around: made.append(one) or outline(one, around))
    for shape in (Difference(crowd, circle(5.0, 52.0, 100)), Intersection((crowd, TOWN)), Intersection((TOWN, crowd))):
        made.clear()
        assert not is_empty(shape)
        assert len(made) < 400, "those west of the town are looked at, and those in it no more"
    assert is_empty(Difference(crowd, circle(5.0, 52.0, 500_000)))
    assert is_empty(Difference(crowd, crowd)), "each is in itself"
    assert is_empty(Intersection((Union((NEAR, FAR)), Union((circle(4.0, 52.0, 10), circle(5.0, 53.0, 10))))))


def test_countries_with_all_their_islands(tmp_path: Path) -> None:
    areas = NamedAreas.open(tmp_path)
    fiji, chile = areas("country", "Fiji"), areas("country", "Chile")
    assert fiji is not None
    assert chile is not None
    assert is_empty(Intersection((fiji, chile)))
    assert is_empty(Difference(fiji, Union((chile, fiji)))), "across the antimeridian"
    assert not is_empty(Difference(chile, fiji))
