"""GeoJSON in every form is read, and what is none is refused with the place of it; nothing raises but refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import mapping

from fanout import limits
from fanout.errors import Refused
from fanout.geo import PlaceIndex, from_geojson, geojson, shapes

TOWN = shapely.box(4, 51, 6, 53)
SHORE = shapely.box(7, 51, 8, 53)
NOWHERE: dict[str, Any] = {"type": "Feature", "geometry": None, "properties": {}}


class Drawn:
    """What a library of maps hands over."""

    @property
    def __geo_interface__(self) -> dict[str, Any]:
        return feature(mapping(TOWN))


def feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {}}


@pytest.mark.parametrize(
    "document",
    [
        mapping(TOWN), TOWN, Drawn(), shapely.to_geojson(TOWN), shapely.to_geojson(TOWN).encode(),
        {"type": "Polygon", "coordinates": [shapely.get_coordinates(TOWN)]},
        {"type": "Polygon", "coordinates": shapely.get_coordinates(TOWN)[None]},
        {"type": "Polygon", "coordinates": [[[*point, 17.5] for point in shapely.get_coordinates(TOWN).tolist()]]},
        {"type": "Polygon", "coordinates": [[*shapely.get_coordinates(TOWN).tolist()[:-1], [6, 51, 3]]]},
        feature(TOWN), {"type": "FeatureCollection", "features": [NOWHERE, feature(mapping(TOWN)), None]},
        shapely.GeometryCollection([shapely.Point(1, 1), TOWN, shapely.LineString([(0, 0), (1, 1)])]),
        {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": []}, TOWN]},
    ],
)  # fmt: skip
def test_every_form_of_a_document(document: Any) -> None:
    index = PlaceIndex.build([5.0, 7.5], [52.0, 52.0])
    assert index.select(from_geojson(document)).tolist() == [0]


def test_a_collection_is_the_union_of_what_has_ground() -> None:
    flat = shapely.box(1, 1, 2, 1 + 1e-9)
    both = {"type": "FeatureCollection", "features": [feature(TOWN), NOWHERE, feature(flat), feature(mapping(SHORE))]}
    shape = from_geojson(both)
    assert isinstance(shape, shapes.Union)
    assert PlaceIndex.build([5.0, 7.5, 1.0], [52.0, 52.0, 1.0]).count(shape) == 2


NESTED: dict[str, Any] = mapping(TOWN)
for _ in range(2_000):
    NESTED = {"type": "GeometryCollection", "geometries": [NESTED]}

WRONG: list[tuple[Any, str, str]] = [
    ({"type": "Polygon"}, "area_unreadable", ""),
    ({"type": "Polygon", "coordinates": None}, "area_unreadable", "coordinates"),
    ({"type": "Polygon", "coordinates": "far away"}, "area_unreadable", "coordinates"),
    ({"type": "Polygon", "coordinates": [5]}, "area_unreadable", "coordinates[0]"),
    ({"type": "MultiPolygon", "coordinates": [[[5]]]}, "area_unreadable", "coordinates[0][0][0]"),
    ({"type": "Polygon", "coordinates": [[[0, 0], ["a", "b"], [1, 1], [0, 0]]]}, "area_unreadable",
    "coordinates[0][1]"),
    ({"type": "Polygon", "coordinates": [[[1, 2], [1], [2, 2], [1, 2]]]}, "area_unreadable", "coordinates[0][1]"),
    ({"type": "Polygon", "coordinates": [[[1, 2], ["3", "4"], [2, 2], [1, 2]]]}, "area_unreadable",
    "coordinates[0][1]"),
    ({"type": "Polygon", "coordinates": [[[0, 0], {}, None, [0, 0]]]}, "area_unreadable", "coordinates[0][1]"),
    ({"type": "Polygon", "coordinates": []}, "area_empty", ""),
    ({"type": "Point", "coordinates": [5, 52]}, "area_empty", ""),
    (shapely.Polygon(), "area_empty", ""),
    (NOWHERE, "area_empty", ""),
    ({"type": "Feature"}, "area_unreadable", ""),
    ({"type": "Circle"}, "area_unreadable", ""),
    ({"type": "FeatureCollection", "features": [NOWHERE, feature({"type": "Polygon", "coordinates": [[[0, 0]]]})]},
    "area_ring_too_short", "features[1].geometry.coordinates[0]"),
    ({"type": "FeatureCollection", "features": [NOWHERE, {"geometry": None}]}, "area_unreadable", "features[1]"),
    ({}, "area_unreadable", ""), (None, "area_unreadable", ""), (5, "area_unreadable", ""),
    (np.zeros(3), "area_unreadable", ""), ([], "area_unreadable", ""),
    ("{", "area_unreadable", ""), (b"\xff", "area_unreadable", ""), ("null", "area_unreadable", ""),
    ("[" * 100_000, "area_unreadable", ""),
    (NESTED, "area_too_deep", "geometries[0].geometries[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "code", "where"), WRONG)
def test_what_is_no_area_is_refused(document: Any, code: str, where: str) -> None:
    with pytest.raises(Refused) as refusal:
        from_geojson(document)
    assert (refusal.value.code, refusal.value.where[: len(where) or None]) == (code, where)


def test_vertices_and_areas_are_counted_over_the_whole_document() -> None:
    around = np.linspace(0, 2 * np.pi, 9_000, endpoint=False)
    ring = np.column_stack([np.cos(around), np.sin(around)])
    round_town = mapping(shapely.Polygon(ring))
    with pytest.raises(Refused, match="area_too_many_vertices") as refusal:
        from_geojson({"type": "FeatureCollection", "features": [feature(round_town)] * 3})
    assert refusal.value.where == "features[1].geometry.coordinates[0][999]"
    with pytest.raises(Refused, match="area_too_many_parts") as refusal:
        from_geojson({"type": "GeometryCollection", "geometries": [TOWN] * (limits.AREA_PARTS_MAX + 1)})
    assert refusal.value.where == f"geometries[{limits.AREA_PARTS_MAX}].coordinates"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-200, 200) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(("type", "coordinates")), inner),
    max_leaves=20,
)
TYPES = st.sampled_from(
    ("Polygon", "MultiPolygon", "Feature", "FeatureCollection", "GeometryCollection", "Point", "", None)
)
OBJECTS = st.recursive(
    st.fixed_dictionaries({"type": TYPES, "coordinates": JSON}),
    lambda inner: st.fixed_dictionaries(
        {"type": TYPES},
        optional={"geometry": inner | JSON, "features": st.lists(inner | JSON), "geometries": st.lists(inner) | JSON},
    ),
    max_leaves=6,
)


@settings(max_examples=500)
@given(OBJECTS, st.booleans())
def test_nothing_but_refusals_comes_back_from_nonsense(document: dict[str, Any], as_text: bool) -> None:
    code = "area_"
    try:
        assert from_geojson(json.dumps(document) if as_text else document).area_km2 > 0
    except Refused as refusal:
        code = refusal.code
    assert code.startswith("area_")


def test_places_may_be_named_after_something() -> None:
    with pytest.raises(Refused) as refusal:
        list(geojson.geometries_of({"type": "Polygon", "coordinates": 1}, "file, feature 3, "))
    assert refusal.value.where == "file, feature 3, coordinates"
