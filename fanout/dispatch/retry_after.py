"""How long a provider asks us to wait, in every form that one of ours uses. Pure.

    Retry-After: 120                              seconds (RFC 9110)
    Retry-After: Wed, 21 Oct 2026 07:28:00 GMT    a date
    x-rate-limit-reset: 1792825200                X: the second at which the window ends, since 1970
    x-user-limit-24hour-reset: 1792825200         X: the same of its day, when x-user-limit-24hour-remaining is 0
    {"parameters": {"retry_after": 35}}           Telegram: in the body
    X-RateLimit-Reset: 2026-10-21T07:28:00.000Z   Mastodon: a date, ISO 8601

Only answers that ask for patience (429, 503) are read. Nonsense is 0, and so is a moment that has passed; how long we
are willing to wait is `retry.ASKED_S_MAX`.
"""

from __future__ import annotations

import datetime
import math
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from fanout.channels.protocol import Answer

_DAYS: Final = ("x-user-limit-24hour", "x-app-limit-24hour")


class _Parameters(msgspec.Struct):
    retry_after: float = 0.0


class _Body(msgspec.Struct):
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


def seconds_of(answer: Answer, now_ms: int) -> float:
    """Seconds from now, 0 if nothing was asked."""
    if answer.code not in (429, 503):
        return 0.0
    headers = {name.lower(): value.strip() for name, value in answer.headers.items()}
    day = [f"{of}-reset" for of in _DAYS if headers.get(f"{of}-remaining") == "0"]
    for name in ("retry-after", *day, "x-rate-limit-reset", "x-ratelimit-reset"):
        if (text := headers.get(name)) and (seconds := _seconds(text, name, now_ms)) > 0:
            return seconds
    try:
        asked = msgspec.json.decode(answer.body, type=_Body).parameters.retry_after if answer.body else 0.0
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: brackets without end
        return 0.0
    return asked if math.isfinite(asked) and asked > 0 else 0.0


def _seconds(text: str, name: str, now_ms: int) -> float:
    if text.isascii() and text.isdigit() and len(text) <= 12:
        number = float(text)
        return number if name == "retry-after" else number - now_ms / 1000
    try:
        when = parsedate_to_datetime(text) if name == "retry-after" else datetime.datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        return when.timestamp() - now_ms / 1000
    except (ValueError, OverflowError):  # no date, or one that no calendar has
        return 0.0
