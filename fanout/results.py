"""What happened, counted: from the ledger's batches to the tallies of an action.

Rules:

1. `selected` of a phase is the number of its rows that were not moved to another channel (a moved person is counted
   where they went), so nobody is counted twice, and
   selected = waiting + accepted + failed + expired + cancelled + unknown, always.
2. `delivered` is part of `accepted`: it needs a receipt, which not every channel gives.
3. Times count from the creation of the action's phase, in milliseconds. `first_ms`: the first acceptance by a provider.
   `p90_ms`: when 90 % of the accepted were accepted, to the grain of a batch. `last_ms`: the last acceptance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fanout.store.protocol import BatchCounts, PhaseRecord
from fanout.store.states import OPEN, Reason, State
from fanout.wire import CHANNELS, Tally

_ACCEPTED = (State.ACCEPTED, State.DELIVERED)


def tallies(phases: Sequence[PhaseRecord], counts: Iterable[BatchCounts]) -> list[Tally]:
    """One tally a phase, in the order of the phases."""
    by_phase: dict[int, list[BatchCounts]] = {phase.phase: [] for phase in phases}
    for batch in counts:
        by_phase[batch.phase].append(batch)
    return [_tally(phase, by_phase[phase.phase]) for phase in phases]


def _tally(phase: PhaseRecord, batches: list[BatchCounts]) -> Tally:
    states = [sum(batch.states[state] for batch in batches) for state in State]
    channels: dict[str, int] = {}
    channels_accepted: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for batch in batches:
        name = CHANNELS[batch.channel]
        channels[name] = channels.get(name, 0) + sum(batch.states) - batch.states[State.MOVED]
        taken = sum(batch.states[state] for state in _ACCEPTED)
        channels_accepted[name] = channels_accepted.get(name, 0) + taken
        for reason in Reason:
            if reason is not Reason.NONE and batch.reasons[reason]:
                key = reason.name.lower()
                reasons[key] = reasons.get(key, 0) + batch.reasons[reason]
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
        p90_ms=_share_ms(batches, 0.9, phase.created_ms),
        last_ms=None if last is None else last - phase.created_ms,
    )


def _share_ms(batches: list[BatchCounts], share: float, created_ms: int) -> int | None:
    """When `share` of the accepted were accepted, by the time of each batch's last acceptance."""
    timed = sorted(
        (batch.last_ms, sum(batch.states[state] for state in _ACCEPTED))
        for batch in batches
        if batch.last_ms is not None
    )
    wanted = share * sum(accepted for _, accepted in timed)
    reached = 0
    for last_ms, accepted in timed:
        reached += accepted
        if accepted and reached >= wanted:
            return last_ms - created_ms
    return None
