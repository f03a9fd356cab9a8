"""The part of the kit that is about rows whose provider says later that nothing arrived: they want a sender again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fanout.store.protocol import Lease, Receipts, Store
from fanout.store.states import Reason, State
from tests.store.makings import (
    AC,
    END_MS,
    IN,
    SMS,
    Check,
    D,
    F,
    M,
    P,
    Place,
    batch,
    claim,
    everything,
    opened,
    phase,
    report,
    states,
)

B = State.BOUNCED


def bounced(store: Store, action: int, rows: Sequence[int], *, number: int = 0) -> int:
    """How many rows of a phase changed, whose provider is certain that nothing arrived."""
    nothing = np.zeros(len(rows), np.bool_)
    return sum(store.apply_receipts([Receipts(action, number, SMS, np.array(rows, np.uint32), nothing, ~nothing)]))


def delivered(store: Store, action: int, rows: Sequence[int]) -> int:
    everybody = np.ones(len(rows), np.bool_)
    return sum(store.apply_receipts([Receipts(action, 0, SMS, np.array(rows, np.uint32), everybody)]))


def taken(store: Store, *rows: int) -> int:
    """An action whose one batch was taken by its provider."""
    number = opened(store, batch(rows, channel=SMS))
    (lease,) = claim(store)
    assert store.intend(lease, everything(lease), now_ms=11)
    report(store, lease, *[AC] * len(rows))
    return number


def move(store: Store, lease: Lease, *status: State, rows: Sequence[int]) -> None:
    why = np.full(len(status), Reason.UNDELIVERED, np.uint8)
    store.settle(
        lease, status=np.array(status, np.uint8), reason=why, first_ms=None, last_ms=None, done=True,
        moved=[batch(rows, channel=1)],
    )  # fmt: skip


def who_certainly_got_nothing_is_moved_once(place: Place) -> None:
    store, other = place(), place()
    number = taken(store, 1, 2, 3)
    assert claim(other) == []
    assert bounced(store, number, [2]) == 1
    assert bounced(store, number, [2]) == 0
    assert states(store, number) == [[AC, B, AC]]
    (lease,) = claim(other)
    assert lease.status.tolist() == [AC, B, AC]
    assert other.intend(lease, np.array([1]), now_ms=12)
    assert states(store, number) == [[AC, B, AC]], "it is never let go to this channel"
    move(other, lease, AC, M, AC, rows=[2])
    assert sorted(states(store, number)) == [[P], [AC, M, AC]]
    assert bounced(store, number, [2]) == 0
    (further,) = claim(other)
    assert further.rows.tolist() == [2]
    assert claim(other) == []


def a_bounce_that_overtakes_its_result_waits_for_the_next_sender(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2), channel=SMS))
    (lease,) = claim(store)
    assert store.intend(lease, everything(lease), now_ms=11)
    assert bounced(store, number, [1]) == 1
    assert states(store, number) == [[B, IN]]
    report(store, lease, AC, AC)
    assert states(store, number) == [[B, AC]]
    (again,) = claim(store)
    report(store, again, F, AC, reason=Reason.UNDELIVERED)
    assert states(store, number) == [[F, AC]]
    assert claim(store) == []


def good_news_comes_before_the_move(place: Place) -> None:
    store = place()
    number = taken(store, 1, 2)
    assert bounced(store, number, [1, 2]) == 2
    (lease,) = claim(store)
    assert delivered(store, number, [1]) == 1
    move(store, lease, M, M, rows=[1, 2])
    assert sorted(states(store, number)) == [[P], [D, M]]
    assert delivered(store, number, [2]) == 0, "counted where it went"
    (further,) = claim(store)
    assert further.rows.tolist() == [2]


def good_news_alone_leaves_nothing_to_do(place: Place) -> None:
    store = place()
    number = taken(store, 1)
    assert bounced(store, number, [1]) == 1
    assert delivered(store, number, [1]) == 1
    assert claim(store) == []
    assert states(store, number) == [[D]]


def a_bounce_waits_while_its_action_is_paused(place: Place) -> None:
    store = place()
    number = taken(store, 1)
    assert store.set_paused(number, True)
    assert bounced(store, number, [1]) == 1
    assert claim(store) == []
    assert store.set_paused(number, False)
    assert [lease.status.tolist() for lease in claim(store)] == [[B]]


def after_the_close_nobody_moves(place: Place) -> None:
    store = place()
    number = taken(store, 1, 2)
    assert bounced(store, number, [1]) == 1
    assert store.close(number, state="closing", now_ms=12)
    assert states(store, number) == [[F, AC]]
    assert bounced(store, number, [2]) == 1
    assert states(store, number) == [[F, F]]
    assert [count.reasons[Reason.UNDELIVERED] for count in store.counts(number)] == [2]
    assert claim(store) == []
    assert store.open_rows().tolist() == [1, 2], "until the result is planned"
    result = phase(1, "result")
    assert store.add_phase(number, result, [batch((3,), channel=SMS)], state="closed", from_states=("closing",))
    (lease,) = claim(store)
    assert store.intend(lease, everything(lease), now_ms=13)
    report(store, lease, AC)
    assert claim(store) == []
    assert bounced(store, number, [3], number=1) == 1, "a result goes out although its action is closed"
    assert [lease.status.tolist() for lease in claim(store)] == [[B]]


def after_the_end_nobody_moves(place: Place) -> None:
    store = place()
    number = taken(store, 1, 2)
    assert bounced(store, number, [1]) == 1
    assert claim(store, now_ms=END_MS) == []
    assert states(store, number) == [[F, AC]]
    assert bounced(store, number, [2]) == 1
    assert claim(store, now_ms=END_MS) == []
    assert states(store, number) == [[F, F]]


BOUNCE_CHECKS: tuple[Check, ...] = (
    who_certainly_got_nothing_is_moved_once,
    a_bounce_that_overtakes_its_result_waits_for_the_next_sender,
    good_news_comes_before_the_move,
    good_news_alone_leaves_nothing_to_do,
    a_bounce_waits_while_its_action_is_paused,
    after_the_close_nobody_moves,
    after_the_end_nobody_moves,
)
