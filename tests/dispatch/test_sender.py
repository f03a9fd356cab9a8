"""The sender against the real ledger and simulated providers over real sockets: every row ends where it should."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import trio

from fanout.dispatch.breaker import PROBE_ROWS
from fanout.dispatch.counters import Counters
from fanout.dispatch.sender import run_sender
from fanout.registry.entries import DEAD_STREAM, decode_dead, digest_of
from fanout.settings import Settings
from fanout.simulators.credentials import KEY_ID, TEAM_ID
from fanout.store.protocol import Lease
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import REACHED, Reason, State
from tests.dispatch.kit import (
    APNS,
    FCM,
    HOUR_MS,
    SMS,
    VOICE,
    WEBPUSH,
    WHATSAPP,
    Registry,
    clock_ms,
    reasons,
    settings_for,
    start,
    states,
)
from tests.simulators.kit import PATIENCE_S, Providers


@asynccontextmanager
async def sending(
    store: SqliteStore,
    settings: Settings,
    registry: Registry | None = None,
    clock: Callable[[], int] = clock_ms,
    counters: Counters | None = None,
) -> AsyncIterator[trio.Event]:
    """A warm sender for the time of the block."""
    stop, warm = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await run_sender(
                store,
                registry or Registry(),
                settings,
                owner="one",
                clock_ms=clock,
                stop=stop,
                on_warm=warm.set,
                counters=counters,
            )

        nursery.start_soon(run)
        await warm.wait()
        yield stop
        stop.set()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  (the ledger and the simulator are other processes)
            await trio.sleep(0.02)


def open_rows(store: SqliteStore, action: int) -> int:
    found = states(store, action)
    return sum(found.get(name, 0) for name in ("PENDING", "INTENDED", "AGAIN"))


async def sent_all(store: SqliteStore, action: int) -> None:
    await until(lambda: open_rows(store, action) == 0)


async def test_everyone_gets_it_once(store: SqliteStore, providers: Providers) -> None:
    action = start(store, {FCM: range(300), APNS: range(300, 500), SMS: range(500, 600)})
    async with sending(store, settings_for(providers.url, providers.ca)):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 600}
    seen = providers.seen(action)
    assert {name: one["total"] for name, one in seen["channels"].items()} == {"fcm": 300, "apns": 200, "sms": 100}
    assert seen["doubled_count"] == 0


async def test_a_channel_does_not_wait_for_the_claim_of_another(
    store: SqliteStore, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, claim = threading.Event(), store.claim

    def slow(owner: str, *, channels: Sequence[int], **more: Any) -> list[Lease]:
        if APNS in channels:
            assert free.wait(60)
        return claim(owner, channels=channels, **more)

    monkeypatch.setattr(store, "claim", slow)
    action = start(store, {FCM: range(50), APNS: range(50, 80)})
    async with sending(store, settings_for(providers.url, providers.ca)):
        try:
            await until(lambda: states(store, action).get("ACCEPTED", 0) == 50)
        finally:
            free.set()
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 80}


async def test_each_row_has_its_reason(store: SqliteStore, providers: Providers) -> None:
    marks = {0: b"dead", 1: b"bad0", 2: b'q"uote', 100: b"dead", 200: b"999", 201: b"x"}
    registry = Registry(marks, erased=[3])
    action = start(store, {FCM: range(5), APNS: [100, 101], SMS: [200, 201, 202]})
    async with sending(store, settings_for(providers.url, providers.ca), registry):
        await sent_all(store, action)
    assert reasons(store, action) == {
        0: (State.FAILED, Reason.TOKEN_DEAD),
        1: (State.FAILED, Reason.TOKEN_INVALID),
        2: (State.FAILED, Reason.TOKEN_INVALID),
        3: (State.FAILED, Reason.ERASED),
        4: (State.ACCEPTED, Reason.NONE),
        100: (State.FAILED, Reason.TOKEN_DEAD),
        101: (State.ACCEPTED, Reason.NONE),
        200: (State.FAILED, Reason.TOKEN_INVALID),
        201: (State.FAILED, Reason.TOKEN_INVALID),
        202: (State.ACCEPTED, Reason.NONE),
    }


@pytest.mark.parametrize("mood", [{"storm": 0.5, "retry_after_s": 0}, {"broken": 0.5}])
async def test_what_was_not_taken_is_tried_again(
    store: SqliteStore, providers: Providers, mood: dict[str, float]
) -> None:
    providers.moods(fcm=mood)
    action = start(store, {FCM: range(100)})
    async with sending(store, settings_for(providers.url, providers.ca, attempts_max=50)):
        await until(lambda: states(store, action).get("ACCEPTED", 0) >= 50)
        providers.moods()
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 100}
    assert providers.seen(action)["doubled_count"] == 0


async def test_attempts_end(store: SqliteStore, providers: Providers) -> None:
    providers.moods(fcm={"storm": 1.0, "retry_after_s": 0})
    action = start(store, {FCM: range(10)})
    async with sending(store, settings_for(providers.url, providers.ca, attempts_max=3)):
        await sent_all(store, action)
    assert set(reasons(store, action).values()) == {(State.FAILED, Reason.PROVIDER)}
    asked = providers.http.get("/_totals").json()["fcm"]
    assert asked == 20 + PROBE_ROWS, "twice all ten; the third time a probe spoke for them"


async def test_a_hang_is_unknown_by_sms_and_sent_again_quietly_by_push(
    store: SqliteStore, providers: Providers
) -> None:
    providers.moods(fcm={"hang": 1.0}, sms={"hang": 1.0})
    action = start(store, {FCM: range(20), SMS: range(20, 30)})
    async with sending(store, settings_for(providers.url, providers.ca, request_timeout_s=1.0, attempts_max=50)):
        await until(lambda: states(store, action).get("UNKNOWN", 0) == 10)
        providers.moods()
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 20, "UNKNOWN": 10}
    found = reasons(store, action)
    assert found[20] == (State.UNKNOWN, Reason.TIME_OUT)
    assert providers.seen(action)["channels"]["sms"]["doubled_count"] == 0, "nobody is rung twice"


async def test_no_provider_at_all_leaves_everything_for_later(store: SqliteStore, providers: Providers) -> None:
    action = start(store, {FCM: range(20), SMS: range(20, 30)})
    nowhere = settings_for("https://127.0.0.1:9", providers.ca, request_timeout_s=0.5, attempts_max=100)
    async with sending(store, nowhere):
        await trio.sleep(0.5)
    assert states(store, action) == {"PENDING": 30}, "certainly not taken, so neither lost nor unknown"
    async with sending(store, settings_for(providers.url, providers.ca)):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 30}
    assert providers.seen(action)["doubled_count"] == 0


async def test_a_close_stops_what_is_unsent_between_two_rows(store: SqliteStore, providers: Providers) -> None:
    slow = {"rate_per_s": 100.0, "burst": 8, "url": providers.url, "ca": str(providers.ca)}
    settings = settings_for(providers.url, providers.ca, providers={"fcm": slow})
    action = start(store, {FCM: range(2_000)}, size=2_000)
    async with sending(store, settings):
        await until(lambda: providers.seen(action)["total"] > 20)
        assert await trio.to_thread.run_sync(lambda: store.close(action, state="cancelled", now_ms=clock_ms()))
        closed_ms = clock_ms()
        await sent_all(store, action)
    found, seen = states(store, action), providers.seen(action)
    assert found["ACCEPTED"] == seen["total"] < 2_000
    assert found["ACCEPTED"] + found["CANCELLED"] == 2_000
    assert seen["last_ms"] <= closed_ms + 5_000, "all of them take twenty seconds"


async def test_after_the_end_nothing_goes_out(store: SqliteStore, providers: Providers) -> None:
    action = start(store, {FCM: range(20), SMS: range(20, 30)}, end_ms=clock_ms() + HOUR_MS)
    async with sending(store, settings_for(providers.url, providers.ca), clock=lambda: clock_ms() + 2 * HOUR_MS):
        await sent_all(store, action)
    assert states(store, action) == {"EXPIRED": 30}
    assert providers.seen(action)["total"] == 0


async def test_a_pause_holds_the_rows_and_resume_sends_them(store: SqliteStore, providers: Providers) -> None:
    action = start(store, {FCM: range(64)})
    assert store.set_paused(action, True)
    async with sending(store, settings_for(providers.url, providers.ca)):
        await trio.sleep(0.3)
        assert providers.seen(action)["total"] == 0
        assert await trio.to_thread.run_sync(store.set_paused, action, False)
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 64}


async def test_a_stop_finishes_what_is_on_the_wire(store: SqliteStore, providers: Providers) -> None:
    providers.moods(fcm={"slow": 1.0, "slow_ms": 300})
    action = start(store, {FCM: range(1_000)})
    counters = Counters()
    async with sending(store, settings_for(providers.url, providers.ca), counters=counters) as stop:
        await until(lambda: providers.seen(action)["total"] > 0)
        stop.set()
    found = states(store, action)
    assert found["ACCEPTED"] == providers.seen(action)["total"]
    assert found["ACCEPTED"] + found["PENDING"] == 1_000
    assert counters.events["fcm", "accept"] == found["ACCEPTED"]


@pytest.mark.parametrize("how", ["stopped", "cancelled", "closed"])
async def test_of_calls_only_those_on_the_wire_are_intended(store: SqliteStore, providers: Providers, how: str) -> None:
    slow: dict[str, object] = {"enabled": True, "url": providers.url, "ca": str(providers.ca), "calls_at_once": 16}
    settings = settings_for(providers.url, providers.ca, providers={"voice": slow | {"rate_per_s": 30.0, "burst": 30}})
    action = start(store, {VOICE: range(2_000)}, size=30)
    async with trio.open_nursery() as nursery:
        stop, warm = trio.Event(), trio.Event()

        async def run() -> None:
            await run_sender(
                store, Registry(), settings, owner="one", clock_ms=clock_ms, stop=stop, on_warm=warm.set
            )  # fmt: skip

        nursery.start_soon(run)
        await until(lambda: providers.seen(action)["total"] >= 40)
        on_wire = states(store, action).get("INTENDED", 0)
        assert on_wire <= 3 * 30, "what a crash would leave unknown: the batches in hand, a second's calls each"
        began_s = trio.current_time()
        if how == "closed":
            assert await trio.to_thread.run_sync(lambda: store.close(action, state="cancelled", now_ms=clock_ms()))
            told = {row for row, (state, _) in reasons(store, action).items() if state in REACHED}
            await sent_all(store, action)
        if how == "cancelled":
            nursery.cancel_scope.cancel()
        stop.set()
    assert trio.current_time() - began_s < 30.0, "all of them take more than a minute"
    found, seen = states(store, action), providers.seen(action)
    rest = "CANCELLED" if how == "closed" else "PENDING"
    assert found == {"ACCEPTED": seen["total"], rest: 2_000 - seen["total"]}, "nobody is unknown"
    assert seen["total"] < 1_000
    if how == "closed":
        assert told <= {row for row, (state, _) in reasons(store, action).items() if state == State.ACCEPTED}, (
            "a result goes to nobody who was not called"
        )


async def test_a_cancelled_sender_settles_what_was_on_the_wire(store: SqliteStore, providers: Providers) -> None:
    providers.moods(fcm={"slow": 1.0, "slow_ms": 300})
    action = start(store, {FCM: range(1_000)})
    async with trio.open_nursery() as nursery:
        warm = trio.Event()

        def run() -> Awaitable[None]:
            return run_sender(
                store,
                Registry(),
                settings_for(providers.url, providers.ca),
                owner="one",
                clock_ms=clock_ms,
                stop=trio.Event(),
                on_warm=warm.set,
            )

        nursery.start_soon(run)
        await until(lambda: providers.seen(action)["total"] > 0)
        nursery.cancel_scope.cancel()
    found = states(store, action)
    assert found["ACCEPTED"] == providers.seen(action)["total"]
    assert found["ACCEPTED"] + found["PENDING"] == 1_000


async def test_what_a_dead_sender_left_is_taken_over(store: SqliteStore, providers: Providers) -> None:
    action = start(store, {FCM: range(64), SMS: range(64, 74)})
    for channel in (FCM, SMS):
        (lease,) = store.claim("dead", channels=(channel,), lanes=(1,), now_ms=clock_ms(), lease_ms=60_000, most=1)
        assert store.intend(lease, np.arange(len(lease.rows)), now_ms=clock_ms())
    store.release("dead")
    async with sending(store, settings_for(providers.url, providers.ca)):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 64, "UNKNOWN": 10}
    assert "sms" not in providers.seen(action)["channels"], "what may have rung does not ring again"


async def test_life_overtakes_the_nation(store: SqliteStore, providers: Providers) -> None:
    slow: dict[str, object] = {"url": providers.url, "ca": str(providers.ca), "rate_per_s": 5_000.0, "burst": 1_000}
    settings = settings_for(providers.url, providers.ca, providers={"fcm": slow})
    nation = start(store, {FCM: range(20_000)}, size=2_048, reference="nation", lane=2)
    async with sending(store, settings):
        await until(lambda: providers.seen(nation)["total"] > 1_000)
        life = await trio.to_thread.run_sync(
            lambda: start(store, {FCM: range(50_000, 50_200)}, reference="life", lane=0)
        )
        await sent_all(store, life)
        await sent_all(store, nation)
    assert providers.seen(life)["last_ms"] < providers.seen(nation)["last_ms"]
    assert states(store, nation) == {"ACCEPTED": 20_000}


async def test_every_channel_reaches_its_provider(store: SqliteStore, providers: Providers) -> None:
    registry = Registry({101: b"dead", 201: b"999", 301: b"999"}, push=providers.url)
    rows = {WEBPUSH: range(100, 160), VOICE: range(200, 220), WHATSAPP: range(300, 320)}
    action = start(store, rows)
    async with sending(store, settings_for(providers.url, providers.ca), registry):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 97, "FAILED": 3}
    found = reasons(store, action)
    assert found[101] == (State.FAILED, Reason.TOKEN_DEAD)
    assert found[201] == found[301] == (State.FAILED, Reason.TOKEN_INVALID)
    seen = providers.seen(action)
    assert {name: one["total"] for name, one in seen["channels"].items()} == {
        "webpush": 59,
        "voice": 19,
        "whatsapp": 19,
    }
    assert seen["doubled_count"] == 0


async def test_strict_providers_know_us(store: SqliteStore, providers: Providers) -> None:
    providers.http.put("/_moods", json={"strict": True, "token_life_s": 2})
    keys = providers.ca.parent
    where: dict[str, object] = {"url": providers.url, "ca": str(providers.ca)}
    settings = settings_for(
        providers.url,
        providers.ca,
        providers={
            "fcm": where | {"service_account": str(keys / "service-account.json")},
            "apns": where | {"key_file": str(keys / "apns.p8"), "key_id": KEY_ID, "team_id": TEAM_ID},
        },
    )

    def granted() -> int:
        count: int = providers.http.get("/_totals").json()["token"]
        return count

    first = start(store, {FCM: range(20), APNS: range(900, 920)}, reference="first")
    async with sending(store, settings):
        await sent_all(store, first)
        await until(lambda: granted() >= 3)  # the first has ended by then
        second = start(store, {FCM: range(20)}, reference="second")
        await sent_all(store, second)
    assert states(store, first) == {"ACCEPTED": 40}
    assert states(store, second) == {"ACCEPTED": 20}


async def test_the_second_supplier_takes_over(store: SqliteStore, providers: Providers) -> None:
    nowhere: dict[str, object] = {"url": "https://127.0.0.1:9", "ca": str(providers.ca)}
    second: dict[str, object] = {"enabled": True, "url": providers.url, "ca": str(providers.ca), "rate_per_s": 1e5}
    settings = settings_for(providers.url, providers.ca, providers={"sms": nowhere, "sms_second": second})
    action = start(store, {SMS: range(600)})
    async with sending(store, settings):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 600}
    assert providers.seen(action)["doubled_count"] == 0


async def test_a_provider_that_hangs_holds_nobody_else(store: SqliteStore, providers: Providers) -> None:
    providers.moods(fcm={"hang": 1.0}, sms={"hang": 1.0})
    action = start(store, {FCM: range(50), SMS: range(500, 520), APNS: range(600, 1_200)})
    async with sending(store, settings_for(providers.url, providers.ca, request_timeout_s=8.0, attempts_max=1)):
        await until(lambda: providers.seen(action)["channels"].get("apns", {"total": 0})["total"] == 600)
        assert states(store, action).get("UNKNOWN", 0) == 0, "nothing waited for the time-outs of the others"
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 600, "UNKNOWN": 70}


async def test_who_is_not_reached_is_tried_on_the_next_channel(store: SqliteStore, providers: Providers) -> None:
    registry = Registry({1: b"dead", 2: b"dead", 3: b"dead", 4: b"dead"})
    registry.only = {1: [FCM, SMS], 2: [FCM], 3: [FCM, VOICE], 4: [FCM, APNS, SMS]}
    action = start(store, {FCM: range(10)})
    settings = settings_for(providers.url, providers.ca, fall_back=["fcm", "apns", "sms", "voice"])
    async with sending(store, settings, registry):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 9, "FAILED": 1, "MOVED": 4}
    final = reasons(store, action)
    assert final[2] == (State.FAILED, Reason.TOKEN_DEAD)
    assert "apns" not in providers.seen(action)["channels"], "that address is dead too, and the next is SMS"
    assert providers.seen(action)["channels"]["sms"]["total"] == 2
    assert providers.seen(action)["channels"]["voice"]["total"] == 1
    dead = [decode_dead(entry) for _, entry in store.read(DEAD_STREAM, after=0, most=9)]
    told = {
        (one.channel, row): digest for one in dead if one for row, digest in zip(one.rows, one.digests, strict=True)
    }
    assert told == {at: digest_of(registry.address(*at)) for at in told}, "the addresses that were tried"
    assert told.keys() == {
        (FCM, 1),
        (FCM, 2),
        (FCM, 3),
        (FCM, 4),
        (APNS, 4),
    }


async def test_dead_and_wrong_tokens_are_news_with_their_reasons(store: SqliteStore, providers: Providers) -> None:
    registry = Registry({1: b"dead", 2: b"bad0", 101: b"dead", 102: b"bad0"})
    action = start(store, {FCM: range(10), APNS: range(100, 110)})
    async with sending(store, settings_for(providers.url, providers.ca), registry):
        await sent_all(store, action)
    news = [decode_dead(entry) for _, entry in store.read(DEAD_STREAM, after=0, most=9)]
    assert {(one.channel, one.reason, *one.rows) for one in news if one} == {
        (FCM, "token_dead", 1), (FCM, "token_invalid", 2), (APNS, "token_dead", 101), (APNS, "token_invalid", 102),
    }  # fmt: skip
    for one in news:
        assert one is not None
        timed = (one.channel, one.reason) == (APNS, "token_dead")
        assert bool(one.since_ms) >= timed, "APNs says since when"
        assert all(since_ms <= one.at_ms <= clock_ms() for since_ms in one.since_ms)


async def test_after_a_close_nobody_moves(store: SqliteStore, providers: Providers) -> None:
    providers.moods(fcm={"slow": 1.0, "slow_ms": 3_000})  # time for the close, on a disk that is slow too
    registry = Registry(dict.fromkeys(range(5), b"dead"))
    action = start(store, {FCM: range(10)})
    settings = settings_for(providers.url, providers.ca, fall_back=["fcm", "sms"])
    async with sending(store, settings, registry):
        await until(lambda: providers.seen(action)["total"] > 0)
        assert await trio.to_thread.run_sync(lambda: store.close(action, state="cancelled", now_ms=clock_ms()))
        await sent_all(store, action)
    assert "MOVED" not in states(store, action)
    assert "sms" not in providers.seen(action)["channels"]
