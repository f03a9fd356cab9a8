"""Lanes, turns, places and quota."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from fanout.dispatch.bucket import Bucket
from fanout.dispatch.scheduler import QUANTUM, Scheduler


@dataclass(eq=False)
class Rows:
    lane: int
    action: int
    waiting: int
    may_go: Callable[[], bool] = lambda: True


def scheduler(places: int = 512, reserve: float = 0.125, rate: float = 1e9) -> Scheduler[Rows]:
    bucket = Bucket(rate_per_s=rate, burst=rate, reserve=reserve, now_s=0)
    return Scheduler(places=places, reserve=reserve, bucket=bucket)


def go(on: Scheduler[Rows], in_flight: int = 0) -> tuple[int, int] | None:
    """Take the next decision; (action, rows), or None."""
    ticket, rows, _ = on.next(0, in_flight)
    if ticket is None:
        return None
    ticket.waiting -= rows
    return ticket.action, rows


def test_life_goes_first_whatever_is_queued() -> None:
    one = scheduler()
    one.add(Rows(2, 1, 10_000))
    one.add(Rows(1, 2, 10_000))
    assert go(one) == (2, QUANTUM)
    one.add(Rows(0, 3, 10))
    assert go(one) == (3, 10)
    assert go(one) == (2, QUANTUM)


def test_places_are_kept_free_for_life() -> None:
    one = scheduler(places=512)
    one.add(Rows(1, 1, 10_000))
    assert go(one, in_flight=448) is None
    one.add(Rows(0, 2, 10_000))
    assert go(one, in_flight=448) == (2, QUANTUM)
    assert go(one, in_flight=512) is None


def test_actions_of_a_lane_take_turns() -> None:
    one = scheduler()
    one.add(Rows(1, 1, 10_000))
    one.add(Rows(1, 2, 10_000))
    assert [go(one) for _ in range(4)] == [(1, QUANTUM), (2, QUANTUM), (1, QUANTUM), (2, QUANTUM)]


def test_an_action_goes_in_order() -> None:
    one = scheduler()
    first, second = Rows(1, 1, QUANTUM + 1), Rows(1, 1, 5)
    one.add(first)
    one.add(second)
    assert [go(one) for _ in range(4)] == [(1, QUANTUM), (1, 1), (1, 5), None]


def test_a_quota_says_when_to_ask_again() -> None:
    one = Scheduler[Rows](places=512, reserve=0, bucket=Bucket(rate_per_s=10, burst=20, reserve=0, now_s=0))
    one.add(Rows(1, 1, 100))
    assert go(one) == (1, 20)
    ticket, _, again_s = one.next(0, 0)
    assert ticket is None
    assert again_s is not None
    assert again_s > 0
    assert one.next(again_s + 1e-6, 0).rows > 0


def test_a_dropped_ticket_is_forgotten() -> None:
    one, rows = scheduler(), Rows(0, 1, 10)
    one.add(rows)
    one.drop(rows)
    one.drop(rows)
    assert go(one) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(1, 500)), max_size=12))
def test_every_row_goes_once(wanted: list[tuple[int, int, int]]) -> None:
    one = scheduler()
    for lane, action, rows in wanted:
        one.add(Rows(lane, action, rows))
    gone = {(lane, action): 0 for lane, action, _ in wanted}
    lanes = []
    while True:
        ticket, rows, _ = one.next(0, 0)
        if ticket is None:
            break
        ticket.waiting -= rows
        assert ticket.waiting >= 0
        gone[ticket.lane, ticket.action] += rows
        lanes.append(ticket.lane)
    assert lanes == sorted(lanes)
    for lane, action in gone:
        assert gone[lane, action] == sum(rows for at, of, rows in wanted if (at, of) == (lane, action))


def test_rows_that_come_back_stand_first_in_their_turn() -> None:
    one = scheduler()
    first, second = Rows(1, 1, 10), Rows(1, 1, 10)
    one.add(first)
    one.add(second)
    assert one.next(0, 0).ticket is first
    first.waiting = 4
    one.again(first)
    one.again(first)
    assert one.next(0, 0) == (first, 4, None)
    assert one.next(0, 0).ticket is second
    assert one.empty


def test_places_follow_the_connections() -> None:
    one = scheduler(places=512)
    one.resize(1)
    one.add(Rows(1, 1, 10))
    assert go(one, 0) == (1, 1), "one place is enough for any lane"
    assert go(one, 1) is None
    one.resize(8)
    assert go(one, 1) == (1, 6), "of eight, one is life's"


def test_who_may_not_go_is_given_up_wherever_it_stands() -> None:
    one = scheduler(places=8)
    closed = [Rows(2, 1, 10, lambda: False), Rows(0, 2, 10, lambda: False), Rows(0, 2, 10, lambda: False)]
    live = Rows(1, 3, 4)
    for rows in (closed[0], live, *closed[1:]):
        one.add(rows)
    assert set(map(id, one.weed())) == set(map(id, closed))
    assert one.weed() == []
    assert go(one) == (3, 4)
    assert one.empty
