"""What readers hold: one immutable state of the registry, taken by reference, true for as long as they hold it.

A view is a large *base* and a small *delta*, each with its own columns, ids and index of places. Somebody changed since
the base was made lives in the delta and is `stale` in the base; somebody erased is in the delta without places. So a
reader asks both and nobody is met twice, a change costs a new delta (never a copy of the base), and a rebuild is two
parts merged into one, while readers go on with the parts they have.

Rows are stable for as long as anyone may refer to them; a row given to somebody else has another generation. Nothing
here is ever written after it was made; the arrays may be mapped from a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.geo.fixed import to_degrees
from fanout.geo.index import PlaceIndex
from fanout.registry import kernels, packed
from fanout.registry.columns import ERASED, PERSON, Columns, Names, without_choice
from fanout.registry.live import LiveView
from fanout.registry.packed import Packed

Rows = NDArray[np.uint32]


class Ids:
    """Ids of n people and the table that finds them; an empty id is nobody's."""

    __slots__ = ("packed", "table")

    def __init__(self, values: Packed) -> None:
        self.packed = values
        self.table = np.zeros(1 << max(4, (2 * values.rows - 1).bit_length()), np.uint32)
        kernels.insert_ids(values.data, values.offsets, self.table, np.empty(values.rows, np.int64))

    def find(self, wanted: Packed) -> NDArray[np.int64]:
        """int64[n]: where each id stands, -1 if nowhere."""
        if self.packed.rows == 0:
            return np.full(wanted.rows, kernels.NONE, np.int64)
        out = np.empty(wanted.rows, np.int64)
        kernels.find_ids(self.packed.data, self.packed.offsets, self.table, wanted.data, wanted.offsets, out)
        return out


class Kinds(NamedTuple):
    """People and places that a filter cannot tell apart, numbered: a query judges each kind once, not each person.

    Of 1.6 million people there are some hundred kinds; so the pass over candidates reads their numbers in the index's
    order and a table in the nearest cache, and no person's record. `profile` uint32[n] of each person, `profiles`
    PERSON[p] a record of each; `place` uint32[places] in the index's order, `place_profile` uint32[k] and `place_hours`
    uint16[k] of each.
    """

    profile: NDArray[np.uint32]
    profiles: NDArray[np.void]
    place: NDArray[np.uint32]
    place_profile: NDArray[np.uint32]
    place_hours: NDArray[np.uint16]


def kinds_of(people: NDArray[np.void], persons: NDArray[np.uint32], hours: NDArray[np.uint16]) -> Kinds:
    """Number the kinds of people, and of places (`persons`, `hours` in the index's order)."""
    wants = people["kinds"].astype(np.uint64) << np.uint64(32) | people["tenants"]
    rest = np.zeros(people.size, np.uint64)
    for name, shift in (("timezone", 0), ("flags", 16), ("channels", 24), ("language", 32), ("age_group", 40)):
        rest |= people[name].astype(np.uint64) << np.uint64(shift)
    alike, _ = _numbered(wants, rest)
    profile, first = _numbered(alike.astype(np.uint64), people["preference"].astype(np.uint64))
    place, first_place = _numbered(profile[persons].astype(np.uint64), hours.astype(np.uint64))
    kinds = Kinds(profile, people[first], place, profile[persons[first_place]], hours[first_place])
    for array in kinds:
        array.setflags(write=False)
    return kinds


