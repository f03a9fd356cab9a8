"""Telegram: captions are shorter than texts, and a wrong token is a 404."""

from __future__ import annotations

import json

import pytest

from fanout.channels.protocol import Answer
from fanout.channels.telegram import Telegram
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS
from tests.channels.post_kit import JPEG, check_post_channel, form_of, post


def make(target: str = "@politie") -> Telegram:
    return Telegram(url="https://api.telegram.example", credential="123:abc", target=target)


def taken(post_id: str) -> Answer:
    number: object = int(post_id) if post_id.isascii() and post_id.isdigit() else post_id
    return Answer(code=200, body=json.dumps({"ok": True, "result": {"message_id": number}}).encode())


def test_kit() -> None:
    check_post_channel(make, taken, too_long=4_097)


def test_picture_and_caption_are_one_call() -> None:
    call = make().render(post(picture=JPEG, reply_to="9"), "", now_ms=NOW_MS)
    assert call.url == "https://api.telegram.example/bot123:abc/sendPhoto"
    fields = form_of(call)
    assert fields["photo"] == JPEG
    assert (fields["chat_id"], fields["caption"]) == (b"@politie", post().text.encode())
    assert json.loads(fields["reply_parameters"]) == {"message_id": 9, "allow_sending_without_reply": True}


def test_a_text_alone() -> None:
    call = make().render(post(), "", now_ms=NOW_MS)
    assert call.url.endswith("/sendMessage")
    assert json.loads(call.body) == {"chat_id": "@politie", "text": post().text}


def test_links_of_public_channels_only() -> None:
    assert make().interpret(taken("7")).url == "https://t.me/politie/7"
    assert make("-100123").interpret(taken("7")).url == ""


@pytest.mark.parametrize(
    ("units", "picture", "fits"), [(1_024, True, True), (1_025, True, False), (4_096, False, True)]
)
def test_lengths_are_utf16(units: int, picture: bool, fits: bool) -> None:
    for text in ("x" * units, "🚲" * (units // 2) + "x" * (units % 2)):
        assert (make().fits(text, picture=picture) is None) is fits


@pytest.mark.parametrize(
    ("code", "description", "meaning"),
    [
        (400, "Bad Request: chat not found", (Event.REJECT, Reason.CREDENTIALS)),
        (400, "Bad Request: message caption is too long", (Event.REJECT, Reason.PAYLOAD)),
        (403, "Forbidden: bot was kicked", (Event.REJECT, Reason.CREDENTIALS)),
        (404, "Not Found", (Event.REJECT, Reason.CREDENTIALS)),
        (429, "Too Many Requests: retry after 3", (Event.RETRY, Reason.QUOTA)),
    ],
)
def test_errors(code: int, description: str, meaning: tuple[Event, Reason]) -> None:
    body = json.dumps({"ok": False, "error_code": code, "description": description}).encode()
    assert make().interpret(Answer(code=code, body=body))[:2] == meaning


def test_deletions() -> None:
    gone = Answer(code=400, body=b'{"ok":false,"description":"Bad Request: message to delete not found"}')
    late = Answer(code=400, body=b'{"ok":false,"description":"Bad Request: message can\'t be deleted"}')
    assert make().withdrawn(gone)[0] is Event.ACCEPT
    assert make().withdrawn(late)[0] is Event.REJECT
    assert make().withdrawn(Answer(code=404))[0] is Event.REJECT, "a wrong token deletes nothing"
    assert json.loads(make().withdraw("7", now_ms=NOW_MS).body) == {"chat_id": "@politie", "message_id": 7}
