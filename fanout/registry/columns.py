"""People in columns: what the registry holds of one participant, and how names become numbers.

One participant is one record of `PERSON` (20 bytes, so a kernel that filters somebody touches one cache line), an id,
and places. Contacts stand apart (`contacts`): selection never needs them.

`Names` number what repeats: languages, time zones, kinds, tenants, forms of hours. Numbers are only given, never taken
back, so an old snapshot reads the same for ever. Kinds and tenants are bits; all bits set means "all, also those to
come".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout import limits, wire
from fanout.errors import Refused
from fanout.geo.index import PlaceIndex
from fanout.registry import hours
from fanout.registry.packed import Packed

PERSON: Final = np.dtype(
    [
        ("preference", "<u4"),  # nibble k: 1 + channel number of the k-th choice, 0: none
        ("kinds", "<u4"),  # a bit per kind of action wanted
        ("tenants", "<u4"),  # a bit per tenant who may address
        ("generation", "<u2"),  # of the row: grows when the row is given to somebody else
        ("timezone", "<u2"),
        ("flags", "u1"),
        ("channels", "u1"),  # a bit per channel with an address, by `wire.CHANNELS`
        ("language", "u1"),
        ("age_group", "u1"),  # by `AGE_GROUPS`
    ]
)
ERASED: Final = 1
"""Bit of `flags`: nobody is here any more."""

ALL: Final = 0xFFFFFFFF
AGE_GROUPS: Final = ("unknown", "youth", "adult", "senior")
HOURS_MAX: Final = 65_535  # distinct forms of hours: a column of uint16


@dataclass(frozen=True, slots=True)
class Columns:
    """A batch of n people as it comes in, places in the order of people.

    `people` PERSON[n] (generation and flags not yet set); `ids`, `contacts[channel]` packed, n rows;
    `place_person` uint32[m] (0 … n-1, ascending), `lon`, `lat` int32[m] fixed-point, `hours` uint16[m].
    """

    people: NDArray[np.void]
    ids: Packed
    place_person: NDArray[np.uint32]
    lon: NDArray[np.int32]
    lat: NDArray[np.int32]
    hours: NDArray[np.uint16]
    contacts: dict[int, Packed]


def by_place(columns: Columns) -> Columns:
    """The same people in the order of their first places on the map.

    Neighbours then get neighbouring rows: what a selection reads of them, and a sender of their contacts, lies together
    (a circle of 100,000 people takes a third of the time). A person without a place may stand anywhere.
    """
    n = columns.people.size
    first = np.searchsorted(columns.place_person, np.arange(n, dtype=np.uint32))
    first = np.minimum(first, max(0, columns.lon.size - 1))
    order = PlaceIndex.build_ordered(columns.lon[first], columns.lat[first])[1]
    rank = np.empty(n, np.uint32)
    rank[order] = np.arange(n, dtype=np.uint32)
    person = rank[columns.place_person]
    places = np.argsort(person, kind="stable")
    return Columns(
        columns.people[order], columns.ids.take(order), person[places], columns.lon[places], columns.lat[places],
        columns.hours[places], {channel: values.take(order) for channel, values in columns.contacts.items()},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Names:
    """What numbers mean: the index is the number (or the bit)."""

    languages: tuple[str, ...] = ("nl",)
    timezones: tuple[str, ...] = ("Europe/Amsterdam",)
    kinds: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    hours: tuple[str, ...] = (hours.ALWAYS,)


_MOST: Final = {"languages": 256, "timezones": 65_536, "kinds": limits.KINDS_MAX - 1, "tenants": limits.TENANTS_MAX - 1,
                "hours": HOURS_MAX}  # fmt: skip


@dataclass(slots=True)
class Numbering:
    """Names while they grow. `closed`: kinds and tenants are given lists, others are refused.

    Of the 32 bits of kinds and tenants the highest is never given to a name: only "all" has it.
    """

    names: Names
    closed: tuple[str, ...] = ()
    _numbers: dict[str, dict[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        self._numbers = {
            what: {name: number for number, name in enumerate(getattr(self.names, what))} for what in _MOST
        }

    def add(self, what: str, names: Sequence[str]) -> None:
        """Number names that are given beforehand."""
        for name in names:
            self._numbers[what].setdefault(name, len(self._numbers[what]))
        assert len(self._numbers[what]) <= _MOST[what], f"more {what} than there are numbers"
        self.frozen()

    def number(self, what: str, name: str, where: str) -> int:
        """The number of a name, given now if it is new."""
        numbers = self._numbers[what]
        found = numbers.get(name)
        if found is not None:
            return found
        if what in self.closed:
            code = "kind_unknown" if what == "kinds" else "tenant_unknown"
            raise Refused(code, where, known=", ".join(getattr(self.names, what)), **{what[:-1]: name})
        if len(numbers) >= _MOST[what]:
            raise Refused("field_invalid", where, detail=f"There are already {len(numbers)} different {what}.")
        numbers[name] = len(numbers)
        return len(numbers) - 1

    def bits(self, what: str, names: list[str] | None, where: str) -> int:
        """The mask of several names; None is all."""
        if names is None:
            return ALL
        mask = 0
        for name in names:
            mask |= 1 << self.number(what, name, where)
        return mask

    def frozen(self) -> Names:
        """The names as they are now."""
        if any(len(numbers) != len(getattr(self.names, what)) for what, numbers in self._numbers.items()):
            self.names = Names(**{what: tuple(numbers) for what, numbers in self._numbers.items()})
        return self.names


def preference_of(channels: list[int]) -> int:
    """Channel numbers in the order of preference, as nibbles."""
    word = 0
    for choice, channel in enumerate(channels):
        word |= (channel + 1) << (4 * choice)
    return word


def choices_of(preference: int) -> list[int]:
    """The inverse of `preference_of`."""
    channels = []
    while preference:
        channels.append((preference & 15) - 1)
        preference >>= 4
    return channels


def without_choice(preference: NDArray[np.uint32], channel: int) -> NDArray[np.uint32]:
    """uint32[n]: preferences with a channel taken out; the later choices move up."""
    word, kept = preference.astype(np.uint64), np.zeros(preference.size, np.uint64)
    for choice in range(8):
        low = np.uint64(4 * choice)
        found = (word >> low) & np.uint64(15) == channel + 1
        below = (np.uint64(1) << low) - np.uint64(1)
        kept[found] = (word & below | word >> np.uint64(4) & ~below)[found]
        word[found] = 0
    return np.where(word != 0, word, kept).astype(np.uint32)


assert len(wire.CHANNELS) <= 8, "a mask of channels is one byte"
