"""Which of several suppliers of one channel takes a batch: by weight, among those that work. Pure.

The choice follows from the batch's id, so that a run can be repeated, and from the attempt, so that what one supplier
turned away goes to the next. A supplier whose breaker is open gets nothing while another works; when none works, the
weights count alone, since somebody has to be tried.

Fail-over happens between attempts, never within one: a row that may have rung stays with the ledger, not with us.
"""

from __future__ import annotations

from collections.abc import Sequence

from fanout.dispatch.retry import jitter


def choose(batch: int, attempt: int, weights: Sequence[float], works: Sequence[bool]) -> int:
    """The supplier's place in `weights` (each above 0, at least one of them)."""
    assert weights
    assert min(weights) > 0
    usable = [place for place, up in enumerate(works) if up] or list(range(len(weights)))
    total = sum(weights[place] for place in usable)
    at = jitter(batch) * total
    chosen = 0
    for number, place in enumerate(usable):
        at -= weights[place]
        if at < 0:
            chosen = number
            break
    return usable[(chosen + attempt) % len(usable)]
