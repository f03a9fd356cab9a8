"""What is asked of the registry, and its translation into the numbers a kernel compares.

A `Query` speaks in names; which bit a kind has is the view's business, so the same query may be asked of any view.
Names a view does not know select those who want everything, and no one else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fanout.geo import shapes
from fanout.geo.fixed import EARTH_RADIUS_M
from fanout.geo.lines import kernels as lines
from fanout.registry import hours
from fanout.registry.columns import AGE_GROUPS, ALL
from fanout.registry.view import Kinds, Rows, View
from fanout.selection import kernels

EVERY_CHANNEL: Final = 0xFF
_NOWHERE: Final = (0, 2_000_000_000)  # a latitude that no place has: distances are 0
_NO_ARCS: Final = np.empty((0, 20), np.float64)
_NO_BLOCKS: Final = np.empty((0, 4), np.float64)

Spot: TypeAlias = tuple[float, float]
"""Longitude, latitude, degrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Who is wanted.

    `channels`: a bit per channel that may be used; people without one of them are not selected. `kind`, `tenant`: empty
    means any; who wants no kind at all is never selected. `at_ms`: the moment whose hours count. `languages`: ranges,
    as `nl`, which takes `nl-BE` too (RFC 4647, basic filtering); `age_groups`: names; None: all. `centre`: from where
    "nearest first" counts, longitude and latitude in degrees, or a line of two such points or more; None: what the
    shape suggests (`Nearest` means its own point, a corridor its line). Whom `Nearest` selects its own point decides.
    `exclude`: rows that have it. `live`: positions of phones not older than `live_fresh_ms` are left aside, count
    beside a person's places, or instead of them.
    """

    shape: shapes.Shape
    kind: str = ""
    at_ms: int = 0
    channels: int = EVERY_CHANNEL
    tenant: str = ""
    languages: tuple[str, ...] | None = None
    age_groups: tuple[str, ...] | None = None
    centre: Spot | Sequence[Spot] | None = None
    exclude: Rows | None = None
    live: Literal["ignore", "beside", "instead"] = "ignore"
    live_fresh_ms: int = 5 * 60_000


class Centre(NamedTuple):
    """From where distances count, as kernels take it: a line if `arcs` has rows, else a point, else neither.

    `lon`, `lat` fixed-point; a latitude beyond the pole is neither. `arcs` float64[a, 20], `blocks` float64[b, 4]: see
    `geo.lines.kernels.arcs_of`.
    """

    lon: np.int64
    lat: np.int64
    arcs: NDArray[np.float64]
    blocks: NDArray[np.float64]


class Filters(NamedTuple):
    """A query against one view, as kernels take it (see `kernels.want`)."""

    in_force: NDArray[np.uint8]
    channels: np.uint8
    kinds: np.uint32
    tenants: np.uint32
    languages: NDArray[np.uint8]
    age_groups: np.uint8
    excluded: NDArray[np.uint8]
    centre: Centre

    def judged(self, kinds: Kinds) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """uint8[profiles], uint8[kinds of places]: 1 where a person, and a place at this moment, is wanted."""
        profiles = np.empty(kinds.profiles.size, np.uint8)
        places = np.empty(kinds.place_profile.size, np.uint8)
        kernels.want(
            kinds.profiles, kinds.place_profile, kinds.place_hours, self.in_force, self.channels, self.kinds,
            self.tenants, self.languages, self.age_groups, profiles, places,
        )  # fmt: skip
        return profiles, places


def filters_of(query: Query, view: View) -> Filters:
    """Translate a query for a view."""
    names = view.names
    languages = np.zeros(256, np.uint8)
    for number, name in enumerate(names.languages):
        languages[number] = query.languages is None or any(_in_range(name, wanted) for wanted in query.languages)
    groups = sum(1 << number for number, name in enumerate(AGE_GROUPS)
                 if query.age_groups is None or name in query.age_groups)  # fmt: skip
    excluded = np.zeros(0, np.uint8)
    if query.exclude is not None and query.exclude.size:
        excluded = np.zeros(view.rows, np.uint8)
        excluded[query.exclude[query.exclude < view.rows]] = 1
    return Filters(
        hours.in_force(query.at_ms, names.timezones, names.hours), np.uint8(query.channels),
        _bit(query.kind, names.kinds), _bit(query.tenant, names.tenants), languages, np.uint8(groups), excluded,
        _centre(query),
    )  # fmt: skip


def _bit(name: str, names: tuple[str, ...]) -> np.uint32:
    """The bit a record must have. The highest bit stands for a name not known here: only "all" has it for sure."""
    if not name:
        return np.uint32(ALL)
    return np.uint32(1 << (names.index(name) if name in names else 31))


def _in_range(language: str, wanted: str) -> bool:
    return language.casefold() == wanted.casefold() or language.casefold().startswith(f"{wanted.casefold()}-")


def _centre(query: Query) -> Centre:
    if query.centre is not None:
        spots = query.centre
        if isinstance(spots[0], Sequence):
            return line_of(shapes.corridor([(lon, lat) for lon, lat in spots], 1.0).vectors)  # type: ignore[misc]
        lon, lat = spots
        return _point(*shapes.fixed_point(lon, lat, "centre"))  # type: ignore[arg-type]
    match query.shape:
        case shapes.Corridor(vectors=vectors):
            return line_of(vectors)
        case shape:
            return _point(*(shapes.centre_of(shape) or _NOWHERE))


def _point(lon: int, lat: int) -> Centre:
    return Centre(np.int64(lon), np.int64(lat), _NO_ARCS, _NO_BLOCKS)


def line_of(vectors: NDArray[np.float64]) -> Centre:
    """A line of great-circle arcs as kernels measure it; `vectors` float64[v, 3], unit: its points."""
    return Centre(np.int64(_NOWHERE[0]), np.int64(_NOWHERE[1]), *lines.arcs_of(vectors))


def whole_world(radius_m: float) -> bool:
    """Whether a circle of this radius has everybody in it."""
    return radius_m >= math.pi * EARTH_RADIUS_M
