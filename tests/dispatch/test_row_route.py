"""Push in front of a breaker: open, half open, and a probe that speaks for its batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import trio
from numpy.typing import NDArray

from fanout.channels import catalogue
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT, Message, Requests
from fanout.dispatch.breaker import COOL_S_FIRST, GIVE_UP_S, LEAST, PROBE_ROWS, Breaker, Is
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.credentials import Credential, Fixed
from fanout.dispatch.lanes import Sent
from fanout.dispatch.routes import Delivered
from fanout.dispatch.row_route import RowRoute
from fanout.store.protocol import Lease
from fanout.store.states import Event, Reason
from tests.dispatch.kit import FCM, Registry, settings_for

ROWS = 2_048
FIXED = Fixed("x")


class Wire:
    """A lane that takes a second and answers every row with `code`."""

    def __init__(self, code: int = 200) -> None:
        self.code = code
        self.sent: list[int] = []

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        await trio.sleep(1.0)
        if not may_go():
            return Sent(np.full(len(index), NOT_SENT, np.int16), {}, 0.0, None, None)
        self.sent.append(len(index))
        if self.code == 0:
            raise RuntimeError("the lane is broken")
        return Sent(np.full(len(index), self.code, np.int16), {}, 7.0, 1, 2)

    def close(self) -> None:
        """Nothing is open."""


def route_to(wire: Wire, credential: Credential = FIXED) -> RowRoute:
    settings = settings_for("https://127.0.0.1:9", Path("ca.pem"))
    now_s = trio.current_time()
    return RowRoute(
        catalogue.row_channel("fcm", settings), wire, breaker=Breaker(now_s=now_s),
        bucket=Bucket(rate_per_s=1e6, burst=1e6, reserve=0, now_s=now_s), credential=credential,
    )  # fmt: skip


def lease(number: int, rows: int = ROWS) -> Lease:
    zeros = np.zeros(rows, np.uint8)
    return Lease(
        batch=number, token=1, action=1, phase=0, lane=1, channel=FCM, language="nl", attempt=0, until_ms=0,
        rows=np.arange(rows, dtype=np.uint32), generations=np.zeros(rows, np.uint16), status=zeros, reason=zeros,
    )  # fmt: skip


async def through(route: RowRoute, of: Lease, may_go: Callable[[], bool] = lambda: True) -> Delivered | None:
    message = Message(
        action=1, phase=0, name="start", kind="x", lane=1, language="nl", title="", text="Rode fiets", end_ms=10_000
    )  # fmt: skip
    way = await route.reserve(of, len(of.rows), may_go)
    if way is None:
        return None
    assert way.rows == len(of.rows), "a whole batch"
    try:
        wanted = np.arange(len(of.rows))
        batch = way.render(message, Registry().addresses(FCM, of.rows, of.generations), of, wanted, now_ms=0)
        return await way.deliver(batch, of, wanted, may_go)
    finally:
        way.free()


async def test_open_nothing_goes(autojump_clock: object) -> None:
    wire = Wire()
    route = route_to(wire)
    route.breaker.answered(0, LEAST, 0.0)
    assert await through(route, lease(1)) is None
    assert not wire.sent


async def test_given_up_batches_are_asked_for_and_turned_away(autojump_clock: object) -> None:
    wire = Wire()
    route = route_to(wire)
    route.breaker.answered(0, LEAST, trio.current_time())
    route.breaker._open_until_s += 2 * GIVE_UP_S
    assert not route.allows(trio.current_time())
    await trio.sleep(GIVE_UP_S)
    assert route.given_up(trio.current_time())
    assert route.allows(trio.current_time()) > 1, "to go another way"
    assert await through(route, lease(1)) is None
    assert not wire.sent


async def test_the_credential_hears_what_came_back(autojump_clock: object) -> None:
    """It alone knows whether that was about it, and what to do then."""

    class Doubted(Fixed):
        def answered(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> None:
            heard.extend(codes.tolist())

    heard: list[int] = []
    route = route_to(Wire(403), Doubted("x"))
    await through(route, lease(1, rows=3))
    assert heard == [403, 403, 403]


@pytest.mark.parametrize("code", [200, 503, NO_ANSWER])
async def test_half_open_a_handful_goes_first_and_speaks_for_the_rest(autojump_clock: object, code: int) -> None:
    wire = Wire(code)
    route = route_to(wire)
    route.breaker.answered(0, LEAST, 0.0)
    await trio.sleep(COOL_S_FIRST)
    told = await through(route, lease(1))
    assert told is not None
    if code == 200:
        assert wire.sent == [PROBE_ROWS, ROWS - PROBE_ROWS]
        assert (told.codes == 200).all()
        assert route.breaker.state is Is.CLOSED
    else:
        assert wire.sent == [PROBE_ROWS]
        assert told.codes.tolist() == [code] * PROBE_ROWS + [NO_CONNECTION] * (ROWS - PROBE_ROWS)
        assert (told.outcome.event[PROBE_ROWS:] == Event.RETRY).all()
        assert (told.outcome.reason[PROBE_ROWS:] == Reason.PROVIDER).all()
        assert told.asked_s == 7.0
        assert route.breaker.state is Is.OPEN


async def test_others_wait_for_the_answer_of_a_probe(autojump_clock: object) -> None:
    wire = Wire()
    route = route_to(wire)
    route.breaker.answered(0, LEAST, 0.0)
    await trio.sleep(COOL_S_FIRST)
    async with trio.open_nursery() as nursery:
        for number in range(1, 5):
            nursery.start_soon(through, route, lease(number))
        await trio.sleep(0.5)
        assert not wire.sent
        await trio.sleep(0.7)
        assert wire.sent == [PROBE_ROWS]
    assert sorted(wire.sent) == [PROBE_ROWS, ROWS - PROBE_ROWS, ROWS, ROWS, ROWS]


@pytest.mark.parametrize("why", ["free", "stopped", "broken"])
async def test_a_probe_that_came_to_nothing_frees_the_next(autojump_clock: object, why: str) -> None:
    wire = Wire(0 if why == "broken" else 200)
    route = route_to(wire)
    route.breaker.answered(0, LEAST, 0.0)
    await trio.sleep(COOL_S_FIRST)
    if why == "free":
        way = await route.reserve(lease(1), ROWS, lambda: True)
        assert way is not None
        assert route.allows(trio.current_time()) == 0
        way.free()
    elif why == "stopped":
        asks = iter([True])
        told = await through(route, lease(1), lambda: next(asks, False))
        assert told is not None
        assert (told.codes == NOT_SENT).all()
    else:
        with pytest.raises(RuntimeError):
            await through(route, lease(1))
    assert route.allows(trio.current_time()) == 1


class Slow(Wire):
    """A lane with a quota of 100 rows a second; it remembers who its rows said we are."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        codes = np.full(len(index), NOT_SENT, np.int16)
        for begin in range(0, len(index), 100):
            await trio.sleep(1.0)
            if not may_go():
                break
            for place in range(begin, min(begin + 100, len(index))):
                template = requests.templates[requests.which[index[place]]]
                self.said += [header for header in template.headers if header.startswith("authorization: ")]
                codes[place] = 200
        return Sent(codes, {}, 0.0, 1, 2)


