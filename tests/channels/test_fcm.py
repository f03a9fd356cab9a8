"""FCM: shape, deadline, and what its errors mean."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fanout.channels.fcm import Fcm
from fanout.channels.protocol import column
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS, check_row_channel, message, written

TOKENS = [b"f:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx_", b"x"]


def make() -> Fcm:
    return Fcm(url="https://fcm.googleapis.com", project="p1")


def body_of(row: int, **changes: object) -> dict[str, Any]:
    again = np.array([True, False])
    requests = make().render(message(**changes), column(TOKENS), again, now_ms=NOW_MS, authorize=lambda _: "Bearer t")
    decoded: dict[str, Any] = json.loads(written(requests, row)[2])
    return decoded


def test_kit() -> None:
    check_row_channel(make, TOKENS)


def test_shape() -> None:
    requests = make().render(
        message(), column(TOKENS), np.zeros(2, np.bool_), now_ms=NOW_MS, authorize=lambda _: "Bearer t"
    )
    template, url, body = written(requests, 1)
    assert url == b"https://fcm.googleapis.com/v1/projects/p1/messages:send"
    assert template.headers == ("content-type: application/json", "authorization: Bearer t")
    sent = json.loads(body)["message"]
    assert sent["token"] == "x"
    assert sent["notification"] == {"title": "Vermist kind", "body": message().text}
    assert {type(value) for value in sent["data"].values()} == {str}
    assert (sent["data"]["action"], sent["data"]["phase"]) == ("7", "1")


def test_a_resend_is_quiet_and_takes_the_place_of_the_first() -> None:
    quiet, loud = body_of(0)["message"]["android"], body_of(1)["message"]["android"]
    assert quiet["notification"]["tag"] == loud["notification"]["tag"]
    assert quiet["collapse_key"] == loud["collapse_key"]
    assert (quiet["priority"], loud["priority"]) == ("NORMAL", "HIGH")
    assert quiet["notification"]["channel_id"] == "quiet" != loud["notification"]["channel_id"]


@pytest.mark.parametrize(("left_ms", "ttl"), [(3_600_000, "3600s"), (999, "0s"), (-5, "0s"), (10**11, "2419200s")])
def test_the_platform_keeps_trying_until_the_end_and_no_longer(left_ms: int, ttl: str) -> None:
    assert body_of(1, end_ms=NOW_MS + left_ms)["message"]["android"]["ttl"] == ttl


def test_a_text_that_looks_like_our_mark_stays_a_text() -> None:
    assert body_of(1, title="\u0000", text='"\u0000"')["message"]["token"] == "x"


@pytest.mark.parametrize(
    ("code", "body", "event", "reason"),
    [
        (404, b'{"error":{"details":[{"errorCode":"UNREGISTERED"}]}}', Event.REJECT, Reason.TOKEN_DEAD),
        (404, b"<html>not found</html>", Event.REJECT, Reason.GARBAGE),
        (400, b'{"error":{"status": "INVALID_ARGUMENT","x":"message.token"}}', Event.REJECT, Reason.TOKEN_INVALID),
        (400, b'{"error":{"status":"INVALID_ARGUMENT","x":"message.android"}}', Event.REJECT, Reason.PAYLOAD),
        (401, b'{"error":{"details":[{"errorCode":"THIRD_PARTY_AUTH_ERROR"}]}}', Event.REJECT, Reason.CREDENTIALS),
        (403, b'{"error":{"details":[{"errorCode":"SENDER_ID_MISMATCH"}]}}', Event.REJECT, Reason.TOKEN_INVALID),
        (403, b"{}", Event.REJECT, Reason.CREDENTIALS),
        (429, b'{"error":{"details":[{"errorCode":"QUOTA_EXCEEDED"}]}}', Event.RETRY, Reason.QUOTA),
        (503, b"", Event.RETRY, Reason.PROVIDER),
    ],
)
def test_errors(code: int, body: bytes, event: Event, reason: Reason) -> None:
    outcome = make().interpret(np.array([200, code], np.int16), {1: body})
    assert outcome.event.tolist() == [Event.ACCEPT, event]
    assert outcome.reason.tolist() == [Reason.NONE, reason]


def test_the_payload_is_measured_in_bytes() -> None:
    assert make().fits(message(text="x" * 3_000)) is None
    why = make().fits(message(text="é" * 3_000))
    assert why is not None
    assert "of 4,096" in why


def test_a_photo_is_an_address_and_counts() -> None:
    image = "https://alert.example.org/v1/media/" + "a" * 64
    assert body_of(1, image=image)["message"]["notification"]["image"] == image
    assert "image" not in body_of(1)["message"]["notification"]
    least = next(n for n in range(5_000) if make().fits(message(text="x" * n, image=image)) is not None)
    assert make().fits(message(text="x" * least)) is None
