"""One channel a person, by their own order of preference: against a loop that reads the nibbles one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout.plan.policy import CHOICES, NO_CHANNEL, first_choice, mask_of, told_in
from fanout.wire import CHANNELS


def packed(choices: list[int]) -> int:
    return sum((channel + 1) << (4 * rank) for rank, channel in enumerate(choices))


def naive_first_choice(choices: list[int], open_mask: int) -> int:
    return next((channel for channel in choices if open_mask >> channel & 1), NO_CHANNEL)


orders = st.lists(st.sampled_from(range(len(CHANNELS))), max_size=CHOICES, unique=True)


@given(st.lists(orders, max_size=40), st.integers(0, 2 ** len(CHANNELS) - 1))
def test_agrees_with_the_loop(people: list[list[int]], open_mask: int) -> None:
    preference = np.array([packed(choices) for choices in people], np.uint32)
    chosen = first_choice(preference, open_mask)
    assert chosen.dtype == np.uint8
    assert chosen.tolist() == [naive_first_choice(choices, open_mask) for choices in people]


def test_the_second_choice_is_taken_when_the_first_is_shut() -> None:
    fcm, sms = CHANNELS.index("fcm"), CHANNELS.index("sms")
    preference = np.array([packed([fcm, sms]), packed([sms]), packed([fcm])], np.uint32)
    assert first_choice(preference, mask_of(["sms"])).tolist() == [sms, sms, NO_CHANNEL]


def test_everyone_is_told_in_some_language() -> None:
    assert told_in("nl", ("nl", "en")) == "nl"
    assert told_in("nl-BE", ("nl", "en")) == "nl"
    assert told_in("de", ("nl", "en")) == "en"
    assert told_in("de", ("nl", "fr")) == "nl"
