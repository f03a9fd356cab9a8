"""The time to reach a share of people: against a simulation in small steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.protocol import Pace
from fanout.plan.eta import seconds_for, seconds_to_share

ways = st.dictionaries(
    st.sampled_from(["fcm", "apns", "sms", "voice"]),
    st.tuples(st.integers(0, 10_000), st.floats(1, 5_000), st.integers(0, 500)),
    min_size=1,
)


@given(ways, st.sampled_from([0.5, 0.9, 1.0]))
def test_at_that_time_so_many_are_reached_and_a_moment_before_they_are_not(
    channels: dict[str, tuple[int, float, int]], share: float
) -> None:
    people = {name: count for name, (count, _, _) in channels.items()}
    paces = {name: Pace(rate, burst) for name, (_, rate, burst) in channels.items()}

    def reached(at_s: float) -> float:
        return sum(min(count, paces[name].burst + paces[name].rate_per_s * at_s) for name, count in people.items())

    at_s = seconds_to_share(people, paces, share)
    wanted = share * sum(people.values())
    assert reached(at_s) >= wanted * (1 - 1e-9) - 1e-6
    if at_s > 1e-6:
        assert reached(at_s * (1 - 1e-6)) <= wanted + 1e-3


def test_known_figures_of_the_field() -> None:
    assert seconds_for(1_600_000, Pace(10_000.0, 0)) == pytest.approx(160)
    assert seconds_for(1_600_000, Pace(30.0, 0)) / 3600 == pytest.approx(14.8, abs=0.05)
    assert seconds_for(0, Pace(1.0, 0)) == 0
    assert seconds_for(10, Pace(1.0, burst=50)) == 0
    assert seconds_to_share({}, {}, 1.0) == 0
