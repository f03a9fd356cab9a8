"""What an engine and its senders agree on, for whoever has to know it without loading all that a sender is made of."""

from __future__ import annotations

from typing import Final

from fanout.limits import BATCH_ROWS_FIRST
from fanout.settings import Settings

PUSH: Final = ("fcm", "apns")
"""Channels that `senders.processes` share; each of the others is in one process (`crews`), with all its quota."""

NEAREST_RATE: Final = 0.05
NEAREST_BURST: Final = 0.25
"""Parts of a quota that are the nearest's, where they have a sender of their own: they come few, and all at once."""

GRACE_S: Final = 1.0
"""Beyond a request's time-out, to write what came of it."""


def nearest_apart(settings: Settings, channel: str) -> bool:
    """Whether the nearest people have a sender of their own on a channel: its part of the quota has to let them all go
    at once, or they would be told later for it."""
    if not settings.senders.nearest or channel not in PUSH:
        return False
    quota = getattr(settings.providers, channel)
    return bool(min(quota.rate_per_s * NEAREST_RATE, quota.burst * NEAREST_BURST) >= BATCH_ROWS_FIRST)


def ends_within_s(settings: Settings) -> float:
    """Seconds that a sender which is told to stop may take: one request, its results, and the end of the process."""
    return settings.dispatch.request_timeout_s + GRACE_S + 2.0
