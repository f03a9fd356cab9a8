"""Threads: whatever comes in whatever order, nothing is said twice, nothing after the close, and everything ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.posts import Posted
from fanout.social import threads
from fanout.social.threads import Later, Removal, Say, Step, Thread, Unsay
from fanout.store.states import OPEN, Event, Reason, State

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
TAKEN = Posted(Event.ACCEPT, Reason.NONE, "77", "https://a.invalid/77")


def step(name: str = "start", phase: int = 0, **changes: Any) -> Step:
    fields: dict[str, Any] = {"name": name, "phase": phase, "text": "x", "end_ms": NOW_MS + HOUR_MS}
    return Step(**(fields | changes))


def thread(*steps: Step) -> Thread:
    return Thread(
        action=7, account="a", network="x", language="nl", lane=0, alt="x", steps=steps or (step(),)
    )  # fmt: skip


def said(
    before: Thread, at: int, outcome: Posted, *, same_key_s: int = 0, last: bool = False, now_ms: int = NOW_MS
) -> Thread:
    going = threads.intended(before, at, now_ms)
    return threads.answered(
        going, at, outcome, now_ms=now_ms, same_key_s=same_key_s, last_attempt=last, due_ms=now_ms + 1
    )


def states(one: Thread) -> list[State]:
    return [each.state for each in one.steps]


def test_replies_hang_on_the_first_post_that_was_taken() -> None:
    one = threads.told(threads.told(thread(), step("update", 1)), step("update", 2))
    assert threads.following(one, NOW_MS) == Say(0, "")
    one = said(one, 0, Posted(Event.REJECT, Reason.PAYLOAD))
    assert threads.following(one, NOW_MS) == Say(1, ""), "news makes sense alone"
    one = said(one, 1, TAKEN)
    assert threads.following(one, NOW_MS) == Say(2, "77")
    assert threads.told(one, step("update", 2, text="other")) == one


@pytest.mark.parametrize(
    ("first", "seen"),
    [(TAKEN, True), (Posted(Event.TIME_OUT, Reason.TIME_OUT), True), (Posted(Event.REJECT, Reason.PAYLOAD), False)],
)
def test_a_result_goes_where_something_may_have_been_seen(first: Posted, seen: bool) -> None:
    one = threads.ended(threads.told(said(thread(), 0, first), step("result", 1)), Event.CLOSE, None)
    one = threads.by_the_clock(one, NOW_MS, 0)
    assert isinstance(threads.following(one, NOW_MS), Say) is seen
    assert one.steps[1].state is (State.PENDING if seen else State.CANCELLED)
    assert threads.finished(one) is not seen


def test_a_result_waits_for_the_word_about_the_start() -> None:
    one = threads.told(threads.intended(thread(), 0, NOW_MS), step("result", 1))
    one = threads.by_the_clock(threads.ended(one, Event.CLOSE, None), NOW_MS, 0)
    assert states(one) == [State.INTENDED, State.PENDING]
    assert threads.following(one, NOW_MS) is None
    one = threads.answered(
        one, 0, Posted(Event.RETRY, Reason.QUOTA), now_ms=NOW_MS, same_key_s=0, last_attempt=False, due_ms=0
    )
    assert states(one)[0] is State.CANCELLED, "after the close nothing is tried again"


def test_a_key_is_good_for_so_long_only() -> None:
    one = threads.crashed(threads.intended(thread(), 0, NOW_MS), same_key=True)
    assert states(one) == [State.AGAIN]
    assert isinstance(threads.following(threads.by_the_clock(one, NOW_MS + 999, 1), NOW_MS + 999), Say)
    late = threads.by_the_clock(one, NOW_MS + 1_000, 1)
    assert states(late) == [State.UNKNOWN]
    again = said(one, 0, Posted(Event.REJECT, Reason.CREDENTIALS), same_key_s=1)
    assert states(again) == [State.UNKNOWN], "the first try may be there"
    assert states(said(one, 0, Posted(Event.RETRY, Reason.QUOTA), same_key_s=1)) == [State.AGAIN]
    assert states(said(one, 0, Posted(Event.RETRY, Reason.QUOTA), same_key_s=1, last=True)) == [State.UNKNOWN]
    assert states(threads.crashed(threads.intended(thread(), 0, NOW_MS), same_key=False)) == [State.UNKNOWN]


def test_what_never_went_may_go_until_the_new_end() -> None:
    unsure = Posted(Event.TIME_OUT, Reason.TIME_OUT)
    one = threads.told(said(thread(), 0, unsure, same_key_s=3_600), step("update", 1))
    one = threads.until(threads.told(one, step("result", 2)), NOW_MS + 9 * HOUR_MS)
    hours = [(each.end_ms - NOW_MS) // HOUR_MS for each in one.steps]
    assert hours == [1, 9, 1], "what may have gone is known to its network by its end"
    assert threads.until(one, NOW_MS + 9 * HOUR_MS) is one


def test_posts_that_were_taken_go_in_their_time() -> None:
    one = threads.ended(said(thread(), 0, TAKEN), Event.END, NOW_MS + HOUR_MS)
    assert threads.following(threads.by_the_clock(one, NOW_MS, 0), NOW_MS) == Later(NOW_MS + HOUR_MS)
    assert not threads.finished(one)
    due = threads.by_the_clock(one, NOW_MS + HOUR_MS, 0)
    assert threads.following(due, NOW_MS + HOUR_MS) == Unsay(0)
    waiting = threads.removed(due, 0, Event.RETRY, due_ms=NOW_MS + HOUR_MS + 5, last_attempt=False)
    assert threads.following(waiting, NOW_MS + HOUR_MS) == Later(NOW_MS + HOUR_MS + 5)
    for event, removal in ((Event.ACCEPT, Removal.REMOVED), (Event.REJECT, Removal.REFUSED)):
        gone = threads.removed(waiting, 0, event, due_ms=0, last_attempt=False)
        assert gone.steps[0].removal is removal
        assert threads.finished(gone)


def test_after_a_withdrawal_nothing_more_is_said() -> None:
    one = threads.told(threads.withdrawn(said(thread(), 0, TAKEN), NOW_MS), step("update", 1))
    one = threads.by_the_clock(one, NOW_MS, 0)
    assert states(one) == [State.ACCEPTED, State.CANCELLED]
    assert threads.following(one, NOW_MS) == Unsay(0)


OUTCOMES = [
    TAKEN,
    Posted(Event.REJECT, Reason.PAYLOAD),
    Posted(Event.RETRY, Reason.QUOTA),
    Posted(Event.TIME_OUT, Reason.TIME_OUT),
]
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["work", "work", "work", "die", "tell", "result", "end", "withdraw", "wait"]),
        st.sampled_from(OUTCOMES),
        st.integers(1, 4 * HOUR_MS),
    ),
    max_size=40,
)


@given(MOVES, st.sampled_from([0, 3_600]))
def test_any_life(moves: list[tuple[str, Posted, int]], same_key_s: int) -> None:
    """An oracle keeps what the network got: it must agree with every promise, whatever happens."""
    one, now_ms = thread(), NOW_MS
    on_wire: dict[int, list[int]] = {}
    taken: set[int] = set()
    removed: set[int] = set()
    over_ms: int | None = None
    for move, outcome, wait_ms in moves:
        one = threads.by_the_clock(one, now_ms, same_key_s)
        match move:
            case "work":
                want = threads.following(one, now_ms)
                if isinstance(want, Say):
                    phase = one.steps[want.at].phase
                    assert now_ms < one.steps[want.at].end_ms
                    assert over_ms is None or one.steps[want.at].name == "result", "nothing after the close"
                    one = threads.intended(one, want.at, now_ms)
                    if outcome.event is not Event.RETRY:
                        on_wire.setdefault(phase, []).append(now_ms)
                    if outcome.event is Event.ACCEPT:
                        taken.add(phase)
                    one = threads.answered(
                        one, want.at, outcome, now_ms=now_ms, same_key_s=same_key_s, last_attempt=False, due_ms=now_ms
                    )
                elif isinstance(want, Unsay):
                    assert one.remove_ms is not None
                    assert one.remove_ms <= now_ms
                    removed.add(one.steps[want.at].phase)
                    one = threads.removed(one, want.at, Event.ACCEPT, due_ms=0, last_attempt=False)
            case "die":
                want = threads.following(one, now_ms)
                if isinstance(want, Say):
                    on_wire.setdefault(one.steps[want.at].phase, []).append(now_ms)
                    one = threads.crashed(threads.intended(one, want.at, now_ms), same_key=same_key_s > 0)
            case "tell" if over_ms is None:
                one = threads.told(one, step("update", len(one.steps), end_ms=now_ms + HOUR_MS))
            case "result" if over_ms is None:
                one = threads.told(one, step("result", len(one.steps), end_ms=now_ms + 24 * HOUR_MS))
                one, over_ms = threads.ended(one, Event.CLOSE, now_ms + 24 * HOUR_MS), now_ms
            case "end" if over_ms is None:
                one, over_ms = threads.ended(one, Event.END, now_ms + HOUR_MS), now_ms
            case "withdraw":
                one = threads.withdrawn(one, now_ms)
                over_ms = now_ms if over_ms is None else over_ms
            case "wait":
                now_ms += wait_ms
    for times in on_wire.values():
        assert len(times) == 1 or max(times) - min(times) < 1_000 * same_key_s, (
            "never twice but for a key that is known"
        )
    for each in one.steps:
        assert (each.state is State.ACCEPTED) == (each.phase in taken)
        assert (each.removal is Removal.REMOVED) == (each.phase in removed)
        if each.state in (State.PENDING, State.CANCELLED, State.EXPIRED):
            assert each.phase not in on_wire, "what went out is not called unsent"
    one = one if over_ms is not None else threads.ended(one, Event.END, now_ms)
    for _ in range(100):
        now_ms += HOUR_MS
        one = threads.by_the_clock(one, now_ms, same_key_s)
        want = threads.following(one, now_ms)
        if isinstance(want, Say):
            one = said(one, want.at, TAKEN, same_key_s=same_key_s, now_ms=now_ms)
        elif isinstance(want, Unsay):
            one = threads.removed(one, want.at, Event.ACCEPT, due_ms=0, last_attempt=False)
    assert threads.finished(one), "everything ends"
    assert not any(each.state in OPEN for each in one.steps)
