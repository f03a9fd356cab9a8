"""Every (state, event) pair, and the way through an outage."""

from __future__ import annotations

import pytest

from fanout.dispatch.breaker import COOL_S_FIRST, COOL_S_MAX, GIVE_UP_S, LEAST, SPAN_S, TABLE, Breaker, Is, On

AFTER = {
    (Is.CLOSED, On.TRIP): Is.OPEN,
    (Is.OPEN, On.COOLED): Is.HALF_OPEN,
    (Is.HALF_OPEN, On.GOOD): Is.CLOSED,
    (Is.HALF_OPEN, On.BAD): Is.OPEN,
}


@pytest.mark.parametrize("state", Is)
@pytest.mark.parametrize("event", On)
def test_every_pair(state: Is, event: On) -> None:
    assert TABLE[state].get(event, state) == AFTER.get((state, event), state)


def test_an_outage() -> None:
    breaker = Breaker(now_s=0)
    assert breaker.allows(0) > 1
    breaker.answered(0, LEAST, 1)
    assert breaker.state is Is.OPEN
    assert breaker.allows(1) == 0
    assert breaker.allows(1 + COOL_S_FIRST) == 1
    breaker.probe()
    assert breaker.allows(1 + COOL_S_FIRST) == 0, "one probe at a time"
    breaker.answered(0, 64, 3)
    assert breaker.state is Is.OPEN
    assert breaker.allows(3 + COOL_S_FIRST) == 0, "twice as long"
    assert breaker.allows(3 + 2 * COOL_S_FIRST) == 1
    breaker.probe()
    breaker.answered(64, 0, 6)
    assert breaker.state is Is.CLOSED
    assert breaker.allows(6) > 1


def test_an_outage_that_lasts_is_given_up_until_it_is_over() -> None:
    breaker, now_s = Breaker(now_s=0), 10.0
    assert not breaker.given_up(1_000)
    breaker.answered(0, LEAST, now_s)
    assert not breaker.given_up(now_s + GIVE_UP_S - 1)
    for at_s in (now_s + 20, now_s + 40, now_s + GIVE_UP_S - 1):
        assert breaker.allows(at_s) == 1
        breaker.probe()
        breaker.answered(0, 1, at_s)
        breaker._open_until_s = at_s
    assert breaker.given_up(now_s + GIVE_UP_S), "since it tripped, not since the last probe"
    assert breaker.allows(now_s + GIVE_UP_S) == 1
    assert breaker.given_up(now_s + GIVE_UP_S), "half open, too"
    breaker.probe()
    breaker.answered(1, 0, now_s + GIVE_UP_S)
    assert not breaker.given_up(now_s + GIVE_UP_S)
    breaker.answered(0, LEAST, now_s + 10 * GIVE_UP_S)
    assert breaker.state is Is.OPEN
    assert not breaker.given_up(now_s + 10 * GIVE_UP_S), "each outage has its patience"


def test_a_probe_that_found_nothing_to_send_frees_the_next() -> None:
    breaker = Breaker(now_s=0)
    breaker.answered(0, LEAST, 0)
    assert breaker.allows(COOL_S_FIRST) == 1
    breaker.probe()
    breaker.answered(0, 0, COOL_S_FIRST)
    assert breaker.allows(COOL_S_FIRST) == 1


def test_few_failures_or_a_minority_do_not_trip() -> None:
    breaker = Breaker(now_s=0)
    breaker.answered(0, LEAST - 1, 0)
    assert breaker.state is Is.CLOSED
    breaker.answered(1_000, 900, 0)
    assert breaker.state is Is.CLOSED


def test_old_answers_are_forgotten() -> None:
    breaker = Breaker(now_s=0)
    breaker.answered(0, LEAST - 1, 0)
    breaker.answered(0, 1, 3 * SPAN_S)
    assert breaker.state is Is.CLOSED


def test_the_pause_is_bounded() -> None:
    breaker, now_s = Breaker(now_s=0), 0.0
    breaker.answered(0, LEAST, now_s)
    for _ in range(20):
        now_s += COOL_S_MAX
        assert breaker.allows(now_s) == 1
        breaker.probe()
        breaker.answered(0, 1, now_s)


def test_half_open_only_the_probe_counts() -> None:
    breaker = Breaker(now_s=0)
    breaker.answered(0, LEAST, 0, probe=False)
    assert breaker.allows(COOL_S_FIRST) == 1
    breaker.probe()
    breaker.answered(0, 9, COOL_S_FIRST, probe=False)
    breaker.answered(9, 0, COOL_S_FIRST, probe=False)
    breaker.answered(0, 0, COOL_S_FIRST, probe=False)
    assert breaker.state is Is.HALF_OPEN
    assert breaker.allows(COOL_S_FIRST) == 0, (
        "what was asked before the outage was seen says nothing, and frees no probe"
    )
    breaker.answered(1, 0, COOL_S_FIRST)
    assert breaker.state is Is.CLOSED


def test_what_cannot_work_trips_at_once_and_is_asked_again_soon() -> None:
    breaker, now_s = Breaker(now_s=0), 1.0
    breaker.answered(10_000, 0, now_s)
    breaker.cannot_work(now_s)
    for _ in range(20):
        assert breaker.state is Is.OPEN
        assert breaker.allows(now_s) == 0
        now_s += COOL_S_FIRST
        assert breaker.allows(now_s) == 1
        breaker.probe()
        breaker.cannot_work(now_s)
    assert not breaker.given_up(now_s)
    assert breaker.given_up(1.0 + GIVE_UP_S)
    assert breaker.allows(now_s + COOL_S_FIRST) == 1
    breaker.answered(1, 0, now_s + COOL_S_FIRST)
    assert breaker.state is Is.CLOSED
