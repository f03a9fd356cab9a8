"""Retries have a budget, by action and channel; who is over it waits longer and is not given up."""

from __future__ import annotations

from fanout.dispatch.budget import ACTIONS_MAX, FLOOR_ROWS, SHARE, Budgets


def test_a_local_action_never_meets_it() -> None:
    budgets = Budgets()
    budgets.went(1, 0, 500)
    assert all(budgets.allows(1, 0, 500) for _ in range(8))


def test_a_nation_may_ask_again_for_a_share_of_what_went() -> None:
    budgets = Budgets()
    for _ in range(500):
        budgets.went(1, 0, 2_048)
    allowed = 0
    while budgets.allows(1, 0, 2_048):
        allowed += 2_048
    most = FLOOR_ROWS + SHARE * 500 * 2_048
    assert most - 2_048 < allowed <= most
    budgets.went(1, 0, 4 * 2_048)
    assert budgets.allows(1, 0, 2_048), "what goes earns more"


def test_actions_and_channels_have_their_own() -> None:
    budgets = Budgets()
    while budgets.allows(1, 0, 1_000):
        pass
    assert budgets.allows(1, 3, 1_000)
    assert budgets.allows(2, 0, 1_000)


def test_the_oldest_are_forgotten() -> None:
    budgets = Budgets()
    while budgets.allows(1, 0, 1_000):
        pass
    for action in range(2, ACTIONS_MAX + 2):
        budgets.went(action, 0, 1)
    assert budgets.allows(1, 0, 1_000)
