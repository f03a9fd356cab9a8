"""Selections against one written person by person; and the promises about order and bytes."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout import wire
from fanout.geo import EVERYONE, circle, corridor, shapes
from fanout.geo.lines.kernels import line_distance_rad
from fanout.registry.registry import Registry
from fanout.selection import Query, choose
from tests.geo.naive_geo import RADIUS_M, haversine_m
from tests.registry.naive_registry import MemoryLog, person
from tests.selection.naive_selection import Somebody, chosen

MONDAY_MS = 1_790_553_600_000  # 2026-09-28T00:00Z
HOUR_MS = 3_600_000
ZONES = ("Europe/Amsterdam", "America/Curacao", "Asia/Kathmandu", "Pacific/Kiritimati")
HOURS: tuple[list[wire.Window], ...] = (
    [],
    [wire.Window(days="12345", start="08:00", end="18:00")],
    [wire.Window(days="67", start="22:00", end="06:30")],
    [wire.Window(start="00:00", end="00:00"), wire.Window(days="1", start="12:00", end="12:01")],
)
WAY = ((6.499, 53.2), (6.506, 53.203), (6.506, 53.203), (6.51, 53.199))
"""A line to count from, with a stop in it."""
_NAMES = itertools.count()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One registry for all examples: each brings its own people, and erases those before."""
    return Registry.open(tmp_path_factory.mktemp("registry"), MemoryLog())


def somebody(random: np.random.Generator) -> wire.Participant:
    """Near Groningen, where a lattice makes ties and people at one address common."""
    places = [
        wire.Place(
            lon=6.5 + int(random.integers(0, 8)) / 500,
            lat=53.2 + int(random.integers(0, 8)) / 1000,
            hours=HOURS[random.integers(len(HOURS))],
        )
        for _ in range(random.integers(1, 4))
    ]
    channels = [channel for channel in ("sms", "apns") if random.random() < 0.7]
    value = {"sms": "+31612345678", "apns": "0" * 64}
    names = [["search"], ["fire"], None, []]
    return person(
        f"p{next(_NAMES)}",
        places=places,
        addresses=[wire.Address(channel=channel, value=value[channel]) for channel in channels],  # type: ignore[arg-type]
        language=str(random.choice(["nl", "nl-BE", "en"])),
        timezone=str(random.choice(ZONES)),
        age_group=str(random.choice(["unknown", "youth", "senior"])),
        kinds=names[random.integers(4)],
        tenants=[["police"], None][random.integers(2)],
    )


