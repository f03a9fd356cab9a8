"""SMS in the shape of CM.com's business messaging: one call carries many messages, answered by a status for each.

Lore:

* A message rings. What may have gone out is never sent again: a time-out, half an answer or a 5xx leaves its rows
  unknown. Only what certainly was not taken (no connection, 401, 429, 503) is tried again.
* **Partial failure**: some recipients of one call are taken, others refused, with any HTTP status. The statuses in the
  body count; a recipient the body does not mention is unknown. What was refused for want of balance, or for a reason we
  have no name for, was not taken: it is tried again, at the other supplier where there is one. A line that makes no
  sense, or is about a reference that was not in the call, says nothing, and takes nothing from the other lines.
* One `msg` a recipient, not one `msg` with many `to`: so each carries its own `reference`, and a receipt finds its row
  without a look-up of the number. 1,000 `msg` a call at most.
* `validity` ends with the action, as a length of time, so that no clock but the provider's counts: hours and minutes,
  48 hours at most, and at least one minute, since `0h0m` would be none.
* Numbers are `00` and digits; we keep E.164 with its plus. `from` has at most 11 letters or 16 digits.
* At most 8 parts; a single character outside the GSM alphabet halves the room (`gsm.py`). Refused, never cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from fanout.channels import gsm
from fanout.channels.answers import decoded, each, in_camel_case, number_of
from fanout.channels.protocol import (
    Answer,
    Call,
    Calls,
    Column,
    Meaning,
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

MESSAGES_PER_CALL_MAX: Final = 1_000
PARTS_MAX: Final = 8
VALIDITY_S_MAX: Final = 48 * 3_600
ANSWER_BYTES_MAX: Final = 1_000 * 400  # what a call's answer may have: a status of 400 bytes a message

_MEANINGS: Final = meanings(
    {
        400: (Event.REJECT, Reason.PAYLOAD),
        403: (Event.RETRY, Reason.CREDENTIALS),
        404: (Event.RETRY, Reason.PROVIDER),
        500: (Event.TIME_OUT, Reason.PROVIDER),
    }
)
_BY_ERROR: Final[dict[int, Meaning]] = {
    101: (Event.RETRY, Reason.CREDENTIALS),
    102: (Event.RETRY, Reason.QUOTA),  # no balance here; the other supplier may have some
    103: (Event.RETRY, Reason.CREDENTIALS),
    202: (Event.REJECT, Reason.PAYLOAD),  # malformed
    203: (Event.REJECT, Reason.PAYLOAD),  # its list of messages
    301: (Event.REJECT, Reason.PAYLOAD),  # from
    302: (Event.REJECT, Reason.TOKEN_INVALID),  # to
    303: (Event.REJECT, Reason.TOKEN_INVALID),  # the number within it
    304: (Event.REJECT, Reason.PAYLOAD),  # body
    305: (Event.REJECT, Reason.PAYLOAD),  # another field
    401: (Event.REJECT, Reason.PAYLOAD),  # taken for spam: the same text would be again
    402: (Event.REJECT, Reason.OPTED_OUT),  # this number is on a list of those who want nothing
}
_NO_NAME: Final[Meaning] = (Event.RETRY, Reason.PROVIDER)  # refused, so not taken; another may take it
_SENDER: Final = re.compile(r"[A-Za-z0-9 ]{1,11}|\+?[0-9]{1,16}")


class _Status(msgspec.Struct):
    """One recipient's line of the answer; fields we do not read are left out."""

    reference: str | None = None
    messageErrorCode: int | str | None = None
    status: str | None = None


class _Body(msgspec.Struct):
    """The answer of one call."""

    messages: list[msgspec.Raw] | None = None
    errorCode: int | str | None = None


_ANSWER: Final = msgspec.json.Decoder(_Body)
_STATUS: Final = msgspec.json.Decoder(_Status)


