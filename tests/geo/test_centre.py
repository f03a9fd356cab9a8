"""From where "nearest first" counts: the centroid on the sphere, and of scattered areas that of the largest part."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.geo import from_geojson
from fanout.geo.areas import NamedAreas
from fanout.geo.fixed import SCALE
from fanout.geo.shapes import Shape, centre_of
from tests.geo import naive_geo


def centre(shape: Shape) -> tuple[float, float]:
    found = centre_of(shape)
    assert found is not None
    return found[0] / SCALE, found[1] / SCALE


def apart_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    return naive_geo.haversine_m(*(round(value * SCALE) for value in (*one, *other))) / 1_000


def at(geometry: shapely.Geometry) -> tuple[float, float]:
    return centre(from_geojson(geometry))


def test_what_is_cut_at_the_antimeridian_is_one() -> None:
    halves = shapely.MultiPolygon([shapely.box(177, -19, 180, -16), shapely.box(-180, -19, -179, -16)])
    whole = {"type": "Polygon", "coordinates": [[(177, -19), (-179, -19), (-179, -16), (177, -16), (177, -19)]]}
    assert at(halves) == pytest.approx((179.0, -17.50), abs=0.01)
    assert centre(from_geojson(whole)) == pytest.approx(at(halves), abs=1e-6)
    far = shapely.MultiPolygon([*halves.geoms, shapely.box(-40, 0, -36.8, 3.2)])
    assert at(far) == pytest.approx(at(halves), abs=1e-6), "each half is smaller than the island, and both are more"


@pytest.mark.parametrize(
    ("country", "around", "km"),
    [
        ("Fiji", (178.5, -17.5), 60), ("NZL", (172.9, -41.5), 100), ("USA", (-103.6, 44.7), 150),
        ("RUS", (96.7, 66.2), 200), ("NLD", (5.3, 52.2), 80), ("FRA", (2.5, 46.5), 80), ("Kiribati", (-157.4, 1.9), 60),
    ],
)  # fmt: skip
def test_countries_have_their_middle_on_their_own_side_of_the_world(
    country: str, around: tuple[float, float], km: float, tmp_path: Path
) -> None:
    shape = NamedAreas.open(tmp_path)("country", country)
    assert shape is not None
    assert apart_km(centre(shape), around) < km


def test_islands_near_each_other_share_a_middle_and_far_ones_do_not() -> None:
    two = [shapely.box(0, 0, 1, 1), shapely.box(1.2, 0, 2.2, 1)]
    assert at(shapely.MultiPolygon(two)) == pytest.approx((1.1, 0.5), abs=1e-3)
    scattered = [shapely.box(5, 52, 6, 53), shapely.box(-68.4, 12, -68.2, 12.3), shapely.box(-58, -30, -56.9, -29)]
    assert at(shapely.MultiPolygon(scattered)) == at(scattered[2]), "the largest on the globe, not in degrees"


def test_holes_weigh_nothing() -> None:
    eccentric = shapely.Polygon(shapely.box(0, 0, 3, 1).exterior, [shapely.box(0.1, 0.1, 1.5, 0.9).exterior])
    assert at(eccentric)[0] > 1.9


def test_where_ground_lies_to_all_sides_the_middle_is_that_of_the_box() -> None:
    assert at(shapely.box(-180, -90, 180, 90)) == (0, 0)
    assert at(shapely.box(-180, -10, 180, 10)) == (0, 0)
    assert at(shapely.box(-180, 80, 180, 90))[1] == 90


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.sampled_from((1e-5, 0.01, 1, 20)))
def test_the_centroid_is_the_mean_of_points_drawn_from_the_ground(seed: int, size_deg: float) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform([-200, -75], [150, 75 - size_deg])
    shape = shapely.convex_hull(shapely.MultiPoint(corner + random.uniform(0, size_deg, (6, 2))))
    grid = corner + np.stack(np.meshgrid(*[np.linspace(0, size_deg, 80)] * 2), -1).reshape(-1, 2)
    lon, lat = np.radians(grid[shapely.contains_xy(shape, *grid.T)]).T
    weights = np.cos(lat)
    mean = np.array([(weights * np.cos(lat) * np.cos(lon)).sum(), (weights * np.cos(lat) * np.sin(lon)).sum(),
                     (weights * np.sin(lat)).sum()])  # fmt: skip
    wanted = math.degrees(math.atan2(mean[1], mean[0])), math.degrees(math.asin(mean[2] / np.linalg.norm(mean)))
    folded = shapely.transform(shape, lambda xy: np.column_stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]]))
    if len(lon) > 300:
        assert apart_km(at(folded), wanted) < 0.03 * size_deg * 111 + 1e-4
