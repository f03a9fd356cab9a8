"""Voice: shape, and that nobody is rung twice."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fanout.channels.protocol import Answer, column
from fanout.channels.voice import Voice, locale
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS, check_call_channel, message


def make() -> Voice:
    return Voice(url="https://api.example", key="secret", caller="+318000011")


def test_kit() -> None:
    check_call_channel(make, [b"+31612345678", b"+15551234567"])


def test_shape() -> None:
    rows = np.array([41], np.uint32)
    (call,) = make().render(message(), column([b"+31612345678"]), rows, now_ms=NOW_MS).calls
    body = json.loads(call.body)
    assert call.url == "https://api.example/voiceapi/v2/Notification"
    assert (body["callee"], body["caller"], body["anonymous"]) == ("0031612345678", "+318000011", False)
    assert call.headers["x-cm-producttoken"] == "secret"
    assert (body["instruction-id"], body["connect-on"], body["expires-in"]) == ("7-1-41", "1", 3_600)
    assert body["prompt"] == f"Vermist kind. {message().text}"
    assert body["voice"] == {"language": "nl-NL"}
    assert "callback-url" not in body


def test_where_the_end_of_a_call_is_told() -> None:
    channel = Voice(
        url="https://api.example", key="secret", caller="0", callback="https://us.example/v1/receipts/voice"
    )
    (call,) = channel.render(message(), column([b"+31612345678"]), np.array([1], np.uint32), now_ms=NOW_MS).calls
    assert json.loads(call.body)["callback-url"] == "https://us.example/v1/receipts/voice"


@pytest.mark.parametrize(
    ("language", "voice"), [("nl", "nl-NL"), ("nl-BE", "nl-BE"), ("en", "en-GB"), ("uk", "uk-UA"), ("fy", "fy-NL")]
)
def test_a_voice_is_of_a_locale(language: str, voice: str) -> None:
    assert locale(language) == voice


@pytest.mark.parametrize(
    ("code", "body", "meaning"),
    [
        (200, b'{"call-id":"a","success":true}', (Event.ACCEPT, Reason.NONE)),
        (200, b'{"success":false}', (Event.REJECT, Reason.PROVIDER)),
        (201, b"{}", (Event.TIME_OUT, Reason.GARBAGE)),
        (422, b"{}", (Event.REJECT, Reason.TOKEN_INVALID)),
        (500, b"", (Event.TIME_OUT, Reason.PROVIDER)),
        (429, b"", (Event.RETRY, Reason.QUOTA)),
    ],
)
def test_answers(code: int, body: bytes, meaning: tuple[Event, Reason]) -> None:
    rows = np.array([41], np.uint32)
    (call,) = make().render(message(), column([b"+31612345678"]), rows, now_ms=NOW_MS).calls
    outcome = make().interpret(call, Answer(code=code, body=body), rows)
    assert (outcome.event[0], outcome.reason[0]) == meaning


def test_what_can_be_spoken() -> None:
    assert make().fits(message(title="", text="x" * 750)) is None
    assert make().fits(message(title="", text="x" * 751)) == "it has 751 characters of 750 that can be spoken"
