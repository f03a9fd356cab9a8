"""What happened, counted: from the ledger's batches to the tallies of an action.

Rules:

1. `selected` of a phase is the number of its rows that were not moved to another channel (a moved person is counted
   where they went), so nobody is counted twice, and
   selected = waiting + accepted + failed + expired + cancelled + unknown, always.
2. `delivered` is part of `accepted`: it needs a receipt, which not every channel gives.
3. Times count from the creation of the action's phase, in milliseconds. `first_ms`: the first acceptance by a provider.
   `p90_ms`: when 90 % of the accepted were accepted, to the grain of a batch. `last_ms`: the last acceptance.
4. A forecast is corrected while an action runs: what is past is what was measured, what is to come goes on as each
   channel did within the last minute. So a slow provider, a quota shared with other actions and a standstill all show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from fanout.channels.protocol import Pace
from fanout.limits import BATCH_ROWS_LEAST
from fanout.plan.eta import seconds_to_share
from fanout.store.protocol import BatchCounts, PhaseRecord
from fanout.store.states import OPEN, Reason, State
from fanout.wire import CHANNELS, Forecast, Tally

RECENT_MS: Final = 60_000
"""How far back a channel's present rate is taken from: a provider's quota is counted by the minute. Longer on a channel
so slow that two of its smallest batches take longer: a batch is news when it ends."""

_ACCEPTED = (State.ACCEPTED, State.DELIVERED)


def tallies(phases: Sequence[PhaseRecord], counts: Iterable[BatchCounts]) -> list[Tally]:
    """One tally a phase, in the order of the phases."""
    by_phase: dict[int, list[BatchCounts]] = {phase.phase: [] for phase in phases}
    for batch in counts:
        by_phase[batch.phase].append(batch)
    return [_tally(phase, by_phase[phase.phase]) for phase in phases]


def _tally(phase: PhaseRecord, batches: list[BatchCounts]) -> Tally:
    """In columns: a nation has two thousand batches, and whoever watches it asks again and again."""
    channel = np.array([batch.channel for batch in batches], np.uint8)
    columns = np.array([batch.states for batch in batches], np.int64).reshape(-1, len(State))
    because = np.array([batch.reasons for batch in batches], np.int64).reshape(-1, len(Reason)).sum(axis=0).tolist()
    taken = columns[:, _ACCEPTED].sum(axis=1)
    states = columns.sum(axis=0).tolist()
    kept = columns.sum(axis=1) - columns[:, State.MOVED]
    channels, channels_accepted = {}, {}
    for number in dict.fromkeys(channel.tolist()):
        mine = channel == number
        channels[CHANNELS[number]] = int(kept[mine].sum())
        channels_accepted[CHANNELS[number]] = int(taken[mine].sum())
    reasons = {
        reason.name.lower(): because[reason] for reason in Reason if reason is not Reason.NONE and because[reason]
    }
    first = min((batch.first_ms for batch in batches if batch.first_ms is not None), default=None)
    last = max((batch.last_ms for batch in batches if batch.last_ms is not None), default=None)
    return Tally(
        phase=phase.name,
        selected=sum(states) - states[State.MOVED],
        waiting=sum(states[state] for state in OPEN),
        accepted=sum(states[state] for state in _ACCEPTED),
        failed=states[State.FAILED],
        expired=states[State.EXPIRED],
        cancelled=states[State.CANCELLED],
        unknown=states[State.UNKNOWN],
        delivered=states[State.DELIVERED],
        reasons=reasons,
        channels=channels,
        channels_accepted=channels_accepted,
        first_ms=None if first is None else first - phase.created_ms,
        p90_ms=_share_ms(batches, taken.tolist(), 0.9, phase.created_ms),
        last_ms=None if last is None else last - phase.created_ms,
    )


def _share_ms(batches: list[BatchCounts], taken: list[int], share: float, created_ms: int) -> int | None:
    """When `share` of the accepted were accepted, by the time of each batch's last acceptance. `taken`: by batch."""
    timed = sorted(
        (batch.last_ms, count) for batch, count in zip(batches, taken, strict=True) if batch.last_ms is not None
    )
    wanted = share * sum(accepted for _, accepted in timed)
    reached = 0
    for last_ms, accepted in timed:
        reached += accepted
        if accepted and reached >= wanted:
            return last_ms - created_ms
    return None


def forecast(
    phase: PhaseRecord, counts: Iterable[BatchCounts], paces: Mapping[str, Pace], now_ms: int
) -> Forecast | None:
    """When half, nine tenths and all of a phase's people are handed over; None if nobody is or will be."""
    batches = [batch for batch in counts if batch.phase == phase.phase]
    timed = sorted((batch.last_ms, _taken(batch)) for batch in batches if batch.last_ms is not None and _taken(batch))
    done = sum(taken for _, taken in timed)
    waiting, rates = _waiting(batches, paces, now_ms)
    everybody = done + sum(waiting.values())
    if not everybody:
        return None

    def seconds(share: float) -> float | None:
        wanted = share * everybody
        reached = 0
        for last_ms, taken in timed:
            reached += taken
            if reached >= wanted:
                return round((last_ms - phase.created_ms) / 1000, 3)
        moving = {name: people for name, people in waiting.items() if name in rates}
        more = wanted - done
        if more > sum(moving.values()):
            return None
        further_s = seconds_to_share(moving, rates, more / sum(moving.values()))
        return round((now_ms - phase.created_ms) / 1000 + further_s, 3)

    return Forecast(half_s=seconds(0.5), most_s=seconds(0.9), all_s=seconds(1.0))


def _waiting(
    batches: list[BatchCounts], paces: Mapping[str, Pace], now_ms: int
) -> tuple[dict[str, int], dict[str, Pace]]:
    """People still to be told by channel, and the present rate of those channels that move."""
    waiting: dict[str, int] = {}
    recent: dict[str, int] = {}
    since: dict[str, int] = {}
    for batch in batches:
        name = CHANNELS[batch.channel]
        left = sum(batch.states[state] for state in OPEN)
        if left:
            waiting[name] = waiting.get(name, 0) + left
        if batch.last_ms is not None and batch.first_ms is not None:
            since[name] = min(since.get(name, batch.first_ms), batch.first_ms)
            if now_ms - batch.last_ms <= _recent_ms(paces.get(name)):
                recent[name] = recent.get(name, 0) + _taken(batch)
    rates = {}
    for name in waiting:
        quota = paces.get(name)
        if name not in since:
            if quota is not None:  # nothing was answered yet: its quota is all that is known
                rates[name] = quota
        elif recent.get(name):
            rate_per_s = 1000 * recent[name] / max(1, min(_recent_ms(quota), now_ms - since[name]))
            rates[name] = Pace(rate_per_s if quota is None else min(rate_per_s, quota.rate_per_s), 0.0)
    return waiting, rates


def _recent_ms(quota: Pace | None) -> int:
    return RECENT_MS if quota is None else max(RECENT_MS, int(2_000 * BATCH_ROWS_LEAST / quota.rate_per_s))


def _taken(batch: BatchCounts) -> int:
    return sum(batch.states[state] for state in _ACCEPTED)
