"""What can happen to one delivery, as a table. A delivery is one row of a batch: (action, phase, participant, channel).

Rules:

1. A row is on the wire only after the ledger holds `INTENDED` for it; what came back is recorded after.
2. A row whose sender died between intent and result is not known to have gone out. Where the channel replaces in place
   (push: same collapse id) it becomes `AGAIN` and is sent once more, quietly; where it rings twice (SMS, voice) it
   becomes `UNKNOWN` and is never sent again.
3. A time-out is `UNKNOWN` too: the request may have arrived.
4. After the end (`EXPIRED`) or the close (`CANCELLED`) nothing unsent goes out. An `AGAIN` row may already have been
   received, so an end makes it `UNKNOWN`, not `CANCELLED`.
5. Late news is good news: an acceptance or a receipt settles an `UNKNOWN` row. Nothing un-delivers a delivered row.
6. `MOVED` rows are counted where they went: another batch of the same action and participant, on the next channel.
7. A row that was taken, and of which a receipt says that it certainly did not arrive, is `BOUNCED`. It wants work
   again, but is never let go: a sender moves it to the participant's next channel, or it has failed.

Everyone selected is in exactly one state, so the counts always add up. Events that make no sense in a state leave it as
it is (receipts come doubled and out of order); `ILLEGAL` pairs are our own bugs.

The table is an array, so that a batch is advanced in one indexing operation: `advance(status, event)`.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.wire import CHANNELS

REPLACES_IN_PLACE: Final = frozenset(CHANNELS.index(name) for name in ("fcm", "apns", "webpush"))
"""Numbers of the channels on which a second message with the same collapse id takes the place of the first.