class Brief(Fixed):
    """A token that lives for three seconds."""

    def authorize(self, origin: str) -> str:
        return f"{origin} {trio.current_time() // 3:.0f}"


async def test_rows_that_wait_longer_than_a_token_lives_go_with_the_next(autojump_clock: object) -> None:
    wire = Slow()
    told = await through(route_to(wire, Brief("")), lease(1, 1_000))
    assert told is not None
    assert told.codes.tolist() == [200] * 1_000
    tokens = [said.rpartition(" ")[2] for said in wire.said]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) >= 4
    assert {said.rpartition(" ")[0] for said in wire.said} == {"authorization: https://127.0.0.1:9"}


class Late(Fixed):
    """A token that there is between two moments."""

    def __init__(self, from_s: float, until_s: float = float("inf")) -> None:
        super().__init__("")
        self.from_s, self.until_s = trio.current_time() + from_s, trio.current_time() + until_s

    def authorize(self, origin: str) -> str:
        return "Bearer t1" if self.from_s <= trio.current_time() < self.until_s else ""


async def test_without_a_credential_nothing_goes_and_nobody_has_had_an_attempt(autojump_clock: object) -> None:
    wire = Slow()
    route = route_to(wire, Late(GIVE_UP_S + 30.0))
    begun_s, turned_away = trio.current_time(), 0
    while not wire.said:
        told = await through(route, lease(1, 10))
        if told is None:
            turned_away += 1
        elif not wire.said:
            assert told.codes.tolist() == [NOT_SENT] * 10
            assert route.breaker.state is Is.OPEN, "as a provider that fails"
        waited_s = trio.current_time() - begun_s
        assert route.given_up(trio.current_time()) == (GIVE_UP_S <= waited_s < GIVE_UP_S + 30.0)
        await trio.sleep(COOL_S_FIRST / 2)
    assert turned_away
    assert waited_s <= GIVE_UP_S + 33.0, "they go as soon as there is one"
    assert told is not None
    assert told.codes.tolist() == [200] * 10
    assert set(wire.said) == {"authorization: Bearer t1"}


async def test_rows_on_their_way_stay_behind_when_a_credential_ends(autojump_clock: object) -> None:
    wire = Slow()
    route = route_to(wire, Late(0.0, 2.5))
    told = await through(route, lease(1, 1_000))
    assert told is not None
    assert (told.codes == NOT_SENT).sum() == 800
    assert set(wire.said) == {"authorization: Bearer t1"}


async def test_a_batch_that_is_stopped_stays_so_whatever_the_token(autojump_clock: object) -> None:
    wire = Slow()
    told = await through(route_to(wire, Brief("")), lease(1, 1_000), lambda: trio.current_time() < 2.5)
    assert told is not None
    assert (told.codes == NOT_SENT).sum() == 800
