"""Hours of the week in which a place counts: text and windows to one canonical form, and that to a mask of minutes.

Canonical form: `days start-end` joined by `;`, as `12345 08:00-18:00;67 10:00-12:00`, days ascending, windows sorted.
Empty is always. ISO weekdays, 1 is Monday; an end at or before the start runs past midnight into the next day.

A registry has few distinct forms (everybody works nine to five), so a place holds the number of its form, and what is
in force at a moment is a table of (time zone, form) made once a query, not a question per person.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
from numpy.typing import NDArray

from fanout import wire

ALWAYS: Final = ""
DAY_MINUTES: Final = 1440
WEEK_MINUTES: Final = 7 * DAY_MINUTES
_WINDOW: Final = re.compile(
    r"^(?:([1-7]{1,7}) )?([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))\Z", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def of_windows(windows: Sequence[wire.Window]) -> str:
    """The canonical form of the windows of a request (their shape was checked on the wire)."""
    return ";".join(sorted(f"{''.join(sorted(set(w.days)))} {w.start}-{w.end}" for w in windows))


def of_text(text: str) -> str | None:
    """The canonical form of a text as files have it (`08:00-18:00` is every day); None if it makes no sense."""
    windows = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        match = _WINDOW.match(part)
        if match is None:
            return None
        days = "".join(sorted(set(match[1] or "1234567")))
        windows.append(f"{days} {part.rsplit(' ', 1)[-1]}")
    return ";".join(sorted(windows))


@lru_cache(maxsize=4096)
def mask(form: str) -> bytes:
    """1,260 bytes: a bit for every minute of the week from Monday 00:00, the low bit of a byte first."""
    minutes = np.zeros(WEEK_MINUTES, np.bool_)
    if form == ALWAYS:
        minutes[:] = True
    for window in filter(None, form.split(";")):
        days, _, span = window.partition(" ")
        start, end = (60 * int(clock[:2]) + int(clock[3:]) for clock in span.split("-"))
        if end <= start:
            end += DAY_MINUTES
        for day in days:
            at = np.arange((int(day) - 1) * DAY_MINUTES + start, (int(day) - 1) * DAY_MINUTES + end) % WEEK_MINUTES
            minutes[at] = True
    return np.packbits(minutes, bitorder="little").tobytes()


def minute_of_week(at_ms: int, timezone: str) -> int:
    """The minute of the local week at a moment, 0 is Monday 00:00; summer time is in force as it is at that moment."""
    moment = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(_zone(timezone))
    return moment.weekday() * DAY_MINUTES + moment.hour * 60 + moment.minute


def in_force(at_ms: int, timezones: Sequence[str], forms: Sequence[str]) -> NDArray[np.uint8]:
    """uint8[timezones, forms]: 1 where the form is in force there at that moment."""
    table = np.empty((len(timezones), len(forms)), np.uint8)
    masks = np.frombuffer(b"".join(mask(form) for form in forms), np.uint8).reshape(len(forms), -1)
    for number, timezone in enumerate(timezones):
        minute = minute_of_week(at_ms, timezone)
        table[number] = (masks[:, minute >> 3] >> (minute & 7)) & 1
    return table


def known_timezone(name: str) -> bool:
    """Whether there is such a time zone."""
    return name in _timezones()


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
