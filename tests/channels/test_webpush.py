"""Web Push: whom it may call, what it seals, and what answers mean."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fanout.channels.ece import decrypt, new_key
from fanout.channels.jwt import base64url, point
from fanout.channels.protocol import Requests, column
from fanout.channels.webpush import WebPush
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS, check_row_channel, message, written

BROWSER, AUTH = new_key(), b"sixteen bytes ok"


def subscription(endpoint: str, *, auth: bytes = AUTH, key: bytes | None = None) -> bytes:
    keys = {"p256dh": base64url(key or point(BROWSER)), "auth": base64url(auth)}
    return json.dumps({"endpoint": endpoint, "expirationTime": None, "keys": keys}).encode()


GOOD = [
    subscription("https://updates.push.services.mozilla.com/wpush/v2/gAAA_-x"),
    subscription("https://db5p.notify.windows.com/w/?token=BQ%2b"),
]


def make() -> WebPush:
    return WebPush(hosts=["updates.push.services.mozilla.com", "*.notify.windows.com"])


def render(*addresses: bytes) -> Requests:
    again = np.zeros(len(addresses), np.bool_)
    return make().render(message(), column(addresses), again, now_ms=NOW_MS, authorize=lambda origin: f"vapid {origin}")


def test_kit() -> None:
    check_row_channel(make, GOOD, gone=[404, 410], per_row_body=True)


def test_shape_and_what_the_browser_reads() -> None:
    requests = render(*GOOD)
    template, url, body = written(requests, 1)
    assert url == b"https://db5p.notify.windows.com/w/?token=BQ%2b"
    assert "authorization: vapid https://db5p.notify.windows.com" in template.headers
    assert "ttl: 3600" in template.headers
    assert "urgency: high" in template.headers
    assert "topic: a7p1" in template.headers
    plain = json.loads(decrypt(body, BROWSER, AUTH))
    assert (plain["title"], plain["action"], plain["tag"], plain["silent"]) == ("Vermist kind", "7", "action-7", False)
    assert len(requests.templates) == 2, "one authorisation for each push service"


def test_loud_and_quiet_rows_in_one_batch_beside_rows_that_cannot_be_sealed() -> None:
    browsers = [new_key() for _ in range(5)]
    addresses = [
        subscription(f"https://updates.push.services.mozilla.com/{n}", key=point(b)) for n, b in enumerate(browsers)
    ]
    addresses[1] = subscription("https://updates.push.services.mozilla.com/1", key=b"\x04" + b"\x01" * 64)
    again = np.array([True, False, False, True, False])
    requests = make().render(message(), column(addresses), again, now_ms=NOW_MS, authorize=lambda _: "vapid")
    assert requests.usable.tolist() == [True, False, True, True, True]
    for row in np.flatnonzero(requests.usable).tolist():
        template, url, body = written(requests, row)
        assert url.endswith(b"/%d" % row)
        assert json.loads(decrypt(body, browsers[row], AUTH))["silent"] is bool(again[row])
        assert ("urgency: normal" in template.headers) is bool(again[row])


def test_no_two_messages_share_a_key_or_a_salt() -> None:
    requests = render(*[GOOD[0]] * 50)
    bodies = requests.columns[1].rows()
    assert len({body[:16] for body in bodies}) == 50
    assert len({body[21:86] for body in bodies}) == 50


@pytest.mark.parametrize(
    ("endpoint", "origin"),
    [
        ("https://DB5P.Notify.Windows.com:443/w?a=b#c", "https://db5p.notify.windows.com"),
        ("https://updates.push.services.mozilla.com:8443/w?a=b", "https://updates.push.services.mozilla.com:8443"),
    ],
)
def test_we_say_who_we_are_to_an_origin_as_it_calls_itself(endpoint: str, origin: str) -> None:
    requests = render(subscription(endpoint))
    template, url, _ = written(requests, 0)
    assert f"authorization: vapid {origin}" in template.headers
    assert url == f"{origin}/w?a=b".encode(), "the path is the browser's, and what follows a # is for nobody but it"
    assert template.url[0] == origin.encode(), "a template has one origin"


@pytest.mark.parametrize(
    "address",
    [
        subscription("http://updates.push.services.mozilla.com/x"),
        subscription("https://evil.example/x"),
        subscription("https://notify.windows.com.evil.example/x"),
        subscription("https://evilnotify.windows.com/x"),
        subscription("https://updates.push.services.mozilla.com@evil.example/x"),
        subscription("https://user:pw@updates.push.services.mozilla.com/x"),
        subscription("https://updates.push.services.mozilla.com/x\r\nx-evil: 1"),
        subscription("https://updates.push.services.mozilla.com/é"),
        subscription("https://updates.push.services.mozilla.com/x", auth=b"short"),
        subscription("https://updates.push.services.mozilla.com/x", key=b"\x04" + b"\x01" * 64),
        subscription("https://updates.push.services.mozilla.com/x", key=b"\x02" + b"\x01" * 32),
        subscription("https://[::1/x"),
        subscription("https://updates.push.services.mozilla.com"),
        subscription("https://updates.push.services.mozilla.com:99999/x"),
        b'{"endpoint": 7}',
        b"[]",
    ],
)
def test_addresses_that_are_not_used(address: bytes) -> None:
    assert render(GOOD[0], address).usable.tolist() == [True, False]


@pytest.mark.parametrize(
    ("code", "event", "reason"),
    [
        (201, Event.ACCEPT, Reason.NONE),
        (202, Event.ACCEPT, Reason.NONE),
        (200, Event.ACCEPT, Reason.NONE),
        (404, Event.REJECT, Reason.TOKEN_DEAD),
        (410, Event.REJECT, Reason.TOKEN_DEAD),
        (413, Event.REJECT, Reason.PAYLOAD),
        (429, Event.RETRY, Reason.QUOTA),
        (403, Event.RETRY, Reason.CREDENTIALS),
    ],
)
def test_answers(code: int, event: Event, reason: Reason) -> None:
    outcome = make().interpret(np.array([code], np.int16), {})
    assert (outcome.event[0], outcome.reason[0]) == (event, reason)
