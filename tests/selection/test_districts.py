"""People by district: of the place, or the live position, that decides; found for a base before it is in force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout import wire
from fanout.geo import EVERYONE, PlaceIndex, circle, shapes
from fanout.geo.areas import NamedAreas
from fanout.registry.registry import Registry
from fanout.selection import Query, districts
from fanout.selection.districts import Districts
from fanout.selection.mapping.kernels import NOWHERE
from fanout.selection.preview import reach
from fanout.simulators import nation
from tests.geo import naive_geo, worlds
from tests.geo.test_index import shape_of_geometry
from tests.registry.naive_registry import MemoryLog, person

NOON_MS = 1_790_596_800_000


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Four thousand made-up people, two hundred of them changed since the base was made."""
    registry = Registry.open(tmp_path / "registry", MemoryLog())
    registry.import_table(nation.spread(4_000, 7))
    ids = registry.view().id_of(np.arange(0, 2_600, 13, dtype=np.uint32))
    registry.upsert([person(name, number) for number, name in enumerate(ids)])
    return registry


def test_people_by_province(registry: Registry, shared_data: Path, tmp_path: Path) -> None:
    areas = NamedAreas.open(tmp_path)
    areas.import_file(shared_data / "geo" / "provincies_12.geojson", kind="province", name_field="naam")
    provinces = Districts.of(areas, "province")
    view = registry.view()
    reached = reach(view, Query(shape=EVERYONE, centre=(5.0, 52.0)))
    counts = provinces.counts(reached)
    assert sum(counts.values()) == len(reached)
    assert len(counts) == 13, "twelve provinces, and some just off the coast"
    for name in areas.names("province"):
        shape = areas("province", name)
        assert shape is not None
        inside = sum(part.index.count(shape) for part in (view.base, view.delta))
        assert counts[name] <= inside
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert Districts.of(areas, "no such kind").counts(reached) == {"": len(reached)}


def test_the_same_people_are_in_the_same_districts_before_and_after_a_rebuild(registry: Registry) -> None:
    squares = {
        f"{west},{south}": shapes.polygon([ring(west, south)]) for west in range(3, 8) for south in range(50, 54)
    }
    degrees, query = Districts(squares), Query(shape=EVERYONE)
    before = degrees.counts(reach(registry.view(), query))
    registry.rebuild()
    assert len(registry.view().delta.index) == 0
    assert degrees.counts(reach(registry.view(), query)) == before
    assert sum(before.values()) == 4_000


def ring(west: int, south: int) -> np.ndarray:
    corners = [(west, south), (west + 1, south), (west + 1, south + 1), (west, south + 1), (west, south)]
    return np.array(corners, np.int64) * 10_000_000


@settings(max_examples=2_000)
@given(st.integers(0, 2**32 - 1), st.sampled_from(worlds.PLACES), st.sampled_from((1, 3, 24, 50)))
def test_a_point_is_in_the_first_district_that_covers_it(seed: int, place: str, cells: int) -> None:
    """Districts that overlap, touch and have holes, at the ends of the world too; points on corners and borders."""
    random = np.random.default_rng(seed)
    on = worlds.frame(random, place)
    geometries = [worlds.polygon(random, on, case) for case in ("star", "boxes", "touching holes", "comb")]
    lon, lat = worlds.points(random, on, geometries[random.integers(4)])
    wanted = np.full(lon.size, NOWHERE)
    for number, geometry in reversed(list(enumerate(geometries))):
        wanted[list(naive_geo.covered(geometry, lon, lat))] = number
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(districts, "CELLS", cells)
        made = Districts({f"district {number}": shape_of_geometry(one) for number, one in enumerate(geometries)})
    index = PlaceIndex.build(lon, lat)
    assert made.prepare(index).tolist() == wanted[index.rows].tolist()


def test_who_is_on_the_way_counts_where_they_are(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())
    registry.upsert([person(name, places=[wire.Place(lon=5.5, lat=52.5)]) for name in "abc"])
    registry.positions([wire.LivePosition(id="b", lon=6.5, lat=52.5, at_ms=NOON_MS)], NOON_MS)
    two = Districts({"home": shapes.polygon([ring(5, 52)]), "way": shapes.polygon([ring(6, 52)])})
    there = circle(6.0, 52.5, 100_000.0)
    for live, counts in (("instead", {"home": 2, "way": 1}), ("ignore", {"home": 3})):
        query = Query(shape=there, at_ms=NOON_MS, live=live)  # type: ignore[arg-type]
        assert two.counts(reach(registry.view(), query)) == counts
    registry.close()


def test_a_new_base_is_prepared_before_readers_meet_it(registry: Registry) -> None:
    """By whoever makes it: a rebuild, a snapshot, an import."""
    seen = []
    registry.before_swap(lambda base: seen.append((base.index, registry.view().base.index)))
    registry.rebuild()
    registry.upsert([person("new")])
    registry.compact()
    registry.import_table(nation.spread(10, 8))
    assert len(seen) == 3
    assert all(new is not in_force for new, in_force in seen)
    assert seen[-1][0] is registry.view().base.index
