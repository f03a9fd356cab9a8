"""What a provider saw: every delivery with its token and time, so that promises can be proved from the outside.

One record per (action, channel) keeps tokens end to end, where each ends, the phase and the time: about 30 bytes beside
the token. Adding is three appends; counting, and finding what came twice, is done when somebody asks.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Final

DOUBLED_SHOWN_MAX: Final = 100


class Record:
    """Deliveries of one action on one channel."""

    __slots__ = ("ends", "phases", "times_ms", "tokens")

    def __init__(self) -> None:
        self.tokens = bytearray()
        self.ends = array("Q")
        self.phases = array("H")
        self.times_ms = array("Q")

    def add(self, token: bytes, phase: int, now_ms: int) -> None:
        self.tokens += token
        self.ends.append(len(self.tokens))
        self.phases.append(phase)
        self.times_ms.append(now_ms)

    def rows(self, phase: int | None) -> list[tuple[int, bytes]]:
        """(phase, token) of each delivery, of one phase or of all."""
        tokens, begin, found = bytes(self.tokens), 0, []
        for end, of in zip(self.ends, self.phases, strict=True):
            if phase is None or of == phase:
                found.append((of, tokens[begin:end]))
            begin = end
        return found


class Seen:
    """All deliveries since the start, or since `clear`."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}

    def record(self, action: str, channel: str) -> Record:
        """The record of an action on a channel; hot paths keep it."""
        found = self._records.get((action, channel))
        if found is None:
            found = self._records[action, channel] = Record()
        return found

    def clear(self) -> None:
        self._records.clear()

    def actions(self) -> list[str]:
        return sorted({action for action, _ in self._records})

    def answer(self, action: str, *, phase: int | None = None, tokens: bool = False) -> dict[str, object]:
        """Counts of an action, whole and by channel. A token counts as doubled when it got one phase more than once."""
        channels: dict[str, object] = {}
        total = distinct = 0
        times: list[int] = []
        doubled_all: list[str] = []
        for (of, channel), record in sorted(self._records.items()):
            if of != action:
                continue
            rows = record.rows(phase)
            if not rows:
                continue
            counts = Counter(rows)
            doubled = [token.decode("latin-1") for (_, token), count in counts.items() if count > 1]
            when = [t for t, p in zip(record.times_ms, record.phases, strict=True) if phase is None or p == phase]
            one: dict[str, object] = {
                "total": len(rows),
                "distinct": len(counts),
                "doubled": doubled[:DOUBLED_SHOWN_MAX],
                "doubled_count": len(doubled),
                "first_ms": min(when),
                "last_ms": max(when),
            }
            if tokens:
                one["tokens"] = sorted({token.decode("latin-1") for _, token in rows})
            channels[channel] = one
            total, distinct = total + len(rows), distinct + len(counts)
            times += (min(when), max(when))
            doubled_all += doubled
        return {
            "action": action,
            "total": total,
            "distinct": distinct,
            "doubled": doubled_all[:DOUBLED_SHOWN_MAX],
            "doubled_count": len(doubled_all),
            "first_ms": min(times, default=None),
            "last_ms": max(times, default=None),
            "channels": channels,
        }
