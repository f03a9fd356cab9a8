"""Circles and lines made by hand: every number type measures alike, and what makes no shape is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fanout.errors import Refused
from fanout.geo import PlaceIndex, circle, corridor


@pytest.mark.parametrize("number", [float, np.float64, np.float32, np.float16, int, np.int8])
def test_a_coordinate_is_its_value_whatever_its_type(number: type) -> None:
    lon, lat = number(-123.456789), number(5.123456)
    made = circle(lon, lat, number(100))
    assert (made.lon, made.lat) == (round(float(lon) * 1e7), round(float(lat) * 1e7))
    assert isinstance(made.lon, int)
    assert isinstance(made.radius_m, float)


def test_a_line_of_one_point_is_a_circle() -> None:
    random = np.random.default_rng(1)
    index = PlaceIndex.build(random.uniform(4.9, 5.1, 2_000), random.uniform(51.9, 52.1, 2_000))
    rows = index.select(corridor([(5.0, 52.0)], 5_000.0))
    assert rows.size > 100
    assert np.array_equal(np.sort(rows), np.sort(index.select(circle(5.0, 52.0, 5_000.0))))
    assert corridor([(5.0, 52.0)], 5_000.0).area_km2 == pytest.approx(circle(5.0, 52.0, 5_000.0).area_km2, rel=1e-3)


@pytest.mark.parametrize(
    ("line", "code", "where"),
    [
        ([], "area_empty", "line"),
        ([(0.0, 0.0), (180.0, 0.0)], "area_line_ambiguous", "line[1]"),
        ([(5.0, 52.0), (6.0, 52.0), (-174.0, -52.0)], "area_line_ambiguous", "line[2]"),
        ([(0.0, 90.0), (77.0, -90.0)], "area_line_ambiguous", "line[1]"),
        ([(5.0, 52.0), (5.0, 91.0)], "area_coordinate_range", "line[1]"),
    ],
)
def test_lines_that_lead_nowhere(line: list[tuple[float, float]], code: str, where: str) -> None:
    with pytest.raises(Refused) as refusal:
        corridor(line, 50.0)
    assert (refusal.value.code, refusal.value.where) == (code, where)


def test_nearly_half_the_world_is_one_line() -> None:
    index = PlaceIndex.build([90.0, 90.0, -90.0], [0.0, 1.0, 0.0])
    assert index.select(corridor([(0.0, 0.0), (179.999, 0.0)], 50.0)).tolist() == [0]
