"""Room of an SMS, against the tables of 3GPP TS 23.038 and a slow oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.gsm import BASIC, EXTENDED, size
from tests.channels.naive_gsm import parts


@pytest.mark.parametrize(
    ("text", "encoding", "units", "count"),
    [
        ("", "gsm7", 0, 1),
        ("x" * 160, "gsm7", 160, 1),
        ("x" * 161, "gsm7", 161, 2),
        ("x" * 306, "gsm7", 306, 2),
        ("x" * 307, "gsm7", 307, 3),
        ("€" * 80, "gsm7", 160, 1),
        ("x" * 152 + "€" + "x" * 10, "gsm7", 164, 2),
        ("é" * 160, "gsm7", 160, 1),
        ("ê", "ucs2", 1, 1),
        ("ê" + "x" * 69, "ucs2", 70, 1),
        ("ê" + "x" * 70, "ucs2", 71, 2),
        ("😀" * 35, "ucs2", 70, 1),
        ("x" * 66 + "😀" + "x" * 10, "ucs2", 78, 2),
    ],
)
def test_known_sizes(text: str, encoding: str, units: int, count: int) -> None:
    assert size(text) == (encoding, units, count)


@given(st.text(st.sampled_from([*sorted(BASIC)[:20], *sorted(EXTENDED), "ж", "😀"]), max_size=700))
def test_agrees_with_the_oracle(text: str) -> None:
    assert size(text).parts == parts(text)


def test_the_alphabet_has_its_128_places() -> None:
    assert len(BASIC) == 127, "128 places, one of which is the escape"
    assert len(EXTENDED) == 10
