"""Named areas: imported whole, found by name or code; countries come along."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fanout import wire
from fanout.errors import Refused
from fanout.geo import PlaceIndex
from fanout.geo.areas import NamedAreas, shape_of

TOPOLOGY = {
    "type": "Topology",
    "transform": {"scale": [0.1, 0.1], "translate": [5.0, 52.0]},
    "arcs": [[[10, 0], [0, 10]], [[10, 10], [-10, 0], [0, -10], [10, 0]], [[10, 0], [10, 0], [0, 10], [-10, 0]]],
    "objects": {
        "towns": {
            "type": "GeometryCollection",
            "geometries": [
                {"type": "Polygon", "arcs": [[0, 1]], "properties": {"naam": "West", "code": "GM1"}},
                {"type": "MultiPolygon", "arcs": [[[2, -1]]], "properties": {"naam": "Oost"}},
            ],
        }
    },
}


def test_countries_come_with_the_project(tmp_path: Path) -> None:
    areas = NamedAreas.open(tmp_path / "none yet")
    assert areas.kinds()["country"] > 230
    cities = PlaceIndex.build([6.56, 4.35, 178.0, -70.6, 5.9], [53.22, 50.85, -17.8, -33.4, 50.8])
    for name, rows in (("NLD", [0]), ("be", [1]), ("Fiji", [2]), ("Chile", [3]), ("Antarctica", [])):
        shape = shape_of(wire.Named(kind="country", name=name), areas)
        assert [row for row in cities.select(shape).tolist() if row < 4] == rows
    assert sum(shape_of(wire.Named(kind="country", name=n), areas).area_km2 for n in areas.names("country")) == (
        pytest.approx(146.5e6, rel=0.01)
    ), "the land of the earth"


def test_topojson_is_imported_and_found_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "towns.json"
    path.write_text(json.dumps(TOPOLOGY))
    NamedAreas.open(tmp_path / "areas").import_file(path, kind="municipality", name_field="naam")
    areas = NamedAreas.open(tmp_path / "areas")
    assert areas.names("municipality") == ["Oost", "West"]
    index = PlaceIndex.build([5.5, 6.5, 6.0], [52.5, 52.5, 52.5])
    west, east = areas("municipality", "gm1"), areas("municipality", "oost")
    assert west is not None
    assert east is not None
    assert sorted(index.select(west).tolist()) == [0, 2]
    assert sorted(index.select(east).tolist()) == [1, 2], "a common border belongs to both"
    assert areas("municipality", "Zuid") is None
    assert areas("province", "West") is None


def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    areas = NamedAreas.open(tmp_path / "areas")
    path = tmp_path / "towns.json"
    path.write_text(json.dumps(TOPOLOGY))
    areas.import_file(path, kind="municipality", name_field="naam")
    for text, name_field, told in (
        ("{", "naam", "towns.json"),
        ('{"type": "Feature"}', "naam", "towns.json"),
        (json.dumps(TOPOLOGY), "name", "feature 0"),
        (json.dumps(TOPOLOGY | {"arcs": []}), "naam", "towns.json"),
        (json.dumps(TOPOLOGY | {"transform": {"scale": [99, 99], "translate": [0, 0]}}), "naam", "towns.json, West"),
    ):
        path.write_text(text)
        with pytest.raises(Refused) as refusal:
            areas.import_file(path, kind="municipality", name_field=name_field)
        assert told in refusal.value.where
        assert areas.names("municipality") == ["Oost", "West"]


def test_dutch_municipalities_cover_the_country_once(shared_data: Path, tmp_path: Path) -> None:
    areas = NamedAreas.open(tmp_path)
    assert (
        areas.import_file(shared_data / "geo" / "gemeenten_342_detail.geojson", kind="gemeente", name_field="naam")
        == 342
    )
    assert areas.import_file(shared_data / "geo" / "provincies_12.geojson", kind="provincie", name_field="naam") == 12
    gemeenten = sum(areas("gemeente", name).area_km2 for name in areas.names("gemeente"))
    provincies = sum(areas("provincie", name).area_km2 for name in areas.names("provincie"))
    assert gemeenten == pytest.approx(provincies, rel=1e-4)
