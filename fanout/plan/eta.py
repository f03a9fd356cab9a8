"""How long it takes to reach everyone, from the providers' quotas alone.

Channels run side by side, so the time to reach a share of all people is when the channels together have reached that
many. Each channel hands over at its own steady rate; a quota that also allows a burst does its burst at once.
What our own machines can do is far above these quotas, and is left out on purpose: the answer is the providers' bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fanout.channels.protocol import Pace


def seconds_for(people: int, pace: Pace) -> float:
    """Seconds until the last of `people` is handed over."""
    waiting = people - pace.burst
    return waiting / pace.rate_per_s if waiting > 0 else 0.0


def seconds_to_share(people: Mapping[str, int], paces: Mapping[str, Pace], share: float) -> float:
    """Seconds until `share` (0 to 1) of all people are handed over, all channels side by side.

    Reached people as a function of time are a sum of ramps, each flat once its channel is done; the answer is found
    between the ends of two ramps by a straight line.
    """
    wanted = share * sum(people.values())
    ends: Sequence[float] = sorted({0.0, *(seconds_for(count, paces[name]) for name, count in people.items())})
    before, reached_before = 0.0, 0.0
    for end in ends:
        reached = sum(_reached(count, paces[name], end) for name, count in people.items())
        if reached >= wanted:
            if end == before or reached == reached_before:
                return end
            return before + (end - before) * max(0.0, wanted - reached_before) / (reached - reached_before)
        before, reached_before = end, reached
    return ends[-1]


def _reached(people: int, pace: Pace, at_s: float) -> float:
    return min(float(people), pace.burst + pace.rate_per_s * at_s)