The others (SMS, voice, e-mail, WhatsApp) ring twice when sent twice."""


class State(IntEnum):
    """State of a delivery, as stored: one byte a row."""

    PENDING = 0
    INTENDED = 1
    AGAIN = 2
    ACCEPTED = 3
    DELIVERED = 4
    FAILED = 5
    EXPIRED = 6
    CANCELLED = 7
    UNKNOWN = 8
    MOVED = 9
    BOUNCED = 10


class Event(IntEnum):
    """What can happen to a row."""

    INTEND = 0  # the ledger is about to let it go to the wire
    ACCEPT = 1  # the provider took it
    REJECT = 2  # the provider refused it for good
    RETRY = 3  # it was certainly not taken; it may be tried again
    TIME_OUT = 4  # no answer, or half an answer
    CRASH_REPLACES = 5  # its sender died; the channel replaces in place
    CRASH_RINGS = 6  # its sender died; the channel would ring twice
    RECEIPT_DELIVERED = 7
    RECEIPT_FAILED = 8
    END = 9  # the action's end has passed
    CLOSE = 10  # the action was closed or cancelled
    MOVE = 11  # handed to the participant's next channel
    RECEIPT_BOUNCED = 12  # its provider is certain that nothing arrived


class Reason(IntEnum):
    """Why a row is in its state, as stored: one byte a row. Adapters map what providers say onto these."""

    NONE = 0
    TOKEN_DEAD = 1  # the device or number is gone: take the address out of the registry
    TOKEN_INVALID = 2  # the address was never valid for this provider
    PAYLOAD = 3  # the provider found the message itself wrong or too large
    CREDENTIALS = 4  # the provider does not accept our key
    QUOTA = 5  # too many requests, and the deadline passed while waiting
    PROVIDER = 6  # the provider failed (5xx) until the retries ended
    NETWORK = 7  # no connection until the retries ended
    TIME_OUT = 8
    CRASH = 9
    ERASED = 10  # the participant was erased, or has this channel no longer
    END = 11
    CLOSED = 12
    UNDELIVERED = 13  # accepted first; a receipt said later that it did not arrive
    GARBAGE = 14  # the provider's answer made no sense
    OPTED_OUT = 15


ILLEGAL: Final = 255

_S, _E = State, Event

_ROWS: Final[dict[State, dict[Event, State]]] = {
    _S.PENDING: {_E.INTEND: _S.INTENDED, _E.END: _S.EXPIRED, _E.CLOSE: _S.CANCELLED, _E.MOVE: _S.MOVED,
                 _E.REJECT: _S.FAILED, _E.RETRY: _S.PENDING},
    _S.INTENDED: {_E.ACCEPT: _S.ACCEPTED, _E.REJECT: _S.FAILED, _E.RETRY: _S.PENDING, _E.TIME_OUT: _S.UNKNOWN,
                  _E.CRASH_REPLACES: _S.AGAIN, _E.CRASH_RINGS: _S.UNKNOWN,
                  _E.RECEIPT_DELIVERED: _S.DELIVERED, _E.RECEIPT_FAILED: _S.FAILED, _E.RECEIPT_BOUNCED: _S.BOUNCED,
                  _E.END: _S.EXPIRED, _E.CLOSE: _S.CANCELLED, _E.MOVE: _S.MOVED},
    _S.AGAIN: {_E.INTEND: _S.INTENDED, _E.REJECT: _S.FAILED, _E.RETRY: _S.AGAIN, _E.END: _S.UNKNOWN,
               _E.CLOSE: _S.UNKNOWN, _E.ACCEPT: _S.ACCEPTED, _E.RECEIPT_DELIVERED: _S.DELIVERED,
               _E.RECEIPT_FAILED: _S.FAILED, _E.RECEIPT_BOUNCED: _S.BOUNCED, _E.MOVE: _S.MOVED},
    _S.ACCEPTED: {_E.RECEIPT_DELIVERED: _S.DELIVERED, _E.RECEIPT_FAILED: _S.FAILED, _E.RECEIPT_BOUNCED: _S.BOUNCED},
    _S.DELIVERED: {},
    _S.FAILED: {_E.RECEIPT_DELIVERED: _S.DELIVERED, _E.MOVE: _S.MOVED},
    _S.EXPIRED: {_E.ACCEPT: _S.ACCEPTED, _E.RECEIPT_DELIVERED: _S.DELIVERED},
    _S.CANCELLED: {_E.ACCEPT: _S.ACCEPTED, _E.RECEIPT_DELIVERED: _S.DELIVERED},
    _S.UNKNOWN: {_E.ACCEPT: _S.ACCEPTED, _E.REJECT: _S.FAILED, _E.RECEIPT_DELIVERED: _S.DELIVERED,
                 _E.RECEIPT_FAILED: _S.FAILED, _E.RECEIPT_BOUNCED: _S.BOUNCED},
    _S.MOVED: {},
    _S.BOUNCED: {_E.REJECT: _S.FAILED, _E.RECEIPT_DELIVERED: _S.DELIVERED, _E.MOVE: _S.MOVED,
                 _E.END: _S.FAILED, _E.CLOSE: _S.FAILED},
}  # fmt: skip

_ILLEGAL: Final = {
    (_S.PENDING, _E.ACCEPT), (_S.PENDING, _E.TIME_OUT), (_S.AGAIN, _E.TIME_OUT),
    (_S.ACCEPTED, _E.INTEND), (_S.DELIVERED, _E.INTEND), (_S.FAILED, _E.INTEND), (_S.EXPIRED, _E.INTEND),
    (_S.CANCELLED, _E.INTEND), (_S.UNKNOWN, _E.INTEND), (_S.MOVED, _E.INTEND), (_S.INTENDED, _E.INTEND),
    (_S.BOUNCED, _E.INTEND),
}  # fmt: skip


def _table() -> NDArray[np.uint8]:
    table = np.empty((len(State), len(Event)), np.uint8)
    for state in State:
        for event in Event:
            illegal = (state, event) in _ILLEGAL
            table[state, event] = ILLEGAL if illegal else _ROWS[state].get(event, state)
    table.setflags(write=False)
    return table


TABLE: Final = _table()
"""uint8, shape (states, events): the next state; `ILLEGAL` where the pair is a bug of ours."""

OPEN: Final = (State.PENDING, State.INTENDED, State.AGAIN, State.BOUNCED)
"""States in which a row still wants work."""

WAITING: Final = (State.PENDING, State.AGAIN)
"""States in which a row may be let go."""

REACHED: Final = (State.INTENDED, State.AGAIN, State.ACCEPTED, State.DELIVERED, State.UNKNOWN)
"""States in which the participant got the message, or may have: these get the update and the result."""


def advance(status: NDArray[np.uint8], event: NDArray[np.uint8] | Event) -> NDArray[np.uint8]:
    """Next states of a batch. `status` uint8[n], `event` one event or uint8[n]; returns a new uint8[n]."""
    after: NDArray[np.uint8] = TABLE[status, event]
    assert not (after == ILLEGAL).any(), "a row met an event its state forbids"
    return after


def reached(status: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool[n]: rows whose participant got the message, or may have."""
    return among(status, REACHED)


def among(values: NDArray[np.uint8], those: tuple[int, ...]) -> NDArray[np.bool_]:
    """bool[n]: which of `values` uint8[n] are one of `those`. What `np.isin` does in thirty times as long, and a batch
    asks a score of times."""
    return _members(those)[values]


@cache
def _members(those: tuple[int, ...]) -> NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[list(those)] = True
    table.setflags(write=False)
    return table
