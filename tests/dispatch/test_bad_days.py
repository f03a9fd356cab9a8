"""Bad days inside a sender: every fault of a provider, clocks that jump, a disk that is full. Each row has its state.

Two promises are held against what the provider read whole: what it read is never called unsent, so whoever may have got
a message gets its result; and what rings is read once.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
import trio

from fanout.dispatch.sender import run_sender
from fanout.errors import Refused
from fanout.settings import Settings
from fanout.simulators import tls
from fanout.simulators.faults import FAULTS, Fault, FaultyServer
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import Reason, State, reached
from tests.dispatch.kit import (
    APNS,
    FCM,
    HOUR_MS,
    SMS,
    VOICE,
    WHATSAPP,
    Registry,
    clock_ms,
    reasons,
    settings_for,
    start,
    states,
)
from tests.dispatch.test_sender import sending, sent_all, until
from tests.simulators.kit import Providers

ROWS = 5
RINGS = (SMS, VOICE, WHATSAPP)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tls.Files:
    return tls.write(tmp_path_factory.mktemp("tls"), now=datetime.datetime.now(datetime.UTC))


def impatient(url: str, files: tls.Files) -> Settings:
    return settings_for(url, files.ca, request_timeout_s=0.6, attempts_max=2, pause_first_s=0.01, pause_most_s=0.02)


async def through(store: SqliteStore, server: FaultyServer, files: tls.Files, channels: tuple[int, ...]) -> int:
    """One batch a channel to a faulty provider, until every row has its state."""
    rows = {channel: range(100 * channel, 100 * channel + ROWS) for channel in channels}
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        action = start(store, rows)  # type: ignore[arg-type]
        with trio.fail_after(60):
            async with sending(store, impatient(f"https://127.0.0.1:{port}", files)):
                await sent_all(store, action)
        nursery.cancel_scope.cancel()
    return action


def read_whole(server: FaultyServer, row: int, channel: int) -> int:
    """How often the provider read a row's message."""
    address = Registry().address(channel, row).lstrip(b"+").decode()
    return sum(
        count
        for (path, body), count in server.arrived.items()
        if address in path or address.encode() in body
    )  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("channels", [(FCM, APNS), RINGS], ids=["replaces", "rings"])
async def test_every_fault_ends_in_definite_states(
    store: SqliteStore, files: tls.Files, fault: Fault, channels: tuple[int, ...]
) -> None:
    server = FaultyServer(fault, cert=files.cert, key=files.key)
    action = await through(store, server, files, channels)
    for batch in store.batches(action):
        perhaps = reached(batch.status)
        for row, state, may_have in zip(batch.rows.tolist(), batch.status.tolist(), perhaps.tolist(), strict=True):
            times = read_whole(server, row, batch.channel)
            assert state in (State.ACCEPTED, State.FAILED, State.UNKNOWN), State(state)
            assert may_have or not times, "what the provider read is not called unsent"
            assert state != State.ACCEPTED or times, "what is called accepted was read"
            if batch.channel in RINGS:
                assert times <= 1, "nobody is rung twice"
    if fault in ("none", "one_stream", "shrink") and channels == (FCM, APNS):
        assert states(store, action) == {"ACCEPTED": ROWS * len(channels)}


@pytest.mark.parametrize(
    ("mood", "push", "ring"),
    [
        ({"redirect": 1.0}, (State.FAILED, Reason.GARBAGE), (State.FAILED, Reason.GARBAGE)),
        ({"broken": 1.0}, (State.UNKNOWN, Reason.PROVIDER), (State.UNKNOWN, Reason.PROVIDER)),
        ({"storm": 1.0, "retry_after_s": 0}, (State.FAILED, Reason.PROVIDER), (State.FAILED, Reason.PROVIDER)),
        ({"garbage": 1.0}, (State.ACCEPTED, Reason.NONE), (State.UNKNOWN, Reason.GARBAGE)),
        ({"hang": 1.0}, (State.UNKNOWN, Reason.TIME_OUT), (State.UNKNOWN, Reason.TIME_OUT)),
    ],
)
async def test_every_mood_has_its_state(
    store: SqliteStore, providers: Providers, mood: dict[str, float], push: Any, ring: Any
) -> None:
    names = {FCM: "fcm", APNS: "apns", SMS: "sms", VOICE: "voice", WHATSAPP: "whatsapp"}
    providers.moods(**dict.fromkeys(names.values(), mood))
    action = start(store, {channel: [10 * channel, 10 * channel + 1] for channel in names})
    settings = settings_for(providers.url, providers.ca, request_timeout_s=0.5, attempts_max=2, pause_first_s=0.01)
    async with sending(store, settings):
        await sent_all(store, action)
    found = reasons(store, action)
    for channel in names:
        assert found[10 * channel] == (ring if channel in RINGS else push), names[channel]
    assert all(count <= 1 for count in _times(providers, action, "sms", "voice", "whatsapp"))


