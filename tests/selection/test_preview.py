"""A preview shows the people that a selection selects, where they are, and how many of them where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout import wire
from fanout.geo import EVERYONE, PlaceIndex, circle, corridor, shapes
from fanout.registry.columns import choices_of
from fanout.registry.registry import Registry
from fanout.registry.view import View
from fanout.selection import Query, choose, rings
from fanout.selection.preview import Reached, by_channel, density, reach
from fanout.simulators import nation
from tests.registry.naive_registry import MemoryLog, person

NOON_MS = 1_790_596_800_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Four thousand made-up people, some of them changed since the base was made, some of them on the move."""
    registry = Registry.open(tmp_path_factory.mktemp("registry"), MemoryLog())
    registry.import_table(nation.spread(4_000, 7))
    ids = registry.view().id_of(np.arange(0, 3_900, 13, dtype=np.uint32))
    registry.upsert([person(name, number) for number, name in enumerate(ids[:200])])
    registry.erase(ids[200:])
    random = np.random.default_rng(7)
    rows = random.permutation(registry.view().rows)[:1_500].astype(np.uint32)
    for names in np.array_split(registry.view().id_of(rows), 3):
        ages = random.choice([1_000, 120_000, 400_000], len(names))
        positions = zip(
            names.tolist(), random.uniform(3.5, 7.2, 500), random.uniform(50.8, 53.5, 500), ages, strict=True
        )
        registry.positions(
            [
                wire.LivePosition(id=name, lon=float(lon), lat=float(lat), at_ms=NOON_MS - int(age))
                for name, lon, lat, age in positions
                if name
            ],
            NOON_MS,
        )
    return registry


@pytest.fixture(scope="module")
def view(registry: Registry) -> View:
    return registry.view()


@settings(max_examples=2_000)
@given(st.integers(0, 2**32 - 1), st.sampled_from((0, rings.AT_ONCE)))
def test_a_preview_is_of_those_selected(registry: Registry, seed: int, at_once: int) -> None:
    """Whatever the query: all shapes, all filters, live positions left aside, beside and instead of places."""
    random = np.random.default_rng(seed)
    view, query = registry.view(), question(random, registry.view())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rings, "AT_ONCE", at_once)
        selected, reached = choose(view, query), reach(view, query)
    assert sorted(reached.rows.tolist()) == sorted(selected.rows.tolist())
    assert reached.furthest_m == selected.furthest_m
    assert density(reached, columns=7, rows=5).people.sum() == len(reached)
    preferences = view.take("preference", selected.rows)
    assert by_channel(reached, query.channels) == told_by(preferences.tolist(), query.channels)


