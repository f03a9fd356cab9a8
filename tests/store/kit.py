"""What every store must do: `check_store(make)` runs unchanged on each of them.

`make` is a context manager that gives a place: a function that opens the same store once more, as another process
would. Each check gets a place of its own. A store that fails one breaks a rule of `fanout/store/protocol.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import numpy as np

from fanout.store.protocol import LEFT_MS, Receipts, Share, Store
from fanout.store.states import Reason
from tests.store.kit_bounces import BOUNCE_CHECKS
from tests.store.kit_logs import LOG_CHECKS
from tests.store.kit_times import TIME_CHECKS
from tests.store.makings import (
    AC,
    AG,
    ALL,
    APNS,
    END_MS,
    FCM,
    IN,
    SMS,
    C,
    Check,
    D,
    E,
    F,
    M,
    Make,
    P,
    Place,
    U,
    action,
    batch,
    claim,
    everything,
    opened,
    phase,
    refused,
    report,
    states,
)

__all__ = [
    "CHECKS",
    "check_store",
    "ALL",
    "AC",
    "AG",
    "APNS",
    "C",
    "D",
    "E",
    "END_MS",
    "F",
    "FCM",
    "IN",
    "M",
    "P",
    "SMS",
    "U",
    "Check",
    "Make",
    "Place",
    "action",
    "batch",
    "claim",
    "everything",
    "opened",
    "phase",
    "refused",
    "report",
    "states",
]

# --- actions --------------------------------------------------------------------------------------------------------


def an_action_is_read_as_it_was_written(place: Place) -> None:
    store = place()
    record, new = store.open_action(action(), phase(), [batch((5, 6), channel=SMS), batch((7,), seq=0)])
    assert new
    assert record.id > 0
    for reader in (store, place()):
        assert reader.action(record.id) == record == reader.action_by_reference("police", "r")
        assert reader.actions() == reader.actions(("open",)) == [record]
        assert reader.actions(("closed", "paused")) == []
        (start,) = reader.phases(record.id)
        assert (start.action, start.name, start.texts, start.titles, start.reference) == (
            record.id, "start", {"nl": "één kind"}, {"nl": "Kijk"}, "start 0",
        )  # fmt: skip
        first, second = reader.batches(record.id)
        assert (first.channel, first.rows.tolist()) == (FCM, [7])
        assert (second.channel, second.rows.tolist(), second.generations.tolist()) == (SMS, [5, 6], [0, 1])
        assert second.rows.dtype == np.uint32
        assert second.generations.dtype == np.uint16
    assert store.action(99) is None
    assert store.action_by_reference("other", "r") is None
    assert not store.phases(99)
    assert not store.counts(99)
    assert not list(store.batches(99))


def the_same_reference_is_the_same_action(place: Place) -> None:
    first, second = place(), place()
    number = opened(first)
    again, new = second.open_action(action(), phase(), [batch((9,))])
    assert (again.id, new) == (number, False)
    with refused("reference_conflict"):
        second.open_action(action(digest=b"other"), phase(), [])
    assert len(first.actions()) == 1
    assert states(first, number) == [[P, P, P]]


def an_action_may_reach_nobody(place: Place) -> None:
    store = place()
    record, _ = store.open_action(action(), phase(), [])
    assert store.counts(record.id) == []
    assert claim(store) == []
    assert store.close(record.id, state="closing", now_ms=5)


def a_phase_is_added_from_the_states_named(place: Place) -> None:
    store = place()
    number = opened(store)
    late = phase(1, "result", end_ms=2 * END_MS)
    assert not store.add_phase(number, late, [batch((1,))], state="closed", from_states=("closing",))
    assert not store.add_phase(99, late, [batch((1,))], state="closed", from_states=("closing",))
    assert store.close(number, state="closing", now_ms=50, outcome="direct", result_body=b"result")
    record = store.action(number)
    assert record is not None
    assert (record.state, record.outcome, record.closed_ms, record.result_body) == ("closing", "direct", 50, b"result")
    assert store.add_phase(number, late, [batch((1,))], state="closed", from_states=("closing",))
    assert not store.add_phase(number, late, [batch((1,))], state="closed", from_states=("closing",))
    assert [item.name for item in store.phases(number)] == ["start", "result"]
    assert states(store, number) == [[C, C, C], [P]]


def a_pause_holds_back_and_lets_go(place: Place) -> None:
    store = place()
    number = opened(store, batch((1,)), batch((2,), seq=1))
    (lease,) = claim(store)
    assert store.set_paused(number, True)
    assert store.set_paused(number, True)
    assert not store.intend(lease, everything(lease), now_ms=11)
    report(store, lease, P)
    assert claim(store) == []
    assert store.set_paused(number, False)
    assert [len(lease.rows) for lease in claim(store, most=9)] == [1, 1]
    assert store.close(number, state="cancelled", now_ms=12)
    assert not store.set_paused(number, True)
    assert not store.set_paused(number, False)


# --- leases ---------------------------------------------------------------------------------------------------------


def claims_go_by_lane_and_seq(place: Place) -> None:
    store = place()
    low = opened(store, batch((1,), seq=0), batch((2,), seq=1), reference="low", lane=2)
    one = opened(store, batch((3,), seq=0), batch((4,), seq=1), reference="one", lane=0)
    two = opened(store, batch((5,), seq=0, channel=SMS), batch((6,), seq=1), reference="two", lane=0)
    order = [(lease.action, lease.rows[0], lease.seq) for lease in claim(store, most=5)]
    assert order == [(one, 3, 0), (two, 5, 0), (one, 4, 1), (two, 6, 1), (low, 1, 0)]
    assert store.claim("me", channels=(SMS,), lanes=(2,), now_ms=10, lease_ms=9, most=9) == []
    assert store.claim("me", channels=(FCM,), lanes=(0, 1), now_ms=10, lease_ms=9, most=9) == []
    assert store.claim("me", channels=(FCM,), lanes=(2,), now_ms=10, lease_ms=9, most=0) == []
    assert [lease.rows[0] for lease in claim(store, most=5)] == [2]


def the_nearest_are_left_for_a_moment_to_who_claims_nothing_else(place: Place) -> None:
    def claims(share: Share, now_ms: int) -> list[int]:
        could = store.ready(channels=ALL, lanes=(0, 1, 2), now_ms=now_ms, share=share)
        found = store.claim("me", channels=ALL, lanes=(0, 1, 2), now_ms=now_ms, lease_ms=9, most=9, share=share)
        assert could or not found
        return [int(lease.rows[0]) for lease in found]

    store = place()
    opened(store, batch((1,), seq=0), batch((2,), seq=1), batch((3,), seq=0, channel=SMS), reference="one")
    assert claims(Share.OTHERS, 10) == [2], "their phase was made at 1"
    assert claims(Share.NEAREST, 10) == [1, 3]
    assert claims(Share.NEAREST, 15) == [], "they are leased"
    assert claims(Share.OTHERS, 30) == [1, 3, 2], "somebody had them"
    opened(store, batch((4,), seq=0), batch((5,), seq=1), reference="two")
    assert claims(Share.OTHERS, LEFT_MS) == [1, 3, 2, 5]
    assert claims(Share.OTHERS, LEFT_MS + 1) == [4]


def a_batch_has_one_lease_at_a_time(place: Place) -> None:
    first, second = place(), place()
    number = opened(first)
    (lease,) = claim(first, now_ms=10, lease_ms=100)
    assert (lease.action, lease.phase, lease.channel, lease.language, lease.attempt) == (number, 0, FCM, "nl", 0)
    assert lease.until_ms == 110
    assert lease.status.tolist() == [P, P, P]
    assert claim(second, now_ms=109) == []
    (taken,) = claim(second, now_ms=110)
    assert taken.token > lease.token
    assert not first.intend(lease, everything(lease), now_ms=111)
    assert second.intend(taken, everything(taken), now_ms=111)
    first.renew([lease], until_ms=10_000)
    assert len(claim(first, now_ms=5_000)) == 1


def threads_share_a_store_and_no_batch(place: Place) -> None:
    store = place()
    opened(store, *(batch((number,), seq=number) for number in range(40)))
    got: list[int] = []

    def take(mine: Store) -> None:
        while leases := claim(mine, most=2):
            got.extend(lease.rows[0] for lease in leases)

    threads = [threading.Thread(target=take, args=(mine,)) for mine in (store, store, place(), place())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(40))


def a_lease_lasts_until_somebody_takes_it(place: Place) -> None:
    store = place()
    opened(store)
    (lease,) = claim(store, now_ms=10, lease_ms=100)
    assert store.intend(lease, everything(lease), now_ms=900)
    report(store, lease, AC, AC, AC)
    assert claim(store, now_ms=950) == []


def a_renewed_lease_lasts(place: Place) -> None:
    store = place()
    opened(store)
    (lease,) = claim(store, now_ms=10, lease_ms=100)
    store.renew([lease], until_ms=500)
    store.renew([lease], until_ms=50)
    assert claim(store, now_ms=499) == []
    assert len(claim(store, now_ms=500)) == 1


def a_dead_owner_is_released(place: Place) -> None:
    store = place()
    number = opened(store, batch((1,)), batch((2,), seq=1), batch((3,), seq=2, channel=SMS))
    leases = claim(store, "dead", most=9)
    assert store.intend(leases[0], everything(leases[0]), now_ms=11)
    assert store.intend(leases[2], everything(leases[2]), now_ms=11)
    assert store.release("other") == 0
    assert store.release("dead") == 3
    assert states(store, number) == [[AG], [P], [U]]
    assert not store.intend(leases[1], everything(leases[1]), now_ms=12)
    assert [lease.rows[0] for lease in claim(store, "alive", now_ms=12, most=9)] == [1, 2]


# --- the wire -------------------------------------------------------------------------------------------------------


def intent_is_refused_when_it_is_too_late(place: Place) -> None:
    store = place()
    for reference, close_it in (("closed", True), ("ended", False)):
        number = opened(store, reference=reference)
        (lease,) = claim(store, now_ms=10)
        if close_it:
            assert store.close(number, state="cancelled", now_ms=15)
        assert not store.intend(lease, everything(lease), now_ms=16 if close_it else END_MS)
        assert states(store, number) == [[C, C, C] if close_it else [P, P, P]]


def a_result_goes_out_when_the_action_is_closed(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2)))
    (lease,) = claim(store)
    assert store.intend(lease, np.array([0]), now_ms=11)
    report(store, lease, AC, P)
    assert store.close(number, state="closing", now_ms=12)
    assert claim(store) == []
    assert store.add_phase(
        number, phase(1, "result", end_ms=2 * END_MS), [batch((1,))], state="closed", from_states=("closing",)
    )
    (lease,) = claim(store, now_ms=END_MS + 5)
    assert (lease.phase, lease.rows.tolist()) == (1, [1])
    assert store.intend(lease, everything(lease), now_ms=END_MS + 6)
    report(store, lease, AC)
    assert states(store, number) == [[AC, C], [AC]]


def what_comes_back_is_recorded(place: Place) -> None:
    store = place()
    number = opened(store)
    (lease,) = claim(store)
    assert store.intend(lease, np.array([0, 2]), now_ms=11)
    assert states(store, number) == [[IN, P, IN]]
    report(store, lease, AC, P, F, reason=Reason.TOKEN_DEAD, not_before_ms=77)
    assert states(store, number) == [[AC, P, F]]
    assert claim(store, now_ms=76) == []
    (lease,) = claim(store, now_ms=77)
    assert lease.attempt == 1
    assert lease.status.tolist() == [AC, P, F]
    assert lease.reason.tolist()[2] == Reason.TOKEN_DEAD
    assert store.intend(lease, np.array([1]), now_ms=78)
    store.settle(lease, status=np.array([AC, AC, F], np.uint8), reason=lease.reason, first_ms=79, last_ms=80, done=True)
    (count,) = store.counts(number)
    assert (count.first_ms, count.last_ms) == (20, 80)
    assert claim(store, now_ms=END_MS - 1) == []


def a_crash_sends_again_only_what_replaces_in_place(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2)), batch((3, 4), channel=SMS, seq=1))
    for lease in claim(store, most=2, now_ms=10):
        assert store.intend(lease, np.array([0]), now_ms=11)
    leases = claim(store, "next", most=2, now_ms=110)
    assert [lease.status.tolist() for lease in leases] == [[AG, P], [U, P]]
    assert leases[0].reason.tolist() == [Reason.CRASH, Reason.NONE]
    assert store.intend(leases[0], np.array([0, 1]), now_ms=111)
    report(store, leases[0], P, P)  # certainly not taken this time, but perhaps the first
    assert states(store, number) == [[AG, P], [U, P]]
    assert store.close(number, state="closing", now_ms=112)
    assert states(store, number) == [[U, C], [U, C]]


def a_late_sender_brings_good_news_only(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2, 3, 4), channel=SMS))
    (late,) = claim(store, now_ms=10)
    assert store.intend(late, np.array([0, 1, 2]), now_ms=11)
    (lease,) = claim(store, now_ms=110)
    assert states(store, number) == [[U, U, U, P]]
    report(store, late, AC, F, U, P)
    assert states(store, number) == [[AC, U, U, P]]
    assert store.intend(lease, np.array([3]), now_ms=112)
    report(store, lease, U, U, U, AC)
    assert states(store, number) == [[AC, U, U, AC]]
    report(store, late, F, AC, F, F)
    assert states(store, number) == [[AC, AC, U, AC]]


def good_news_comes_before_the_end_of_a_lease(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2, 3, 4), channel=SMS))
    (lease,) = claim(store, now_ms=10)
    assert store.intend(lease, np.array([0, 1, 2]), now_ms=11)
    report(store, lease.lost(), AC, F, U, P)
    assert states(store, number) == [[AC, IN, IN, P]]
    assert claim(store, now_ms=12) == [], "it is held as before"
    assert store.close(number, state="closing", now_ms=13)
    report(store, lease.lost(), P, AC, P, P)
    assert states(store, number) == [[AC, AC, IN, C]]
    report(store, lease, AC, U, F, P)
    assert states(store, number) == [[AC, AC, F, C]]


def what_a_settle_leaves_on_the_wire_is_resolved(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2)), batch((3, 4), channel=SMS, seq=1))
    for lease in claim(store, most=2):
        assert store.intend(lease, everything(lease), now_ms=11)
        report(store, lease, AC, IN)
    assert states(store, number) == [[AC, AG], [AC, U]]


def rows_move_to_another_channel_in_the_same_commit(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2)))
    for expected in ([[M, AC], [P]], [[M, AC], [F]]):
        (lease,) = claim(store)
        assert store.intend(lease, everything(lease), now_ms=11)
        if expected[1] == [F]:
            assert store.close(number, state="closing", now_ms=12)
        status = np.array([M, AC][: len(lease.rows)], np.uint8)
        store.settle(
            lease, status=status, reason=np.full(len(status), Reason.TOKEN_DEAD, np.uint8), first_ms=1, last_ms=1,
            done=True, moved=[batch((1,), channel=SMS if lease.channel == FCM else APNS)],
        )  # fmt: skip
        assert states(store, number) == expected


# --- ends -----------------------------------------------------------------------------------------------------------


def a_close_stops_what_is_unsent_and_nothing_else(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2, 3)), batch((4,), seq=1))
    (lease,) = claim(store)
    assert store.intend(lease, np.array([0, 1]), now_ms=11)
    assert store.close(number, state="closing", now_ms=12)
    assert not store.close(number, state="cancelled", now_ms=13)
    assert not store.close(99, state="cancelled", now_ms=13)
    assert states(store, number) == [[IN, IN, C], [C]]
    report(store, lease, AC, P, P)
    assert states(store, number) == [[AC, C, C], [C]]
    assert claim(store, now_ms=200) == []


def what_was_on_the_wire_at_a_close_and_never_came_back_is_unknown(place: Place) -> None:
    store = place()
    number = opened(store, batch((1,)), batch((2,), channel=SMS, seq=1))
    for lease in claim(store, most=2):
        assert store.intend(lease, everything(lease), now_ms=11)
    assert store.close(number, state="cancelled", now_ms=12)
    assert claim(store, now_ms=50) == []
    assert states(store, number) == [[IN], [IN]]
    assert store.claim("me", channels=(), lanes=(), now_ms=110, lease_ms=1, most=1) == []
    assert states(store, number) == [[U], [U]]


def an_end_expires_what_is_unsent(place: Place) -> None:
    store = place()
    held = opened(store, batch((1, 2), channel=SMS), reference="held")
    (lease,) = claim(store, now_ms=END_MS - 50)
    assert store.intend(lease, np.array([0]), now_ms=END_MS - 40)
    paused = opened(store, batch((1,)), reference="paused")
    assert store.set_paused(paused, True)
    assert store.claim("me", channels=(APNS,), lanes=(1,), now_ms=END_MS, lease_ms=1, most=1) == []
    assert states(store, paused) == [[E]]
    assert states(store, held) == [[IN, P]]
    report(store, lease, AC, P)
    assert claim(store, now_ms=END_MS) == []
    assert states(store, held) == [[AC, E]]
    assert store.close(held, state="expired", now_ms=END_MS)
    record = store.action(held)
    assert record is not None
    assert record.state == "expired"


def an_expired_action_says_so_of_its_rows(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2)))
    assert store.close(number, state="expired", now_ms=END_MS)
    assert states(store, number) == [[E, E]]
    (view,) = store.batches(number)
    assert view.reason.tolist() == [Reason.END, Reason.END]


# --- receipts, open rows --------------------------------------------------------------------------------------------


def received(store: Store, action: int, rows: Sequence[int], delivered: Sequence[bool], *, channel: int = SMS) -> int:
    """How many rows changed by receipts for rows of a phase 0."""
    told = Receipts(action, 0, channel, np.array(rows, np.uint32), np.array(delivered, np.bool_))
    return sum(store.apply_receipts([told]))


def receipts_come_doubled_late_and_out_of_order(place: Place) -> None:
    store = place()
    number = opened(store, batch((10, 11, 12), channel=SMS), batch((20, 21), channel=SMS, seq=1))
    for lease in claim(store, most=2):
        assert store.intend(lease, everything(lease), now_ms=11)
        report(store, lease, *([AC] * len(lease.rows)))

    receipts = partial(received, store, number)
    assert receipts([20, 10, 99], [True, True, True]) == 2
    assert receipts([20, 10], [True, True]) == 0
    assert receipts([20, 11], [False, False]) == 1
    assert states(store, number) == [[D, F, AC], [D, AC]]
    assert store.counts(number)[0].reasons[Reason.UNDELIVERED] == 1
    assert receipts([11, 12, 12], [True, False, True]) == 2
    assert states(store, number) == [[D, D, D], [D, AC]]
    assert received(store, 99, [10], [True]) == 0
    assert receipts([], []) == 0


def receipts_that_come_together_are_as_one_after_the_other(place: Place) -> None:
    store = place()
    both = [batch((10, 11, 12), channel=SMS), batch((20, 21), channel=SMS, seq=1), batch((10, 11), channel=APNS)]
    number = opened(store, *both)
    other = opened(store, batch((10,), channel=SMS), reference="other")
    for lease in claim(store, most=9):
        assert store.intend(lease, everything(lease), now_ms=11)
        report(store, lease, *([AC] * len(lease.rows)))

    def one(action: int, channel: int, *told: tuple[int, bool]) -> Receipts:
        rows, delivered = zip(*told, strict=True)
        return Receipts(action, 0, channel, np.array(rows, np.uint32), np.array(delivered))

    together = [
        one(number, SMS, (10, True)), one(other, SMS, (10, False)), one(number, SMS, (11, False), (20, True)),
        one(99, SMS, (10, True)), one(number, APNS, (10, False)),
        one(number, SMS, (11, True), (10, False), (21, False)), one(number, SMS, (10, True), (77, True)),
    ]  # fmt: skip
    assert store.apply_receipts(together) == [1, 1, 2, 0, 1, 1, 0]
    assert sorted(states(store, number)) == [[D, D, AC], [D, F], [F, AC]]
    assert states(store, other) == [[F]]
    assert store.apply_receipts(together) == [0] * 7
    assert store.apply_receipts([]) == []


def a_receipt_overtakes_its_result(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2), channel=SMS))
    (lease,) = claim(store)
    assert store.intend(lease, everything(lease), now_ms=11)
    assert received(store, number, [1, 2], [True, False]) == 2
    report(store, lease, AC, AC)
    assert states(store, number) == [[D, F]]


def receipts_find_batches_that_came_later(place: Place) -> None:
    store = place()
    number = opened(store, batch((1,)))
    assert received(store, number, [1], [True]) == 0
    (lease,) = claim(store)
    assert store.intend(lease, everything(lease), now_ms=11)
    store.settle(
        lease, status=np.array([M], np.uint8), reason=np.zeros(1, np.uint8), first_ms=None, last_ms=None, done=True,
        moved=[batch((1,), channel=SMS)],
    )  # fmt: skip
    (lease,) = claim(store)
    assert store.intend(lease, everything(lease), now_ms=12)
    report(store, lease, AC)
    assert received(store, number, [1], [True]) == 1


def open_rows_are_those_of_actions_not_over(place: Place) -> None:
    store = place()
    assert store.open_rows().tolist() == []
    first = opened(store, batch((9, 4, 7)), reference="first")
    opened(store, batch((4, 1)), reference="second")
    assert store.open_rows().tolist() == [1, 4, 7, 9]
    assert store.open_rows().dtype == np.uint32
    (lease,) = claim(store)
    assert store.intend(lease, np.array([0]), now_ms=11)
    assert store.close(first, state="cancelled", now_ms=12)
    assert store.open_rows().tolist() == [1, 4, 7, 9]  # one is still on the wire
    report(store, lease, AC, P, P)
    assert store.open_rows().tolist() == [1, 4]


CHECKS: tuple[Check, ...] = (
    an_action_is_read_as_it_was_written,
    the_same_reference_is_the_same_action,
    an_action_may_reach_nobody,
    a_phase_is_added_from_the_states_named,
    a_pause_holds_back_and_lets_go,
    claims_go_by_lane_and_seq,
    the_nearest_are_left_for_a_moment_to_who_claims_nothing_else,
    a_batch_has_one_lease_at_a_time,
    threads_share_a_store_and_no_batch,
    a_lease_lasts_until_somebody_takes_it,
    a_renewed_lease_lasts,
    a_dead_owner_is_released,
    intent_is_refused_when_it_is_too_late,
    a_result_goes_out_when_the_action_is_closed,
    what_comes_back_is_recorded,
    a_crash_sends_again_only_what_replaces_in_place,
    a_late_sender_brings_good_news_only,
    good_news_comes_before_the_end_of_a_lease,
    what_a_settle_leaves_on_the_wire_is_resolved,
    rows_move_to_another_channel_in_the_same_commit,
    a_close_stops_what_is_unsent_and_nothing_else,
    what_was_on_the_wire_at_a_close_and_never_came_back_is_unknown,
    an_end_expires_what_is_unsent,
    an_expired_action_says_so_of_its_rows,
    receipts_come_doubled_late_and_out_of_order,
    receipts_that_come_together_are_as_one_after_the_other,
    a_receipt_overtakes_its_result,
    receipts_find_batches_that_came_later,
    open_rows_are_those_of_actions_not_over,
    *TIME_CHECKS,
    *BOUNCE_CHECKS,
    *LOG_CHECKS,
)


def check_store(make: Make) -> None:
    """Run every check, each on a place of its own."""
    for check in CHECKS:
        with make() as place:
            check(place)
