"""Pictures that fail, dawdle or are refused: the words go all the same, and nobody waits for another's picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fanout.channels.protocol import Answer, Call
from fanout.social import pictures
from tests.simulators.kit import Providers
from tests.social.test_poster import ASSEN, NETWORKS, WORDS, Room, opened, photo, posts, request, settings_for, shape

Script = Callable[[Call, int], Answer | None]


class Wire:
    """The simulated networks, but for what the script answers instead; `calls` counts by path."""

    def __init__(self, providers: Providers, script: Script) -> None:
        self.providers, self.script = providers, script
        self.paths: list[str] = []

    async def call(self, call: Call) -> Answer:
        path = call.url.removeprefix(self.providers.url).partition("?")[0]
        self.paths.append(path)
        if (said := self.script(call, self.paths.count(path))) is not None:
            return said
        answer = self.providers.http.request(call.method, call.url, headers=dict(call.headers), content=call.body)
        return Answer(code=answer.status_code, headers=dict(answer.headers), body=answer.content)

    async def aclose(self) -> None: ...


def about_media(said: Answer) -> Script:
    return lambda call, _: said if "media" in call.url or "sendPhoto" in call.url else None


async def told_alone(folder: Path, providers: Providers, network: str, script: Script) -> tuple[Room, Wire, str]:
    """Start an action with a photo; returns when it is settled, with why the photo did not go."""
    wire_ = Wire(providers, script)
    account = {name: one for name, one in NETWORKS.items() if one["network"] == network}
    settings = settings_for(providers, account)
    async with opened(folder, providers, settings, callers=lambda ca: wire_) as room:
        await room.start(photo=room.shelf.put(photo()).hash)
        await room.settled()
        (view,) = room.poster.views(room.action)
        assert (view.state, view.photo) == ("accepted", False)
        assert [(one["text"], one["photo"]) for one in posts(providers)] == [(WORDS["nl"], "")]
    return room, wire_, view.photo_reason


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Answer(code=503), "provider"),
        (Answer(code=500), "provider"),
        (Answer(code=-2), "network"),
        (Answer(code=200, body=b"{}"), "garbage"),
        (Answer(code=400), "payload"),
        (Answer(code=403), "credentials"),
        (Answer(code=429, headers={"x-rate-limit-reset": "99999999999"}), "quota"),
    ],
)
@pytest.mark.parametrize("network", ["x", "mastodon"])
async def test_a_picture_that_never_arrives_costs_the_picture(
    tmp_path: Path, providers: Providers, monkeypatch: pytest.MonkeyPatch, said: Answer, why: str, network: str
) -> None:
    monkeypatch.setattr(pictures, "PICTURE_S_MAX", 0.7)
    _, wire_, reason = await told_alone(tmp_path, providers, network, about_media(said))
    assert reason == why
    assert sum("media" not in path for path in wire_.paths) == 1, "the text was posted at its first attempt"


@pytest.mark.parametrize(("code", "why"), [(400, "payload"), (413, "payload"), (503, "provider"), (-2, "network")])
async def test_telegram_takes_the_words_where_it_does_not_take_the_photo(
    tmp_path: Path, providers: Providers, code: int, why: str
) -> None:
    _, wire_, reason = await told_alone(tmp_path, providers, "telegram", about_media(Answer(code=code)))
    assert reason == why
    assert wire_.paths.count("/bot1:a/sendPhoto") == (1 if why == "payload" else 4)


async def test_a_network_that_wants_an_hour_gets_no_picture(tmp_path: Path, providers: Providers) -> None:
    body = b'{"data":{"id":"5","processing_info":{"state":"pending","check_after_secs":3600}}}'
    _, wire_, reason = await told_alone(tmp_path, providers, "x", about_media(Answer(code=200, body=body)))
    assert reason == "provider"
    assert len(wire_.paths) == 2, "at once"


async def test_others_post_while_a_picture_is_at_work(tmp_path: Path, providers: Providers) -> None:
    at_work = b'{"data":{"id":"5","processing_info":{"state":"in_progress","check_after_secs":1}}}'

    def script(call: Call, times: int) -> Answer | None:
        if "media" not in call.url:
            return None
        return Answer(code=200, body=at_work) if len(posts(providers)) == 0 else None

    wire_ = Wire(providers, script)
    settings = settings_for(providers, {"x": NETWORKS["politie_x"]})
    async with opened(tmp_path, providers, settings, callers=lambda ca: wire_) as room:
        pictured = await room.start(photo=room.shelf.put(photo()).hash)
        await room.until(lambda: bool(wire_.paths))
        plain = room.open("other")
        await room.poster.start(plain, "police", request(texts={"nl": "Een ander."}), shape(ASSEN), 1)
        await room.until(lambda: len(posts(providers)) == 1)
        assert posts(providers)[0]["text"] == "Een ander.", "a less urgent action did not wait for the picture"
        room.action = pictured
        await room.settled()
        assert len(posts(providers)) == 2
