"""The part of the kit that is about time: batches that wait for theirs, and ends that are moved."""

from __future__ import annotations

from tests.store.makings import (
    AC,
    END_MS,
    SMS,
    C,
    Check,
    E,
    P,
    Place,
    batch,
    claim,
    everything,
    opened,
    report,
    states,
)


def a_batch_waits_for_its_time_or_is_hastened(place: Place) -> None:
    store, other = place(), place()
    number = opened(
        store,
        batch((1,)),
        batch((2,), seq=1, not_before_ms=50),
        batch((3,), seq=2, not_before_ms=END_MS),
        batch((4,), channel=SMS, seq=2, not_before_ms=END_MS),
        batch((5,), seq=3, not_before_ms=END_MS),
    )
    assert [lease.rows.tolist() for lease in claim(other, now_ms=10, most=9)] == [[1]]
    (second,) = claim(other, now_ms=50, most=9)
    assert second.rows.tolist() == [2]
    report(other, second, P, not_before_ms=5_000)
    assert not claim(other, now_ms=60, most=9)
    assert store.hasten(number + 1, below_seq=9) == 0
    assert store.hasten(number, below_seq=3) == 2, "a retry keeps its pause"
    assert store.hasten(number, below_seq=3) == 0
    assert sorted(lease.rows.tolist() for lease in claim(other, now_ms=70, most=9)) == [[3], [4]]
    assert store.set_paused(number, True)
    assert store.hasten(number, below_seq=9) == 1
    assert not claim(other, now_ms=80, most=9, lease_ms=10**9)
    assert store.set_paused(number, False)
    assert [5] in [lease.rows.tolist() for lease in claim(other, now_ms=80, most=9)]


def what_waits_for_its_time_ends_with_its_action(place: Place) -> None:
    store = place()
    number = opened(store, batch((1, 2), not_before_ms=END_MS))
    assert store.close(number, state="closing", now_ms=20)
    assert states(store, number) == [[C, C]]
    late = opened(store, batch((1, 2), not_before_ms=END_MS), reference="late")
    assert not claim(store, now_ms=END_MS)
    assert states(store, late) == [[E, E]]


def an_end_is_moved_and_what_waits_for_it_too(place: Place) -> None:
    store, other = place(), place()
    held = (batch((2,), seq=1, not_before_ms=END_MS), batch((3,), seq=2, not_before_ms=END_MS))
    number = opened(store, batch((1,)), *held)
    assert store.set_paused(number, True)
    assert store.move_end(number, end_ms=3 * END_MS, now_ms=10)
    assert store.set_paused(number, False)
    record = other.action(number)
    assert record is not None
    assert (record.end_ms, [phase.end_ms for phase in other.phases(number)]) == (3 * END_MS, [3 * END_MS])
    (lease,) = claim(other, now_ms=2 * END_MS, most=9)
    assert lease.rows.tolist() == [1], "what nobody let go is not due at the old end"
    assert other.intend(lease, everything(lease), now_ms=2 * END_MS)
    report(other, lease, AC)
    assert store.move_end(number, end_ms=2 * END_MS + 9, now_ms=2 * END_MS + 1)
    assert store.move_end(number, end_ms=4 * END_MS, now_ms=2 * END_MS + 2)
    assert not claim(other, now_ms=3 * END_MS, most=9), "sooner, and later again: the newest counts"
    assert store.hasten(number, below_seq=2) == 1
    (lease,) = claim(other, now_ms=3 * END_MS, most=9)
    assert lease.rows.tolist() == [2]
    assert store.move_end(number, end_ms=3 * END_MS + 5, now_ms=3 * END_MS)
    assert not other.intend(lease, everything(lease), now_ms=3 * END_MS + 5), "sooner: also for who has it in hand"
    assert not store.move_end(number, end_ms=9 * END_MS, now_ms=3 * END_MS + 5), "its end has passed"
    assert store.close(number, state="cancelled", now_ms=3 * END_MS + 6)
    assert not store.move_end(number, end_ms=9 * END_MS, now_ms=10)
    assert not store.move_end(99, end_ms=9 * END_MS, now_ms=10)


TIME_CHECKS: tuple[Check, ...] = (
    a_batch_waits_for_its_time_or_is_hastened,
    what_waits_for_its_time_ends_with_its_action,
    an_end_is_moved_and_what_waits_for_it_too,
)
