"""Suppliers share by weight, fail over, and are chosen the same way every time."""

from __future__ import annotations

from collections import Counter

from fanout.dispatch.suppliers import choose


def test_by_weight() -> None:
    counts = Counter(choose(batch, 0, [3.0, 1.0], [True, True]) for batch in range(4_000))
    assert 0.70 < counts[0] / 4_000 < 0.80


def test_the_same_batch_goes_the_same_way_and_its_next_attempt_elsewhere() -> None:
    for batch in range(50):
        first = choose(batch, 0, [1.0, 1.0], [True, True])
        assert choose(batch, 0, [1.0, 1.0], [True, True]) == first
        assert choose(batch, 1, [1.0, 1.0], [True, True]) == 1 - first


def test_who_does_not_work_gets_nothing_while_another_works() -> None:
    assert {choose(batch, attempt, [9.0, 1.0], [False, True]) for batch in range(50) for attempt in range(3)} == {1}
    assert {choose(batch, 0, [1.0, 1.0], [False, False]) for batch in range(50)} == {0, 1}
