"""What every social network must keep: `check_post_channel(make)`."""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_bytes
from email.policy import HTTP

import numpy as np

from fanout.channels.posts import Post, PostChannel, Posted, Upload
from fanout.channels.protocol import CODE_MAX, CODE_MIN, GARBAGE, NO_ANSWER, NO_CONNECTION, NOT_SENT, Answer, Call
from fanout.store.states import ILLEGAL, TABLE, Event, Reason, State
from tests.channels.kit import NONSENSE, NOW_MS

JPEG = b"\xff\xd8\xff\xe0 a small picture \r\n--fanout \xff\xd9"
HOSTILE_TEXTS = ('a"b', "a\r\nx-evil: 1", "--fanout\r\n", "\\u0022", "{hole}", "<b>&amp;", "é 🚲 ١٢", "a" * 200)
HOSTILE_IDS = ("../../users", "1/2", "1?x", "", "1 2", "1\n", "x" * 100, "é")


def post(**changes: object) -> Post:
    """An ordinary post, with changes."""
    fields: dict[str, object] = {"key": "7-0-a", "text": "Vermist: meisje, 8 jaar.", "language": "nl", "alt": "Foto"}
    return Post(**(fields | changes))  # type: ignore[arg-type]


def form_of(call: Call) -> dict[str, bytes]:
    """The fields of a form, read by somebody else's reader."""
    head = f"content-type: {call.headers['content-type']}\r\n\r\n".encode()
    found = {}
    for part in message_from_bytes(head + call.body, policy=HTTP).iter_parts():  # type: ignore[attr-defined]
        found[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True)
    return found


def check_post_channel(make: Callable[[], PostChannel], taken: Callable[[str], Answer], too_long: int) -> None:
    """Rules of networks. `taken(id)`: the answer to a post that was taken; `too_long`: characters that never fit."""
    channel = make()
    _codes(lambda answer: channel.interpret(answer)[:2], resent=False)
    _codes(channel.withdrawn, resent=True)
    for nonsense in NONSENSE:
        for code in (200, 201, 202, 400, 429, 500):
            said = channel.interpret(Answer(code=code, body=nonsense))
            _definite(said.event, said.reason)
            assert said.event is not Event.ACCEPT, "nonsense is no post"
            upload = channel.uploaded(Upload(), Answer(code=code, body=nonsense))
            assert not upload.ready
            assert upload == Upload() or upload.refused is not None
    for hostile in HOSTILE_IDS:
        assert channel.interpret(taken(hostile)).event is not Event.ACCEPT, "an id that could change a path"
    good = channel.interpret(taken("1234567"))
    assert good[:3] == Posted(Event.ACCEPT, Reason.NONE, "1234567")[:3]
    assert good.url == "" or good.url.startswith("https://")
    for text in HOSTILE_TEXTS:
        for picture in (b"", JPEG):
            one = channel.render(post(text=text, picture=picture), "55" if picture else "", now_ms=NOW_MS)
            assert one == channel.render(post(text=text, picture=picture), "55" if picture else "", now_ms=NOW_MS)
            assert one.url == channel.render(post(picture=picture), "", now_ms=NOW_MS).url, "no text in an address"
            _clean(one)
    for call in (channel.withdraw("1234567", now_ms=NOW_MS), channel.render(post(reply_to="9"), "", now_ms=NOW_MS)):
        _clean(call)
    assert channel.upload(post(), Upload(), now_ms=NOW_MS) is None, "no picture, nothing to upload"
    assert channel.upload(post(picture=JPEG), Upload(media="55", ready=True), now_ms=NOW_MS) is None
    assert channel.fits("Vermist: meisje, 8 jaar.", picture=True) is None
    assert channel.fits("x" * too_long, picture=False) is not None


def _codes(meaning: Callable[[Answer], tuple[Event, Reason]], *, resent: bool) -> None:
    for code in range(CODE_MIN, CODE_MAX + 1):
        event, reason = meaning(Answer(code=code))
        _definite(event, reason)
        assert event is not Event.REJECT or reason is not Reason.NONE
        if code in (NOT_SENT, NO_CONNECTION, 401, 429, 503):
            assert event is Event.RETRY
        if code in (NO_ANSWER, GARBAGE, 500, 502, 504):
            assert event is (Event.RETRY if resent else Event.TIME_OUT)
        if code in (301, 302, 307, 405, 413):
            assert event is Event.REJECT


def _definite(event: Event, reason: Reason) -> None:
    assert TABLE[State.INTENDED, event] != ILLEGAL
    assert event in (Event.ACCEPT, Event.REJECT, Event.RETRY, Event.TIME_OUT)
    assert reason in Reason


def _clean(call: Call) -> None:
    assert call.url.startswith("https://")
    assert not set(call.url) & set(" \r\n")
    assert not any(set(name + value) & set("\r\n") for name, value in call.headers.items())
    assert len(call.index) == 0
    assert call.index.dtype == np.intp