def asked(providers: Providers) -> int:
    """How many requests FCM has had, answered or not."""
    found: int = providers.http.get("/_totals").json().get("fcm", 0)
    return found


def _times(providers: Providers, action: int, *names: str) -> list[int]:
    channels = providers.seen(action)["channels"]
    return [channels[name]["total"] - channels[name]["distinct"] + 1 for name in names if name in channels]


# --- clocks ---------------------------------------------------------------------------------------------------------


async def test_a_clock_that_jumps_past_the_end_sends_nothing_more(store: SqliteStore, providers: Providers) -> None:
    providers.moods(fcm={"slow": 1.0, "slow_ms": 300}, sms={"slow": 1.0, "slow_ms": 300})
    jump = [0]
    action = start(store, {FCM: range(2_000), SMS: range(5_000, 5_400)})
    settings = settings_for(providers.url, providers.ca)
    async with sending(store, settings, clock=lambda: clock_ms() + jump[0]):
        await until(lambda: providers.seen(action)["total"] > 0)
        jump[0] = 2 * HOUR_MS
        await sent_all(store, action)
    found = states(store, action)
    assert set(found) <= {"ACCEPTED", "EXPIRED", "UNKNOWN"}, "a lease that the clock ended costs unknown rows"
    assert found["ACCEPTED"] <= providers.seen(action)["total"] <= found["ACCEPTED"] + found.get("UNKNOWN", 0)
    assert providers.seen(action)["doubled_count"] == 0


async def test_a_clock_that_jumps_back_loses_and_doubles_nothing(store: SqliteStore, providers: Providers) -> None:
    providers.moods(fcm={"slow": 1.0, "slow_ms": 100}, sms={"slow": 1.0, "slow_ms": 100})
    jump = [0]
    action = start(store, {FCM: range(1_000), SMS: range(5_000, 5_400)})
    settings = settings_for(providers.url, providers.ca)
    async with sending(store, settings, clock=lambda: clock_ms() + jump[0]):
        await until(lambda: providers.seen(action)["total"] > 0)
        jump[0] = -10 * HOUR_MS
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 1_400}
    assert providers.seen(action)["doubled_count"] == 0


async def test_a_batch_claimed_anew_by_the_sender_that_still_has_it_in_hand(
    store: SqliteStore, providers: Providers
) -> None:
    providers.moods(fcm={"hang": 1.0})
    jump = [0]
    action = start(store, {FCM: range(20)})
    settings = settings_for(providers.url, providers.ca, request_timeout_s=1.5)
    async with sending(store, settings, clock=lambda: clock_ms() + jump[0]):
        await until(lambda: asked(providers) == 20)
        jump[0] = int(1000 * settings.senders.lease_s) + 1  # ran out, and is claimed again before the first one ends
        await until(lambda: asked(providers) == 40)
        providers.moods()
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 20}


# --- a full disk ----------------------------------------------------------------------------------------------------


class FullDisk:
    """The store while the disk takes nothing of what came back; intents were written just before."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def settle(self, *_args: Any, **_options: Any) -> None:
        raise Refused("store_unavailable", detail="the disk is full")


async def test_a_disk_that_fills_up_after_the_intent(store: SqliteStore, providers: Providers) -> None:
    action = start(store, {FCM: range(50), SMS: range(50, 60)})
    settings = settings_for(providers.url, providers.ca)
    with pytest.raises(ExceptionGroup) as caught:
        await run_sender(
            FullDisk(store),  # type: ignore[arg-type]
            Registry(),
            settings,
            owner="one",
            clock_ms=clock_ms,
            stop=trio.Event(),
        )
    assert caught.group_contains(Refused, match="store_unavailable")
    store.release("one")  # what the engine does for a sender that ended
    async with sending(store, settings):
        await sent_all(store, action)
    found = states(store, action)
    assert sum(found.values()) == 60
    assert set(found) <= {"ACCEPTED", "UNKNOWN"}
    sms = next(batch for batch in store.batches(action) if batch.channel == SMS)
    rung = providers.seen(action)["channels"].get("sms", {"total": 0, "doubled_count": 0})
    assert rung["doubled_count"] == 0
    assert int(np.isin(sms.status, (State.ACCEPTED, State.UNKNOWN)).sum()) == 10 >= rung["total"]
