"""What a sender has in hand: room by lane, and what keeps rows back."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.protocol import Message
from fanout.dispatch.hand import SMALL, Hand
from fanout.settings import load
from fanout.store.protocol import ActionRecord, Lease, PhaseRecord
from fanout.store.states import Event
from fanout.wire import LANES

MOST, ROWS = 4, 64


def hand(now_ms: int = 0) -> Hand:
    nothing: Any = None
    return Hand(nothing, nothing, load(None, {}), lambda: now_ms, most=MOST, sizes={0: ROWS, 3: ROWS})


def lease(number: int, lane: int = 1, channel: int = 0, action: int = 1, rows: int = ROWS) -> Lease:
    zeros = np.zeros(rows, np.uint8)
    return Lease(
        batch=number, token=1, action=action, phase=0, lane=lane, channel=channel, language="nl", attempt=0, until_ms=0,
        rows=np.zeros(rows, np.uint32), generations=np.zeros(rows, np.uint16), status=zeros, reason=zeros,
    )  # fmt: skip


def message(name: str = "start", end_ms: int = 10) -> Message:
    return Message(
        action=1, phase=0, name=name, kind="x", lane=1, language="nl", title="", text="x", end_ms=end_ms
    )  # fmt: skip


def record(state: str, end_ms: int = 10) -> ActionRecord:
    return ActionRecord(
        id=1, tenant="t", reference="r", digest=b"", kind="x", lane=1, state=state, created_ms=0, end_ms=end_ms,
        snapshot_version=1, body=b"",
    )  # fmt: skip


def test_a_more_urgent_lane_has_room_when_the_others_have_none() -> None:
    mine = hand()
    assert mine.room(0) == ((0, 1, 2), MOST)
    for number in range(MOST):
        mine.take(lease(number, lane=2))
    assert mine.room(0) == ((0, 1), MOST), "a search is claimed while an information has all it may have"
    for number in range(MOST, 2 * MOST):
        mine.take(lease(number, lane=1))
    assert mine.room(0) == ((0,), MOST)
    for number in range(2 * MOST, 3 * MOST):
        mine.take(lease(number, lane=0))
    assert mine.room(0) == ((), 0)
    assert mine.room(3) == ((0, 1, 2), MOST), "channels have their own"
    mine.drop(lease(0, lane=2))
    assert mine.room(0) == ((), 0), "lanes above count"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, ROWS)), max_size=300))
def test_room_is_bounded(wanted: list[tuple[int, int]]) -> None:
    mine = hand()
    for number, (lane, rows) in enumerate(wanted):
        open_lanes, room = mine.room(0)
        assert room <= MOST
        if lane in open_lanes:
            mine.take(lease(number, lane=lane, rows=rows))
    assert len(mine.leases) <= SMALL * MOST * len(LANES)
    assert sum(len(one.rows) for one in mine.leases.values()) <= ROWS * MOST * len(LANES)


def test_small_batches_take_the_room_of_their_rows() -> None:
    mine = hand()
    for number in range(SMALL):
        mine.take(lease(number, rows=2))
    assert mine.room(0) == ((0, 1, 2), MOST - 1), "as much as one of all rows"
    mine.take(lease(SMALL, rows=ROWS // 2))
    assert mine.room(0) == ((0, 1, 2), MOST - 2), "there is no room for a whole one in the half that is left"


def test_what_keeps_rows_back() -> None:
    mine, one = hand(), lease(1)
    mine.take(one)
    for state, event in (
        ("paused", Event.RETRY), ("expired", Event.END), ("closing", Event.CLOSE), ("open", None),
        ("cancelled", Event.CLOSE),
    ):  # fmt: skip
        mine.learn({1: record(state)})
        assert mine.stopping(one, message()) == event
        assert mine.stopping(one, message("result")) is None, "a result goes out although its action is closed"
    assert hand(now_ms=10).stopping(one, message("result")) == Event.END
    mine.drop(one)
    mine.learn({})
    mine.take(one)
    assert mine.stopping(one, message()) is None, "what is not in hand is forgotten"


def test_an_end_that_was_moved_counts_for_what_is_in_hand() -> None:
    mine, one = hand(now_ms=15), lease(1)
    mine.take(one)
    assert mine.stopping(one, message()) == Event.END
    mine.learn({1: record("open", end_ms=20)})
    assert mine.stopping(one, message()) is None, "later"
    assert mine.end_ms(message()) == 20
    mine.learn({1: record("open", end_ms=15)})
    assert mine.stopping(one, message(end_ms=30)) == Event.END, "sooner"
    assert mine.stopping(one, message("result", end_ms=30)) is None, "a result has an end of its own"


class Ledger:
    """One action, whose phase says something in Dutch alone."""

    def action(self, number: int) -> ActionRecord | None:
        return record("open") if number == 1 else None

    def phases(self, _action: int) -> list[PhaseRecord]:
        texts = {"nl": "Vermist."}
        return [PhaseRecord(action=1, phase=0, name="start", created_ms=0, end_ms=10, texts=texts, titles={})]


def test_what_batches_say_is_read_ahead_where_it_can_be() -> None:
    mine, nothing = hand(), lease(2, action=9)
    store: Any = Ledger()
    mine._store = store
    mine.read_ahead([nothing, lease(1)])
    found = mine.known(lease(1))
    assert found is not None
    assert found.text == "Vermist."
    assert mine.known(nothing) is None, "whoever handles it says why"
