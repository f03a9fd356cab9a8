"""Documents to features: collections in collections, several objects, and what is no map."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.errors import Refused
from fanout.geo.topojson import Feature, features_of

ARCS = [[[0, 0], [1, 0], [1, 1], [0, 0]], [[5, 5], [6, 5], [6, 6], [5, 5]], [[8, 8], [9, 8], [9, 9], [8, 8]]]


def topology(**objects: Any) -> dict[str, Any]:
    return {"type": "Topology", "arcs": ARCS, "objects": objects}


def polygon(arc: int, **properties: Any) -> dict[str, Any]:
    return {"type": "Polygon", "arcs": [[arc]]} | ({"properties": properties} if properties else {})


def collection(*members: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"type": "GeometryCollection", "geometries": list(members)} | (
        {"properties": properties} if properties else {}
    )


def corners(feature: Feature) -> list[tuple[float, float]]:
    return [rings[0][0] for rings in feature.polygons]


def test_a_collection_among_features_is_a_feature_of_many_parts() -> None:
    members = (polygon(0, name="one"), collection(polygon(1), collection(polygon(2)), name="two"), {"type": None})
    one, two = features_of(topology(towns=collection(*members)), "file")
    assert (one.properties["name"], corners(one)) == ("one", [(0, 0)])
    assert (two.properties["name"], corners(two)) == ("two", [(5, 5), (8, 8)])


def test_a_collection_of_features_in_a_collection_is_features() -> None:
    inner = collection(polygon(0, name="one"), polygon(1, name="two"))
    found = list(features_of(topology(towns=collection(inner, polygon(2, name="three"))), "file"))
    assert [feature.properties.get("name") for feature in found] == ["one", "two", "three"]


def test_features_say_of_which_object_they_are() -> None:
    found = list(features_of(topology(land=collection(polygon(0), polygon(1)), towns=polygon(2, name="c")), "file"))
    assert [(feature.of, len(feature.polygons)) for feature in found] == [("land", 2), ("towns", 1)]


def test_a_feature_alone_and_those_without_ground() -> None:
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    alone = {"type": "Feature", "id": 7, "geometry": square, "properties": {"name": "a"}}
    assert [feature.properties for feature in features_of(alone, "file")] == [{"name": "a", "id": 7}]
    empty = [alone | {"geometry": geometry} for geometry in (
        None, {"type": "Point", "coordinates": [1, 1]}, {"type": "Polygon", "coordinates": []},
        {"type": "MultiPolygon", "coordinates": []}, {"type": "GeometryCollection", "geometries": []},
    )]  # fmt: skip
    assert list(features_of({"type": "FeatureCollection", "features": empty}, "file")) == []


DEEP = collection(polygon(0))
for _ in range(2_000):
    DEEP = collection(DEEP)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ([], "areas_unreadable"), ({"type": "Polygon"}, "areas_unreadable"),
        (topology(towns=DEEP), "area_too_deep"), (topology(towns=collection(DEEP, name="a")), "area_too_deep"),
        (topology(towns=collection(polygon(99, name="a"))), "areas_unreadable"),
        (topology(towns=collection(polygon(0) | {"properties": "a"})), "areas_unreadable"),
        ({"type": "Topology", "arcs": ARCS, "objects": {}, "transform": {"scale": [1], "translate": [0, 0]}},
         "areas_unreadable"),
        ({"type": "FeatureCollection"}, "areas_unreadable"),
        ({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": 5}}, "area_unreadable"),
    ],
)  # fmt: skip
def test_what_is_no_map_is_refused(document: Any, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        list(features_of(document, "file"))
    assert refusal.value.code == code
    assert refusal.value.where.startswith("file")
