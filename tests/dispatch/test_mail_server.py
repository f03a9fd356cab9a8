"""Mail against a real server: TLS of both kinds, log-in, refusals, deaths; and the route inside a sender."""

from __future__ import annotations

import datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from fanout.channels.mail import Mail
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION
from fanout.dispatch.counters import Counters
from fanout.dispatch.mailer import Mailer
from fanout.settings import Settings
from fanout.simulators import tls
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import Reason, State
from tests.dispatch.kit import EMAIL, FCM, Registry, clock_ms, reasons, settings_for, start, states
from tests.dispatch.smtp_server import PASSWORD, USER, smtp_server
from tests.dispatch.test_sender import sending, sent_all, until
from tests.simulators.kit import Providers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tls.Files:
    return tls.write(tmp_path_factory.mktemp("tls"), now=datetime.datetime.now(datetime.UTC))


def send(
    url: str, *names: str, ca: Path | str = "", user: str = USER, password: str = PASSWORD, timeout_s: float = 20.0
) -> list[int]:
    mailer = Mailer(url=url, user=user, password=password, sender="alert@example.org", ca=str(ca), timeout_s=timeout_s)
    mails = [Mail(n, f"{name}@x.nl", b"Subject: x\r\n\r\nRode fiets\r\n") for n, name in enumerate(names)]
    return mailer.send(mails, lambda: True).tolist()


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("login", [True, False])
def test_tls_of_both_kinds(files: tls.Files, implicit: bool, login: bool) -> None:
    with smtp_server(files.cert, files.key, implicit=implicit, login=login) as (url, taken):
        who = (USER, PASSWORD) if login else ("", "")
        assert send(url, "a", "b", ca=files.ca, user=who[0], password=who[1]) == [250, 250]
        assert taken.secured == {True}


@pytest.mark.parametrize("implicit", [True, False])
def test_a_certificate_of_somebody_else_gets_no_mail_and_no_password(
    tmp_path: Path, files: tls.Files, implicit: bool
) -> None:
    other = tls.write(tmp_path, now=datetime.datetime.now(datetime.UTC), hosts=["wrong.invalid"], addresses=[])
    for cert, key, ca in ((files.cert, files.key, other.ca), (other.cert, other.key, other.ca)):
        with smtp_server(cert, key, implicit=implicit, login=True) as (url, taken):
            assert send(url, "a", "b", ca=ca) == [NO_CONNECTION, NO_CONNECTION]
            assert not taken.mails


def test_a_server_without_tls_gets_no_password(files: tls.Files) -> None:
    with smtp_server() as (url, taken):
        assert send(url, "a", ca=files.ca) == [NO_CONNECTION]
        assert not taken.mails


def test_a_wrong_password(files: tls.Files) -> None:
    with smtp_server(files.cert, files.key, login=True) as (url, taken):
        assert send(url, "a", "b", ca=files.ca, password="wrong") == [535, 535]
        assert not taken.mails


def test_each_recipient_has_its_own_reply_and_a_refusal_is_nobody_elses() -> None:
    with smtp_server() as (url, taken):
        names = ("a", "dead", "b", "no", "c", "full", "d", "later", "e")
        assert send(url, *names, user="") == [250, 550, 250, 554, 250, 552, 250, 450, 250]
        assert sorted(taken.mails) == ["a@x.nl", "b@x.nl", "c@x.nl", "d@x.nl", "e@x.nl"]
        assert set(taken.count.values()) == {1}


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("gone", [250, NO_ANSWER, NO_CONNECTION]),
        ("cut", [250, NO_ANSWER, NO_CONNECTION]),
        ("drip", [250, NO_CONNECTION, NO_CONNECTION]),
        ("endless", [250, NO_CONNECTION, NO_CONNECTION]),
    ],
)
def test_a_server_that_dies_or_never_ends_a_reply(name: str, codes: list[int]) -> None:
    with smtp_server() as (url, taken):
        assert send(url, "a", name, "b", user="", timeout_s=2.0) == codes
        assert "b@x.nl" not in taken.mails


# --- inside a sender ------------------------------------------------------------------------------------------------


