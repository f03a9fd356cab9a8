"""A registry as a dict, and a log as a list: what the real ones must be like."""

from __future__ import annotations

from collections.abc import Sequence

from fanout import wire


class MemoryLog:
    """A `Log` that outlives the registry over it."""

    def __init__(self) -> None:
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
        before = self._trimmed.get(stream, 0)
        entries = self._entries.get(stream, [])
        gone = min(max(0, upto - before), len(entries))
        self._entries[stream] = entries[gone:]
        self._trimmed[stream] = before + gone

    def last(self, stream: str) -> int:
        return self._trimmed.get(stream, 0) + len(self._entries.get(stream, []))


def person(name: str, number: int = 0, **given: object) -> wire.Participant:
    """Somebody, told apart by a number: it is in the place and in the addresses."""
    fields: dict[str, object] = {
        "id": name,
        "places": [wire.Place(lon=4.0 + number / 1000, lat=52.0)],
        "addresses": [
            wire.Address(channel="sms", value=f"+316{10_000_000 + number}"),
            wire.Address(channel="apns", value=f"{number:064x}"),
        ],
    }
    return wire.Participant(**(fields | given))  # type: ignore[arg-type]
