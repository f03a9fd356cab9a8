"""X: weights as the platform counts them, uploads before posts, its own quota and refusals."""

from __future__ import annotations

import json

import pytest

from fanout.channels.posts import Upload
from fanout.channels.protocol import Answer
from fanout.channels.x import X, weight
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS
from tests.channels.post_kit import JPEG, check_post_channel, form_of, post


def make(credential: str = "consumer secret token hidden") -> X:
    return X(url="https://api.x.example", credential=credential)


def taken(post_id: str) -> Answer:
    return Answer(code=201, body=json.dumps({"data": {"id": post_id, "text": "x"}}).encode())


def test_kit() -> None:
    check_post_channel(make, taken, too_long=281)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("", 0),
        ("Rode fiets", 10),
        ("é", 1),
        ("e\u0301", 1),
        ("日本", 4),
        ("🚲", 2),
        ("👨‍👩‍👧‍👦", 2),
        ("👍🏽", 2),
        ("🇳🇱", 2),
        ("1️⃣", 2),
        ("https://politie.nl/" + "x" * 100, 23),
        ("zie https://a.nl nu", 30),
        ("zie www.politie.nl nu", 30),
        ("a.b@politie.nl", 14),
        ("Zie https://politie.nl.", 28),
        ("https://politie.nl。" + 200 * "漢", 425),
        ("politie.nl/" + 30 * "漢", 83),
        ("中国語t.co", 29),
        ("https://a.nl/ https://b.nl/x, c.nl", 23 + 1 + 23 + 2 + 23),
        ("½ – ‘tekst’ … €", 17),
    ],
)
def test_weights(text: str, length: int) -> None:
    assert weight(text) == length


def test_what_fits_and_what_does_not() -> None:
    assert make().fits("x" * 280, picture=True) is None
    assert make().fits("x" * 279 + "日", picture=False) == "it has 281 weighted characters of 280"


def test_a_post_with_a_picture_is_two_calls() -> None:
    channel, one = make(), post(picture=JPEG)
    first = channel.upload(one, Upload(), now_ms=NOW_MS)
    assert first is not None
    assert first.url == "https://api.x.example/2/media/upload"
    assert form_of(first) == {"media_category": b"tweet_image", "media_type": b"image/jpeg", "media": JPEG}
    at_work = {"data": {"id": "55", "processing_info": {"state": "in_progress", "check_after_secs": 3}}}
    so_far = channel.uploaded(Upload(), Answer(code=200, body=json.dumps(at_work).encode()))
    assert (so_far.media, so_far.ready, so_far.wait_s) == ("55", False, 3)
    again = channel.upload(one, so_far, now_ms=NOW_MS)
    assert again is not None
    assert (again.method, again.url) == ("GET", "https://api.x.example/2/media/upload?command=STATUS&media_id=55")
    done = channel.uploaded(so_far, Answer(code=200, body=b'{"data":{"id":"55"}}'))
    assert done.ready
    assert json.loads(channel.render(one, done.media, now_ms=NOW_MS).body) == {
        "text": one.text,
        "media": {"media_ids": ["55"]},
    }


@pytest.mark.parametrize("state", ["failed", "pending"])
def test_a_picture_that_fails(state: str) -> None:
    said = Answer(code=200, body=json.dumps({"data": {"id": "5", "processing_info": {"state": state}}}).encode())
    refused = make().uploaded(Upload(), said).refused
    assert refused == ((Event.REJECT, Reason.PAYLOAD) if state == "failed" else None)


def test_a_reply_and_a_deletion() -> None:
    call = make().render(post(reply_to="99"), "", now_ms=NOW_MS)
    assert json.loads(call.body)["reply"] == {"in_reply_to_tweet_id": "99"}
    gone = make().withdraw("99", now_ms=NOW_MS)
    assert (gone.method, gone.url) == ("DELETE", "https://api.x.example/2/tweets/99")
    assert make().withdrawn(Answer(code=404))[0] is Event.ACCEPT
    assert make().withdrawn(Answer(code=500))[0] is Event.RETRY


def test_keys_of_both_kinds() -> None:
    signed = make().render(post(), "", now_ms=NOW_MS).headers["authorization"]
    assert signed.startswith("OAuth oauth_consumer_key=")
    assert "secret" not in signed
    assert "hidden" not in signed
    assert signed != make().render(post(), "", now_ms=NOW_MS + 1).headers["authorization"]
    assert make("one-word").render(post(), "", now_ms=NOW_MS).headers["authorization"] == "Bearer one-word"


def test_the_same_text_twice_is_refused_by_x() -> None:
    body = b'{"detail":"You are not allowed to create a Tweet with duplicate content.","status":403}'
    assert make().interpret(Answer(code=403, body=body))[:2] == (Event.REJECT, Reason.PAYLOAD)
    assert make().interpret(Answer(code=403))[:2] == (Event.REJECT, Reason.CREDENTIALS)
    assert make().interpret(Answer(code=429))[:2] == (Event.RETRY, Reason.QUOTA)
