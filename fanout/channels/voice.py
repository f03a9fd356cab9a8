"""Voice: a call that reads the text aloud, in the shape of CM.com's notification API.

Lore:

* A call rings. What may have gone out never rings again; providers queue what is too much instead of refusing it, so
  the pace is ours to keep (1 to 30 calls a second), and what waits in the ledger can still be stopped.
* Text to speech takes 750 characters; longer is refused. Abbreviations are the author's business: nothing is rewritten.
* The caller's number is shown: anonymous calls are refused by many.
* A listener may press 1 and is put through to the operator of *this* action; the reference tells the provider's next
  question (`/v1/calls`) which one that is. The text is repeated at most three times.
* Our reference is the `instruction-id` (64 characters at most): the end of the call comes with it, at `callback-url`.
* A voice is of a locale: `nl-NL`, not `nl`. A language that comes without a country gets its own.
* `connect-on` and `expires-in` are not CM.com's: suppliers that put through and that drop what is late read them,
  others pass them over.
* One request a call, by single calls: 30 a second need no bulk lane.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from fanout.channels.answers import decoded
from fanout.channels.protocol import (
    Answer,
    Call,
    Calls,
    Column,
    Message,
    Outcome,
    deadline_s,
    look_up,
    meanings,
    well_formed,
)
from fanout.channels.telephone import DIGITS, DIGITS_MAX, DIGITS_MIN, reference, subscribers
from fanout.store.protocol import Rows
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

SPEECH_CHARS_MAX: Final = 750
REPLAYS: Final = 2
TTL_S_MAX: Final = 24 * 3_600

_COUNTRIES: Final = {
    "ar": "EG",
    "cs": "CZ",
    "da": "DK",
    "el": "GR",
    "en": "GB",
    "fa": "IR",
    "fy": "NL",
    "he": "IL",
    "hi": "IN",
    "ja": "JP",
    "ko": "KR",
    "pap": "CW",
    "sv": "SE",
    "uk": "UA",
    "zh": "CN",
}
"""Of languages whose country is not called as they are."""
_MEANINGS: Final = meanings(
    {
        400: (Event.REJECT, Reason.PAYLOAD),
        404: (Event.RETRY, Reason.PROVIDER),
        422: (Event.REJECT, Reason.TOKEN_INVALID),
    }
)


class _Body(msgspec.Struct, rename="kebab"):
    """The answer; what we do not read is left out."""

    call_id: str = ""
    success: bool | None = None
    error: str = ""


_ANSWER: Final = msgspec.json.Decoder(_Body)


class Voice:
    """Renders and interprets for one supplier and one caller number."""

    name = "voice"
    number = CHANNELS.index("voice")

    def __init__(self, *, url: str, key: str, caller: str, callback: str = "") -> None:
        self._url = f"{url.rstrip('/')}/voiceapi/v2/Notification"
        self._headers = {"content-type": "application/json", "x-cm-producttoken": key}
        self._caller = caller
        self._callback = {"callback-url": callback} if callback else {}

    def fits(self, message: Message) -> str | None:
        if (length := len(speech(message))) > SPEECH_CHARS_MAX:
            return f"it has {length} characters of {SPEECH_CHARS_MAX} that can be spoken"
        return None

    def render(self, message: Message, addresses: Column, rows: Rows, *, now_ms: int) -> Calls:
        numbers = subscribers(addresses)
        usable = well_formed(numbers, DIGITS, least=DIGITS_MIN, most=DIGITS_MAX)
        digits, named = numbers.rows(), rows.tolist()
        constant = {
            "caller": self._caller,
            "anonymous": False,
            "prompt": speech(message),
            "prompt-type": "TTS",
            "voice": {"language": locale(message.language)},
            "max-replays": REPLAYS,
            "auto-replay": False,
            "connect-on": "1",
            "expires-in": deadline_s(message.end_ms, now_ms, most_s=TTL_S_MAX),
        } | self._callback
        prefix = reference(message.action, message.phase)
        calls = tuple(
            Call(
                method="POST",
                url=self._url,
                headers=self._headers,
                body=msgspec.json.encode(
                    constant | {"callee": "00" + digits[i].decode(), "instruction-id": f"{prefix}{named[i]}"}
                ),
                index=np.array([i], np.intp),
            )
            for i in np.flatnonzero(usable).tolist()
        )
        return Calls(calls=calls, usable=usable)

    def interpret(self, call: Call, answer: Answer, rows: Rows) -> Outcome:
        outcome = look_up(_MEANINGS, np.full(len(call.index), answer.code, np.int16))
        if not 200 <= answer.code < 300:
            return outcome
        said = decoded(_ANSWER, answer.body) or _Body()
        if said.success is False:
            outcome.event[:], outcome.reason[:] = Event.REJECT, Reason.PROVIDER
        elif said.success is None and not said.call_id:  # taken, it says, but not what
            outcome.event[:], outcome.reason[:] = Event.TIME_OUT, Reason.GARBAGE
        return outcome


def speech(message: Message) -> str:
    """The text as it is spoken."""
    return f"{message.title}. {message.text}" if message.title else message.text


def locale(language: str) -> str:
    """A language with the country whose voice reads it: `nl-BE` as it is, `nl` as `nl-NL`."""
    name, _, country = language.partition("-")
    return f"{name}-{country or _COUNTRIES.get(name, name.upper())}"
