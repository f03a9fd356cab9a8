"""Tallies: sums that add up, moved people counted once, times to the grain of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.protocol import Pace
from fanout.plan.batches import cut, sizes
from fanout.results import forecast, tallies
from fanout.store.protocol import BatchCounts, PhaseRecord
from fanout.store.states import Reason, State
from fanout.wire import CHANNELS

PHASES = [
    PhaseRecord(action=1, phase=0, name="start", created_ms=1_000, end_ms=9_000, texts={"nl": "a"}, titles={}),
    PhaseRecord(action=1, phase=1, name="result", created_ms=5_000, end_ms=9_000, texts={"nl": "b"}, titles={}),
]


def counts(
    phase: int = 0, channel: int = 0, first_ms: int | None = None, last_ms: int | None = None, **states: int
) -> BatchCounts:
    return BatchCounts(
        phase=phase,
        channel=channel,
        states=tuple(states.get(state.name.lower(), 0) for state in State),
        reasons=tuple(7 if reason is Reason.TOKEN_DEAD else 0 for reason in Reason),
        first_ms=first_ms,
        last_ms=last_ms,
    )


def test_the_words_of_a_tally() -> None:
    start, result = tallies(
        PHASES,
        [
            counts(
                channel=0,
                pending=1,
                intended=2,
                again=3,
                accepted=4,
                delivered=5,
                failed=6,
                first_ms=1_010,
                last_ms=1_020,
            ),
            counts(channel=3, expired=7, cancelled=8, unknown=9, moved=10, accepted=81, first_ms=1_015, last_ms=1_100),
        ],
    )
    assert start.selected == 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 81
    assert (start.waiting, start.accepted, start.delivered) == (6, 90, 5)
    assert (start.failed, start.expired, start.cancelled, start.unknown) == (6, 7, 8, 9)
    assert start.channels == {"fcm": 21, "sms": 105}
    assert start.reasons == {"token_dead": 14}
    assert (start.first_ms, start.p90_ms, start.last_ms) == (10, 100, 100)
    assert (result.selected, result.first_ms, result.p90_ms, result.last_ms) == (0, None, None, None)


batch = st.builds(
    lambda numbers, last: BatchCounts(
        phase=0, channel=0, states=tuple(numbers), reasons=tuple(0 for _ in Reason), first_ms=1_000, last_ms=last
    ),
    st.lists(st.integers(0, 50), min_size=len(State), max_size=len(State)),
    st.integers(1_000, 2_000),
)


@given(st.lists(batch, max_size=20))
def test_everyone_selected_is_accounted_for(batches: list[BatchCounts]) -> None:
    tally = tallies(PHASES[:1], batches)[0]
    parts = tally.waiting + tally.accepted + tally.failed + tally.expired + tally.cancelled + tally.unknown
    assert tally.selected == parts == sum(sum(b.states) - b.states[State.MOVED] for b in batches)
    if tally.accepted:
        assert tally.p90_ms is not None
        in_time = sum(
            b.states[State.ACCEPTED] + b.states[State.DELIVERED] for b in batches if b.last_ms - 1_000 <= tally.p90_ms
        )
        assert in_time >= 0.9 * tally.accepted


PACES = {"fcm": Pace(10.0, 0.0), "sms": Pace(1.0, 5.0)}


def test_a_forecast_begins_with_the_quotas() -> None:
    told = forecast(PHASES[0], [counts(channel=0, pending=100), counts(channel=3, pending=25)], PACES, 1_000)
    assert told is not None
    assert told.all_s == 20.0
    assert told.half_s is not None
    assert 5.0 < told.half_s < told.all_s


def test_a_forecast_is_corrected_by_what_was_done() -> None:
    done = [counts(accepted=20, first_ms=1_500, last_ms=3_000), counts(accepted=20, first_ms=3_000, last_ms=11_000)]
    told = forecast(PHASES[0], [*done, counts(pending=40)], PACES, 11_000)
    assert told is not None
    assert told.half_s == 10.0, "measured"
    assert told.all_s == 10.0 + round(40 / (40 / 9.5), 3), "40 in 9.5 s, so it goes on"
    slower = forecast(PHASES[0], [*done, counts(pending=40)], PACES, 31_000)
    assert slower is not None
    assert slower.all_s is not None
    assert slower.all_s > 50.0, "it stood still since"
    stuck = forecast(PHASES[0], [*done, counts(pending=40)], PACES, 200_000)
    assert stuck is not None
    assert (stuck.half_s, stuck.all_s) == (10.0, None)


def test_no_forecast_is_faster_than_the_quota_and_an_end_is_measured() -> None:
    burst = [counts(accepted=500, first_ms=1_010, last_ms=1_020), counts(pending=100)]
    told = forecast(PHASES[0], burst, PACES, 1_100)
    assert told is not None
    assert told.all_s == 10.1
    over = forecast(PHASES[0], [counts(accepted=5, failed=3, first_ms=1_010, last_ms=1_020)], PACES, 9_000)
    assert over is not None
    assert (over.half_s, over.most_s, over.all_s) == (0.02, 0.02, 0.02)
    assert forecast(PHASES[0], [counts(failed=3)], PACES, 9_000) is None


@pytest.mark.parametrize("rate", [30.0, 10.0, 1.0, 0.1])
def test_a_channel_that_moves_has_a_forecast_all_the_way(rate: float) -> None:
    """Calls at the pace of their quota, in batches as the plan cuts them; a batch is in the ledger when it ends."""
    pace, people = Pace(rate, 1.0), int(600 * rate)
    voice = CHANNELS.index("voice")
    zeros = np.zeros(people, np.uint8)
    rows = np.arange(people, dtype=np.uint32)
    plan = cut(rows, zeros.astype(np.uint16), zeros + voice, zeros, ("nl",), sizes({"voice": pace}))
    ends = np.cumsum([len(one.rows) for one in plan]).tolist()
    for second in range(0, 600, 3):
        made = int(second * rate)
        found = [
            counts(channel=voice, accepted=len(one.rows), first_ms=1_000 + int(1e3 * (end - len(one.rows)) / rate),
                   last_ms=1_000 + int(1e3 * end / rate))
            if end <= made
            else counts(channel=voice, pending=len(one.rows))
            for one, end in zip(plan, ends, strict=True)
        ]  # fmt: skip
        told = forecast(PHASES[0], found, {"voice": pace}, 1_000 + 1_000 * second)
        assert told is not None
        assert told.all_s is not None, f"it moves, at {second} s"
        assert 480 < told.all_s < 1_300, f"to the grain of a batch, at {second} s"
