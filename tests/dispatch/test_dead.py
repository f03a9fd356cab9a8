"""What the registry is told of addresses: the provider's word, with its moment, and nothing about anybody else."""

from __future__ import annotations

import numpy as np

from fanout.channels.protocol import Outcome
from fanout.dispatch.dead import news
from fanout.registry.entries import DeadAddresses, digest_of
from fanout.store.protocol import Lease
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

TOKENS = [b"a", b"b", b"c", b"d", b"e"]
APNS, SMS = CHANNELS.index("apns"), CHANNELS.index("sms")


def told(
    *meanings: tuple[Event, Reason], channel: int = APNS, since_ms: dict[int, int], proven: bool = True
) -> list[DeadAddresses]:
    """Rows 101 to 104 of a batch of five were on the wire, and this came of them."""
    rows = np.arange(100, 105, dtype=np.uint32)
    nothing = np.zeros(5, np.uint8)
    lease = Lease(
        batch=1, token=1, action=7, phase=0, lane=0, channel=channel, language="nl", attempt=0, until_ms=0,
        rows=rows, generations=np.arange(5, dtype=np.uint16), status=nothing, reason=nothing,
    )  # fmt: skip
    event, reason = (np.array(one, np.uint8) for one in zip(*meanings, strict=True))
    addresses = dict(enumerate(TOKENS))
    return news(lease, np.arange(1, 5), addresses, Outcome(event, reason), since_ms, tried_ms=50, proven=proven)


DEAD, INVALID, TAKEN = (
    (Event.REJECT, Reason.TOKEN_DEAD), (Event.REJECT, Reason.TOKEN_INVALID), (Event.ACCEPT, Reason.NONE),
)  # fmt: skip


def test_dead_and_invalid_are_told_apart() -> None:
    dead, invalid = told(DEAD, TAKEN, INVALID, DEAD, since_ms={0: 30, 3: 99})
    assert (dead.reason, dead.rows, dead.generations, dead.at_ms) == ("token_dead", [101, 104], [1, 4], 50)
    assert dead.digests == [digest_of(b"b"), digest_of(b"e")]
    assert dead.since_ms == [30, 50], "not later than it was tried"
    assert (invalid.reason, invalid.rows, invalid.digests) == ("token_invalid", [103], [digest_of(b"d")])


def test_nobody_else_is_in_the_news() -> None:
    unknown, later = (Event.TIME_OUT, Reason.GARBAGE), (Event.RETRY, Reason.QUOTA)
    assert told(TAKEN, unknown, later, (Event.REJECT, Reason.PAYLOAD), since_ms={}) == []


def test_tokens_that_all_look_wrong_are_our_own_fault_until_somebody_was_taken() -> None:
    assert told(INVALID, INVALID, INVALID, INVALID, since_ms={}, proven=False) == []
    assert [one.reason for one in told(DEAD, INVALID, DEAD, INVALID, since_ms={}, proven=False)] == ["token_dead"]


def test_what_a_supplier_says_of_a_number_is_no_news() -> None:
    assert told(TAKEN, INVALID, INVALID, TAKEN, since_ms={}, channel=SMS) == []
