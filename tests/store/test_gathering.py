"""Receipts that came together: who is told of which change, however many batches they met."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fanout.store import rows
from fanout.store.gathering import News, count_changes, end_to_end
from fanout.store.states import Reason, State

Report = tuple[int, tuple[bool, bool], int]
"""Place, (delivered, bounced), and which of the receipts says so."""
FATES = ((True, False), (False, False), (False, True))
REPORTS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(FATES), st.integers(0, 4)), min_size=1, max_size=12)


def news(batch: int, reports: list[Report]) -> News:
    place, fates, of = zip(*sorted(reports, key=lambda report: report[2]), strict=True)
    delivered, bounced = np.array(fates, np.bool_).T
    return News(1, batch, np.array(place, np.intp), delivered, bounced, np.array(of, np.intp))


def taken(one: News, before: NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    """Statuses after, and how many rows changed by each of the receipts."""
    changed = np.zeros(5, np.int64)
    status, _ = rows.received((before, np.full_like(before, Reason.NONE)), one.place, one.delivered, one.bounced)
    count_changes(one, before, status, changed)
    return status.tolist(), changed.tolist()


@given(st.lists(REPORTS, min_size=1, max_size=4), st.data())
def test_batches_end_to_end_are_as_each_alone(reported: list[list[Report]], data: st.DataObject) -> None:
    met = [news(batch, reports) for batch, reports in enumerate(reported)]
    states = st.sampled_from([State.ACCEPTED, State.DELIVERED, State.FAILED, State.UNKNOWN, State.BOUNCED])
    before = [np.array(data.draw(st.lists(states, min_size=10, max_size=14)), np.uint8) for _ in met]
    alone = [taken(one, status) for one, status in zip(met, before, strict=True)]
    together = taken(end_to_end(met, [len(status) for status in before]), np.concatenate(before))
    assert together[0] == [state for status, _ in alone for state in status]
    assert together[1] == np.sum([changed for _, changed in alone], axis=0).tolist()


def test_a_row_that_changed_is_counted_once_with_the_first_that_named_it() -> None:
    good, bad = FATES[:2]
    one = news(0, [(3, good, 2), (3, good, 1), (4, bad, 0), (4, good, 3), (5, good, 4)])
    before = np.array([State.ACCEPTED] * 5 + [State.DELIVERED], np.uint8)
    status, changed = taken(one, before)
    assert status[3:] == [State.DELIVERED] * 3
    assert changed == [1, 1, 0, 0, 0]
