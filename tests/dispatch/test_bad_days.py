"""Bad days inside a sender: every fault of a provider, clocks that jump, a disk that is full. Each row has its state.

Two promises are held against what the provider read whole: what it read is never called unsent, so whoever may have got
a message gets its result; and what rings is read once.
"""

from __future__ import annotations

import datetime
import errno
from collections import Counter
from functools import partial
from typing import Any

import pytest
import trio

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


HARMLESS = ("none", "one_stream", "shrink")
"""Faults after which everything has been taken: whoever waits for that is not hurried, however slow the machine."""


def impatient(url: str, files: tls.Files, fault: Fault) -> Settings:
    timeout_s = 20.0 if fault in HARMLESS else 2.0
    return settings_for(
        url, files.ca, request_timeout_s=timeout_s, attempts_max=2, pause_first_s=0.01, pause_most_s=0.02
    )  # fmt: skip


async def through(store: SqliteStore, server: FaultyServer, files: tls.Files, channels: tuple[int, ...]) -> int:
    """One batch a channel to a faulty provider, until every row has its state."""
    rows = {channel: range(100 * channel, 100 * channel + ROWS) for channel in channels}
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        action = start(store, rows)  # type: ignore[arg-type]
        with trio.fail_after(60):
            async with sending(store, impatient(f"https://127.0.0.1:{port}", files, server.fault)):
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
    if fault in HARMLESS and channels == (FCM, APNS):
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
    timeout_s = 2.0 if "hang" in mood else 20.0
    settings = settings_for(
        providers.url, providers.ca, request_timeout_s=timeout_s, attempts_max=2, pause_first_s=0.01
    )  # fmt: skip
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
        await until(lambda: asked(providers) >= 40)
        providers.moods()
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 20}


# --- a full disk ----------------------------------------------------------------------------------------------------


class FullDisk:
    """The store while the disk takes nothing of what `refuses` writes, until it is `emptied`; the rest is written."""

    def __init__(self, store: SqliteStore, *refuses: str) -> None:
        self._store, self._refuses = store, refuses
        self.emptied = False
        self.refused: Counter[str] = Counter()
        self.claimed = 0  # after the first refusal, before it was emptied

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return partial(self._call, name, found) if callable(found) else found

    def _call(self, name: str, call: Any, *args: Any, **options: Any) -> Any:
        if name in self._refuses and not self.emptied:
            self.refused[name] += 1
            raise Refused("store_unavailable", detail="the disk is full")
        self.claimed += name == "claim" and self.refused["settle"] > 0 and not self.emptied
        return call(*args, **options)


async def test_a_disk_that_fills_up_after_the_intent_loses_nothing(store: SqliteStore, providers: Providers) -> None:
    action = start(store, {FCM: range(50), SMS: range(50, 60), VOICE: range(60, 70)})
    disk = FullDisk(store, "settle", "renew", "append")
    async with sending(disk, settings_for(providers.url, providers.ca)):  # type: ignore[arg-type]
        await until(lambda: disk.refused["settle"] >= 6)
        claimed = disk.claimed
        later = start(store, {SMS: range(100, 110)}, reference="later")
        await trio.sleep(0.6)
        assert disk.claimed <= claimed + 1, "what cannot be recorded does not go out"
        assert states(store, later) == {"PENDING": 10}
        disk.emptied = True
        await sent_all(store, action)
        await sent_all(store, later)
    assert states(store, action) == {"ACCEPTED": 70}, "also SMS and calls: what came back was kept until it was written"
    assert states(store, later) == {"ACCEPTED": 10}
    assert providers.seen(action)["doubled_count"] == 0


async def test_a_disk_that_takes_no_intent_lets_nothing_out(store: SqliteStore, providers: Providers) -> None:
    action = start(store, {FCM: range(50), SMS: range(50, 60)})
    disk = FullDisk(store, "intend", "claim", "renew")
    async with sending(disk, settings_for(providers.url, providers.ca)):  # type: ignore[arg-type]
        await until(lambda: disk.refused["claim"] >= 2)
        disk._refuses = ("intend", "renew")
        await until(lambda: disk.refused["intend"] >= 4)
        assert providers.seen(action)["total"] == 0
        assert states(store, action) == {"PENDING": 60}
        disk.emptied = True
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 60}
    assert providers.seen(action)["doubled_count"] == 0


async def test_a_ledger_that_cannot_be_read_or_waited_for_ends_no_sender(
    store: SqliteStore, providers: Providers
) -> None:
    action = start(store, {FCM: range(50), SMS: range(50, 60)})
    disk = FullDisk(store, "wait_for_work", "action")
    async with sending(disk, settings_for(providers.url, providers.ca)):  # type: ignore[arg-type]
        await until(lambda: disk.refused["wait_for_work"] >= 2 and disk.refused["action"] >= 2)
        assert providers.seen(action)["total"] == 0
        disk.emptied = True
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 60}


async def test_a_registry_that_cannot_be_opened_ends_no_sender(store: SqliteStore, providers: Providers) -> None:
    """No handle is left for its newest snapshot: between two batches nobody needs it."""

    class Shut(Registry):
        asked, opens = 0, False

        def refresh(self) -> bool:
            self.asked += 1
            if not self.opens:
                raise OSError(errno.EMFILE, "too many open files")
            return False

    registry = Shut()
    async with sending(store, settings_for(providers.url, providers.ca), registry):
        await until(lambda: registry.asked >= 2)
        registry.opens = True
        action = start(store, {FCM: range(50)})
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 50}


async def test_a_sender_that_must_end_leaves_a_full_disk_to_the_ledger(
    store: SqliteStore, providers: Providers
) -> None:
    action = start(store, {FCM: range(50), SMS: range(50, 60)})
    disk = FullDisk(store, "settle", "release")
    settings = settings_for(providers.url, providers.ca, request_timeout_s=5.0)
    began_s = trio.current_time()
    async with sending(disk, settings) as stop:  # type: ignore[arg-type]
        await until(lambda: disk.refused["settle"] >= 4)
        stop.set()
        began_s = trio.current_time()
    assert trio.current_time() - began_s < 30.0, "the disk stays full for ever"
    store.release("one")  # what the engine does for a sender that ended
    async with sending(store, settings):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 50, "UNKNOWN": 10}
    assert providers.seen(action)["channels"]["sms"]["doubled_count"] == 0
