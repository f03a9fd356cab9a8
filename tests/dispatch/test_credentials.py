"""Tokens that renew themselves, against the simulator that checks them as the providers do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from fanout.channels.jwt import from_base64url
from fanout.channels.protocol import Answer, Call
from fanout.dispatch.calls import HttpCaller
from fanout.dispatch.credentials import (
    PROVIDER_TOKEN_LEAST_S,
    PROVIDER_TOKEN_S,
    VAPID_S,
    AccessToken,
    Fixed,
    ProviderToken,
    Vapid,
    check,
    read_account,
    read_key,
)
from fanout.errors import Refused
from fanout.settings import load
from fanout.simulators.credentials import ACCOUNT, KEY_ID, TEAM_ID, Issuer, write_keys
from tests.channels.kit import NONSENSE
from tests.dispatch.kit import clock_ms
from tests.simulators.kit import Providers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keys")
    write_keys(made, "https://127.0.0.1:1")
    return made


def claims(value: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(from_base64url(value.split(".")[1]))
    return found


class Endpoint:
    """A token endpoint that grants or fails as told, and counts."""

    def __init__(self, *lives_s: int) -> None:
        self.lives_s, self.asked = list(lives_s), 0

    async def call(self, call: Call) -> Answer:
        self.asked += 1
        life_s = self.lives_s.pop(0) if self.lives_s else 0
        if not life_s:
            return Answer(code=503)
        return Answer(code=200, body=b'{"access_token":"t%d","expires_in":%d}' % (self.asked, life_s))

    async def aclose(self) -> None:
        """Nothing is open."""


def test_apns_tokens_are_neither_too_old_nor_too_new(folder: Path) -> None:
    now_s = 1_000_000.0
    token = ProviderToken(read_key("k", str(folder / "apns.p8")), key_id=KEY_ID, team_id=TEAM_ID, now_s=lambda: now_s)
    first = token.authorize("https://api.push.apple.com")
    assert Issuer(folder).provider_token(first, now_s) is None
    now_s += PROVIDER_TOKEN_S - 1
    assert token.authorize("x") == first, "Apple objects to a key renewed too often"
    now_s += 1
    assert token.authorize("x") != first
    assert 20 * 60 <= PROVIDER_TOKEN_S <= 60 * 60
    now_s = 10.0
    assert claims(token.authorize("x"))["iat"] == 10, "a clock that went back: made anew"
    assert Issuer(folder).provider_token(first, 1_000_000.0 + 3_601) == "ExpiredProviderToken"
    assert Issuer(folder).provider_token("bearer a.b.c", now_s) == "InvalidProviderToken"


def test_an_apns_token_that_apple_calls_expired_is_made_anew_and_not_again_and_again(folder: Path) -> None:
    """By Apple's clock it is over an hour old, whatever ours says. Until it is made anew nobody is reached."""
    now_s = 1_000_000.0
    token = ProviderToken(read_key("k", str(folder / "apns.p8")), key_id=KEY_ID, team_id=TEAM_ID, now_s=lambda: now_s)
    first = token.authorize("x")
    codes, expired = np.array([200, 403, 403], np.int16), {2: b'{"reason":"ExpiredProviderToken"}'}
    token.answered(codes, {1: b'{"reason":"InvalidProviderToken"}'})
    token.answered(np.array([200, 410, 410], np.int16), expired)
    assert token.authorize("x") == first, "another key, another code"
    now_s += 60
    token.answered(codes, expired)
    second = token.authorize("x")
    assert claims(second)["iat"] == now_s
    now_s += PROVIDER_TOKEN_LEAST_S - 1
    token.answered(codes, expired)  # rows that went with the first one, or a clock that is wrong
    assert token.authorize("x") == second, "Apple objects to a key renewed too often"
    now_s += 1
    token.answered(codes, expired)
    assert token.authorize("x") != second


def test_vapid_is_one_token_for_each_push_service(folder: Path) -> None:
    now_s = 1_000_000.0
    key = read_key("k", str(folder / "apns.p8"))
    vapid = Vapid(key, subject="mailto:a@example.org", now_s=lambda: now_s)  # type: ignore[arg-type]
    one, other = vapid.authorize("https://a.example"), vapid.authorize("https://b.example")
    assert claims(one)["aud"] == "https://a.example"
    assert one != other
    assert vapid.authorize("https://a.example") == one
    now_s += VAPID_S / 2
    assert float(str(claims(vapid.authorize("https://a.example"))["exp"])) <= now_s + 24 * 3_600
    now_s = 10.0
    assert claims(vapid.authorize("https://a.example"))["exp"] == 10 + VAPID_S, "a clock that went back: made anew"
    now_s = 5_000_000.0
    assert claims(vapid.authorize("https://a.example"))["exp"] == 5_000_000 + VAPID_S, "and one that went ahead"