def test_where_rings_meet_distances_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The N-th stands on the rim of a ring, with others as far away: all of a larger circle is measured."""
    registry = Registry.open(tmp_path, MemoryLog())
    around = [(0.0, 0.0), (0.01, 0.0), (-0.01, 0.0), (0.0, 0.02), (0.02, 0.0), (-0.02, 0.0), (0.0, -0.01), (0.05, 0.0)]
    registry.upsert([
        person(f"{number}-{at}", places=[wire.Place(lon=5.0 + x, lat=y)])
        for number in range(10) for at, (x, y) in enumerate(around)
    ])  # fmt: skip
    view, begun = registry.view(), 0
    again = rings._Rings.measure_all

    def counting(self: rings._Rings) -> None:
        nonlocal begun
        begun += 1
        again(self)

    monkeypatch.setattr(rings, "AT_ONCE", 0)
    monkeypatch.setattr(rings._Rings, "measure_all", counting)
    rim_m = [float(metres) for metres in np.unique(choose(view, Query(shape=EVERYONE, centre=(5.0, 0.0))).distance_m)]
    for radius_m in (rim_m[1] * (1 + 1e-9), rim_m[1] * (1 - 1e-9), rim_m[2] * (1 + 1e-9)):
        monkeypatch.setattr(PlaceIndex, "radius_of", lambda *_, radius_m=radius_m: radius_m)
        for count in range(1, 82):
            query = Query(shape=shapes.Nearest(50_000_000, 0, count))
            selected, reached = choose(view, query), reach(view, query)
            assert sorted(reached.rows.tolist()) == sorted(selected.rows.tolist())
            assert reached.furthest_m == selected.furthest_m
    assert begun > 0, "and that has happened here"
    registry.close()


def question(random: np.random.Generator, view: View) -> Query:
    """Anything an action may ask."""
    lon, lat = float(random.uniform(3.5, 7.2)), float(random.uniform(50.8, 53.5))
    around = circle(lon, lat, float(10 ** random.uniform(2, 5.5)))
    way = ((lon, lat), (lon + 0.3, lat + 0.1), (lon + 0.4, lat - 0.2))
    corner = (around.lon, around.lat)
    shape: shapes.Shape = [
        around,
        EVERYONE,
        shapes.Nearest(*corner, int(10 ** random.uniform(0, 3.8))),
        corridor(way, 5_000.0),
        shapes.Difference(around, shapes.Circle(*corner, around.radius_m / 2)),
    ][random.integers(5)]
    pick = lambda *given: given[random.integers(len(given))]  # noqa: E731
    return Query(
        shape=shape,
        kind=pick("", "missing_child"),
        at_ms=NOON_MS + int(random.integers(0, 7 * 24)) * 3_600_000 if random.random() < 0.5 else NOON_MS,
        channels=pick(0xFF, 0b1000, 0b0011),
        languages=pick(None, None, ("en", "nl")),
        age_groups=pick(None, None, ("youth", "senior")),
        centre=pick(None, None, (5.0, 52.0), way),
        exclude=pick(None, random.integers(0, view.rows, 300).astype(np.uint32)),
        live=pick("ignore", "beside", "instead"),
        live_fresh_ms=pick(60_000, 300_000),
    )


def places(reached: Reached) -> list[int]:
    """Longitudes of where people are shown, ascending."""
    return sorted(lon for one in reached.found for lon in one.lon.tolist())


def told_by(preferences: list[int], mask: int) -> dict[str, int]:
    """People by the channel of their first choice that is open, counted one by one."""
    first = [next(choice for choice in choices_of(word) if mask >> choice & 1) for word in preferences]
    return {wire.CHANNELS[channel]: first.count(channel) for channel in set(first)}


def test_a_live_position_is_where_its_owner_is_shown(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())
    registry.upsert([person(name, places=[wire.Place(lon=5.0, lat=52.0)]) for name in "abc"])
    registry.rebuild()
    registry.upsert([person("b", places=[wire.Place(lon=5.0, lat=52.0)], language="en")])
    registry.positions([wire.LivePosition(id=name, lon=5.2, lat=52.0, at_ms=NOON_MS) for name in "ab"], NOON_MS)
    home, there = circle(5.0, 52.0, 100), circle(5.2, 52.0, 100)

    def shown(shape: shapes.Shape, **more: Any) -> list[int]:
        query = Query(shape=shape, at_ms=NOON_MS, **more)
        return places(reach(registry.view(), query))

    assert shown(home, live="instead") == [50_000_000]
    assert shown(home, live="beside") == [50_000_000] * 3
    assert shown(there, live="beside") == shown(there, live="instead") == [52_000_000] * 2
    assert shown(there, live="ignore") == []
    both = circle(5.1, 52.0, 50_000)
    assert shown(both, live="beside", centre=(5.19, 52.0)) == [50_000_000, 52_000_000, 52_000_000]
    assert shown(both, live="beside", centre=(5.01, 52.0)) == [50_000_000] * 3
    assert shown(EVERYONE, live="beside") == [50_000_000] * 3, "as near as each other: the place"
    registry.close()


def test_the_place_that_decides_is_shown(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())

    registry.upsert([person("a", places=[wire.Place(lon=5.0, lat=52.0), wire.Place(lon=5.1, lat=52.0)])])
    for centre, lon in (((4.9, 52.0), 50_000_000), ((5.2, 52.0), 51_000_000)):
        reached = reach(registry.view(), Query(shape=circle(5.05, 52.0, 50_000), centre=centre))
        assert places(reached) == [lon]
    registry.close()
