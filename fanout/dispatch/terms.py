"""What an engine and its senders agree on, for whoever has to know it without loading all that a sender is made of."""

from __future__ import annotations

from typing import Final

from fanout.settings import Settings

PUSH: Final = ("fcm", "apns")
"""Channels that `senders.processes` share; each of the others is in one process (`crews`), with all its quota."""

GRACE_S: Final = 1.0
"""Beyond a request's time-out, to write what came of it."""


def ends_within_s(settings: Settings) -> float:
    """Seconds that a sender which is told to stop may take: one request, its results, and the end of the process."""
    return settings.dispatch.request_timeout_s + GRACE_S + 2.0