class Sms:
    """Renders and interprets for one supplier, at one base address, from one sender."""

    name = "sms"
    number = CHANNELS.index("sms")

    def __init__(self, *, url: str, product_token: str, sender: str, parts_max: int = PARTS_MAX) -> None:
        assert _SENDER.fullmatch(sender), "a sender is at most 11 letters or 16 digits"
        self._url = f"{url.rstrip('/')}/v1.0/message"
        self._headers: Mapping[str, str] = {
            "content-type": "application/json",
            "x-cm-producttoken": product_token,
        }
        self._sender = sender
        self._parts_max = parts_max

    def fits(self, message: Message) -> str | None:
        room = gsm.size(content(message))
        if room.parts <= self._parts_max:
            return None
        why = f"it takes {room.parts} parts of {self._parts_max}"
        if room.encoding == "ucs2":
            why += f", because {' '.join(gsm.foreign(content(message))[:5])} is not in the GSM alphabet"
        return why

    def render(self, message: Message, addresses: Column, rows: Rows, *, now_ms: int) -> Calls:
        """`rows` uint32[n]: the registry's rows, which stand in the references. Calls of at most 1,000 messages."""
        numbers = subscribers(addresses)
        usable = well_formed(numbers, DIGITS, least=DIGITS_MIN, most=DIGITS_MAX)
        index = np.flatnonzero(usable)
        digits, references = numbers.rows(), rows.tolist()
        before, middle, after = self._pieces(message, now_ms=now_ms)
        prefix = reference(message.action, message.phase)
        calls = []
        for start in range(0, len(index), MESSAGES_PER_CALL_MAX):
            part = index[start : start + MESSAGES_PER_CALL_MAX]
            body = b",".join(before + digits[i] + middle + b"%d" % references[i] + after for i in part.tolist())
            body = b'{"messages":{"msg":[' + body + b"]}}"
            calls.append(
                Call(method="POST", url=self._url, headers=self._headers, body=body, index=part, reference=prefix)
            )
        return Calls(calls=tuple(calls), usable=usable)

    def interpret(self, call: Call, answer: Answer, rows: Rows) -> Outcome:
        """Outcome of the call's rows; `rows` uint32[k] are the registry's rows of `call.index`."""
        outcome = look_up(_MEANINGS, np.full(len(call.index), answer.code, np.int16))
        if answer.code < 200 or not answer.body:
            return _nothing_said(outcome, answer)
        said = decoded(_ANSWER, answer.body)
        if said is not None and said.messages is None and said.errorCode is None:
            said = decoded(_ANSWER, in_camel_case(answer.body))
        if said is None:
            return _nothing_said(outcome, answer)
        if not said.messages:
            error = number_of(said.errorCode) or 0
            if error in _BY_ERROR or (error and 400 <= answer.code < 500):
                outcome.event[:], outcome.reason[:] = _BY_ERROR.get(error, _NO_NAME)
                return outcome
            return _nothing_said(outcome, answer)
        outcome.event[:], outcome.reason[:] = Event.TIME_OUT, Reason.GARBAGE  # until the body names them
        where = {f"{call.reference}{row}": place for place, row in enumerate(rows.tolist())}
        for status in each(_STATUS, said.messages)[0]:
            place = where.get(status.reference or "", -1)
            if place >= 0 and (meaning := _meaning(status)) is not None:
                outcome.event[place], outcome.reason[place] = meaning
        return outcome

    def _pieces(self, message: Message, *, now_ms: int) -> tuple[bytes, bytes, bytes]:
        """One `msg` in three pieces, to go round the digits of the number and the row."""
        seconds = deadline_s(message.end_ms, now_ms, most_s=VALIDITY_S_MAX)
        whole = {
            "from": self._sender,
            "to": [{"number": "\u0000"}],
            "reference": reference(message.action, message.phase) + "\u0001",
            "validity": _validity(seconds),
            "minimumNumberOfMessageParts": 1,
            "maximumNumberOfMessageParts": self._parts_max,
            "body": {"type": "auto", "content": content(message)},
        }
        before, _, rest = msgspec.json.encode(whole).partition(b"\\u0000")
        middle, _, after = rest.partition(b"\\u0001")
        return before + b"00", middle, after


def content(message: Message) -> str:
    """The text as it arrives."""
    return f"{message.title}: {message.text}" if message.title else message.text


def _validity(seconds: int) -> str:
    """How long the supplier may try, in whole minutes; never none at all."""
    hours, minutes = divmod(max(1, seconds // 60), 60)
    return f"{hours}h{minutes}m"


def _meaning(status: _Status) -> Meaning | None:
    """What became of one recipient; None where the line says nothing, or two things."""
    code, word = number_of(status.messageErrorCode), (status.status or "").lower()
    if word == "accepted" or (word == "" and code == 0):
        return None if code else (Event.ACCEPT, Reason.NONE)
    if code or word == "rejected":
        return _BY_ERROR.get(code or 0, _NO_NAME)
    return None


def _nothing_said(outcome: Outcome, answer: Answer) -> Outcome:
    """A call taken without a word about its recipients leaves them unknown."""
    if 200 <= answer.code < 300:
        outcome.event[:], outcome.reason[:] = Event.TIME_OUT, Reason.GARBAGE
    return outcome
