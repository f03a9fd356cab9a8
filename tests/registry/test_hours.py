"""Hours: texts and windows become one form, and the form a mask that says what a clock would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout import wire
from fanout.registry import hours
from tests.selection.naive_selection import in_hours

MONDAY_MS = 1_790_553_600_000
CLOCKS = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
WINDOWS = st.builds(
    lambda days, start, end: wire.Window(days="".join(map(str, days)), start=start, end=end),
    st.lists(st.integers(1, 7), min_size=1, max_size=7),
    CLOCKS,
    st.one_of(CLOCKS, st.just("24:00")),
)
ZONES = ("UTC", "Europe/Amsterdam", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati")


@given(st.lists(WINDOWS, max_size=4), st.integers(0, 800 * 24 * 60), st.sampled_from(ZONES))
def test_a_mask_says_what_a_clock_would(windows: list[wire.Window], minute: int, zone: str) -> None:
    at_ms = MONDAY_MS + minute * 60_000
    form = hours.of_windows(windows)
    assert bool(hours.in_force(at_ms, [zone], [form])[0, 0]) == in_hours(windows, at_ms, zone)
    assert hours.of_text(form) == form, "the canonical form is its own text"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", ""),
        ("08:00-18:00", "1234567 08:00-18:00"),
        (" 54321 08:00-18:00 ; 67 10:00-12:00", "12345 08:00-18:00;67 10:00-12:00"),
        ("1 00:00-24:00", "1 00:00-24:00"),
        ("8 08:00-18:00", None),
        ("08:00", None),
        ("1 25:00-26:00", None),
        ("always", None),
    ],
)
def test_texts(text: str, form: str | None) -> None:
    assert hours.of_text(text) == form