class Addresses(Registry):
    """Mail addresses whose first word steers the server."""

    def __init__(self, words: dict[int, str] | None = None, marks: dict[int, bytes] | None = None) -> None:
        super().__init__(marks)
        self.words = words or {}

    def address(self, channel: int, row: int) -> bytes:
        return (
            f"{self.words.get(row, 'p')}{row}@example.nl".encode()
            if channel == EMAIL
            else super().address(channel, row)
        )


def with_mail(url: str, providers: Providers, ca: Path | str = "", user: str = "", **changes: Any) -> Settings:
    email = {"enabled": True, "url": url, "ca": str(ca), "user": user, "password": PASSWORD} | {
        "rate_per_s": 1e4,
        "burst": 1_000,
    }
    quick = {"attempts_max": 3, "fall_back": ["fcm", "email"]} | changes
    return settings_for(providers.url, providers.ca, providers={"email": email}, **quick)


async def test_every_recipient_ends_where_it_should(store: SqliteStore, providers: Providers, files: tls.Files) -> None:
    with smtp_server(files.cert, files.key, login=True) as (url, taken):
        settings = with_mail(url, providers, files.ca, USER, attempts_max=50)
        registry = Addresses({1: "dead", 2: "full", 3: "later", 4: 'q"uote', 5: "two@words"})
        action = start(store, {EMAIL: range(40)})
        async with sending(store, settings, registry):
            await until(lambda: len(taken.mails) == 35)
            taken.patient = True
            await sent_all(store, action)
        found = reasons(store, action)
        assert found[1] == (State.FAILED, Reason.TOKEN_DEAD)
        assert found[2] == (State.FAILED, Reason.PAYLOAD)
        assert found[3] == (State.ACCEPTED, Reason.NONE)
        assert found[4] == found[5] == (State.FAILED, Reason.TOKEN_INVALID)
        assert states(store, action) == {"ACCEPTED": 36, "FAILED": 4}
        assert set(taken.count.values()) == {1}
        assert taken.secured == {True}
        read = message_from_bytes(taken.mails["p0@example.nl"], policy=default)
        assert (read["To"], read["Message-ID"]) == ("p0@example.nl", f"<{action}-0-0@example.org>")


async def test_a_server_that_dies_with_a_mail_leaves_one_unknown_and_the_rest_for_later(
    store: SqliteStore, providers: Providers
) -> None:
    with smtp_server() as (url, taken):
        registry = Addresses({7: "gone"})
        action = start(store, {EMAIL: range(20)})
        async with sending(store, with_mail(url, providers), registry):
            await sent_all(store, action)
        assert states(store, action) == {"ACCEPTED": 19, "UNKNOWN": 1}
        assert reasons(store, action)[7] == (State.UNKNOWN, Reason.TIME_OUT)
        assert set(taken.count.values()) == {1}, "nobody gets a second mail"


async def test_no_server_leaves_everything_for_later_and_nothing_goes_after_the_close(
    store: SqliteStore, providers: Providers
) -> None:
    action = start(store, {EMAIL: range(20)})
    with smtp_server() as (url, taken):
        pass
    counters = Counters()
    async with sending(store, with_mail(url, providers, attempts_max=100), Addresses(), counters=counters):
        await until(lambda: counters.reasons["email", "network"] >= 20)
        assert set(states(store, action)) <= {"PENDING", "INTENDED"}
        assert store.close(action, state="cancelled", now_ms=clock_ms())
        await sent_all(store, action)
    assert states(store, action) == {"CANCELLED": 20}
    assert not taken.mails


async def test_who_has_no_phone_any_more_gets_a_mail(store: SqliteStore, providers: Providers) -> None:
    with smtp_server() as (url, taken):
        registry = Addresses(marks={3: b"dead"})
        action = start(store, {FCM: range(5)})
        async with sending(store, with_mail(url, providers), registry):
            await until(lambda: len(taken.mails) == 1)
            await sent_all(store, action)
        assert list(taken.mails) == ["p3@example.nl"]
        assert states(store, action) == {"ACCEPTED": 5, "MOVED": 1}
