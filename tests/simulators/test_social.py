"""The simulated networks keep the networks' shapes, and tell what was posted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from fanout.channels.posts import form
from fanout.simulators.social import Entry, Part, network_of, together
from tests.simulators.kit import Providers, running_providers

JPEG = b"\xff\xd8 \r\n \n \r --x " + bytes(range(256)) * 8
BEARER = {"authorization": "Bearer a", "content-type": "application/json"}


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    with running_providers(tmp_path_factory.mktemp("providers")) as running:
        yield running


@pytest.fixture(autouse=True)
def _afresh(providers: Providers) -> None:
    providers.http.delete("/_seen")
    providers.moods()


def posts(providers: Providers) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = providers.http.get("/_posts").json()
    return found


def test_x(providers: Providers) -> None:
    content, body = form({"media_category": "tweet_image"}, "media", JPEG)
    headers = BEARER | {"content-type": content}
    media = providers.http.post("/2/media/upload", headers=headers, content=body).json()["data"]["id"]
    first = providers.http.post(
        "/2/tweets", headers=BEARER, content=json.dumps({"text": "a", "media": {"media_ids": [media]}})
    )
    assert first.status_code == 201
    post = first.json()["data"]["id"]
    again = providers.http.post("/2/tweets", headers=BEARER, content=b'{"text":"a"}')
    assert (again.status_code, "duplicate content" in again.text) == (403, True)
    other = providers.http.post("/2/tweets", headers=BEARER | {"authorization": "Bearer b"}, content=b'{"text":"a"}')
    assert other.status_code == 201
    reply = json.dumps({"text": "b", "reply": {"in_reply_to_tweet_id": post}})
    assert providers.http.post("/2/tweets", headers=BEARER, content=reply).status_code == 201
    assert providers.http.delete(f"/2/tweets/{post}", headers=BEARER).status_code == 200
    assert providers.http.delete(f"/2/tweets/{post}", headers=BEARER).status_code == 404
    found = posts(providers)
    assert [one["text"] for one in found] == ["a", "a", "b"]
    assert found[0]["photo"] == hashlib.sha256(JPEG).hexdigest()
    assert found[2]["reply_to"] == post
    assert [one["removed_ms"] is not None for one in found] == [True, False, False]


def test_mastodon(providers: Providers) -> None:
    content, body = form({"description": "x"}, "file", JPEG)
    taken = providers.http.post("/api/v2/media", headers=BEARER | {"content-type": content}, content=body)
    assert taken.status_code == 202
    media = taken.json()["id"]
    status = json.dumps({"status": "a", "media_ids": [media]})
    headers = BEARER | {"idempotency-key": "k"}
    assert providers.http.post("/api/v1/statuses", headers=headers, content=status).status_code == 422
    assert [providers.http.get(f"/api/v1/media/{media}", headers=BEARER).status_code for _ in "ab"] == [206, 200]
    ids = {providers.http.post("/api/v1/statuses", headers=headers, content=status).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    (one,) = posts(providers)
    assert (one["again"], one["photo"]) == (2, hashlib.sha256(JPEG).hexdigest())
    assert providers.http.get("/api/v1/media/99", headers=BEARER).status_code == 404


def test_telegram(providers: Providers) -> None:
    content, body = form({"chat_id": "@c", "caption": "a"}, "photo", JPEG)
    taken = providers.http.post("/bot1:a/sendPhoto", headers={"content-type": content}, content=body).json()
    assert taken["ok"]
    number = taken["result"]["message_id"]
    text = json.dumps({"chat_id": "@c", "text": "b", "reply_parameters": {"message_id": number}})
    assert providers.http.post("/bot1:a/sendMessage", content=text).json()["ok"]
    long = json.dumps({"chat_id": "@c", "text": "x" * 4_097})
    assert providers.http.post("/bot1:a/sendMessage", content=long).status_code == 400
    gone = json.dumps({"chat_id": "@c", "message_id": number})
    answers = [providers.http.post("/bot1:a/deleteMessage", content=gone) for _ in "ab"]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert [(one["reply_to"], bool(one["photo"])) for one in posts(providers)] == [("", True), (str(number), False)]


def test_patience_is_asked_for_in_each_networks_words(providers: Providers) -> None:
    busy = {"quota_per_s": 0.001, "retry_after_s": 7}
    providers.moods(x=busy, mastodon=busy, telegram=busy)
    x = providers.http.post("/2/tweets", headers=BEARER, content=b'{"text":"a"}')
    mastodon = providers.http.post("/api/v1/statuses", headers=BEARER, content=b'{"status":"a"}')
    telegram = providers.http.post("/bot1:a/sendMessage", content=b'{"chat_id":"@c","text":"a"}')
    assert [one.status_code for one in (x, mastodon, telegram)] == [429] * 3
    assert x.headers["x-rate-limit-reset"].isdigit()
    assert mastodon.headers["x-ratelimit-reset"].endswith("Z")
    assert telegram.json()["parameters"] == {"retry_after": 7}
    assert posts(providers) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"text":7}', b'{"chat_id":"c"}', b"\xff"])
def test_nonsense_posts_nothing(providers: Providers, body: bytes) -> None:
    for path in ("/api/v1/statuses", "/api/v2/media", "/2/media/upload", "/bot1:a/sendMessage", "/bot1:a/sendPhoto"):
        assert providers.http.post(path, headers=BEARER, content=body).status_code in (400, 422)
    assert posts(providers) == []


def test_addresses() -> None:
    assert network_of("/2/tweets/17") == "x"
    assert network_of("/api/v1/media/17") == "mastodon"
    assert network_of("/bot1:a-B/sendPhoto") == "telegram"
    assert network_of("/v1/projects/p/messages:send") is None
    assert network_of("/2/tweets/../../x") is None


def test_a_removal_may_reach_another_worker() -> None:
    one = Entry(network="x", account="a", id="5", text="t", at_ms=2)
    two = Entry(network="mastodon", account="a", id="5", text="t", at_ms=1)
    found = together([Part([one], {}), Part([two], {"x 5": 9})])
    assert [(entry.network, entry.removed_ms) for entry in found] == [("mastodon", None), ("x", 9)]
