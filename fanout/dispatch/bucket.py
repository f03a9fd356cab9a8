"""How many rows a provider's quota allows now: a token bucket with a part kept free for life at risk.

Providers count per minute in windows that do not start with ours. A bucket that refills at `rate_per_s` and holds
`burst` lets at most `burst + rate_per_s * t` through in any window of t seconds, wherever it starts; so a quota of Q a
minute is kept by `rate_per_s = (Q - burst) / 60`.

The lowest `reserve` of the bucket is for lane 0 only: while a national action drinks as fast as the bucket fills, the
reserve stays full, and a local life-at-risk action has its first rows at once.

Pure: `now_s` is an argument, of any clock that does not go back; a step back counts as no time.
"""

from __future__ import annotations


class Bucket:
    """Tokens of one provider in one process."""

    def __init__(self, *, rate_per_s: float, burst: float, reserve: float, now_s: float) -> None:
        assert rate_per_s > 0
        assert burst >= 1
        assert 0 <= reserve < 1
        self.rate_per_s = rate_per_s
        self._burst = burst
        self._kept = min(reserve * burst, burst - 1)
        self._level = burst
        self._at_s = now_s
        self._shut_until_s = now_s

    def __repr__(self) -> str:
        return f"<Bucket {self._level:.0f} of {self._burst:.0f}, {self.rate_per_s:g}/s>"

    def available(self, now_s: float, *, urgent: bool) -> int:
        """Rows that may go now."""
        if now_s < self._shut_until_s:
            return 0
        self._fill(now_s)
        return max(0, int(self._level if urgent else self._level - self._kept))

    def room(self, *, urgent: bool) -> int:
        """Rows that may ever go at once: what it holds when it is full."""
        return int(self._burst if urgent else self._burst - self._kept)

    def shut_s(self, now_s: float) -> float:
        """Seconds until the pause is over that the provider asked for."""
        return max(0.0, self._shut_until_s - now_s)

    def take(self, rows: int) -> None:
        """Rows went."""
        assert rows <= self._level, "more rows than available() allowed"
        self._level -= rows

    def give_back(self, rows: int) -> None:
        """Rows taken that did not go after all."""
        self._level = min(self._burst, self._level + rows)

    def ready_s(self, now_s: float, rows: int, *, urgent: bool) -> float:
        """When so many rows may go at once, if nobody else takes any; `rows` is capped at what the bucket holds."""
        room = self._burst if urgent else self._burst - self._kept
        wanted = min(float(rows), room) + (0.0 if urgent else self._kept)
        return max(self._shut_until_s, self._at_s + max(0.0, wanted - self._level) / self.rate_per_s, now_s)

    def shut(self, until_s: float) -> None:
        """The provider asked for a pause: nothing goes before, and afterwards it starts without a burst."""
        self._shut_until_s = max(self._shut_until_s, until_s)
        self._level, self._at_s = min(self._level, self._kept + 1), max(self._at_s, self._shut_until_s)

    def _fill(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._at_s)
        self._level = min(self._burst, self._level + passed_s * self.rate_per_s)
        self._at_s = max(self._at_s, now_s)
