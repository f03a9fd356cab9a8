"""Push services are bulkheads of one channel: who hangs or asks for patience keeps the rows of its own part only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import trio
from numpy.typing import NDArray

from fanout.channels import catalogue
from fanout.channels.protocol import NO_CONNECTION, NOT_SENT, Message, Requests
from fanout.dispatch.breaker import COOL_S_FIRST, GIVE_UP_S, LEAST, PROBE_ROWS, Breaker, Is
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.credentials import Fixed
from fanout.dispatch.lanes import Sent
from fanout.dispatch.routes import Delivered
from fanout.dispatch.row_route import Way
from fanout.dispatch.service_route import PUSH_SERVICES_MAX, ServiceRoute, service_of
from fanout.simulators.faults import FaultyServer
from fanout.store.protocol import Lease
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import Event, Reason
from tests.dispatch.kit import WEBPUSH, Registry, settings_for, start, states
from tests.dispatch.test_sender import sending, until
from tests.simulators.kit import Providers

HOSTS = ("127.0.0.1", "localhost")
ROWS = 200


class Two(Registry):
    """Even rows subscribe at 127.0.0.1, odd ones at localhost."""

    def __init__(self, even: str, odd: str) -> None:
        super().__init__()
        self.urls = even, odd

    def address(self, channel: int, row: int) -> bytes:
        self.push = self.urls[row % 2]
        return super().address(channel, row)


class Wire:
    """A lane that answers with `code` after `latency_s`, and asks for patience for `asked_s`."""

    def __init__(self, code: int = 201, latency_s: float = 0.1, asked_s: float = 0.0) -> None:
        self.code, self.latency_s, self.asked_s = code, latency_s, asked_s
        self.sent = 0

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        end_s = trio.current_time() + self.latency_s
        while trio.current_time() < end_s:
            await trio.sleep(0.1)
            if not may_go():
                return Sent(np.full(len(index), NOT_SENT, np.int16), {}, 0.0, None, None)
        self.sent += len(index)
        return Sent(np.full(len(index), self.code, np.int16), {}, self.asked_s, 1, 2)

    def close(self) -> None:
        """Nothing is open."""


def route_to(*wires: Wire) -> tuple[ServiceRoute, list[Way]]:
    settings = settings_for("https://127.0.0.1:9", Path("ca.pem"))
    channel, now_s = catalogue.row_channel("webpush", settings), trio.current_time()
    ways = [
        Way(
            channel, wire, breaker=Breaker(now_s=now_s), credential=Fixed("x"),
            bucket=Bucket(rate_per_s=1e6, burst=1e6, reserve=0, now_s=now_s),
        )
        for wire in wires
    ]  # fmt: skip
    return ServiceRoute(channel, HOSTS, ways, credential=Fixed("x")), ways


async def through(route: ServiceRoute) -> Delivered | None:
    zeros, wanted = np.zeros(ROWS, np.uint8), np.arange(ROWS)
    lease = Lease(
        batch=1, token=1, action=1, phase=0, lane=1, channel=WEBPUSH, language="nl", attempt=0, until_ms=0,
        rows=np.arange(ROWS, dtype=np.uint32), generations=np.zeros(ROWS, np.uint16), status=zeros, reason=zeros,
    )  # fmt: skip
    message = Message(
        action=1, phase=0, name="start", kind="x", lane=1, language="nl", title="", text="Rode fiets", end_ms=10_000
    )  # fmt: skip
    way = await route.reserve(lease, ROWS, lambda: True)
    if way is None:
        return None
    addresses = Two("https://127.0.0.1", "https://localhost").addresses(WEBPUSH, lease.rows, lease.generations)
    return await way.deliver(way.render(message, addresses, lease, wanted, now_ms=0), lease, wanted, lambda: True)


def test_a_service_is_what_the_settings_name() -> None:
    hosts = ["fcm.googleapis.com", "updates.push.services.mozilla.com", "*.notify.windows.com"]
    assert service_of(hosts, "https://updates.push.services.mozilla.com/wpush/v2/x") == 1
    assert service_of(hosts, "https://ams02p.notify.windows.com/w/?token=x") == 2
    assert service_of(hosts, "https://db5.notify.windows.com:443/w/") == 2
    assert service_of(hosts, "https://elsewhere.example/") == 2
    many = [f"push{number}.example" for number in range(100)]
    assert service_of(many, "https://push99.example/x") == PUSH_SERVICES_MAX - 1


async def test_each_row_goes_to_its_own_service(autojump_clock: object) -> None:
    even, odd = Wire(201), Wire(410)
    route, _ = route_to(even, odd)
    told = await through(route)
    assert told is not None
    assert told.codes.tolist() == [201, 410] * (ROWS // 2)
    assert (even.sent, odd.sent) == (ROWS // 2, ROWS // 2)


async def test_a_dead_service_has_its_own_breaker_and_its_rows_an_attempt(autojump_clock: object) -> None:
    even, odd = Wire(201), Wire(503, latency_s=10.0)
    route, ways = route_to(even, odd)
    await through(route)
    assert [way.breaker.state for way in ways] == [Is.CLOSED, Is.OPEN]
    began_s = trio.current_time()
    told = await through(route)
    assert told is not None
    assert trio.current_time() - began_s < 0.3, "nobody waits for it"
    assert told.codes.tolist() == [201, NO_CONNECTION] * (ROWS // 2)
    assert (told.outcome.event[1], told.outcome.reason[1]) == (Event.RETRY, Reason.PROVIDER)
    await trio.sleep(COOL_S_FIRST)
    await through(route)
    assert odd.sent == ROWS // 2 + PROBE_ROWS
    assert even.sent == 3 * (ROWS // 2)


async def test_all_dead_turn_a_batch_away(autojump_clock: object) -> None:
    route, ways = route_to(Wire(), Wire())
    for way in ways:
        way.breaker.answered(0, LEAST, trio.current_time())
    assert route.allows(trio.current_time()) == 0
    assert await through(route) is None
    for way in ways:
        way.breaker._open_until_s += 2 * GIVE_UP_S
    await trio.sleep(GIVE_UP_S)
    assert route.given_up(trio.current_time())
    assert route.allows(trio.current_time()) > 1, "to go another way"
    assert await through(route) is None
    ways[0].breaker._open_until_s = trio.current_time()
    assert ways[0].breaker.allows(trio.current_time()) == 1
    ways[0].breaker.answered(1, 0, trio.current_time())
    assert not route.given_up(trio.current_time()), "one service works"


@pytest.mark.parametrize("when", ["before", "while they wait"])
async def test_a_service_that_asks_for_patience_holds_no_batch(autojump_clock: object, when: str) -> None:
    even, odd = Wire(201), Wire(429, latency_s=30.0)
    route, ways = route_to(even, odd)
    if when == "before":
        ways[1].bucket.shut(trio.current_time() + 600)
    async with trio.open_nursery() as nursery:
        found: list[Delivered | None] = []

        async def run() -> None:
            found.append(await through(route))

        nursery.start_soon(run)
        await trio.sleep(0.5)
        ways[1].bucket.shut(trio.current_time() + 600)
    assert trio.current_time() < 2.0
    (told,) = found
    assert told is not None
    assert told.codes.tolist() == [201, NO_CONNECTION] * (ROWS // 2)
    assert (told.outcome.event[1], told.outcome.reason[1]) == (Event.RETRY, Reason.QUOTA)
    assert 590 < told.asked_s <= 600
    assert told.since_ms == MappingProxyType({})


async def test_a_service_that_hangs_holds_no_other(store: SqliteStore, providers: Providers) -> None:
    folder = providers.ca.parent
    server = FaultyServer("hang", cert=folder / "cert.pem", key=folder / "key.pem")
    rows = 1_280
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        registry = Two(providers.url, f"https://localhost:{port}")
        action = start(store, {WEBPUSH: range(rows)})
        settings = settings_for(providers.url, providers.ca, request_timeout_s=2.0, attempts_max=1)
        async with sending(store, settings, registry):
            await until(lambda: providers.seen(action)["total"] == rows // 2)
            tried = server.arrived.total()
        nursery.cancel_scope.cancel()
    assert tried <= rows // 4, (
        "had they waited for the time-outs of those that hang, all of these would have had theirs"
    )


async def test_a_service_that_hangs_holds_back_no_result_of_another(store: SqliteStore, providers: Providers) -> None:
    folder = providers.ca.parent
    server = FaultyServer("hang", cert=folder / "cert.pem", key=folder / "key.pem")
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        registry = Two(providers.url, f"https://localhost:{port}")
        action = start(store, {WEBPUSH: range(40)})
        settings = settings_for(providers.url, providers.ca, request_timeout_s=60.0, attempts_max=1)
        async with sending(store, settings, registry):
            await until(lambda: states(store, action).get("ACCEPTED", 0) == 20)
            assert states(store, action) == {"ACCEPTED": 20, "INTENDED": 20}, "long before the time-out"
            nursery.cancel_scope.cancel()
    assert states(store, action) == {"ACCEPTED": 20, "UNKNOWN": 20}