def question(random: np.random.Generator, rows: np.ndarray, at_ms: int) -> Query:
    shape: shapes.Shape = circle(6.504, 53.203, float(random.choice([1.0, 150.0, 400.0, 900.0])))
    if random.random() < 0.2:
        shape = EVERYONE
    pick = lambda *given: given[random.integers(len(given))]  # noqa: E731
    return Query(
        shape=shape,
        kind=pick("", "search", "flood"),
        at_ms=at_ms,
        channels=pick(0xFF, 1 << 3, 1 << 1),
        tenant=pick("", "police", "town"),
        languages=pick(None, ("nl",), ("nl-BE",), ("en", "fy")),
        age_groups=pick(None, ("youth", "senior")),
        centre=pick(None, (6.5, 53.2), WAY),
        exclude=pick(None, rows[: len(rows) // 3]),
        live=pick("ignore", "beside", "instead"),
        live_fresh_ms=int(pick(10_000, 600_000, 86_400_000)),
    )


def distance_m(query: Query, lon: int, lat: int) -> float:
    """Metres of a point from what a query counts from; lines by the kernel of corridors, which has its own oracle."""
    if query.centre == WAY:
        return RADIUS_M * float(line_distance_rad(lon, lat, corridor(WAY, 1.0).vectors))
    if query.centre is not None:
        return haversine_m(65_000_000, 532_000_000, lon, lat)
    return haversine_m(query.shape.lon, query.shape.lat, lon, lat) if isinstance(query.shape, shapes.Circle) else 0.0


@settings(max_examples=2_000)
@given(st.integers(0, 2**32 - 1))
def test_selections_are_those_of_the_naive_one(registry: Registry, seed: int) -> None:
    random = np.random.default_rng(seed)
    registry.erase(registry.view().id_of(np.arange(registry.view().rows, dtype=np.uint32)))
    registry.reuse(np.empty(0, np.uint32))
    people = [somebody(random) for _ in range(random.integers(0, 14))]
    split = int(random.integers(0, len(people) + 1))
    registry.upsert(people[:split])
    if random.random() < 0.3:
        registry.rebuild()
    registry.upsert(people[split:])
    at_ms = MONDAY_MS + int(random.integers(0, 14 * 24 * 60)) * 60_000
    live: dict[str, tuple[int, int, int]] = {}
    for one in people:
        if random.random() < 0.4:
            lon, lat = 6.5 + int(random.integers(0, 8)) / 500, 53.2 + int(random.integers(0, 8)) / 1000
            measured = at_ms - int(random.choice([1_000, 60_000, 10_000, 1_000_000]))
            live[one.id] = (round(lon * 1e7), round(lat * 1e7), measured)
            # one that has expired meanwhile was taken in before
            registry.positions(
                [wire.LivePosition(id=one.id, lon=lon, lat=lat, at_ms=measured)], min(at_ms, measured + 1)
            )
    view = registry.view()
    rows = view.row_of([one.id for one in people])
    everybody = [Somebody(int(row), one, live.get(one.id)) for row, one in zip(rows, people, strict=True)]
    query = question(random, rows.astype(np.uint32), at_ms)
    wanted = chosen(everybody, query, partial(distance_m, query))
    found = choose(view, query)
    assert set(found.rows.tolist()) == wanted.keys()
    assert len(found) == len(wanted), "each person once"
    np.testing.assert_allclose(found.distance_m, [wanted[row] for row in found.rows.tolist()], rtol=1e-6, atol=1e-3)
    order = list(zip(found.distance_m.tolist(), found.rows.tolist(), strict=True))
    assert order == sorted(order), "nearest first, ties by row"
    again = choose(view, query)
    assert (again.rows.tobytes(), again.distance_m.tobytes()) == (found.rows.tobytes(), found.distance_m.tobytes())


def test_the_order_does_not_depend_on_what_is_base_and_what_is_delta(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())
    random = np.random.default_rng(1)
    for _ in range(6):
        registry.upsert([somebody(random) for _ in range(400)])
    query = Query(shape=circle(6.504, 53.203, 2_000.0), at_ms=MONDAY_MS)
    in_delta = choose(registry.view(), query)
    registry.rebuild()
    in_base = choose(registry.view(), query)
    registry.compact()
    mapped = choose(registry.view(), query)
    assert len(in_delta) > 1_024, "enough for the radix sort"
    assert in_delta.rows.tobytes() == in_base.rows.tobytes() == mapped.rows.tobytes()
    assert in_delta.distance_m.tobytes() == mapped.distance_m.tobytes()
    registry.close()


def test_the_nearest_people_are_people_and_pass_the_filters(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())
    two_homes = [wire.Place(lon=5.0, lat=52.0), wire.Place(lon=5.001, lat=52.0)]
    registry.upsert([person(f"d{n}", places=two_homes, language="en") for n in range(5)])
    registry.upsert([person(f"p{n}", places=[wire.Place(lon=5.0, lat=52.0 + n / 1000)]) for n in range(1, 20)])
    view = registry.view()
    found = choose(view, Query(shape=shapes.Nearest(50_000_000, 520_000_000, 7)))
    assert view.id_of(found.rows) == ["d0", "d1", "d2", "d3", "d4", "p1", "p2"]
    found = choose(view, Query(shape=shapes.Nearest(50_000_000, 520_000_000, 3), languages=("nl",)))
    assert view.id_of(found.rows) == ["p1", "p2", "p3"]
    assert len(choose(view, Query(shape=shapes.Nearest(50_000_000, 520_000_000, 1_000)))) == 24
    registry.close()


def test_along_an_escape_route_the_line_decides(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())
    beside = [wire.Place(lon=5.0 + n / 10, lat=52.0 + north) for n, north in enumerate((0.003, 0.001, 0.002, 0.1))]
    registry.upsert([person(f"p{n}", places=[place]) for n, place in enumerate(beside)])
    view = registry.view()
    found = choose(view, Query(shape=corridor([(4.9, 52.0), (5.2, 52.0), (5.3, 52.05)], 1_000.0)))
    assert view.id_of(found.rows) == ["p1", "p2", "p0"]
    assert found.distance_m[0] == pytest.approx(102, abs=1), "a great circle bulges ten metres towards the pole here"
    registry.close()


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1))
def test_a_line_of_many_arcs_orders_as_measuring_each_of_them(lines: Registry, seed: int) -> None:
    random = np.random.default_rng(seed)
    far = float(random.choice([1e-6, 1e-3, 0.1, 20.0, 170.0]))
    bends = int(random.integers(2, 60))
    lon = np.clip(5.0 + np.cumsum(random.normal(0, far / bends, bends)), -179, 179)
    lat = np.clip(52.0 + np.cumsum(random.normal(0, far / bends / 3, bends)), -89, 89)
    if random.random() < 0.3:
        lon[bends // 2 :], lat[bends // 2 :] = lon[bends // 2], lat[bends // 2]
    line = tuple(zip(lon.tolist(), lat.tolist(), strict=True))
    view = lines.view()
    found = choose(view, Query(shape=EVERYONE, centre=line))
    vectors = corridor(line, 1.0).vectors
    homes = zip(*(np.rint(column[found.rows] * 1e7).astype(np.int64) for column in view.homes()), strict=True)
    wanted = [RADIUS_M * float(line_distance_rad(x, y, vectors)) for x, y in homes]
    np.testing.assert_allclose(found.distance_m, wanted, rtol=1e-6, atol=1e-3)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A hundred people with one home each, most of them in one town."""
    registry = Registry.open(tmp_path_factory.mktemp("lines"), MemoryLog())
    random = np.random.default_rng(1)
    spread = np.where(random.random(100) < 0.7, 0.01, 30.0)
    homes = [
        wire.Place(lon=5.0 + float(random.uniform(-1, 1) * reach), lat=52.0 + float(random.uniform(-1, 1) * reach))
        for reach in spread
    ]
    registry.upsert([person(f"l{n}", places=[home]) for n, home in enumerate(homes)])
    return registry


def test_the_nearest_may_be_told_in_the_order_of_a_line(tmp_path: Path) -> None:
    """Who is among the nearest their own point says, who of them hears of it first the centre."""
    registry = Registry.open(tmp_path, MemoryLog())
    registry.upsert([person(f"p{n}", places=[wire.Place(lon=5.0 + n / 100, lat=52.0)]) for n in range(10)])
    nearest = shapes.Nearest(50_000_000, 520_000_000, 4)
    found = choose(registry.view(), Query(shape=nearest, centre=((5.031, 51.9), (5.031, 52.1))))
    assert registry.view().id_of(found.rows) == ["p3", "p2", "p1", "p0"]
    assert found.furthest_m == pytest.approx(2_053.7, abs=0.1)
    registry.close()


def test_in_the_order_of_the_nearest_count_places_that_are_among_the_nearest(tmp_path: Path) -> None:
    """Not those that happen to be in the circle in which they were looked for: after a rebuild it is another one."""
    registry = Registry.open(tmp_path, MemoryLog())
    far = wire.Place(lon=5.5, lat=52.0)
    registry.upsert([person("both", places=[wire.Place(lon=5.0, lat=52.0), far]), person("far", places=[far])])
    registry.upsert([person("near", places=[wire.Place(lon=5.01, lat=52.0)])])
    query = Query(shape=shapes.Nearest(50_000_000, 520_000_000, 2), centre=(5.5, 52.0))
    before = choose(registry.view(), query)
    registry.rebuild()
    after = choose(registry.view(), query)
    assert registry.view().id_of(before.rows) == registry.view().id_of(after.rows) == ["near", "both"]
    assert before.distance_m.tolist() == after.distance_m.tolist() == pytest.approx([33_544.6, 34_229.2], abs=0.1)
    registry.close()


def test_everybody_of_a_household_is_in_the_order_of_rows(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())
    sizes = [1, 2, 3, 16, 17, 40] * 30
    homes = [wire.Place(lon=5.0 + n / 10_000, lat=52.0) for n, size in enumerate(sizes) for _ in range(size)]
    order = np.random.default_rng(3).permutation(len(homes))
    registry.upsert([person(f"p{n}", places=[homes[n]]) for n in order])
    found = choose(registry.view(), Query(shape=circle(5.0, 52.0, 50_000.0)))
    assert len(found) == len(homes) > 1_024, "enough for the radix sort"
    keys = list(zip(found.distance_m.tolist(), found.rows.tolist(), strict=True))
    assert keys == sorted(keys)
    registry.close()


def test_summer_time_is_in_force_at_the_moment_of_the_action(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path, MemoryLog())
    office = [wire.Place(lon=5.0, lat=52.0, hours=[wire.Window(days="1234567", start="09:00", end="10:00")])]
    registry.upsert([person("a", places=office)])
    near = circle(5.0, 52.0, 10.0)
    winter, summer = 1_800_000_000_000, 1_784_000_000_000  # 2027-01-15T08:00Z, 2026-07-14T03:33Z
    eight_utc = [moment - moment % (24 * HOUR_MS) + 8 * HOUR_MS for moment in (winter, summer)]
    assert [len(choose(registry.view(), Query(shape=near, at_ms=at))) for at in eight_utc] == [1, 0]
    assert [len(choose(registry.view(), Query(shape=near, at_ms=at - HOUR_MS))) for at in eight_utc] == [0, 1]
    registry.close()
