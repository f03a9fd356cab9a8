"""Single calls in lanes: a national action's calls never have all places, so an urgent call goes at once."""

from __future__ import annotations

import numpy as np
import trio
import trio.testing

from fanout.channels.protocol import Answer, Call, Message, column
from fanout.channels.voice import Voice
from fanout.dispatch.breaker import Breaker
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.routes import CALLS_AT_ONCE, CALLS_COMMON, CallRoute, Supplier
from fanout.store.protocol import Lease

PEOPLE = 3 * CALLS_AT_ONCE


class Silent:
    """A supplier that takes calls and answers when it is let."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.answers = trio.Event()

    async def call(self, call: Call) -> Answer:
        self.taken.append(call.body)
        await self.answers.wait()
        return Answer(code=200, body=b'{"call-id":"1","success":true}')

    async def aclose(self) -> None:
        """Nothing is open."""


def lease(number: int, lane: int) -> Lease:
    rows = np.arange(PEOPLE, dtype=np.uint32)
    return Lease(
        batch=number, token=1, action=number, phase=0, lane=lane, channel=4, language="nl", attempt=0, until_ms=0,
        rows=rows, generations=np.zeros(PEOPLE, np.uint16), status=np.zeros(PEOPLE, np.uint8),
        reason=np.zeros(PEOPLE, np.uint8),
    )  # fmt: skip


async def deliver(route: CallRoute, batch: Lease) -> None:
    message = Message(
        action=batch.action, phase=0, name="start", kind="missing_child", lane=batch.lane, language="nl", title="",
        text="Vermist.", end_ms=10_000,
    )  # fmt: skip
    addresses = column([b"+316%08d" % row for row in range(PEOPLE)])
    wanted = np.arange(PEOPLE)
    calls = route.render(message, addresses, batch, wanted, now_ms=0)
    delivered = await route.deliver(calls, batch, wanted, lambda: True)
    assert (delivered.codes == 200).all()


async def test_an_urgent_call_does_not_wait_for_a_national_action(autojump_clock: object) -> None:
    silent = Silent()
    supplier = Supplier(
        channel=Voice(url="https://127.0.0.1:9", key="k", caller="+318000011"),
        caller=silent,
        breaker=Breaker(now_s=0.0),
        bucket=Bucket(rate_per_s=1e6, burst=1e6, reserve=0.1, now_s=0.0),
    )
    route = CallRoute([supplier], clock_ms=lambda: 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver, route, lease(1, lane=1))
        await trio.testing.wait_all_tasks_blocked()
        assert len(silent.taken) == CALLS_COMMON
        nursery.start_soon(deliver, route, lease(2, lane=0))
        await trio.testing.wait_all_tasks_blocked()
        assert len(silent.taken) == CALLS_AT_ONCE
        assert all(b'"2-0-' in body for body in silent.taken[CALLS_COMMON:])
        silent.answers.set()
    assert len(silent.taken) == len(set(silent.taken)) == 2 * PEOPLE
