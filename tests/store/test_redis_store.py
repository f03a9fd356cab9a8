"""The store on Redis: the kit and the histories, on a real server that the tests start themselves."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from fanout.errors import Refused
from fanout.store.protocol import Receipts, Store
from fanout.store.redis_store import RedisStore
from signage.broker import free_port
from tests.store import kit
from tests.store.history import History
from tests.store.kit_bounces import bounced

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="no redis-server on this machine: the Redis store goes untested"
)


@contextmanager
def server(folder: Path, appendonly: str = "yes", *, port: int = 0) -> Iterator[str]:
    """A server for the time of the block; at its end it is killed with -9."""
    port = port or free_port()
    command = [
        "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", appendonly,
        "--appendfsync", "no", "--save", "", "--daemonize", "no", "--loglevel", "warning",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            while True:
                assert process.poll() is None, "redis-server ended before it began"
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    continue
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        yield url


@pytest.fixture
def place(address: str) -> Iterator[kit.Place]:
    with redis.Redis.from_url(address) as client:
        client.flushall()
    stores: list[RedisStore] = []

    def open_it() -> Store:
        stores.append(RedisStore.open(address))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close_store()


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_the_store_kit(check: kit.Check, place: kit.Place) -> None:
    check(place)


@pytest.mark.parametrize("seed", range(6))
def test_it_lives_as_the_naive_ledger_does(place: kit.Place, seed: int) -> None:
    History(place(), place(), seed).live(120)


def test_nobody_at_the_address_is_told_with_what_to_do() -> None:
    with pytest.raises(Refused, match="start it there") as caught:
        RedisStore.open(f"redis://127.0.0.1:{free_port()}/0")
    assert caught.value.code == "store_unavailable"


def test_a_redis_that_forgets_is_refused(tmp_path: Path) -> None:
    with server(tmp_path, appendonly="no") as url, pytest.raises(Refused, match="appendonly yes"):
        RedisStore.open(url)


def test_what_was_acknowledged_survives_a_kill_of_redis(tmp_path: Path) -> None:
    with server(tmp_path) as url:
        store = RedisStore.open(url)
        number = kit.opened(store, kit.batch(range(100)), kit.batch(range(100, 200), seq=1))
        (lease,) = kit.claim(store)
        assert store.intend(lease, kit.everything(lease), now_ms=11)
    with kit.refused("store_unavailable"):
        store.action(number)
    store.close_store()
    with server(tmp_path) as url:
        store = RedisStore.open(url)
        assert kit.states(store, number) == [[kit.IN] * 100, [kit.P] * 100]
        store.close_store()


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command was called."""
    found: dict[str, dict[str, int]] = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in found.items()}


def made_since(client: redis.Redis, before: dict[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in calls(client).items() if count > before.get(name, 0)}


def test_receipts_and_counts_read_what_they_are_about(place: kit.Place, address: str) -> None:
    store = place()
    number = kit.opened(store, *(kit.batch(range(10 * n, 10 * n + 10), channel=kit.SMS, seq=n) for n in range(100)))
    apply = partial(kit.received, store, number)
    for lease in kit.claim(store, most=100):
        store.intend(lease, kit.everything(lease), now_ms=10)
    with redis.Redis.from_url(address) as client:
        assert apply((5, 6), (True, True)) == 2
        before = calls(client)
        assert apply((17, 999), (True, True)) == 2
        made = made_since(client, before)
        assert (made["hmget"], made["exec"], made.get("hget", 0)) == (2, 1, 0), "two batches, one transaction, no rows"
        before = calls(client)
        one, sms = np.ones(1, np.bool_), kit.SMS
        told = [Receipts(number, 0, sms, np.array([row], np.uint32), one) for row in (20, 21, 20, 30, 5)]
        assert store.apply_receipts(told) == [1, 1, 0, 1, 0]
        made = made_since(client, before)
        assert made["exec"] == 1, "one commit for all that come together"
        assert (made["hmget"], made["watch"], made.get("llen", 0)) == (3, 1, 0), "each batch is read once"
        before, sent = calls(client), client.info("stats")["total_net_output_bytes"]
        counts = store.counts(number)
        made = made_since(client, before)
        assert made["hmget"] == 100
        assert client.info("stats")["total_net_output_bytes"] - sent < 100 * 400, "tallies, and no rows"
    assert sum(one.states[kit.D] for one in counts) == 7
    assert [sum(batch) for batch in zip(*(one.states for one in counts), strict=True)][kit.IN] == 993
    assert kit.states(store, number)[2] == [kit.D, kit.D] + [kit.IN] * 8


def test_a_claim_reads_nothing_of_what_waits_on_other_channels(place: kit.Place, address: str) -> None:
    """Who fell back from a nation's push to a supplier that takes a few calls a second."""
    store = place()
    calls_ = [kit.batch((row,), channel=kit.SMS, seq=9, not_before_ms=5) for row in range(100, 200)]
    kit.opened(store, kit.batch((1,)), *calls_)
    with redis.Redis.from_url(address) as client:
        before = calls(client)
        (lease,) = store.claim("push", channels=(kit.FCM,), lanes=(0,), now_ms=10, lease_ms=100, most=2)
        assert lease.rows.tolist() == [1]
        assert made_since(client, before)["hget"] == 1


def test_a_phase_that_comes_while_another_claims_is_left_alone(
    place: kit.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of an action that a claim has read without it."""
    store, other = place(), place()
    number = kit.opened(store)
    assert store.close(number, state="closing", now_ms=50)
    unfinished = RedisStore._unfinished

    def meanwhile(self: RedisStore, *given: Any) -> list[int]:
        late = kit.phase(1, "result", end_ms=2 * kit.END_MS)
        other.add_phase(number, late, [kit.batch((7,))], state="closed", from_states=("closing",))
        return unfinished(self, *given)

    monkeypatch.setattr(RedisStore, "_unfinished", meanwhile)
    claimed = [lease.rows.tolist() for _ in range(2) for lease in kit.claim(store, now_ms=60)]
    assert claimed == [[7]], "at the next claim, if not at this one"


def test_a_bounce_in_an_action_that_is_being_forgotten_is_not(place: kit.Place) -> None:
    """Its result has gone to everybody; as another channel's claim takes it off the list of actions, one bounces."""
    store: Any = place()
    other = place()
    number = kit.opened(store)
    assert store.close(number, state="closing", now_ms=50)
    assert kit.claim(store, now_ms=51) == []
    last = kit.phase(1, "result")
    store.add_phase(number, last, [kit.batch((7,), channel=kit.SMS)], state="closed", from_states=("closing",))
    (lease,) = kit.claim(store, now_ms=52)
    assert store.intend(lease, kit.everything(lease), now_ms=52)
    kit.report(store, lease, kit.AC)
    change = store._change

    def meanwhile(*given: Any) -> Any:
        store._change = change
        assert bounced(other, number, [7], number=1) == 1
        return change(*given)

    store._change = meanwhile
    assert store.claim("push", channels=(kit.FCM,), lanes=(0,), now_ms=60, lease_ms=100, most=1) == []
    assert [lease.rows.tolist() for lease in kit.claim(store, now_ms=60)] == [[7]]
