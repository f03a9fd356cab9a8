"""What a provider saw: every delivery with its token and time, so that promises can be proved from the outside.

One record per (action, channel, phase) keeps tokens end to end, where each ends, and the time: 16 bytes beside the
token. Adding is three appends without a look at anything, since the simulators share their core with what is measured;
counting, and finding what came twice, is done when somebody asks. Several workers each keep their own `Seen`: `part` is
what one of them has of an action, `answer` is made of all parts.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np

DOUBLED_SHOWN_MAX: Final = 100

Add = Callable[[bytes], None]


class Part(NamedTuple):
    """The deliveries of one action, channel and phase at one worker: `ends`, `times_ns` are uint64[n] as bytes."""

    channel: str
    phase: int
    tokens: bytes
    ends: bytes
    times_ns: bytes


class Seen:
    """All deliveries of one worker since the start, or since `clear`."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str, int], tuple[Add, bytearray, array[int], array[int]]] = {}

    def add(self, action: str, channel: str, phase: int) -> Add:
        """Call what this returns with each token that an action's phase brings on a channel; hot paths keep it."""
        found = self._records.get((action, channel, phase))
        if found is None:
            found = self._records[action, channel, phase] = _record()
        return found[0]

    def clear(self) -> None:
        self._records.clear()

    def actions(self) -> list[str]:
        return sorted({action for action, *_ in self._records})

    def part(self, action: str) -> list[Part]:
        """What this worker has of an action."""
        return [
            Part(channel, phase, bytes(tokens), ends.tobytes(), times.tobytes())
            for (of, channel, phase), (_, tokens, ends, times) in self._records.items()
            if of == action
        ]


def _record() -> tuple[Add, bytearray, array[int], array[int]]:
    tokens, ends, times_ns = bytearray(), array("Q"), array("Q")
    end, when, now_ns = ends.append, times_ns.append, time.time_ns

    def add(token: bytes) -> None:
        nonlocal tokens
        tokens += token
        end(len(tokens))
        when(now_ns())

    return add, tokens, ends, times_ns


def answer(action: str, parts: Iterable[Part], *, phase: int | None = None, tokens: bool = False) -> dict[str, object]:
    """Counts of an action, whole and by channel. A token counts as doubled when it got one phase more than once."""
    by_channel: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        if part.ends and phase in (None, part.phase):
            by_channel[part.channel].append(part)
    channels: dict[str, object] = {}
    total = distinct = 0
    times_ms: list[int] = []
    doubled_all: list[str] = []
    for channel, mine in sorted(by_channel.items()):
        counts: Counter[tuple[int, bytes]] = Counter()
        for part in mine:
            counts.update(_rows(part))
        when_ns = np.concatenate([np.frombuffer(part.times_ns, np.uint64) for part in mine])
        span_ms = [int(when_ns.min()) // 1_000_000, int(when_ns.max()) // 1_000_000]
        doubled = [token.decode("latin-1") for (_, token), count in counts.items() if count > 1]
        one: dict[str, object] = {
            "total": len(when_ns),
            "distinct": len(counts),
            "doubled": doubled[:DOUBLED_SHOWN_MAX],
            "doubled_count": len(doubled),
            "first_ms": span_ms[0],
            "last_ms": span_ms[1],
        }
        if tokens:
            one["tokens"] = sorted({token.decode("latin-1") for _, token in counts})
        channels[channel] = one
        total, distinct = total + len(when_ns), distinct + len(counts)
        times_ms += span_ms
        doubled_all += doubled
    return {
        "action": action,
        "total": total,
        "distinct": distinct,
        "doubled": doubled_all[:DOUBLED_SHOWN_MAX],
        "doubled_count": len(doubled_all),
        "first_ms": min(times_ms, default=None),
        "last_ms": max(times_ms, default=None),
        "channels": channels,
    }


def _rows(part: Part) -> Iterable[tuple[int, bytes]]:
    begin, tokens, phase = 0, part.tokens, part.phase
    for end in np.frombuffer(part.ends, np.uint64).tolist():
        yield phase, tokens[begin:end]
        begin = end
