"""A ledger in Redis that an earlier version wrote goes on; one of a later version is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fanout.errors import Refused
from fanout.store.redis_format import FORMAT
from fanout.store.redis_store import RedisStore
from fanout.store.states import Reason
from tests.store import kit
from tests.store.test_redis_store import pytestmark as needs_redis
from tests.store.test_redis_store import server

pytestmark = needs_redis


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        yield url


def made_old(client: redis.Redis, *, keep: int = 0) -> None:
    """What a database of the first form lacks; `keep`: so many batches were settled by a later version since."""
    client.delete(FORMAT, *client.keys("fanout:{a*}:of*"))
    for number, name in enumerate(sorted(client.keys("fanout:{a*}:b[0-9]*"))):
        if number >= keep:
            client.hdel(name, "tally")


@pytest.mark.parametrize("keep", [0, 1])
def test_a_ledger_without_tallies_counts_and_takes_receipts_after_an_upgrade(address: str, keep: int) -> None:
    store = RedisStore.open(address)
    number = kit.opened(store, kit.batch(range(100)), kit.batch(range(100, 150), seq=1))
    counted = store.counts(number)
    with redis.Redis.from_url(address) as client:
        made_old(client, keep=keep)
        store.close_store()
        store = RedisStore.open(address)
        assert store.counts(number) == counted
        channel = counted[0].channel
        assert [len(found) for found in (client.lrange(f"fanout:{{a{number}}}:of0:{channel}", 0, -1),)] == [2]
        assert client.get(FORMAT) == b"4"
    for lease in kit.claim(store, most=2):
        store.intend(lease, kit.everything(lease), now_ms=11)
    assert kit.received(store, number, (3, 120), (True, True), channel=channel) == 2
    store.close_store()


def test_tallies_of_the_second_form_have_a_state_less(address: str) -> None:
    store = RedisStore.open(address)
    number = kit.opened(store, kit.batch(range(100)))
    (lease,) = kit.claim(store)
    kit.report(store, lease, *[kit.F] * 100, reason=Reason.QUOTA)
    counted = store.counts(number)
    store.close_store()
    with redis.Redis.from_url(address) as client:
        (name,) = client.keys("fanout:{a*}:b[0-9]*")
        tally = client.hget(name, "tally")
        assert tally is not None
        client.hset(name, "tally", tally[:40] + tally[44:])
        client.set(FORMAT, "2")
    store = RedisStore.open(address)
    assert store.counts(number) == counted
    store.close_store()


def test_batches_of_the_third_form_wait_in_one_place(address: str) -> None:
    store = RedisStore.open(address)
    late = [
        kit.batch((row,), channel=channel, seq=row, not_before_ms=40 + row) for row, channel in enumerate((0, 3, 0))
    ]
    number = kit.opened(store, *late)
    store.close_store()
    with redis.Redis.from_url(address) as client:
        later = f"fanout:{{a{number}}}:later"
        for name in (f"{later}0", f"{later}3"):
            client.zunionstore(later, [later, name])
            client.delete(name)
        client.set(FORMAT, "3")
        store = RedisStore.open(address)
        assert not client.exists(later)
    assert [lease.rows.tolist() for lease in kit.claim(store, now_ms=41, most=3)] == [[0], [1]]
    assert [lease.rows.tolist() for lease in kit.claim(store, now_ms=42, most=3)] == [[2]]
    store.close_store()


def test_a_ledger_of_a_later_version_is_refused_by_name(address: str) -> None:
    RedisStore.open(address).close_store()
    with redis.Redis.from_url(address) as client:
        client.set(FORMAT, "9")
    with pytest.raises(Refused, match="has format version 9; this program reads 4") as caught:
        RedisStore.open(address)
    assert caught.value.code == "file_version"
