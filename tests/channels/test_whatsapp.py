"""WhatsApp: the template, its variables, and errors by their numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fanout.channels.protocol import Answer, column
from fanout.channels.whatsapp import WhatsApp
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS, check_call_channel, message

ROWS = np.array([41], np.uint32)


def make() -> WhatsApp:
    return WhatsApp(url="https://graph.example", token="secret", phone="123", template="citizen_alert")


def test_kit() -> None:
    check_call_channel(make, [b"+31612345678", b"+15551234567"])


def test_shape() -> None:
    (call,) = make().render(message(), column([b"+31612345678"]), ROWS, now_ms=NOW_MS).calls
    body = json.loads(call.body)
    assert call.url == "https://graph.example/v21.0/123/messages"
    assert (body["to"], body["biz_opaque_callback_data"]) == ("31612345678", "7-1-41")
    assert body["template"]["language"] == {"code": "nl"}
    words = body["template"]["components"][0]["parameters"]
    assert [word["text"] for word in words] == ["Vermist kind", message().text]


def test_a_language_of_a_country_is_written_as_meta_writes_it() -> None:
    (call,) = make().render(message(language="nl-BE"), column([b"+31612345678"]), ROWS, now_ms=NOW_MS).calls
    assert json.loads(call.body)["template"]["language"] == {"code": "nl_BE"}


@pytest.mark.parametrize(
    ("code", "body", "meaning"),
    [
        (200, b'{"messages":[{"id":"wamid.x"}]}', (Event.ACCEPT, Reason.NONE)),
        (200, b'{"messages":[{"id":""}]}', (Event.TIME_OUT, Reason.GARBAGE)),
        (400, b'{"error":{"code":130429}}', (Event.RETRY, Reason.QUOTA)),
        (400, b'{"error":{"code":131026}}', (Event.REJECT, Reason.TOKEN_INVALID)),
        (400, b'{"error":{"code":131050}}', (Event.REJECT, Reason.OPTED_OUT)),
        (400, b'{"error":{"code":132001}}', (Event.REJECT, Reason.PAYLOAD)),
        (401, b'{"error":{"code":190}}', (Event.RETRY, Reason.CREDENTIALS)),
        (500, b'{"error":{"code":131000}}', (Event.TIME_OUT, Reason.PROVIDER)),
    ],
)
def test_answers(code: int, body: bytes, meaning: tuple[Event, Reason]) -> None:
    (call,) = make().render(message(), column([b"+31612345678"]), ROWS, now_ms=NOW_MS).calls
    outcome = make().interpret(call, Answer(code=code, body=body), ROWS)
    assert (outcome.event[0], outcome.reason[0]) == meaning


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a     b", "x" * 1_025])
def test_what_a_variable_cannot_hold_is_refused(text: str) -> None:
    assert make().fits(message(title="", text=text)) is not None
