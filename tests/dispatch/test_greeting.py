"""The simulators answer like the providers; a page does not, and is told of in the log."""

from __future__ import annotations

import logging

import pytest

from fanout.channels.protocol import Answer, Call
from fanout.dispatch.credentials import Fixed
from fanout.dispatch.greeting import greet
from fanout.settings import Settings, load
from tests.simulators.kit import Providers


def settings_for(url: str, ca: str) -> Settings:
    way = {"url": url, "ca": ca}
    return load(None, {}, providers={"fcm": way, "apns": way})


@pytest.mark.parametrize("name", ["fcm", "apns"])
async def test_the_simulators_answer_like_the_providers(providers: Providers, name: str) -> None:
    assert await greet(name, settings_for(providers.url, str(providers.ca)), Fixed("Bearer x"))
    assert providers.http.get("/_totals").json() == {}, "a question is no delivery"


@pytest.mark.parametrize("name", ["fcm", "apns"])
async def test_who_has_nothing_to_show_asks_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    class Nobody:
        async def call(self, call: Call) -> Answer:
            pytest.fail("nothing goes on the wire")

        async def aclose(self) -> None:
            """It was never open."""

    assert not await greet(name, settings_for("https://127.0.0.1:1", ""), Fixed(""), Nobody())
    assert "we have no credential" in caplog.text


@pytest.mark.parametrize("name", ["fcm", "apns"])
async def test_a_page_is_told_of(name: str, caplog: pytest.LogCaptureFixture) -> None:
    class Portal:
        closed = False

        async def call(self, call: Call) -> Answer:
            return Answer(code=200, headers={"content-type": "text/html"}, body=b"<html>Log in here</html>")

        async def aclose(self) -> None:
            self.closed = True

    portal = Portal()
    with caplog.at_level(logging.ERROR, logger="fanout.dispatch"):
        assert not await greet(name, settings_for("https://127.0.0.1:1", ""), Fixed("Bearer secret"), portal)
    assert portal.closed
    (line,) = caplog.messages
    assert line.startswith(f"{name} at https://127.0.0.1:1: it answered 200 with 'text/html'")
    assert "secret" not in line
