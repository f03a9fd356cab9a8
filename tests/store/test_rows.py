"""What is decided about rows, where the kit of the stores does not reach: tallies without rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.store import rows
from fanout.store.states import Event, Reason, State

MARKS = st.lists(
    st.tuples(st.sampled_from(State), st.sampled_from(Reason)).map(
        lambda pair: (pair[0], Reason.UNDELIVERED) if pair[0] is State.BOUNCED else pair
    ),
    max_size=50,
)


@pytest.mark.parametrize("event", [Event.END, Event.CLOSE])
@given(MARKS)
def test_a_tally_stops_as_its_rows_do(event: Event, marks: list[tuple[State, Reason]]) -> None:
    status, reason = (np.array([pair[at] for pair in marks], np.uint8) for at in (0, 1))
    stopped = rows.tally(*rows.stopped(status, reason, event))
    assert rows.stopped_tally(rows.tally(status, reason), event).tolist() == stopped.tolist()


@given(st.lists(st.lists(st.tuples(st.sampled_from(State), st.sampled_from(Reason)), min_size=1), min_size=1))
def test_tallies_of_batches_that_lie_end_to_end(batches: list[list[tuple[State, Reason]]]) -> None:
    columns = [np.array(rows_of, np.uint8).T for rows_of in batches]
    together = np.concatenate(columns, axis=1)
    found = rows.tallies(together[0], together[1], [len(rows_of) for rows_of in batches])
    assert found.dtype == np.uint32
    assert found.tolist() == [rows.tally(status, reason).tolist() for status, reason in columns]
