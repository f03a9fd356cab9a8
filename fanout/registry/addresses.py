"""Which addresses may be registered, for each channel: checked once, where they come in.

Rules:

1. An address goes into a URL path, a JSON string or an SMS request later, as it is. So what is taken here can need no
   escaping there: tokens are of their alphabet, numbers are E.164 with a country that exists.
2. Whether it works is for the provider to say; a dead token is well-formed.
3. One rule is one regular expression, so that a million addresses are checked in one pass of Arrow (RE2) and twenty by
   Python's `re`, and both say the same.

Why not `phonenumbers` for every number: 40 microseconds each; of its knowledge the calling codes are used here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import phonenumbers

from fanout import limits, wire

_NUMBERS: Final = ("sms", "voice", "whatsapp")
_RULES: Final = {
    "fcm": (r"^[A-Za-z0-9_:-]{16,}$", "an FCM token: 16 or more letters, digits, _ : and -"),
    "apns": (r"^(?:[0-9A-Fa-f]{2}){32,100}$", "an APNs device token: 64 to 200 hexadecimal digits"),
    "webpush": (r"^\{[ -~]+\}$", "a push subscription as a JSON object"),
    "email": (r"^[!-?A-~]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+$", "an e-mail address"),
}


@lru_cache(maxsize=len(wire.CHANNELS))
def pattern(channel: str) -> str:
    """The regular expression of a channel's addresses; understood by RE2 and by `re`."""
    if channel not in _NUMBERS:
        return _RULES[channel][0]
    codes = "|".join(str(code) for code in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE, reverse=True))
    return rf"^\+(?:{codes})[0-9]{{4,12}}$"


def wanted(channel: str) -> str:
    """What an address of this channel is, for people."""
    if channel in _NUMBERS:
        return "a phone number in E.164, as +31612345678, with an existing country code"
    return _RULES[channel][1]


def good(channel: str, value: str) -> bool:
    """Whether the channel can take this address."""
    return len(value) <= limits.ADDRESS_CHARS_MAX and _compiled(channel).match(value) is not None


def good_column(channel: str, values: Any) -> Any:
    """Arrow booleans for an Arrow column of strings; null stays null."""
    import pyarrow.compute as pc

    fits = pc.less_equal(pc.binary_length(values), limits.ADDRESS_CHARS_MAX)
    return pc.and_(fits, pc.match_substring_regex(values, pattern(channel)))


@lru_cache(maxsize=len(wire.CHANNELS))
def _compiled(channel: str) -> re.Pattern[str]:
    return re.compile(pattern(channel).removesuffix("$") + r"\Z")
