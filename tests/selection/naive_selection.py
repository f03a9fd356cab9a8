"""A selection as one would write it on a Sunday: person by person, place by place, no arrays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from fanout import wire
from fanout.geo import shapes
from fanout.selection import Query
from tests.geo.naive_geo import RADIUS_M, haversine_m


class Somebody(NamedTuple):
    """A participant, their row, and where their phone is (lon, lat in fixed-point, measured at), if known."""

    row: int
    one: wire.Participant
    live: tuple[int, int, int] | None


def in_hours(windows: list[wire.Window], at_ms: int, timezone: str) -> bool:
    """Whether a place with these windows counts at a moment."""
    if not windows:
        return True
    local = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(timezone))
    minute = local.hour * 60 + local.minute
    today, yesterday = str(local.isoweekday()), str((local.isoweekday() - 2) % 7 + 1)
    for window in windows:
        start, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in (window.start, window.end))
        if start < end:
            if today in window.days and start <= minute < end:
                return True
        elif (today in window.days and minute >= start) or (yesterday in window.days and minute < end):
            return True
    return False


def wants(names: list[str] | None, name: str) -> bool:
    """Whether a list of names takes a name; none is all, an empty one nothing, and no name is any."""
    return names is None or (bool(names) and (not name or name in names))


def speaks(language: str, wanted: tuple[str, ...]) -> bool:
    """Whether a language is in one of the ranges: `nl-BE` in `nl`, `nl` not in `nl-BE`."""
    return any(language.split("-")[: len(one.split("-"))] == one.split("-") for one in wanted)


def chosen(
    people: list[Somebody], query: Query, distance_m: Callable[[int, int], float], expires_ms: int = 900_000
) -> dict[int, float]:
    """Row to distance of everybody selected, by the distance of a point. Shapes: circles and everyone."""
    found: dict[int, float] = {}
    for somebody in people:
        one = somebody.one
        mask = sum(1 << wire.CHANNELS.index(address.channel) for address in one.addresses)
        if (
            not mask & query.channels
            or not wants(one.kinds, query.kind)
            or not wants(one.tenants, query.tenant)
            or (query.languages is not None and not speaks(one.language, query.languages))
            or (query.age_groups is not None and one.age_group not in query.age_groups)
            or (query.exclude is not None and somebody.row in query.exclude)
        ):
            continue
        live = somebody.live if query.live != "ignore" else None
        fresh = live is not None and live[2] >= query.at_ms - min(query.live_fresh_ms, expires_ms)
        points = [(live[0], live[1])] if fresh and live is not None else []
        if not (fresh and query.live == "instead"):
            points += [
                (round(place.lon * 1e7), round(place.lat * 1e7))
                for place in one.places
                if isinstance(query.shape, shapes.Everyone) or in_hours(place.hours, query.at_ms, one.timezone)
            ]
        for lon, lat in points:
            around = query.shape
            if isinstance(around, shapes.Circle) and haversine_m(around.lon, around.lat, lon, lat) > around.radius_m:
                continue
            found[somebody.row] = min(distance_m(lon, lat), found.get(somebody.row, 2 * RADIUS_M * 4))
    return found
