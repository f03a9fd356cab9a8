"""Arbitration against the naive reading of its rules; total, deterministic, and with a reason for everything."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from signage.arbitration import arbitrate, next_change_ms, on_now
from signage.dialects.native import Item, Page
from tests.signage import naive_arbitration


def item(action: int, priority: int, target: str, start_ms: int, length_ms: int, received_ms: int) -> Item:
    return Item(
        action=action, stage="start", priority=priority, target=target, pages=[Page(lines=["x"], seconds=4)],  # type: ignore[arg-type]
        start_ms=start_ms, end_ms=start_ms + length_ms, received_ms=received_ms,
    )  # fmt: skip


items = st.lists(
    st.builds(
        item,
        st.integers(1, 50),
        st.sampled_from([0, 1, 1, 2, 20, 99]),
        st.sampled_from(["full", "full", "over", "bottom line"]),
        st.integers(0, 100),
        st.integers(1, 100),
        st.integers(0, 3),
    ),
    max_size=14,
    unique_by=lambda each: each.action,
)


@given(items, st.integers(0, 220))
def test_what_is_on_agrees_with_the_rules(given_items: list[Item], now_ms: int) -> None:
    assert [each.action for each in on_now(given_items, now_ms)] == naive_arbitration.on(given_items, now_ms)


@given(items, st.integers(0, 220), st.integers(1, 8), st.randoms(use_true_random=False))
def test_every_candidate_gets_one_verdict_whatever_the_order(
    given_items: list[Item], now_ms: int, most: int, dice: random.Random
) -> None:
    verdicts = arbitrate(given_items, now_ms, most)
    shuffled = list(given_items)
    dice.shuffle(shuffled)
    assert arbitrate(shuffled, now_ms, most) == verdicts
    assert sorted(verdict.item.action for verdict in verdicts) == sorted(each.action for each in given_items)
    assert all(verdict.why for verdict in verdicts)
    sent = [verdict.item for verdict in verdicts if verdict.sent]
    assert len(sent) == min(most, sum(each.end_ms > now_ms for each in given_items))
    expected = naive_arbitration.on(given_items, now_ms)[:most]
    if len(naive_arbitration.on(given_items, now_ms)) <= most:
        assert [each.action for each in on_now(sent, now_ms)] == expected


@given(items, st.integers(0, 220))
def test_nothing_over_is_sent_and_an_emergency_is_alone(given_items: list[Item], now_ms: int) -> None:
    for verdict in arbitrate(given_items, now_ms, 8):
        assert not (verdict.sent and verdict.item.end_ms <= now_ms)
    on = on_now(given_items, now_ms)
    if any(each.priority == 0 for each in on):
        assert all(each.priority == 0 for each in on)


@given(items, st.integers(0, 220))
def test_nothing_changes_before_the_next_change(given_items: list[Item], now_ms: int) -> None:
    change_ms = next_change_ms(given_items, now_ms)
    until_ms = 230 if change_ms is None else change_ms
    for time_ms in range(now_ms, until_ms):
        assert on_now(given_items, time_ms) == on_now(given_items, now_ms)


def test_ordinary_content_returns_after_an_emergency() -> None:
    ordinary, emergency = item(1, 20, "full", 0, 100, 0), item(2, 0, "full", 10, 20, 10)
    assert [each.action for each in on_now([ordinary, emergency], 9)] == [1]
    assert [each.action for each in on_now([ordinary, emergency], 15)] == [2]
    assert [each.action for each in on_now([ordinary, emergency], 30)] == [1]


def test_who_waits_is_told_why() -> None:
    verdicts = arbitrate([item(number, 20, "full", 0, 100, number) for number in range(10)], 5, 8)
    waiting = [verdict for verdict in verdicts if verdict.standing == "waits"]
    assert [verdict.item.action for verdict in waiting] == [8, 9]
    assert "8 items" in waiting[0].why
