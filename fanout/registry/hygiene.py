"""Dead addresses: which of those that providers declared dead are to be dropped. Pure.

Rules:

1. What is compared is the address that was tried, by its digest. If another one stands there by now (a token that was
   rotated, a new number), or the row is somebody else's or nobody's, nothing is dropped: no clock has a say in it.
2. An address that was registered again as it was, before the news of its death was taken in, is dropped too: of the
   two sides the provider is the one that knows. That is a matter of a second, and the app registers again.
3. What is dropped is counted for ever, by channel and reason; when, is in the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from fanout import wire
from fanout.registry import entries

if TYPE_CHECKING:
    from fanout.registry.replica import Replica

REASON: Final = "token_dead"


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


def still_there(replica: Replica, dead: Iterable[entries.DeadAddresses]) -> dict[tuple[int, int], int]:
    """The addresses that are registered as they were tried: (row, channel) to the moment they were declared dead."""
    found: dict[tuple[int, int], int] = {}
    for one in dead:
        rows, generations = np.array(one.rows, np.uint32), np.array(one.generations, np.uint16)
        held = replica.addresses(one.channel, rows, generations).texts()
        for row, address, digest in zip(one.rows, held, one.digests, strict=True):
            if address and entries.digest_of(address.encode()) == digest:
                found[row, one.channel] = one.at_ms
    return found


def entry_of(found: dict[tuple[int, int], int], *, version: int, upto: int) -> entries.Dropped:
    """The registry's log entry that drops them."""
    rows, channels = (np.array(column) for column in zip(*found, strict=True))
    at_ms = np.array(list(found.values()), "<i8")
    return entries.Dropped(
        version, upto, REASON, channels.astype(np.uint8).tobytes(), rows.astype("<u4").tobytes(), at_ms.tobytes()
    )
