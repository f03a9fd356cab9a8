"""WhatsApp, Cloud API: an approved template whose variables are the title and the text.

Lore:

* Outside a conversation only templates that Meta approved beforehand may be sent. Ours has two variables; the words
  around them are Meta's and ours once for ever, so what fits is what fits into the variables.
* A template is approved per language, whose code is Meta's: `nl`, and `pt_BR` with an underscore.
* A variable has no line break, no tab and no run of more than four spaces, and all together at most 1,024 characters. A
  text with line breaks is refused, not rewritten.
* 80 messages a second, 1,000 after a rise. Error 130429 in the body means too fast, with status 400 or 429.
* A message rings and has no idempotency key: what may have been taken is not sent again. Our reference travels in
  `biz_opaque_callback_data`, and comes back with the receipt.
* 131026 is a number without WhatsApp (or an old app); 131050 has opted out; 190 is our token.
* A message that was accepted may fail later, which the webhook says with the same codes. Most of them mean that Meta
  never sent it (`NEVER_SENT`); after a fault of its own (131000, 131016) nobody knows.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from fanout.channels.answers import decoded
from fanout.channels.protocol import (
    Answer,
    Call,
    Calls,
    Column,
    Meaning,
    Message,
    Outcome,
    look_up,
    meanings,
    well_formed,
)
from fanout.channels.telephone import DIGITS, DIGITS_MAX, DIGITS_MIN, reference, subscribers
from fanout.store.protocol import Rows
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

VARIABLES_CHARS_MAX: Final = 1_024
API_VERSION: Final = "v21.0"

_FORBIDDEN: Final = re.compile(r"[\n\r\t]| {5,}")
_MEANINGS: Final = meanings({400: (Event.REJECT, Reason.PAYLOAD), 403: (Event.RETRY, Reason.CREDENTIALS)})
_BY_ERROR: Final[dict[int, Meaning]] = {
    4: (Event.RETRY, Reason.QUOTA),
    80007: (Event.RETRY, Reason.QUOTA),
    130429: (Event.RETRY, Reason.QUOTA),
    131056: (Event.RETRY, Reason.QUOTA),
    131048: (Event.RETRY, Reason.QUOTA),
    131016: (Event.RETRY, Reason.PROVIDER),
    131000: (Event.TIME_OUT, Reason.PROVIDER),
    131021: (Event.REJECT, Reason.TOKEN_INVALID),
    131026: (Event.REJECT, Reason.TOKEN_INVALID),
    131050: (Event.REJECT, Reason.OPTED_OUT),
    0: (Event.RETRY, Reason.CREDENTIALS),
    10: (Event.RETRY, Reason.CREDENTIALS),
    190: (Event.RETRY, Reason.CREDENTIALS),
}
NEVER_SENT: Final = frozenset(
    [
        368,  # our account is blocked for now
        130429, 131048, 131056,  # too many: in all, blocked by people, for this number
        130472, 131049,  # held back by Meta: an experiment, the reader's health
        130497,  # not to this country
        131021, 131026, 131030, 131050,  # the number: ours, not reachable by WhatsApp, not on the list, opted out
        131031, 131042, 131045, 133010,  # our account: locked, not paid for, not registered
        131047,  # only a template may be sent
        132000, 132001, 132005, 132007, 132012, 132015, 132016,  # the template
    ]
)  # fmt: skip
"""Codes of a message that failed after it was accepted, and was certainly not sent to anybody."""


class _Error(msgspec.Struct):
    code: int = -1


class _Id(msgspec.Struct):
    id: Annotated[str, Meta(min_length=1)]


class _Body(msgspec.Struct):
    """The answer; what we do not read is left out."""

    messages: list[_Id] = []
    error: _Error | None = None


_ANSWER: Final = msgspec.json.Decoder(_Body)


class WhatsApp:
    """Renders and interprets for one business number and one template."""

    name = "whatsapp"
    number = CHANNELS.index("whatsapp")

    def __init__(self, *, url: str, token: str, phone: str, template: str) -> None:
        self._url = f"{url.rstrip('/')}/{API_VERSION}/{phone}/messages"
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        self._template = template

    def fits(self, message: Message) -> str | None:
        if (length := len(message.title) + len(message.text)) > VARIABLES_CHARS_MAX:
            return f"its variables have {length} characters of {VARIABLES_CHARS_MAX}"
        if _FORBIDDEN.search(message.title) or _FORBIDDEN.search(message.text):
            return "a template's variable has no line break, tab or long run of spaces"
        return None

    def render(self, message: Message, addresses: Column, rows: Rows, *, now_ms: int) -> Calls:
        numbers = subscribers(addresses)
        usable = well_formed(numbers, DIGITS, least=DIGITS_MIN, most=DIGITS_MAX)
        digits, named = numbers.rows(), rows.tolist()
        words = [{"type": "text", "text": text} for text in (message.title or message.kind, message.text)]
        constant = {
            "messaging_product": "whatsapp",
            "type": "template",
            "template": {
                "name": self._template,
                "language": {"code": message.language.replace("-", "_")},
                "components": [{"type": "body", "parameters": words}],
            },
        }
        prefix = reference(message.action, message.phase)
        calls = tuple(
            Call(
                method="POST",
                url=self._url,
                headers=self._headers,
                body=msgspec.json.encode(
                    constant | {"to": digits[i].decode(), "biz_opaque_callback_data": f"{prefix}{named[i]}"}
                ),
                index=np.array([i], np.intp),
            )
            for i in np.flatnonzero(usable).tolist()
        )
        return Calls(calls=calls, usable=usable)

    def interpret(self, call: Call, answer: Answer, rows: Rows) -> Outcome:
        outcome = look_up(_MEANINGS, np.full(len(call.index), answer.code, np.int16))
        if answer.code < 200:
            return outcome
        said = decoded(_ANSWER, answer.body) or _Body()
        if said.error is not None and (meaning := _BY_ERROR.get(said.error.code)) is not None:
            outcome.event[:], outcome.reason[:] = meaning
        elif 200 <= answer.code < 300 and not said.messages:
            outcome.event[:], outcome.reason[:] = Event.TIME_OUT, Reason.GARBAGE
        return outcome