def _numbered(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    codes, firsts = np.empty(a.size, np.uint32), np.empty(a.size, np.uint32)
    return codes, firsts[: kernels.factorise(a, b, codes, firsts)].copy()


@dataclass(frozen=True, slots=True)
class Part:
    """People and their places. `rows` uint32[n] ascending: the row of each person; None: 0 … n-1.

    `people` PERSON[n]; `index` over places, its rows are person numbers of this part; `hours` uint16[places] in the
    index's order. `single`: nobody has two places, so nobody can be met twice. `kinds`: see `Kinds`.
    """

    rows: Rows | None
    people: NDArray[np.void]
    ids: Ids
    index: PlaceIndex
    hours: NDArray[np.uint16]
    single: bool
    kinds: Kinds

    @property
    def size(self) -> int:
        """People, erased ones included."""
        return int(self.people.size)


def make_part(
    rows: Rows | None,
    people: NDArray[np.void],
    ids: Packed,
    person: NDArray[np.uint32],
    lon: NDArray[np.int32],
    lat: NDArray[np.int32],
    hours: NDArray[np.uint16],
) -> Part:
    """Index a part: `person`, `lon`, `lat`, `hours` are its m places."""
    index, order = PlaceIndex.build_ordered(lon, lat, person)
    single = index.rows.size == 0 or int(np.bincount(index.rows, minlength=1).max()) <= 1
    hours = hours[order]
    for array in (people, hours) if rows is None else (people, hours, rows):
        array.setflags(write=False)
    return Part(rows, people, Ids(ids), index, hours, single, kinds_of(people, index.rows, hours))


def empty_part(rows: Rows | None = None) -> Part:
    """Nobody."""
    none = np.empty(0, np.int32)
    return make_part(
        rows, np.empty(0, PERSON), packed.empty(), none.astype(np.uint32), none, none, none.astype(np.uint16)
    )


@dataclass(frozen=True, slots=True)
class View:
    """One state of the registry.

    `version` grows with every change. `rows`: rows given out so far, the upper bound of any row. `people`: participants
    there are. `stale` uint8[base.size], not 0: look in the delta.
    """

    version: int
    people: int
    rows: int
    names: Names
    base: Part
    delta: Part
    stale: NDArray[np.uint8] = field(repr=False)
    live: LiveView | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """Names of languages by number."""
        return self.names.languages

    def take(self, column: str, rows: NDArray[Any]) -> NDArray[Any]:
        """The values of a column of `PERSON` for any rows, same shape and order; rows not given out read 0."""
        out = np.zeros(rows.shape, PERSON[column])
        here = rows < self.base.size
        if here.all():
            out[...] = self.base.people[column][rows]
        else:
            out[here] = self.base.people[column][rows[here]]
        slots = self._slots(rows)
        changed = slots >= 0
        if changed.any():
            out[changed] = self.delta.people[column][slots[changed]]
        return out

    def records(self, rows: Rows) -> NDArray[np.void]:
        """PERSON[n]: whole records of rows that were given out."""
        if self.base.size == 0:
            return self.delta.people[self._slots(rows)]
        out = self.base.people[np.minimum(rows, self.base.size - 1)]
        slots = self._slots(rows)
        changed = slots >= 0
        out[changed] = self.delta.people[slots[changed]]
        return out

    def numbers(self, rows: Rows) -> tuple[tuple[Part, NDArray[np.int64]], ...]:
        """The rows' people by part: their numbers there, int64[m] each. The rows were given out."""
        slots = self._slots(rows)
        return (self.base, rows[slots < 0].astype(np.int64)), (self.delta, slots[slots >= 0])

    def row_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """int64[n]: the row of each id, -1 if it is not registered."""
        return self.rows_of(packed.of_texts(ids))

    def rows_of(self, ids: Packed) -> NDArray[np.int64]:
        """As `row_of`, of packed ids."""
        base = self.base.ids.find(ids)
        gone = base >= 0
        gone[gone] = self.stale[base[gone]] != 0
        base[gone] = -1
        delta = self.delta.ids.find(ids)
        assert self.delta.rows is not None, "a delta names its rows"
        there = delta >= 0
        base[there] = self.delta.rows[delta[there]]
        return base

    def id_of(self, rows: NDArray[Any]) -> list[str]:
        """The id of each row; empty for an erased one."""
        slots = self._slots(rows)
        in_base = np.where((slots < 0) & (rows < self.base.size), rows.astype(np.int64), -1)
        base, delta = self.base.ids.packed.take(in_base).texts(), self.delta.ids.packed.take(slots).texts()
        return [one or other for one, other in zip(base, delta, strict=True)]

    def homes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude, degrees, float64[rows] each, of one place of every row; NaN where none is."""
        lon, lat = np.full(self.rows, np.nan), np.full(self.rows, np.nan)
        assert self.delta.rows is not None, "a delta names its rows"
        there = self.stale[self.base.index.rows] == 0
        for rows, places, kept in (
            (self.base.index.rows[there], self.base.index, there),
            (self.delta.rows[self.delta.index.rows], self.delta.index, np.ones(len(self.delta.index), np.bool_)),
        ):
            lon[rows], lat[rows] = to_degrees(places.lon[kept]), to_degrees(places.lat[kept])
        return lon, lat

    def in_delta(self, rows: Rows) -> NDArray[np.bool_]:
        """bool[n]: rows that changed since the base was made."""
        return self._slots(rows) >= 0

    def _slots(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """int64, shape of rows: where a row stands in the delta, -1 if it does not."""
        changed = self.delta.rows
        assert changed is not None, "a delta names its rows"
        if changed.size == 0:
            return np.full(rows.shape, -1, np.int64)
        slots = np.minimum(np.searchsorted(changed, rows), changed.size - 1)
        return np.where(changed[slots] == rows, slots, -1)


# --- the next view ----------------------------------------------------------------------------------------------------


def changed(
    view: View, rows: Rows, generations: NDArray[np.uint16], columns: Columns, names: Names, version: int
) -> View:
    """The view after an upsert: `columns` are the people that `rows` (each once) now hold."""
    order = np.argsort(rows, kind="stable")
    rank = np.empty(rows.size, np.uint32)
    rank[order] = np.arange(rows.size, dtype=np.uint32)
    people = columns.people[order].copy()
    people["generation"] = generations[order]
    person = rank[columns.place_person]
    fresh = make_part(rows[order], people, columns.ids.take(order), person, columns.lon, columns.lat, columns.hours)
    return _with_delta(view, fresh, names, version)


def erased(view: View, rows: Rows, generations: NDArray[np.uint16], version: int) -> View:
    """The view after an erasure of rows (ascending, each once), which keep their generations for who comes next."""
    people = np.zeros(rows.size, PERSON)
    people["generation"] = generations
    people["flags"] = ERASED
    none = np.empty(0, np.int32)
    fresh = make_part(rows, people, packed.empty(rows.size), none.astype(np.uint32), none, none, none.astype(np.uint16))
    return _with_delta(view, fresh, view.names, version)


def dropped(view: View, channels: NDArray[np.uint8], rows: Rows, version: int) -> View:
    """The view after addresses were dropped: rows (each once a channel) that are registered; all else of them stays."""
    every = np.unique(rows)
    people = view.records(every).copy()
    for channel in np.unique(channels).tolist():
        at = np.searchsorted(every, rows[channels == channel])
        people["channels"][at] &= np.uint8(0xFF ^ 1 << channel)
        people["preference"][at] = without_choice(people["preference"][at], channel)
    slots = view._slots(every)
    found = [_places_of(view.base, np.where(slots < 0, every.astype(np.int64), -1)), _places_of(view.delta, slots)]
    person, lon, lat, hours = (np.concatenate(column) for column in zip(*found, strict=True))
    fresh = make_part(every, people, packed.of_texts(view.id_of(every)), person, lon, lat, hours)
    return _with_delta(view, fresh, view.names, version)


def _places_of(part: Part, numbers: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    """Places of people of a part: which of `numbers` (ascending; below 0 nobody), longitude, latitude, hours; m each.

    All places are looked over for a few people, every few seconds while a nation is told: so a byte a person is asked.
    """
    there = np.flatnonzero(numbers >= 0)
    wanted = np.zeros(part.size, np.bool_)
    wanted[numbers[there]] = True
    at = np.flatnonzero(wanted[part.index.rows])
    of = there[np.searchsorted(numbers[there], part.index.rows[at])]
    return of.astype(np.uint32), part.index.lon[at], part.index.lat[at], part.hours[at]


def _with_delta(view: View, fresh: Part, names: Names, version: int) -> View:
    assert fresh.rows is not None, "what changed names its rows"
    known = (fresh.rows < view.base.size) | view.in_delta(fresh.rows)
    before = int((view.take("flags", fresh.rows[known]) & ERASED == 0).sum())
    after = int((fresh.people["flags"] & ERASED == 0).sum())
    stale = view.stale.copy()
    stale[fresh.rows[fresh.rows < view.base.size]] = 1
    delta = fresh if view.delta.size == 0 else _over(view.delta, fresh)
    rows = max(view.rows, int(fresh.rows[-1]) + 1) if fresh.size else view.rows
    stale.setflags(write=False)
    return View(version, view.people + after - before, rows, names, view.base, delta, stale, view.live)


def _over(under: Part, over: Part) -> Part:
    """Two deltas as one: who is in both is as in `over`."""
    assert under.rows is not None
    assert over.rows is not None
    kept = np.flatnonzero(~np.isin(under.rows, over.rows))
    rows = np.concatenate([under.rows[kept], over.rows])
    order = np.argsort(rows, kind="stable")
    rank = np.empty(rows.size, np.uint32)
    rank[order] = np.arange(rows.size, dtype=np.uint32)
    number = np.full(under.size, np.iinfo(np.uint32).max, np.uint32)
    number[kept] = rank[: kept.size]
    person = number[under.index.rows]
    there = person != np.iinfo(np.uint32).max
    ids = packed.concatenate([under.ids.packed.take(kept), over.ids.packed]).take(order)
    return make_part(
        rows[order],
        np.concatenate([under.people[kept], over.people])[order],
        ids,
        np.concatenate([person[there], rank[kept.size :][over.index.rows]]),
        np.concatenate([under.index.lon[there], over.index.lon]),
        np.concatenate([under.index.lat[there], over.index.lat]),
        np.concatenate([under.hours[there], over.hours]),
    )


def merged(view: View) -> Part:
    """Base and delta as one base: what a rebuild makes. O(n), reads only the view."""
    base, delta = view.base, view.delta
    assert delta.rows is not None
    people = np.zeros(view.rows, PERSON)
    people[: base.size] = base.people
    people[delta.rows] = delta.people
    there = view.stale[base.index.rows] == 0
    return make_part(
        None,
        people,
        packed.Overlay(base.ids.packed, view.rows, delta.rows, delta.ids.packed).whole(),
        np.concatenate([base.index.rows[there], delta.rows[delta.index.rows]]),
        np.concatenate([base.index.lon[there], delta.index.lon]),
        np.concatenate([base.index.lat[there], delta.index.lat]),
        np.concatenate([base.hours[there], delta.hours]),
    )


def rebased(now: View, base: Part, written: Rows) -> View:
    """`now` on a new base made from an earlier view: the delta keeps the rows `written` since that view, no others."""
    assert now.delta.rows is not None
    delta = _only(now.delta, np.isin(now.delta.rows, written))
    assert delta.rows is not None
    stale = np.zeros(base.size, np.uint8)
    stale[delta.rows[delta.rows < base.size]] = 1
    stale.setflags(write=False)
    return View(now.version, now.people, now.rows, now.names, base, delta, stale, now.live)


def _only(part: Part, keep: NDArray[np.bool_]) -> Part:
    assert part.rows is not None
    kept = np.flatnonzero(keep)
    number = np.full(part.size, np.iinfo(np.uint32).max, np.uint32)
    number[kept] = np.arange(kept.size, dtype=np.uint32)
    person = number[part.index.rows]
    there = person != np.iinfo(np.uint32).max
    return make_part(
        part.rows[kept], part.people[kept], part.ids.packed.take(kept), person[there],
        part.index.lon[there], part.index.lat[there], part.hours[there],
    )  # fmt: skip
