"""The wishes are had by one at a time, so that nobody claims what another has claimed already."""

from __future__ import annotations

from typing import Any, cast

from fanout.dispatch.wishes import Wish, Wishes

WISHES = [Wish(cast(Any, None), (0, 1), 3)]


def offered() -> Wishes:
    wishes = Wishes()
    assert wishes.withdraw()
    wishes.offer(WISHES)
    return wishes


def test_what_is_offered_is_taken_once() -> None:
    wishes = offered()
    assert wishes.take() == WISHES
    assert not wishes.take()


def test_nobody_takes_what_is_withdrawn() -> None:
    wishes = offered()
    assert wishes.withdraw()
    assert not wishes.take()


def test_nobody_counts_while_a_look_claims_and_who_wanted_to_is_told() -> None:
    wishes = offered()
    taken = wishes.take()
    assert not wishes.withdraw()
    assert wishes.give_back(taken, used=False), "somebody wants to count"
    assert not wishes.take(), "and has not yet"
    assert wishes.withdraw()


def test_wishes_that_found_nothing_are_good_for_the_next_look() -> None:
    wishes = offered()
    assert not wishes.give_back(wishes.take(), used=False)
    assert wishes.take() == WISHES


def test_after_a_claim_it_is_counted_anew() -> None:
    wishes = offered()
    assert wishes.give_back(wishes.take(), used=True)
    assert not wishes.take()
    assert wishes.withdraw()


def test_a_look_that_got_nothing_has_nothing_to_give_back() -> None:
    wishes = Wishes()
    assert wishes.withdraw()
    assert not wishes.take()
    assert not wishes.give_back((), used=False)
    wishes.offer(WISHES)
    assert wishes.take() == WISHES
