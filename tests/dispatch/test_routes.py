"""What all routes share: what breaker and quota learn, and parts of a batch that become one."""

from __future__ import annotations

import numpy as np

from fanout.channels.protocol import NO_CONNECTION, NOT_SENT, Outcome
from fanout.dispatch.breaker import LEAST, Breaker, Is
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.retry import ASKED_S_MAX
from fanout.dispatch.routes import Delivered, merged, not_taken, perhaps, tell
from fanout.store.states import Event, Reason


def codes(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.array(values, np.int16)


def test_nobody_silences_us_for_ever() -> None:
    bucket = Bucket(rate_per_s=10, burst=10, reserve=0, now_s=0)
    tell(Breaker(now_s=0), bucket, codes(429), 999_999_999_999.0, 5.0, probe=False)
    assert bucket.available(5.0 + ASKED_S_MAX - 1, urgent=True) == 0
    assert bucket.available(5.0 + ASKED_S_MAX + 1, urgent=True) > 0


def test_refusals_of_rows_are_the_provider_working_and_what_was_not_sent_says_nothing() -> None:
    breaker, bucket = Breaker(now_s=0), Bucket(rate_per_s=10, burst=10, reserve=0, now_s=0)
    tell(breaker, bucket, codes(*[404] * LEAST, *[NOT_SENT] * LEAST), 0.0, 0.0, probe=False)
    assert breaker.state is Is.CLOSED
    tell(breaker, bucket, codes(*[503] * LEAST), 0.0, 0.0, probe=False)
    assert breaker.state is Is.OPEN
    assert bucket.available(0.0, urgent=True) == 10


def test_parts_become_one_in_their_places() -> None:
    one = Delivered(
        codes(200, 410),
        Outcome(np.array([Event.ACCEPT, Event.REJECT], np.uint8), np.array([0, Reason.TOKEN_DEAD], np.uint8)),
        3.0, 10, 20, {1: 77},
    )  # fmt: skip
    whole = merged(6, [(np.array([4, 2]), one), (np.array([0]), not_taken(1, 9.0)), (np.array([1]), perhaps(1))])
    assert whole.codes.tolist() == [NO_CONNECTION, -3, 410, NOT_SENT, 200, NOT_SENT]
    assert whole.outcome.event.tolist() == [
        Event.RETRY, Event.TIME_OUT, Event.REJECT, Event.RETRY, Event.ACCEPT, Event.RETRY,
    ]  # fmt: skip
    assert (whole.asked_s, whole.first_ms, whole.last_ms, dict(whole.since_ms)) == (9.0, 10, 20, {2: 77})
