"""Pauses double, are jittered by ids, and obey the provider within reason."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fanout.dispatch.retry import ASKED_S_MAX, jitter, pause_s


@given(st.integers(1, 2**40), st.integers(1, 200), st.floats(0, 10_000))
def test_bounds(batch: int, attempt: int, asked_s: float) -> None:
    pause = pause_s(batch, attempt, first_s=0.5, most_s=60, asked_s=asked_s)
    assert pause == pause_s(batch, attempt, first_s=0.5, most_s=60, asked_s=asked_s)
    assert min(asked_s, ASKED_S_MAX) <= pause <= max(60, min(asked_s, ASKED_S_MAX))
    assert pause >= 0.25


def test_it_doubles() -> None:
    pauses = [pause_s(1, attempt, first_s=1, most_s=1_000) for attempt in range(1, 8)]
    assert all(2 ** (n - 1) / 2 <= pause <= 2 ** (n - 1) for n, pause in enumerate(pauses, 1))


def test_batches_do_not_come_back_in_step() -> None:
    values = sorted(jitter(batch, 1) for batch in range(1_000))
    assert 0 <= values[0] < 0.01
    assert 0.99 < values[-1] < 1
    assert max(b - a for a, b in pairwise(values)) < 0.02