async def test_an_access_token_is_renewed_before_it_ends(folder: Path, autojump_clock: MockClock) -> None:
    endpoint = Endpoint(100, 100, 0, 0, 100, 100)
    account = read_account("a", str(folder / "service-account.json"))
    token = AccessToken(account, endpoint, now_s=lambda: 1_000_000.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(token.keep)
        assert token.authorize("x") == "Bearer t1"
        await trio.sleep(79)
        assert token.authorize("x") == "Bearer t1"
        await trio.sleep(2)
        assert token.authorize("x") == "Bearer t2"
        await trio.sleep(79.1)
        assert token.authorize("x") == "Bearer t2", "while the endpoint fails, the old one goes on"
        await trio.sleep(5)
        assert token.authorize("x") == "Bearer t5"
        codes = np.array([200, 401], np.int16)
        token.answered(codes, {1: b'{"error":{"details":[{"errorCode":"THIRD_PARTY_AUTH_ERROR"}]}}'})
        await trio.sleep(2)
        assert (token.authorize("x"), endpoint.asked) == ("Bearer t5", 5), "Apple's word about another key"
        token.answered(codes, {1: b'{"error":{"status":"UNAUTHENTICATED"}}'})
        await trio.sleep(2)
        assert (token.authorize("x"), endpoint.asked) == ("Bearer t6", 6), "refused: another was asked for at once"
        nursery.cancel_scope.cancel()


async def test_after_the_end_of_a_token_there_is_none(folder: Path, autojump_clock: MockClock) -> None:
    endpoint = Endpoint(100, *[0] * 8, 100)
    token = AccessToken(read_account("a", str(folder / "service-account.json")), endpoint, now_s=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(token.keep)
        await trio.sleep(99.9)
        assert token.authorize("x") == "Bearer t1"
        await trio.sleep(0.2)
        assert token.authorize("x") == ""
        await trio.sleep(150)
        assert token.authorize("x").startswith("Bearer t")
        nursery.cancel_scope.cancel()


async def test_an_endpoint_that_fails_holds_up_no_start(folder: Path, autojump_clock: MockClock) -> None:
    token = AccessToken(read_account("a", str(folder / "service-account.json")), Endpoint(), now_s=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(token.keep)
        assert token.authorize("x") == ""
        nursery.cancel_scope.cancel()
    assert Fixed("a").authorize("x") == "a"


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[:20]))
async def test_nonsense_grants_nothing_and_ends_nothing(folder: Path, autojump_clock: MockClock, body: bytes) -> None:
    class Strange(Endpoint):
        async def call(self, call: Call) -> Answer:
            return Answer(code=200, body=body)

    token = AccessToken(read_account("a", str(folder / "service-account.json")), Strange(), now_s=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(token.keep)
        assert token.authorize("x") == ""
        nursery.cancel_scope.cancel()


async def test_google_grants_and_fcm_takes_it(providers: Providers) -> None:
    account = read_account("a", str(providers.ca.parent / "service-account.json"))
    assert account.client_email == ACCOUNT
    caller = HttpCaller(ca=str(providers.ca), timeout_s=20, connections=1)
    token = AccessToken(account, caller, now_s=lambda: clock_ms() / 1000)
    providers.http.put("/_moods", json={"strict": True})
    url, body = "/v1/projects/p/messages:send", b'{"message":{"token":"a"}}'
    assert providers.http.post(url, content=body, headers={"authorization": "Bearer x"}).status_code == 401
    async with trio.open_nursery() as nursery:
        await nursery.start(token.keep)
        headers = {"authorization": token.authorize("x")}
        assert providers.http.post(url, content=body, headers=headers).status_code == 200
        nursery.cancel_scope.cancel()
    await caller.aclose()


@pytest.mark.parametrize(
    ("provider", "setting"), [("fcm", "service_account"), ("apns", "key_file"), ("webpush", "key_file")]
)
def test_a_key_is_read_where_its_provider_is_switched_on(tmp_path: Path, provider: str, setting: str) -> None:
    junk = tmp_path / "junk"
    junk.write_text("{}")
    for enabled in (False, True):
        overlay = {provider: {"enabled": enabled, setting: str(junk)}}
        providers = load(None, {}, providers=overlay).providers
        if not enabled:
            check(providers)
            continue
        with pytest.raises(Refused, match=f"providers.{provider}.{setting}: ") as refused:
            check(providers)
        assert refused.value.code == "settings_invalid"


def test_files_that_are_no_keys_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("{}")
    for read in (read_key, read_account):
        for file in (tmp_path / "bad", tmp_path / "missing"):
            with pytest.raises(Refused, match=r"providers\.x"):
                read("providers.x", str(file))
