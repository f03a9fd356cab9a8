"""The line: lanes, turns, places, quota, suppliers and probes; and that nothing reserved is ever lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.dispatch.breaker import COOL_S_FIRST, LEAST, PROBE_ROWS, Breaker, Is
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.line import NEVER_S, Gate, Line
from fanout.dispatch.suppliers import choose


@dataclass(eq=False)
class Rows:
    lane: int
    action: int
    rows: int
    batch: int = 1
    attempt: int = 0


def gate(
    *, places: int = 16, rate: float = 30.0, burst: float = 30.0, reserve: float = 0.125, call_rows: int = 1
) -> Gate:
    bucket = Bucket(rate_per_s=rate, burst=burst, reserve=reserve, now_s=0)
    return Gate(breaker=Breaker(now_s=0), bucket=bucket, places=places, reserve=reserve, call_rows=call_rows)


def line(*gates: Gate) -> Line[Rows]:
    return Line(gates or (gate(),))


def go(on: Line[Rows], now_s: float = 0.0) -> tuple[int, int, int] | None:
    """(action, gate, rows) of the next, who stands in line again with the rest; or None."""
    granted, _ = on.next(now_s)
    if granted is None:
        return None
    granted.want.rows -= granted.rows
    if granted.want.rows:
        on.add(granted.want)
    return granted.want.action, granted.gate, granted.rows


def trip(one: Gate, now_s: float = 0.0) -> None:
    one.breaker.answered(0, LEAST, now_s)
    assert one.breaker.state is Is.OPEN


def test_a_more_urgent_lane_goes_first_whatever_stands_in_line() -> None:
    one = line(gate(places=1_000, rate=1e3, burst=1e3))
    for lane, action in ((2, 1), (1, 2), (0, 3)):
        one.add(Rows(lane, action, 100))
    assert [go(one) for _ in range(3)] == [(3, 0, 100), (2, 0, 100), (1, 0, 100)]


def test_nobody_overtakes_who_waits_for_quota_or_a_place() -> None:
    dry, full = gate(rate=1.0, burst=8.0, reserve=0), gate(places=4, reserve=0)
    dry.bucket.take(8)
    full.take(4)
    for one in (dry, full):
        on = line(one)
        on.add(Rows(2, 1, 1))
        on.add(Rows(1, 2, 100))
        assert go(on) is None
    on = line(dry)
    on.add(Rows(2, 1, 1))
    on.add(Rows(1, 2, 100))
    _, again_s = on.next(0.0)
    assert again_s == 1.0
    assert go(on, 1.0) == (2, 0, 1), "the token is the more urgent one's"


def test_a_part_of_places_and_quota_is_lane_0s() -> None:
    one = line(gate(places=8, rate=1e3, burst=1e3))
    one.add(Rows(1, 1, 100))
    assert go(one) == (1, 0, 7)
    assert go(one) is None
    one.add(Rows(0, 2, 1))
    assert go(one) == (2, 0, 1)


def test_actions_of_a_lane_take_turns_and_their_nearest_go_first() -> None:
    one = line(gate(places=2, rate=1e3, burst=1e3, reserve=0))
    one.add(Rows(1, 1, 9, batch=12))
    one.add(Rows(1, 1, 9, batch=11))
    one.add(Rows(1, 2, 9, batch=20))
    told = []
    for _ in range(4):
        granted, _ = one.next(0.0)
        assert granted is not None
        told.append((granted.want.batch, granted.rows))
        granted.want.rows -= granted.rows
        one.add(granted.want)
        one.gates[0].free(granted.rows)
    assert told == [(11, 2), (20, 2), (11, 2), (20, 2)]


def test_a_call_of_many_rows_goes_whole_and_takes_one_place() -> None:
    one = gate(places=2, rate=500, burst=500, reserve=0, call_rows=1_000)
    on = line(one)
    on.add(Rows(1, 1, 400))
    on.add(Rows(1, 2, 400))
    assert go(on) == (1, 0, 400)
    assert one.used == 1
    _, again_s = on.next(0.0)
    assert again_s == 0.6, "when there is quota for all of it"
    assert go(on, 0.6) == (2, 0, 400)


def test_more_than_the_quota_ever_holds_goes_in_parts() -> None:
    on = line(gate(rate=10, burst=8, reserve=0.25, call_rows=1_000))
    on.add(Rows(1, 1, 10))
    assert go(on) == (1, 0, 6)
    assert go(on, 0.3) is None
    assert go(on, 0.4) == (1, 0, 4)


def test_handfuls_wait_for_a_quarter_of_a_second_and_urgent_rows_do_not() -> None:
    for lane, ready_s in ((1, 7 / 30), (0, 1 / 30)):
        one = gate(reserve=0)
        one.bucket.take(30)
        on = line(one)
        on.add(Rows(lane, 1, 100))
        granted, again_s = on.next(0.0)
        assert granted is None
        assert abs(again_s - ready_s) < 1e-9


def test_who_does_not_work_gets_nothing_while_another_does() -> None:
    for how in ("open", "shut", "probed"):
        first, second = gate(rate=1e6, burst=1e6, places=1_000), gate(rate=1e6, burst=1e6, places=1_000)
        if how == "shut":
            first.bucket.shut(600.0)
        else:
            trip(first)
        now_s = COOL_S_FIRST if how == "probed" else 0.5
        on = line(first, second)
        if how == "probed":
            assert first.works(now_s)
            assert first.take(1)
        gone = set()
        for batch in range(1, 50):
            on.add(Rows(1, batch, 4, batch=batch))
            granted, _ = on.next(now_s)
            assert granted is not None
            gone.add(granted.gate)
        assert gone == {1}, how


def test_half_open_one_small_probe_goes_and_all_else_to_the_other() -> None:
    first, second = (gate(rate=1e6, burst=1e6, places=1_000, call_rows=1_000) for _ in range(2))
    trip(first)
    on = line(first, second)
    for batch in range(1, 41):
        on.add(Rows(1, batch, 500, batch=batch))
    gone = [granted for granted, _ in (on.next(COOL_S_FIRST) for _ in range(40)) if granted is not None]
    probes = [granted for granted in gone if granted.gate == 0]
    assert [(granted.rows, granted.probe) for granted in probes] == [(PROBE_ROWS, True)]
    assert all(granted.rows == 500 and not granted.probe for granted in gone if granted.gate == 1)
    assert len(gone) == 40


def test_one_row_is_the_probe_where_a_call_is_a_row() -> None:
    one = gate()
    trip(one)
    on = line(one)
    on.add(Rows(1, 1, 30))
    assert on.dead(0.5)
    assert go(on, 0.5) is None
    assert not on.dead(COOL_S_FIRST)
    assert go(on, COOL_S_FIRST) == (1, 0, 1)
    assert go(on, COOL_S_FIRST) is None, "until it is answered"
    assert not on.dead(COOL_S_FIRST), "which is worth waiting for"
    one.breaker.answered(1, 0, COOL_S_FIRST)
    assert go(on, COOL_S_FIRST) == (1, 0, 13)


def test_who_is_kept_back_at_one_supplier_keeps_nobody_from_the_other() -> None:
    first, second = gate(reserve=0), gate(reserve=0)
    first.bucket.take(30)
    of = {choose(batch, 0, [1.0, 1.0], [True, True]): batch for batch in range(1, 20)}
    on = line(first, second)
    on.add(Rows(1, 1, 30, batch=of[0]))
    on.add(Rows(2, 2, 10, batch=of[1]))
    assert go(on) == (2, 1, 10)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(1, 300)), min_size=1, max_size=10),
    st.integers(1, 20),
    st.sampled_from([1, 50, 1_000]),
    st.floats(1.0, 1e4),
    st.integers(1, 500),
)
def test_every_row_goes_once_within_places_and_quota(
    wanted: list[tuple[int, int, int]], places: int, call_rows: int, rate: float, burst: int
) -> None:
    one = gate(places=places, rate=rate, burst=float(burst), call_rows=call_rows)
    on = line(one)
    for batch, (lane, action, rows) in enumerate(wanted, 1):
        on.add(Rows(lane, action, rows, batch=batch))
    gone: list[tuple[float, int]] = []
    now_s = 0.0
    while True:
        granted, again_s = on.next(now_s)
        if granted is not None:
            assert 0 < granted.rows <= granted.want.rows
            assert one.used <= places
            gone.append((now_s, granted.rows))
            granted.want.rows -= granted.rows
            if granted.want.rows:
                on.add(granted.want)
            one.free(one.calls(granted.rows))
        elif again_s == NEVER_S:
            break
        else:
            now_s = max(again_s, now_s + 1e-6)
    assert sum(rows for _, rows in gone) == sum(rows for _, _, rows in wanted)
    times, so_far = np.array([at_s for at_s, _ in gone]), np.cumsum([0, *(rows for _, rows in gone)])
    within = so_far[np.searchsorted(times, times + 1.0)] - so_far[np.searchsorted(times, times)]
    assert (within <= burst + rate + 1).all(), "in no second more than the quota, from whichever moment it is counted"
