"""Waves: an action told a few people at a time, as fast as operators come free to take their calls. Pure.

Ten thousand people who answer at once flood a control room. So an action may be cut into *waves* of as many people as
keep one operator busy, nearest first, and waves are let go by the number of operators that are free. A result stops
the rest, as it always does.

Rules:

1. The upstream system says how many operators are free, whenever that changes. It is a level, not a difference: a
   report that comes twice, or is lost and comes again, does no harm.
2. A wave takes `answer_ms` to be answered. So long it counts as one operator who is busy, though no call has come in
   yet; then the free operators speak for themselves again.
3. Whoever reports nothing new is believed: operators who stay free get their next wave when the last one has had its
   time, without a report.
4. What was let go is never taken back. A clock that jumps back costs nothing: steps in the future are forgotten.

The control law is the one of predictive diallers in its plainest form: calls under way are agents spoken for.
"""

from __future__ import annotations

import msgspec


class Waves(msgspec.Struct, frozen=True, kw_only=True):
    """How far an action's waves are. `steps`: (when, how many waves) were let go within the last `answer_ms`."""

    free: int
    let_go: int
    of: int
    steps: tuple[tuple[int, int], ...] = ()


def begin(*, free: int, of: int, now_ms: int) -> Waves:
    """The first waves: one for each free operator."""
    first = min(free, of)
    return Waves(free=free, let_go=first, of=of, steps=((now_ms, first),) if first else ())


def step(waves: Waves, *, free: int, now_ms: int, answer_ms: int) -> Waves:
    """The waves after a report, or after some time with the same `free`; unchanged if nothing more may go."""
    steps = tuple((at_ms, count) for at_ms, count in waves.steps if 0 <= now_ms - at_ms < answer_ms)
    busy = sum(count for _, count in steps)
    more = max(0, min(free - busy, waves.of - waves.let_go))
    if more:
        steps = (*steps, (now_ms, more))
    return Waves(free=free, let_go=waves.let_go + more, of=waves.of, steps=steps)
