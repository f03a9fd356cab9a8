"""The wall clock. Handed to whatever needs the time, so that tests can hand in another."""

from __future__ import annotations

import time


def clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
