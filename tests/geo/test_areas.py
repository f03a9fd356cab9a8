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


@pytest.mark.parametrize(("detail", "countries"), [("110m", 177), ("50m", 241)])
def test_world_maps_have_countries_and_a_nameless_land(
    detail: str, countries: int, shared_data: Path, tmp_path: Path
) -> None:
    areas, path = NamedAreas.open(tmp_path), shared_data / "world" / f"countries-{detail}.json"
    assert areas.import_file(path, kind="land", name_field="name") == countries
    assert areas.import_file(path, kind="land", name_field="name", of="countries") == countries
    fiji = areas("land", "fiji")
    assert fiji is not None
    assert fiji.area_km2 == pytest.approx(18_300, rel=0.1)
    with pytest.raises(Refused, match="areas_unreadable"):
        areas.import_file(path, kind="land", name_field="name", of="land")
    with pytest.raises(Refused, match="countries, land"):
        areas.import_file(path, kind="land", name_field="name", of="sea")


def test_objects_without_a_name_are_left_aside_and_nameless_features_of_others_are_not(tmp_path: Path) -> None:
    areas, path = NamedAreas.open(tmp_path / "areas"), tmp_path / "towns.json"
    west, east = TOPOLOGY["objects"]["towns"]["geometries"]  # type: ignore[index]
    nameless = {"type": "Polygon", "arcs": [[0, 1]]}

    def written(**objects: list[object]) -> None:
        collections = {name: {"type": "GeometryCollection", "geometries": members} for name, members in objects.items()}
        path.write_text(json.dumps(TOPOLOGY | {"objects": collections}))

    written(land=[nameless], towns=[west, east])
    assert areas.import_file(path, kind="town", name_field="naam") == 2
    written(towns=[west, nameless])
    with pytest.raises(Refused, match="areas_unreadable") as refusal:
        areas.import_file(path, kind="town", name_field="naam")
    assert refusal.value.where == "towns.json, feature 1"


def test_a_feature_alone_is_an_area(tmp_path: Path) -> None:
    areas, path = NamedAreas.open(tmp_path / "areas"), tmp_path / "town.json"
    square = {"type": "Polygon", "coordinates": [[[5, 52], [6, 52], [6, 53], [5, 52]]]}
    alone = {"type": "Feature", "properties": {"naam": "West"}, "geometry": square}
    path.write_text(json.dumps(alone))
    assert areas.import_file(path, kind="town", name_field="naam") == 1
    for coordinates, code, where in (
        ([], "areas_unreadable", "town.json"),
        ([[[5, 52], [6, None], [6, 53], [5, 52]]], "area_unreadable", "town.json, West, polygon 0, ring 0[1]"),
        ([5], "area_unreadable", "town.json, feature 0, geometry.coordinates[0]"),
        ([[[5, 52]] * 4], "area_empty", "town.json, West"),
    ):
        path.write_text(json.dumps(alone | {"geometry": {"type": "Polygon", "coordinates": coordinates}}))
        with pytest.raises(Refused) as refusal:
            areas.import_file(path, kind="town", name_field="naam")
        assert (refusal.value.code, refusal.value.where) == (code, where)


def test_kinds_have_files_of_their_own_inside_the_folder(tmp_path: Path) -> None:
    folder, path = tmp_path / "in" / "areas", tmp_path / "towns.json"
    path.write_text(json.dumps(TOPOLOGY))
    areas = NamedAreas.open(folder)
    kinds = ["a b", "a-b", "a_b", "ab", "veiligheidsregio", "Gemeente 2024", "município"]
    for kind in kinds:
        areas.import_file(path, kind=kind, name_field="naam")
    assert set(NamedAreas.open(folder).kinds()) == {"country", *kinds}
    for kind in ("../../x", "", ".", "a/b", " a", "a" * 41, "a\0", "a+b"):
        with pytest.raises(Refused, match="area_kind_invalid"):
            areas.import_file(path, kind=kind, name_field="naam")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name not in ("in", "towns.json")] == []


def test_a_kind_kept_under_another_name_is_not_found_twice(tmp_path: Path) -> None:
    path = tmp_path / "towns.json"
    path.write_text(json.dumps(TOPOLOGY))
    NamedAreas.open(tmp_path).import_file(path, kind="a b", name_field="naam")
    (tmp_path / "a+b.areas").rename(tmp_path / "a-b.areas")
    path.write_text(json.dumps(TOPOLOGY).replace("West", "Noord"))
    NamedAreas.open(tmp_path).import_file(path, kind="a b", name_field="naam")
    assert NamedAreas.open(tmp_path).names("a b") == ["Noord", "Oost"]


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


def test_features_that_stand_there_twice_and_names_typed_in_other_ways(tmp_path: Path) -> None:
    areas, path = NamedAreas.open(tmp_path / "areas"), tmp_path / "towns.json"

    def town(name: str, west: int) -> dict[str, object]:
        ring = [[west, 52], [west + 1, 52], [west + 1, 53], [west, 52]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "properties": {"naam": name}, "geometry": geometry}

    towns = [town("Bergen", 5), town("BERGEN", 7), town("Su\u0301dwest", 9), town("Bergen", 5)]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": towns}))
    assert areas.import_file(path, kind="town", name_field="naam") == 3
    index = PlaceIndex.build([5.8, 7.8, 9.8], [52.2, 52.2, 52.2])
    for name, rows in (("Bergen", [0]), ("BERGEN", [1]), ("s\u00fadwest", [2]), ("Su\u0301dwest", [2])):
        shape = areas("town", name)
        assert shape is not None
        assert index.select(shape).tolist() == rows, name
