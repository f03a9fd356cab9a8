"""A registry as a dict, and a log as a list: what the real ones must be like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fanout import wire
from fanout.registry.entries import DEAD_STREAM
from fanout.registry.view import View


class Crash(BaseException):
    """The process ends here."""


class MemoryLog:
    """A `Log` that outlives the registry over it. `crashes`: the process ends before it forgets dead addresses."""

    def __init__(self) -> None:
        self.crashes = False
        self._entries: dict[str, list[bytes]] = {}
        self._trimmed: dict[str, int] = {}

    def append(self, stream: str, entries: Sequence[bytes]) -> int:
        self._entries.setdefault(stream, []).extend(entries)
        return self.last(stream)

    def read(self, stream: str, *, after: int, most: int) -> list[tuple[int, bytes]]:
        before = self._trimmed.get(stream, 0)
        start = max(0, after - before)
        found = self._entries.get(stream, [])[start : start + most]
        return [(before + start + at, entry) for at, entry in enumerate(found, 1)]

    def trim(self, stream: str, *, upto: int) -> None:
        if self.crashes and stream == DEAD_STREAM:
            raise Crash
        before = self._trimmed.get(stream, 0)
        entries = self._entries.get(stream, [])
        gone = min(max(0, upto - before), len(entries))
        self._entries[stream] = entries[gone:]
        self._trimmed[stream] = before + gone

    def last(self, stream: str) -> int:
        return self._trimmed.get(stream, 0) + len(self._entries.get(stream, []))


class Held(NamedTuple):
    """What is held of somebody: which registration of the id it is, the number, channels dropped as dead, and when it
    was registered last."""

    since: int
    number: int
    dropped: frozenset[int] = frozenset()
    at_ms: int = 0


class NaiveRegistry:
    """People by name, and what is known of their addresses; `tried`: what a sender read last; `dead`: the news."""

    def __init__(self) -> None:
        self.people: dict[str, Held] = {}
        self.tried: list[tuple[str, Held]] = []
        self.dead: list[tuple[int, str, Held, int]] = []
        self.counts: Counter[int] = Counter()
        self.now_ms = 0
        self.tried_ms = 0
        self._given = 0
        self._rows: dict[tuple[str, int], tuple[int, int]] = {}

    def upsert(self, people: Mapping[str, int]) -> None:
        for name, number in people.items():
            self._given += 1
            since = self.people[name].since if name in self.people else self._given
            self.people[name] = Held(since, number, at_ms=self.now_ms)

    def erase(self, names: Sequence[str]) -> int:
        return sum(self.people.pop(name, None) is not None for name in set(names))

    def read(self, names: Sequence[str]) -> None:
        """A sender reads the addresses of people."""
        self.tried = [(name, self.people[name]) for name in names]
        self.tried_ms = self.now_ms

    def take(self) -> int:
        """Drop what is registered as it was tried, and was not registered again since."""
        dropped = set()
        for channel, name, tried, since_ms in self.dead:
            one = self.people.get(name)
            same = one and (one.since, one.number) == (tried.since, tried.number) and channel not in one.dropped
            if one and same and one.at_ms <= since_ms:
                self.people[name] = one._replace(dropped=one.dropped | {channel})
                dropped.add((channel, name))
                self.counts[channel] += 1
        self.dead = []
        return len(dropped)

    def note_rows(self, view: View) -> None:
        """Remember row and generation of everybody who is registered now."""
        names = list(self.people)
        rows = view.row_of(names)
        generations = view.take("generation", rows)
        for name, row, generation in zip(names, rows.tolist(), generations.tolist(), strict=True):
            self._rows[name, self.people[name].since] = row, generation

    def place_of(self, name: str, one: Held) -> tuple[int, int]:
        """Row and generation of somebody, as they were when they were registered."""
        return self._rows[name, one.since]


def address_of(channel: int, number: int) -> str:
    """The address that stands for a number on SMS or APNs."""
    return f"+316{10_000_000 + number}" if wire.CHANNELS[channel] == "sms" else f"{number:064x}"


def person(name: str, number: int = 0, **given: object) -> wire.Participant:
    """Somebody, told apart by a number: it is in the place and in the addresses."""
    fields: dict[str, object] = {
        "id": name,
        "places": [wire.Place(lon=4.0 + number / 1000, lat=52.0)],
        "addresses": [
            wire.Address(channel=name, value=address_of(wire.CHANNELS.index(name), number)) for name in ("sms", "apns")
        ],
    }
    return wire.Participant(**(fields | given))  # type: ignore[arg-type]
