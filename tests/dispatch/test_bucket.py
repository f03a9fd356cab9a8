"""The quota holds in every window, wherever it starts, and the reserve is for lane 0."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanout.dispatch.bucket import Bucket

steps = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 300), st.booleans()), max_size=60)


@given(steps, st.floats(1, 500), st.integers(1, 200), st.floats(0, 0.9))
def test_no_window_takes_more_than_burst_and_rate(
    asked: list[tuple[float, int, bool]], rate: float, burst: int, reserve: float
) -> None:
    now_s, bucket = 100.0, Bucket(rate_per_s=rate, burst=burst, reserve=reserve, now_s=100.0)
    taken: list[tuple[float, int]] = []
    for pause_s, rows, urgent in asked:
        now_s += pause_s
        rows = min(rows, bucket.available(now_s, urgent=urgent))
        bucket.take(rows)
        taken.append((now_s, rows))
    for i, (begin_s, _) in enumerate(taken):
        total = 0
        for end_s, rows in taken[i:]:
            total += rows
            assert total <= burst + rate * (end_s - begin_s) + 1e-6


def test_the_reserve_is_for_lane_0() -> None:
    bucket = Bucket(rate_per_s=10, burst=100, reserve=0.25, now_s=0)
    assert bucket.available(0, urgent=False) == 75
    bucket.take(75)
    assert bucket.available(0, urgent=False) == 0
    assert bucket.available(0, urgent=True) == 25


def test_ready_says_when() -> None:
    bucket = Bucket(rate_per_s=10, burst=100, reserve=0.25, now_s=0)
    bucket.take(100)
    ready_s = bucket.ready_s(0, 5, urgent=False)
    assert bucket.available(ready_s - 0.01, urgent=False) < 5
    assert bucket.available(ready_s + 1e-9, urgent=False) >= 5


def test_a_larger_wish_than_the_bucket_is_ready_when_it_is_full() -> None:
    bucket = Bucket(rate_per_s=10, burst=10, reserve=0, now_s=0)
    assert bucket.ready_s(0, 1_000, urgent=True) == 0
    bucket.take(10)
    assert bucket.ready_s(0, 1_000, urgent=True) == 1.0


def test_shut_lets_nothing_through_and_starts_without_a_burst() -> None:
    bucket = Bucket(rate_per_s=10, burst=100, reserve=0, now_s=0)
    bucket.shut(5)
    assert bucket.available(4.9, urgent=True) == 0
    assert bucket.ready_s(1, 1, urgent=True) >= 5
    assert bucket.available(5.0, urgent=True) <= 1
    assert bucket.available(6.0, urgent=True) <= 11


def test_a_clock_that_goes_back_is_no_time() -> None:
    bucket = Bucket(rate_per_s=10, burst=10, reserve=0, now_s=100)
    bucket.take(10)
    assert bucket.available(50, urgent=True) == 0
    assert bucket.available(100.5, urgent=True) == 5


def test_what_did_not_go_is_given_back() -> None:
    bucket = Bucket(rate_per_s=1, burst=100, reserve=0.0, now_s=0.0)
    bucket.take(60)
    bucket.give_back(20)
    assert bucket.available(0.0, urgent=True) == 60
    bucket.give_back(1_000)
    assert bucket.available(0.0, urgent=True) == 100, "never more than it holds"
