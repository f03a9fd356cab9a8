"""Every form in which patience is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.protocol import Answer
from fanout.dispatch.retry_after import seconds_of

NOW_MS = 1_792_565_280_000  # Wed, 21 Oct 2026 07:28:00 GMT less a minute


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "120"}, b"", 120),
        ({"retry-after": "Wed, 21 Oct 2026 06:49:00 GMT"}, b"", 60),
        ({"retry-after": "Wed, 21 Oct 2015 06:49:00 GMT"}, b"", 0),
        ({"x-rate-limit-reset": "1792565310"}, b"", 30),
        ({"X-RateLimit-Reset": "2026-10-21T06:48:30.000Z"}, b"", 30),
        ({}, b'{"ok":false,"parameters":{"retry_after":35}}', 35),
        ({"retry-after": "0"}, b'{"parameters":{"retry_after":35}}', 35),
        (
            {
                "x-user-limit-24hour-remaining": "0",
                "x-user-limit-24hour-reset": "1792569999",
                "x-rate-limit-reset": "1792565310",
            },
            b"",
            4_719,
        ),
        ({"x-user-limit-24hour-remaining": "3", "x-user-limit-24hour-reset": "1792569999"}, b"", 0),
        ({"retry-after": "soon"}, b"nonsense", 0),
        ({"retry-after": "9" * 30}, b"", 0),
        ({"retry-after": "Wed, 21 Oct 99999999999 07:28:00 GMT"}, b"", 0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 +9999999999999999999"}, b"", 0),
        ({}, b'{"parameters":' + b"[" * 60_000, 0),
        ({}, b'{"parameters":{"retry_after":-1}}', 0),
        ({}, b"", 0),
    ],
)
def test_forms(headers: dict[str, str], body: bytes, seconds: float) -> None:
    for code in (429, 503):
        assert seconds_of(Answer(code=code, headers=headers, body=body), NOW_MS) == pytest.approx(seconds)
    assert seconds_of(Answer(code=200, headers=headers, body=body), NOW_MS) == 0


@given(st.text(max_size=40), st.binary(max_size=40))
def test_nonsense_is_no_patience(text: str, body: bytes) -> None:
    assert seconds_of(Answer(code=429, headers={"retry-after": text}, body=body), NOW_MS) >= 0
