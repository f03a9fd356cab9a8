"""What becomes of rows: every state, code and circumstance, against rules spelt out one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT, Outcome
from fanout.dispatch.outcomes import verdict
from fanout.store.states import OPEN, Event, Reason, State
from fanout.wire import CHANNELS

FCM, SMS = CHANNELS.index("fcm"), CHANNELS.index("sms")
EVENTS = {
    200: (Event.ACCEPT, Reason.NONE),
    404: (Event.REJECT, Reason.TOKEN_DEAD),
    302: (Event.REJECT, Reason.GARBAGE),
    429: (Event.RETRY, Reason.QUOTA),
    NO_CONNECTION: (Event.RETRY, Reason.NETWORK),
    NO_ANSWER: (Event.TIME_OUT, Reason.TIME_OUT),
    NOT_SENT: (Event.RETRY, Reason.NONE),
}


def expected(before: State, code: int, channel: int, stop: Event | None, last: bool) -> tuple[State, Reason]:
    """The rules, slowly."""
    over = stop in (Event.END, Event.CLOSE)
    stopped = {Event.END: (State.EXPIRED, Reason.END), Event.CLOSE: (State.CANCELLED, Reason.CLOSED)}
    if code == 200:
        return State.ACCEPTED, Reason.NONE
    if code == 404:
        return State.FAILED, Reason.TOKEN_DEAD
    if code == 302:
        return (State.UNKNOWN if before is State.AGAIN else State.FAILED), Reason.GARBAGE
    if code == NO_ANSWER:
        if channel == SMS or last or over:
            return State.UNKNOWN, Reason.TIME_OUT
        return State.AGAIN, Reason.CRASH
    if last and code != NOT_SENT:
        return (State.UNKNOWN if before is State.AGAIN else State.FAILED), EVENTS[code][1]
    if over:
        assert stop is not None
        return (State.UNKNOWN, Reason.CRASH) if before is State.AGAIN else stopped[stop]
    return (State.AGAIN, Reason.CRASH) if before is State.AGAIN else (State.PENDING, Reason.NONE)


CASES = list(product((State.PENDING, State.AGAIN), EVENTS, (None, Event.RETRY, Event.END, Event.CLOSE), (False, True)))


@pytest.mark.parametrize("channel", [FCM, SMS])
def test_every_circumstance(channel: int) -> None:
    for before, code, stop, last in CASES:
        if channel == SMS and before is State.AGAIN:
            continue  # the ledger never makes one
        status = np.array([State.FAILED, before, State.ACCEPTED], np.uint8)
        reason = np.array([Reason.ERASED, 0, 0], np.uint8)
        event, why = EVENTS[code]
        found = verdict(
            status,
            reason,
            np.array([1]),
            np.array([code], np.int16),
            Outcome(np.array([event], np.uint8), np.array([why], np.uint8)),
            channel=channel,
            stop=stop,
            last_attempt=last,
        )
        case = (before.name, code, stop, last)
        assert (State(found.status[1]), Reason(found.reason[1])) == expected(before, code, channel, stop, last), case
        assert found.status[[0, 2]].tolist() == [State.FAILED, State.ACCEPTED], "other rows stay"
        assert found.reason[0] == Reason.ERASED
        assert found.done == (found.status[1] not in OPEN)
        assert status[1] == before, "arguments are not written to"
