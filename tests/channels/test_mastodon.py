"""Mastodon: a key that makes a repetition harmless, pictures that take their time."""

from __future__ import annotations

import json

import msgspec
import pytest

from fanout.channels.mastodon import Mastodon
from fanout.channels.posts import Upload
from fanout.channels.protocol import Answer
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS
from tests.channels.post_kit import JPEG, check_post_channel, form_of, post


def make() -> Mastodon:
    return Mastodon(url="https://social.example/", credential="token")


def taken(post_id: str) -> Answer:
    url = f"https://social.example/@politie/{post_id}"
    return Answer(code=200, body=json.dumps({"id": post_id, "url": url, "content": "x"}).encode())


def test_kit() -> None:
    check_post_channel(make, taken, too_long=501)


def test_a_status() -> None:
    call = make().render(post(reply_to="99"), "55", now_ms=NOW_MS)
    assert call.url == "https://social.example/api/v1/statuses"
    assert call.headers["idempotency-key"] == "7-0-a"
    assert json.loads(call.body) == {
        "status": post().text,
        "language": "nl",
        "visibility": "public",
        "media_ids": ["55"],
        "in_reply_to_id": "99",
    }
    assert make().interpret(taken("12")).url == "https://social.example/@politie/12"


@pytest.mark.parametrize(("language", "told"), [("nl-BE", "nl"), ("pap", "pap")])
def test_a_language_is_told_without_its_country_and_never_cut(language: str, told: str) -> None:
    whole = msgspec.structs.replace(post(), language=language)
    assert json.loads(make().render(whole, "", now_ms=NOW_MS).body)["language"] == told


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("https://politie.nl/" + 500 * "x", 23),
        ("Zie https://politie.nl.", 28),
        ("https://politie.nl。" + 200 * "漢", 224),
    ],
)
def test_a_link_counts_23_and_what_follows_it_counts_too(text: str, length: int) -> None:
    room = 500 - length
    assert make().fits(text + " " + (room - 1) * "x", picture=False) is None
    assert make().fits(text + " " + room * "x", picture=False) == "it has 501 characters of 500"


@pytest.mark.parametrize("url", ["http://plain.example/1", "javascript:alert(1)", None])
def test_a_link_that_is_none_is_left_out(url: str | None) -> None:
    said = make().interpret(Answer(code=200, body=json.dumps({"id": "1", "url": url}).encode()))
    assert (said.event, said.url) == (Event.ACCEPT, "")


def test_a_picture_that_takes_its_time() -> None:
    channel, one = make(), post(picture=JPEG, alt="Meisje met rode jas")
    first = channel.upload(one, Upload(), now_ms=NOW_MS)
    assert first is not None
    assert form_of(first) == {"description": b"Meisje met rode jas", "file": JPEG}
    so_far = channel.uploaded(Upload(), Answer(code=202, body=b'{"id":"55","url":null}'))
    assert (so_far.media, so_far.ready) == ("55", False)
    again = channel.upload(one, so_far, now_ms=NOW_MS)
    assert again is not None
    assert (again.method, again.url) == ("GET", "https://social.example/api/v1/media/55")
    assert not channel.uploaded(so_far, Answer(code=206, body=b'{"id":"55"}')).ready
    assert channel.uploaded(so_far, Answer(code=200, body=b'{"id":"55"}')).ready
    assert channel.uploaded(so_far, Answer(code=422)).refused == (Event.REJECT, Reason.PAYLOAD)
    assert channel.uploaded(so_far, Answer(code=500)).refused == (Event.RETRY, Reason.PROVIDER)
