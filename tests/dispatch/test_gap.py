"""The gap between a lane's turns follows the answers, within its bounds."""

from __future__ import annotations

from fanout.dispatch.gap import LEAST_S, MOST_S, Gap


def test_it_starts_as_short_as_it_may_be() -> None:
    assert Gap().s == LEAST_S


def test_turns_that_find_little_come_less_often_up_to_a_bound() -> None:
    gap = Gap()
    gap.learn(256, 10)
    assert LEAST_S < gap.s < MOST_S
    for _ in range(100):
        gap.learn(256, 10)
    assert gap.s == MOST_S


def test_a_provider_that_waits_for_us_is_served_sooner_again() -> None:
    gap = Gap()
    for _ in range(100):
        gap.learn(256, 10)
    gap.learn(256, 200)
    assert gap.s < MOST_S
    for _ in range(100):
        gap.learn(256, 256)
    assert gap.s == LEAST_S


def test_in_between_it_stays() -> None:
    gap = Gap()
    gap.learn(256, 10)
    before = gap.s
    gap.learn(256, 100)
    assert gap.s == before


def test_an_idle_lane_has_learnt_nothing() -> None:
    gap = Gap()
    gap.learn(0, 0)
    assert gap.s == LEAST_S
