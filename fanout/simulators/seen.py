"""What a provider saw: every delivery with its token and time, so that promises can be proved from the outside.

One record per (action, channel, phase) keeps tokens end to end, how long each is, and when they came: those that were
read together have one time. Adding is a few appends without a look at anything, since the simulators share their core
with what is measured; counting, and finding what came twice, is done when somebody asks: by digests of tokens, and for
those that agree by the tokens themselves. Several workers each keep their own `Seen`: `part` is what one of them has of
an action, `answer` is made of all parts.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.simulators.http2 import kernels

DOUBLED_SHOWN_MAX: Final = 100


class Part(NamedTuple):
    """The deliveries of one action, channel and phase at one worker; `lengths` uint32[n] as bytes."""

    channel: str
    phase: int
    tokens: bytes
    lengths: bytes
    first_ns: int
    last_ns: int


class Record:
    """The deliveries of one action, channel and phase: `times_ns` and `counts`, how many came when."""

    def __init__(self) -> None:
        self.tokens = bytearray()
        self.lengths = array("I")
        self.times_ns = array("Q")
        self.counts = array("I")

    def add(self, token: bytes) -> None:
        """One delivery, now."""
        self.tokens += token
        self.lengths.append(len(token))
        self.times_ns.append(time.time_ns())
        self.counts.append(1)

    def add_many(self, tokens: bytes, lengths: NDArray[np.uint32], now_ns: int) -> None:
        """Deliveries that came together; `lengths` uint32[n] of the tokens that stand end to end."""
        self.tokens += tokens
        self.lengths.frombytes(lengths.tobytes())
        self.times_ns.append(now_ns)
        self.counts.append(len(lengths))


class Seen:
    """All deliveries of one worker since the start, or since `clear`."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str, int], Record] = {}

    def record(self, action: str, channel: str, phase: int) -> Record:
        """Where an action's deliveries of a phase on a channel are kept; hot paths keep it."""
        found = self._records.get((action, channel, phase))
        if found is None:
            found = self._records[action, channel, phase] = Record()
        return found

    def clear(self) -> None:
        self._records.clear()

    def actions(self) -> list[str]:
        return sorted({action for action, *_ in self._records})

    def part(self, action: str) -> list[Part]:
        """What this worker has of an action."""
        return [
            Part(channel, phase, bytes(kept.tokens), kept.lengths.tobytes(), min(kept.times_ns), max(kept.times_ns))
            for (of, channel, phase), kept in self._records.items()
            if of == action and kept.lengths
        ]


def answer(action: str, parts: Iterable[Part], *, phase: int | None = None, tokens: bool = False) -> dict[str, object]:
    """Counts of an action, whole and by channel. A token counts as doubled when it got one phase more than once."""
    by_channel: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        if phase in (None, part.phase):
            by_channel[part.channel].append(part)
    channels: dict[str, object] = {}
    total = distinct = 0
    times_ms: list[int] = []
    doubled_all: list[str] = []
    for channel, mine in sorted(by_channel.items()):
        counted = [_counted(group) for group in _by_phase(mine)]
        here, kinds = sum(rows for rows, _ in counted), sum(rows - extra.total() for rows, extra in counted)
        span_ms = [min(part.first_ns for part in mine) // 1_000_000, max(part.last_ns for part in mine) // 1_000_000]
        doubled = [token.decode("latin-1") for _, extra in counted for token in extra]
        one: dict[str, object] = {
            "total": here,
            "distinct": kinds,
            "doubled": doubled[:DOUBLED_SHOWN_MAX],
            "doubled_count": len(doubled),
            "first_ms": span_ms[0],
            "last_ms": span_ms[1],
        }
        if tokens:
            one["tokens"] = sorted({token.decode("latin-1") for part in mine for token in _tokens(part)})
        channels[channel] = one
        total, distinct = total + here, distinct + kinds
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


def _by_phase(parts: Iterable[Part]) -> list[list[Part]]:
    groups: defaultdict[int, list[Part]] = defaultdict(list)
    for part in parts:
        groups[part.phase].append(part)
    return list(groups.values())


def _counted(parts: list[Part]) -> tuple[int, Counter[bytes]]:
    """(deliveries, by token how many there were beyond the first) of one phase at all workers."""
    tokens = b"".join(part.tokens for part in parts)
    ends = _ends(b"".join(part.lengths for part in parts))
    marks = np.zeros(len(ends), np.int64)
    kernels.digests(np.frombuffer(tokens, np.uint8), ends, marks)
    order = np.argsort(marks, kind="stable")
    alike = np.zeros(len(ends), np.bool_)
    alike[1:] = marks[order[1:]] == marks[order[:-1]]
    alike[:-1] |= alike[1:]
    begins = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    rows = np.sort(order[alike])
    counts = Counter(tokens[begin:end] for begin, end in zip(begins[rows].tolist(), ends[rows].tolist(), strict=True))
    return len(ends), Counter({token: count - 1 for token, count in counts.items() if count > 1})


def _ends(lengths: bytes) -> NDArray[np.int64]:
    return np.cumsum(np.frombuffer(lengths, np.uint32), dtype=np.int64)


def _tokens(part: Part) -> Iterable[bytes]:
    begin = 0
    for end in _ends(part.lengths).tolist():
        yield part.tokens[begin:end]
        begin = end
