"""Dead addresses: which of those that providers declared dead are to be dropped. Pure.

Rules:

1. What is compared is the address that was tried, by its digest. If another one stands there by now (a token that was
   rotated, a new number), or the row is somebody else's or nobody's, nothing is dropped: no clock has a say in it.
2. An address that was registered again since, as it was, stays: the app knows better. Since when, is the moment the
   provider names (APNs does), else the moment at which a sender read the address to try it. An import is a copy of what
   was known before, so it is no registration.
3. An address that the provider says was never one of its own (`token_invalid`) is dropped by the same rules.
4. What is dropped is counted for ever, by channel and reason; when, is in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fanout import wire
from fanout.registry import entries

if TYPE_CHECKING:
    from fanout.registry.replica import Replica

Found: TypeAlias = dict[str, dict[tuple[int, int], int]]
"""By reason: (row, channel) of addresses to be dropped, to the moment since when."""


class Hygiene(NamedTuple):
    """How far the stream of dead addresses was taken in, and how many were dropped, by channel and reason."""

    upto: int = 0
    counts: tuple[tuple[str, str, int], ...] = ()

    def dropped(self) -> dict[tuple[str, str], int]:
        """The counts by (channel, reason)."""
        return {(channel, reason): count for channel, reason, count in self.counts}

    def after(self, entry: entries.Dropped) -> Hygiene:
        """What it is once an entry of the registry's log was taken in."""
        counts = self.dropped()
        by_channel = np.bincount(entries.channels_of(entry), minlength=len(wire.CHANNELS))
        for name, count in zip(wire.CHANNELS, by_channel.tolist(), strict=True):
            if count:
                counts[name, entry.reason] = counts.get((name, entry.reason), 0) + count
        return Hygiene(entry.upto, tuple((*key, count) for key, count in sorted(counts.items())))


def of_meta(given: Any) -> Hygiene:
    """As a snapshot's header has it; None in one that is older than this."""
    upto, counts = given or Hygiene()
    return Hygiene(int(upto), tuple((channel, reason, int(count)) for channel, reason, count in counts))


def still_there(replica: Replica, dead: Iterable[entries.DeadAddresses], registered_ms: Callable[[int], int]) -> Found:
    """The addresses that are registered as they were tried, and were not registered again since.

    `registered_ms(row)`: when the row's addresses were registered last, 0 if that is not known.
    """
    found: Found = {}
    for one in dead:
        rows, generations = np.array(one.rows, np.uint32), np.array(one.generations, np.uint16)
        held = replica.addresses(one.channel, rows, generations).texts()
        since_ms = one.since_ms if len(one.since_ms) == len(one.rows) else [one.at_ms] * len(one.rows)
        for row, address, digest, at_ms in zip(one.rows, held, one.digests, since_ms, strict=True):
            same = address and entries.digest_of(address.encode()) == digest
            if (
                same
                and registered_ms(row) <= at_ms
                and not any((row, one.channel) in known for known in found.values())
            ):
                found.setdefault(one.reason, {})[row, one.channel] = at_ms
    return found


def entries_of(found: Found, *, version: int, upto: int) -> list[entries.Dropped]:
    """The registry's log entries that drop them, one a reason; the first makes `version`."""
    made: list[entries.Dropped] = []
    for reason, addresses in sorted(found.items()):
        rows, channels = (np.array(column) for column in zip(*addresses, strict=True))
        at_ms = np.array(list(addresses.values()), "<i8")
        columns = channels.astype(np.uint8).tobytes(), rows.astype("<u4").tobytes(), at_ms.tobytes()
        made.append(entries.Dropped(version + len(made), upto, reason, *columns))
    return made
