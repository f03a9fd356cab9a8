"""Every (state, event) pair of a delivery, and the rules above the table."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fanout.store import rows
from fanout.store.states import (
    ILLEGAL,
    OPEN,
    REACHED,
    REPLACES_IN_PLACE,
    TABLE,
    Event,
    Reason,
    State,
    advance,
    reached,
)
from fanout.wire import CHANNELS

PAIRS = list(itertools.product(State, Event))
ON_WIRE = (Event.ACCEPT, Event.TIME_OUT)


def after(state: State, event: Event) -> State:
    return State(advance(np.array([state], np.uint8), event)[0])


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda item: item.name)
def test_every_pair_has_a_next_state_or_is_a_bug(state: State, event: Event) -> None:
    if TABLE[state, event] == ILLEGAL:
        with pytest.raises(AssertionError, match="forbids"):
            after(state, event)
        return
    then = after(state, event)
    if state is State.DELIVERED:
        assert then is State.DELIVERED  # rule 5: nothing un-delivers
    if then is State.INTENDED and state is not State.INTENDED:
        assert event is Event.INTEND  # rule 1: the ledger knows before the wire
    if state not in OPEN and then in OPEN:
        assert (event, then) == (Event.RECEIPT_BOUNCED, State.BOUNCED), "a row that was settled wants work again"
    if state is State.BOUNCED:
        assert then in (State.BOUNCED, State.FAILED, State.MOVED, State.DELIVERED)  # rule 7: never let go
    if event in (Event.END, Event.CLOSE):
        assert then not in OPEN  # rule 4
    if state is State.AGAIN and event in (Event.END, Event.CLOSE):
        assert then is State.UNKNOWN
    if event is Event.CRASH_RINGS:
        assert then not in (State.INTENDED, State.AGAIN) or state is State.AGAIN  # rule 2: never sent again
    if event is Event.RECEIPT_DELIVERED and state not in (State.PENDING, State.MOVED):
        assert then is State.DELIVERED


def test_only_what_was_let_go_is_accepted() -> None:
    assert TABLE[State.PENDING, Event.ACCEPT] == ILLEGAL
    assert all(TABLE[state, Event.INTEND] == ILLEGAL for state in State if state not in (State.PENDING, State.AGAIN))


def test_a_batch_advances_row_by_row() -> None:
    status = np.array([State.PENDING, State.INTENDED, State.INTENDED], np.uint8)
    events = np.array([Event.CLOSE, Event.ACCEPT, Event.RETRY], np.uint8)
    assert advance(status, events).tolist() == [State.CANCELLED, State.ACCEPTED, State.PENDING]
    assert status.tolist() == [State.PENDING, State.INTENDED, State.INTENDED]


def test_reached_are_those_who_may_have_got_it() -> None:
    assert reached(np.array(list(State), np.uint8)).tolist() == [state in REACHED for state in State]


def test_push_replaces_in_place_and_nothing_that_rings_does() -> None:
    assert {CHANNELS[number] for number in REPLACES_IN_PLACE} == {"fcm", "apns", "webpush"}


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("stored", "reported"), list(itertools.product(State, State)), ids=lambda item: item.name)
def test_a_report_never_undoes_what_is_settled(stored: State, reported: State, held: bool) -> None:
    """Every pair of what the ledger has and what a sender says; bugs are told as bugs."""
    columns = [np.array([value], np.uint8) for value in (stored, Reason.NONE, reported, Reason.NETWORK)]
    table = rows.HELD if held else rows.LOST
    if table[stored, reported] == 255:
        assert stored is State.PENDING  # the ledger never let it go
        with pytest.raises(AssertionError, match="never let go"):
            rows.settled((columns[0], columns[1]), (columns[2], columns[3]), held=held, over=False)
        return
    status, _ = rows.settled((columns[0], columns[1]), (columns[2], columns[3]), held=held, over=False)
    then = State(status[0])
    if stored in (State.ACCEPTED, State.DELIVERED, State.MOVED):
        assert then is stored
    if stored is State.BOUNCED:
        assert then in (State.BOUNCED, State.FAILED, State.MOVED)
    if stored not in OPEN:
        assert then not in OPEN
    if stored in REACHED and then is State.CANCELLED:
        assert stored is State.INTENDED  # its sender says that it did not send it after all
    if not held:
        assert then in (stored, State.ACCEPTED)
