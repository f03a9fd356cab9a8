"""A preview shows the people that a selection selects, where they are, and how many of them where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout import wire
from fanout.geo import EVERYONE, circle, shapes
from fanout.geo.areas import NamedAreas
from fanout.registry.registry import Registry
from fanout.registry.view import View
from fanout.selection import Query, choose
from fanout.selection.preview import Districts, by_channel, density, reach
from fanout.simulators import nation
from tests.registry.naive_registry import MemoryLog, person

NOON_MS = 1_790_596_800_000


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Four thousand made-up people, some of them changed since the base was made."""
    registry = Registry.open(tmp_path_factory.mktemp("registry"), MemoryLog())
    registry.import_table(nation.spread(4_000, 7))
    ids = registry.view().id_of(np.arange(0, 3_900, 13, dtype=np.uint32))
    registry.upsert([person(name, number) for number, name in enumerate(ids[:200])])
    registry.erase(ids[200:])
    return registry.view()


@settings(max_examples=2_000)
@given(
    st.floats(3.5, 7.2),
    st.floats(50.8, 53.5),
    st.floats(100, 300_000),
    st.sampled_from(["circle", "everyone", "nearest"]),
)
def test_a_preview_is_of_those_selected(view: View, lon: float, lat: float, radius_m: float, case: str) -> None:
    around = circle(lon, lat, radius_m)
    shape = {"circle": around, "everyone": EVERYONE, "nearest": shapes.Nearest(around.lon, around.lat, 50)}[case]
    query = Query(shape=shape, at_ms=NOON_MS, centre=(5.0, 52.0) if radius_m > 1e5 else None)
    selected, reached = choose(view, query), reach(view, query)
    if case == "nearest":
        assert set(selected.rows.tolist()) <= set(reached.rows.tolist())
    else:
        assert sorted(reached.rows.tolist()) == sorted(selected.rows.tolist())
    assert density(reached, columns=7, rows=5).people.sum() == len(reached)
    assert sum(by_channel(reached, 0xFF).values()) == len(reached)


def test_the_place_that_decides_is_shown(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())

    registry.upsert([person("a", places=[wire.Place(lon=5.0, lat=52.0), wire.Place(lon=5.1, lat=52.0)])])
    for centre, lon in (((4.9, 52.0), 50_000_000), ((5.2, 52.0), 51_000_000)):
        reached = reach(registry.view(), Query(shape=circle(5.05, 52.0, 50_000), centre=centre))
        assert reached.lon.tolist() == [lon]
    registry.close()


def test_people_by_municipality(view: View, shared_data: Path, tmp_path: Path) -> None:
    areas = NamedAreas.open(tmp_path)
    areas.import_file(shared_data / "geo" / "provincies_12.geojson", kind="province", name_field="naam")
    districts = Districts.of(areas, "province")
    reached = reach(view, Query(shape=EVERYONE, centre=(5.0, 52.0)))
    counts = districts.counts(view, reached)
    assert sum(counts.values()) == len(reached)
    assert len(counts) == 13, "twelve provinces, and some just off the coast"
    for name in areas.names("province"):
        shape = areas("province", name)
        assert shape is not None
        inside = sum(part.index.count(shape) for part in (view.base, view.delta))
        assert counts[name] <= inside
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert Districts.of(areas, "no such kind").counts(view, reached) == {"": len(reached)}
