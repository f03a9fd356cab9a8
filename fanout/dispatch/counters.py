"""What a sender did, for metrics: rows by (channel, event) and (channel, reason), batches by channel."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fanout.channels.protocol import Outcome
from fanout.store.states import Event, Reason


class Counters:
    """Of one sender. `in_hand`: batches by channel, now."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.batches: Counter[str] = Counter()
        self.in_hand: Counter[str] = Counter()

    def count(self, channel: str, outcome: Outcome) -> None:
        """Rows that came back."""
        for value, rows in enumerate(np.bincount(outcome.event, minlength=len(Event)).tolist()):
            if rows:
                self.events[channel, Event(value).name.lower()] += rows
        for value, rows in enumerate(np.bincount(outcome.reason, minlength=len(Reason)).tolist()):
            if rows and value != Reason.NONE:
                self.reasons[channel, Reason(value).name.lower()] += rows
