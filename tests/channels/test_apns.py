"""APNs: shape, deadline, and what its errors mean."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fanout.channels.apns import Apns
from fanout.channels.protocol import column
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS, check_row_channel, message, written

TOKENS = [b"00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0", b"ABCDEF"]


def make() -> Apns:
    return Apns(url="https://api.push.apple.com/", topic="nl.example.alert")


def test_kit() -> None:
    check_row_channel(make, TOKENS, gone=[410])


def test_shape_and_quiet_resend() -> None:
    again = np.array([True, False])
    requests = make().render(message(), column(TOKENS), again, now_ms=NOW_MS, authorize=lambda _: "bearer t")
    quiet, url, quiet_body = written(requests, 0)
    loud, _, loud_body = written(requests, 1)
    assert url == b"https://api.push.apple.com/3/device/" + TOKENS[0]
    assert "apns-collapse-id: action-7" in set(quiet.headers) & set(loud.headers)
    assert f"apns-expiration: {message().end_ms // 1000}" in loud.headers
    assert "apns-topic: nl.example.alert" in loud.headers
    assert "apns-priority: 5" in quiet.headers
    assert "apns-priority: 10" in loud.headers
    assert "sound" not in json.loads(quiet_body)["aps"]
    assert json.loads(loud_body)["aps"]["sound"] == "default"
    assert json.loads(loud_body)["aps"]["alert"] == {"title": "Vermist kind", "body": message().text}


@pytest.mark.parametrize(
    ("code", "body", "event", "reason"),
    [
        (410, b'{"reason":"Unregistered","timestamp":1}', Event.REJECT, Reason.TOKEN_DEAD),
        (410, b'{"reason":"ExpiredToken"}', Event.REJECT, Reason.TOKEN_DEAD),
        (400, b'{"reason":"BadDeviceToken"}', Event.REJECT, Reason.TOKEN_INVALID),
        (400, b'{"reason":"BadCollapseId"}', Event.REJECT, Reason.PAYLOAD),
        (403, b'{"reason":"ExpiredProviderToken"}', Event.RETRY, Reason.CREDENTIALS),
        (404, b'{"reason":"BadPath"}', Event.REJECT, Reason.PROVIDER),
        (413, b'{"reason":"PayloadTooLarge"}', Event.REJECT, Reason.PAYLOAD),
        (429, b'{"reason":"TooManyRequests"}', Event.RETRY, Reason.QUOTA),
        (503, b'{"reason":"ServiceUnavailable"}', Event.RETRY, Reason.PROVIDER),
    ],
)
def test_errors(code: int, body: bytes, event: Event, reason: Reason) -> None:
    outcome = make().interpret(np.array([code, 200], np.int16), {0: body})
    assert outcome.event.tolist() == [event, Event.ACCEPT]
    assert outcome.reason.tolist() == [reason, Reason.NONE]


def test_a_photo_wakes_the_apps_extension() -> None:
    def body(image: str) -> dict[str, dict[str, object]]:
        requests = make().render(
            message(image=image), column(TOKENS), np.zeros(2, np.bool_), now_ms=NOW_MS, authorize=lambda _: "bearer t"
        )
        found: dict[str, dict[str, object]] = json.loads(written(requests, 0)[2])
        return found

    assert (body("https://a.nl/x")["aps"]["mutable-content"], body("https://a.nl/x")["fanout"]["image"]) == (
        1,
        "https://a.nl/x",
    )
    assert "mutable-content" not in body("")["aps"]
    assert "image" not in body("")["fanout"]


def test_since_when_a_token_is_dead() -> None:
    codes = np.array([410, 410, 400, 410, 410], np.int16)
    bodies = {
        0: b'{"reason":"Unregistered","timestamp":1454948015990}',
        1: b'{"reason":"Unregistered"}',
        2: b'{"reason":"BadDeviceToken","timestamp":5}',
        3: b'{"timestamp":"soon"}',
        4: b'{"timestamp":' + b"9" * 400 + b"}",
    }
    assert make().dead_since_ms(codes, bodies) == {0: 1_454_948_015_990}
