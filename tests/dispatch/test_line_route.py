"""Single calls: who is called when, what is given back, and that calls made are calls reserved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import trio
import trio.testing

from fanout.channels.mail import Email
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT, Answer, Call, Message, column
from fanout.channels.sms import MESSAGES_PER_CALL_MAX, Sms
from fanout.channels.voice import Voice
from fanout.dispatch.breaker import COOL_S_FIRST, GIVE_UP_S, LEAST, PROBE_ROWS, Breaker, Is
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.line import Gate
from fanout.dispatch.line_route import STAND_S, CallRoute, MailRoute, Supplier
from fanout.dispatch.mailer import Mailer
from fanout.dispatch.routes import ASK_S, Delivered, Route, Way
from fanout.store.protocol import Lease
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

GOOD = Answer(code=200, body=b'{"call-id":"1","success":true}')


class Phone:
    """A supplier that answers each call after `latency_s`, by `answer`; it remembers when it was asked what."""

    def __init__(self, latency_s: float = 0.25, answer: Callable[[Call], Answer] = lambda _: GOOD) -> None:
        self.latency_s, self.answer = latency_s, answer
        self.asked: list[tuple[float, bytes]] = []
        self.open = self.most = 0

    async def call(self, call: Call) -> Answer:
        self.asked.append((trio.current_time(), call.body))
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await trio.sleep(self.latency_s)
        finally:
            self.open -= 1
        return self.answer(call)

    async def aclose(self) -> None:
        """Nothing is open."""

    def first_s(self, action: int) -> float:
        return min(at_s for at_s, body in self.asked if b'"%d-0-' % action in body)


def supplier(
    phone: Phone, *, places: int = 16, rate: float = 30.0, burst: float = 30.0, channel: str = "voice"
) -> Supplier:
    url = "https://127.0.0.1:9"
    gate = Gate(
        breaker=Breaker(now_s=trio.current_time()),
        bucket=Bucket(rate_per_s=rate, burst=burst, reserve=0.125, now_s=trio.current_time()),
        places=places,
        reserve=0.125,
        call_rows=MESSAGES_PER_CALL_MAX if channel == "sms" else 1,
    )
    if channel == "sms":
        return Supplier(Sms(url=url, product_token="t", sender="Alert"), phone, gate)
    return Supplier(Voice(url=url, key="k", caller="+318000011"), phone, gate)


def lease(number: int, rows: int, *, lane: int = 1, action: int = 0, channel: str = "voice") -> Lease:
    zeros = np.zeros(rows, np.uint8)
    return Lease(
        batch=number, token=1, action=action or number, phase=0, lane=lane, channel=CHANNELS.index(channel),
        language="nl", attempt=0, until_ms=0, rows=np.arange(rows, dtype=np.uint32),
        generations=np.zeros(rows, np.uint16), status=zeros, reason=zeros,
    )  # fmt: skip


def message(of: Lease) -> Message:
    return Message(
        action=of.action, phase=0, name="start", kind="missing_child", lane=of.lane, language="nl", title="",
        text="Vermist.", end_ms=10_000,
    )  # fmt: skip


async def through(route: Route, of: Lease, may_go: Callable[[], bool] = lambda: True) -> list[Delivered]:
    """A whole batch, handful by handful, side by side as a sender does; as far as it is let."""
    found: list[Delivered] = []
    at, rows = 0, len(of.rows)

    async def handful(way: Way, wanted: np.ndarray[tuple[int], np.dtype[np.intp]]) -> None:
        try:
            numbers = (
                [b"+316%08d" % row for row in wanted] if of.channel != 5 else [b"a%d@x.nl" % row for row in wanted]
            )
            batch = way.render(message(of), column(numbers), of, wanted, now_ms=0)
            found.append(await way.deliver(batch, of, wanted, may_go))
        finally:
            way.free()

    async with trio.open_nursery() as nursery:
        while at < rows and (way := await route.reserve(of, rows - at, may_go)) is not None:
            nursery.start_soon(handful, way, np.arange(at, at + way.rows))
            await trio.testing.wait_all_tasks_blocked()
            at += way.rows
    return found


async def test_a_second_lane_does_not_wait_for_what_a_third_has_in_hand(autojump_clock: object) -> None:
    for rate in (30.0, 300.0):
        phone = Phone()
        route = CallRoute([supplier(phone, rate=rate, burst=rate, places=100)], clock_ms=lambda: 0)
        async with trio.open_nursery() as nursery:
            for number in range(1, 5):
                nursery.start_soon(through, route, lease(number, int(rate), lane=2, action=1))
            await trio.sleep(1.5)
            began_s = trio.current_time()
            nursery.start_soon(through, route, lease(9, 30, lane=1))
        assert phone.first_s(9) - began_s <= 0.36, "a call and a handful, at most"
        assert len(phone.asked) == 4 * int(rate) + 30


async def test_an_urgent_call_has_places_and_quota_kept_free(autojump_clock: object) -> None:
    phone = Phone(latency_s=60.0)
    route = CallRoute([supplier(phone, places=8, rate=1e3, burst=1e3)], clock_ms=lambda: 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(through, route, lease(1, 100))
        await trio.testing.wait_all_tasks_blocked()
        assert len(phone.asked) == 7
        began_s = trio.current_time()
        nursery.start_soon(through, route, lease(2, 1, lane=0))
        await trio.testing.wait_all_tasks_blocked()
        assert phone.first_s(2) == began_s
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("places", "least", "most"), [(32, 76, 81), (8, 30, 33)])
async def test_the_quota_is_used_where_there_are_places_for_it(
    autojump_clock: object, places: int, least: int, most: int
) -> None:
    phone = Phone(latency_s=0.25)
    route = CallRoute([supplier(phone, places=places, rate=80.0, burst=9.0)], clock_ms=lambda: 0)
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(1, 5):
            nursery.start_soon(through, route, lease(number, 80, lane=0, action=1))
    assert phone.most <= places
    assert least <= len(phone.asked) / (trio.current_time() - began_s) <= most


@pytest.mark.parametrize("why", ["the quota is shut", "the quota is drunk", "no place is free"])
async def test_who_may_not_go_stops_waiting_and_drinks_nothing(autojump_clock: object, why: str) -> None:
    phone = Phone(latency_s=600.0)
    one = supplier(phone, places=2, rate=1e-3, burst=30.0)
    route = CallRoute([one], clock_ms=lambda: 0)
    closed = False
    async with trio.open_nursery() as nursery:
        if why == "the quota is shut":
            one.gate.bucket.shut(600.0)
        elif why == "the quota is drunk":
            one.gate.bucket.take(30)
        else:
            nursery.start_soon(through, route, lease(9, 2, lane=0))
            await trio.testing.wait_all_tasks_blocked()
        before = one.gate.bucket.available(601.0, urgent=True)
        async with trio.open_nursery() as closing:
            began_s = trio.current_time()
            closing.start_soon(through, route, lease(1, 30), lambda: not closed)
            await trio.sleep(4.0)
            closed = True
        assert trio.current_time() - began_s - 4.0 <= 2 * ASK_S
        assert one.gate.bucket.available(601.0, urgent=True) == before
        assert not any(b'"1-0-' in body for _, body in phone.asked)
        nursery.cancel_scope.cancel()


async def test_what_was_reserved_and_not_used_is_given_back(autojump_clock: object) -> None:
    one = supplier(Phone(), places=4, rate=1.0, burst=30.0)
    route = CallRoute([one], clock_ms=lambda: 0)
    way = await route.reserve(lease(1, 30, lane=0), 30, lambda: True)
    assert way is not None
    assert (way.rows, one.gate.used) == (4, 4)
    assert one.gate.bucket.available(0.0, urgent=True) == 26
    way.free()
    way.free()
    assert one.gate.used == 0
    assert one.gate.bucket.available(0.0, urgent=True) == 30


async def test_a_close_between_reservation_and_call_gives_the_quota_back(autojump_clock: object) -> None:
    phone = Phone()
    one = supplier(phone, places=8, rate=1.0, burst=30.0)
    asks = iter([True, True])
    (told,) = await through(CallRoute([one], clock_ms=lambda: 0), lease(1, 8, lane=0), lambda: next(asks, False))
    assert (told.codes == 200).sum() == 1, "of eight one was asked for in time"
    assert (told.codes == NOT_SENT).sum() == 7
    assert one.gate.bucket.available(0.0, urgent=True) == 29
    assert one.gate.used == 0


async def test_a_half_open_supplier_is_probed_with_one_call_while_the_other_has_the_rest(
    autojump_clock: object,
) -> None:
    first, second = Phone(latency_s=5.0), Phone(latency_s=0.1)
    suppliers = [supplier(phone, rate=1e5, burst=1e5, places=64, channel="sms") for phone in (first, second)]
    suppliers[0].gate.breaker.answered(0, LEAST, trio.current_time())
    await trio.sleep(COOL_S_FIRST)
    route = CallRoute(suppliers, clock_ms=lambda: 0)
    with trio.move_on_after(4.0):
        async with trio.open_nursery() as nursery:
            for number in range(1, 41):
                nursery.start_soon(through, route, lease(number, 500, channel="sms"))
    assert len(first.asked) == 1, "before its answer"
    assert first.asked[0][1].count(b"reference") == PROBE_ROWS
    assert sum(body.count(b"reference") for _, body in second.asked) == 40 * 500 - PROBE_ROWS


async def test_a_dead_supplier_turns_a_batch_away_and_a_probe_that_came_to_nothing_frees_the_next(
    autojump_clock: object,
) -> None:
    one = supplier(Phone())
    route = CallRoute([one], clock_ms=lambda: 0)
    one.gate.breaker.answered(0, LEAST, trio.current_time())
    assert await route.reserve(lease(1, 30), 30, lambda: True) is None
    assert route.allows(trio.current_time()) == 0
    assert route.given_up(trio.current_time() + GIVE_UP_S)
    assert route.allows(trio.current_time() + GIVE_UP_S) > 1, "to go another way"
    one.gate.breaker._open_until_s, one.gate.breaker.state = trio.current_time() + COOL_S_FIRST, Is.OPEN
    await trio.sleep(COOL_S_FIRST)
    assert route.allows(trio.current_time()) == 1
    way = await route.reserve(lease(1, 30), 30, lambda: True)
    assert way is not None
    assert way.rows == 1
    assert route.allows(trio.current_time()) == 0
    way.free()
    assert route.allows(trio.current_time()) == 1
    (told, *more) = await through(route, lease(2, 30))
    assert len(told.codes) == 1
    assert sum(len(one.codes) for one in more) == 29, "it works again"


async def test_a_call_that_nobody_foresaw_is_its_own(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    def answer(call: Call) -> Answer:
        if b"0031600000003" in call.body:
            raise RecursionError("of 0031600000003")
        return GOOD

    one = supplier(Phone(answer=answer), places=32)
    (told,) = await through(CallRoute([one], clock_ms=lambda: 0), lease(1, 10))
    assert Counter(told.codes.tolist()) == {200: 9, NO_ANSWER: 1}
    assert (told.outcome.event[3], told.outcome.reason[3]) == (Event.TIME_OUT, Reason.GARBAGE)
    assert one.gate.used == 0
    assert "RecursionError at" in caplog.text
    assert "31600000003" not in caplog.text, "a log line holds nobody's number"


async def test_retry_after_is_obeyed_within_reason(autojump_clock: object) -> None:
    phone = Phone(answer=lambda _: Answer(code=429, headers={"retry-after": "999999999999"}))
    one = supplier(phone, places=4)
    (told,) = await through(CallRoute([one], clock_ms=lambda: 0), lease(1, 4, lane=0))
    assert told.asked_s == 999_999_999_999.0
    assert 0 < one.gate.bucket.shut_s(trio.current_time()) <= 900.0


async def test_refused_mailboxes_are_no_outage(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, state in ((550, Is.CLOSED), (421, Is.OPEN), (NO_CONNECTION, Is.OPEN)):
        monkeypatch.setattr(
            Mailer, "send", lambda _self, mails, _may_go, code=code: np.full(len(mails), code, np.int16)
        )
        gate = Gate(
            breaker=Breaker(now_s=trio.current_time()),
            bucket=Bucket(rate_per_s=50, burst=100, reserve=0, now_s=trio.current_time()),
            places=4, reserve=0.125, call_rows=2_048,
        )  # fmt: skip
        mailer = Mailer(url="smtp://127.0.0.1:9", user="", password="", sender="a@x.nl", ca="", timeout_s=1.0)
        route = MailRoute(Email(sender="a@x.nl"), mailer, gate, clock_ms=lambda: 0)
        (told,) = await through(route, lease(1, LEAST, channel="email"))
        assert (told.codes == code).all()
        assert gate.breaker.state is state, code
        assert gate.used == 0


async def test_who_stands_in_line_is_not_woken_by_each_call_that_ends(autojump_clock: object) -> None:
    phone = Phone(latency_s=0.01)
    route = CallRoute([supplier(phone, places=1, rate=1e3, burst=1e3)], clock_ms=lambda: 0)
    asked, turns = Counter[int](), list[int]()

    def may_go(number: int) -> Callable[[], bool]:
        def go() -> bool:
            asked[number] += 1
            return not over

        return go

    async def stand(number: int) -> None:
        way = await route.reserve(lease(number, 1, lane=1, action=1), 1, may_go(number))
        if way is not None:
            turns.append(number)
            way.free()

    over = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(through, route, lease(1, 200, action=1))
        for number in range(2, 12):
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stand, number)
        await trio.sleep(1.0)
        assert 50 <= len(phone.asked) < 200
        assert not turns
        last = [asked[number] for number in range(3, 12)]
        assert max(last) <= 1.0 / STAND_S + 2, "one call after the other has ended beside them"
    assert turns == list(range(2, 12)), "the nearest first, and all of them without a wait"
    assert trio.current_time() < 200 * 0.01 + 1.0


class Turns(trio.abc.Instrument):
    """Counts the turns that tasks take."""

    count = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@pytest.mark.parametrize("end", ["closed", "dead"])
async def test_one_looks_after_the_time_for_all_who_stand_in_line(autojump_clock: object, end: str) -> None:
    one = supplier(Phone(), rate=1e-3, burst=8.0)
    one.gate.bucket.take(8)
    route = CallRoute([one], clock_ms=lambda: 0)
    closed: set[int] = set()
    gone: dict[int, float] = {}

    async def stand(number: int) -> None:
        assert await route.reserve(lease(number, 8), 8, lambda: number not in closed) is None
        gone[number] = trio.current_time()

    async with trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(stand, number)
        await trio.testing.wait_all_tasks_blocked()
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(10.0)
        trio.lowlevel.remove_instrument(turns)
        assert turns.count <= 2 * 10.0 / ASK_S, "sixty-four of them, and no more turns than of one"
        closed |= {0, 40}  # the first, who looks after the time, and one of the others
        await trio.sleep(STAND_S + 2 * ASK_S)
        assert set(gone) == closed
        began_s = trio.current_time()
        if end == "dead":
            one.gate.breaker.answered(0, LEAST, began_s)
        else:
            closed |= set(range(64))
    assert max(gone.values()) - began_s <= STAND_S + 2 * ASK_S
