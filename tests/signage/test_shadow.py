"""The table of `shadow`: every pair, and the properties that make it safe."""

from __future__ import annotations

import itertools

import pytest

from signage.dialects.native import Item, Page, Reported, Shown
from signage.layout import Model
from signage.shadow import OPEN, TABLE, Effect, Event, State, compare, diagram, step

ITEM = Item(
    action=7, stage="start", priority=0, pages=[Page(lines=["Vermist:", "kind"], seconds=4)], start_ms=0, end_ms=100
)
MODEL = Model(name="led", kind="characters", lines=2, characters=20)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_has_an_answer(state: State, event: Event) -> None:
    after, effects = step(state, event)
    assert isinstance(after, State)
    if (event not in TABLE[state]) or after is state:
        assert not effects or after in (State.DUE, State.FORGETTING)


def test_a_new_document_is_always_published() -> None:
    for state in State:
        assert step(state, Event.DESIRE) == (State.DUE, (Effect.PUBLISH,))


def test_what_is_due_is_queued_and_nothing_else_is() -> None:
    for state, event in itertools.product(State, Event):
        after, effects = step(state, event)
        queued = bool({Effect.PUBLISH, Effect.RAISE, Effect.FORGET} & set(effects))
        if after in (State.DUE, State.FORGETTING) and after is not state:
            assert queued, (state, event)
        if queued:
            assert after in (State.DUE, State.FORGETTING), (state, event)


def test_only_agreement_agrees() -> None:
    for state, event in itertools.product(State, Event):
        if step(state, event)[0] is State.AGREED and state is not State.AGREED:
            assert event is Event.AGREES


def test_every_open_state_is_chased_or_queued() -> None:
    for state in OPEN - {State.DUE}:
        assert step(state, Event.LATE)[0] is State.DUE, state


def test_only_grace_makes_the_broker_forget() -> None:
    for state, event in itertools.product(State, Event):
        if Effect.FORGET in step(state, event)[1]:
            assert event is Event.GRACE or state is State.FORGETTING


@pytest.mark.parametrize(
    ("report", "event"),
    [
        (Reported(board="b", version=5, shown=[Shown(action=7)], lines=["Vermist:", "kind"]), Event.AGREES),
        (Reported(board="b", version=5, shown=[Shown(action=7)]), Event.AGREES),
        (Reported(board="b", version=5, shown=[Shown(action=7)], lines=["Bus 12", "kind"]), Event.DIFFERS),
        (Reported(board="b", version=5, shown=[Shown(action=7, stage="result")]), Event.DIFFERS),
        (Reported(board="b", version=5), Event.DIFFERS),
        (Reported(board="b", version=4, shown=[Shown(action=7)]), Event.BEHIND),
        (Reported(board="b", version=6, shown=[Shown(action=7)]), Event.AHEAD),
    ],
)
def test_a_report_is_read(report: Reported, event: Event) -> None:
    assert compare(5, [ITEM], report, 50, MODEL) is event


def test_a_display_that_breaks_the_lines_is_not_read_by_them() -> None:
    report = Reported(board="b", version=5, shown=[Shown(action=7)], lines=["Vermist: kind"])
    assert (compare(5, [ITEM], report, 50, MODEL), compare(5, [ITEM], report, 50, None)) == (
        Event.DIFFERS,
        Event.AGREES,
    )


def test_after_the_end_nothing_may_be_shown() -> None:
    assert compare(5, [ITEM], Reported(board="b", version=5), 100, MODEL) is Event.AGREES
    assert compare(5, [ITEM], Reported(board="b", version=5, shown=[Shown(action=7)]), 100, None) is Event.DIFFERS


def test_the_diagram_has_every_row() -> None:
    text = diagram()
    assert text.count("-->") == 1 + sum(map(len, TABLE.values()))
