"""The way of one batch when something in it goes wrong: it is that batch's, and every row has its state."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NO_CONNECTION, Call, Calls, Column, Message, Outcome
from fanout.dispatch import budget, sender
from fanout.dispatch.routes import Batch, Delivered, Early, MayGo, ignored
from fanout.dispatch.sender import run_sender
from fanout.inbound import receipts
from fanout.store.protocol import Lease, Receipts
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import Event, Reason, State
from fanout.wire import CHANNELS
from tests.dispatch.kit import FCM, SMS, VOICE, WHATSAPP, Registry, clock_ms, reasons, settings_for, start, states
from tests.dispatch.test_sender import sent_all, until

POISON = 13


class Fragile:
    """A route, and its own ways, that stumbles over row `POISON` at `where`, `times` times; else takes everything."""

    def __init__(self, channel: int, where: str = "", *, times: int = 10**9, handful: int = 10**9) -> None:
        self.name, self.number = CHANNELS[channel], channel
        self.where, self.times, self.handful = where, times, handful
        self.sent: list[int] = []
        self.freed = self.reserved = 0
        self.rows = 0
        self.dead = False
        self.pause_s = 0.0
        self.answer: Callable[[NDArray[np.uint32]], Delivered] = _taken

    def stumble(self, where: str, rows: NDArray[np.uint32]) -> None:
        if where == self.where and POISON in rows and self.times:
            self.times -= 1
            raise RecursionError("+31612345678")

    def allows(self, now_s: float) -> int:
        return 1_000

    def given_up(self, now_s: float) -> bool:
        return self.dead

    def paused_s(self, now_s: float) -> float:
        return self.pause_s

    async def reserve(self, lease: Lease, rows: int, may_go: MayGo) -> Any:
        await trio.lowlevel.checkpoint()
        while self.pause_s and may_go():  # noqa: ASYNC110 - stands in line
            await trio.sleep(0.002)
        while self.handful == 1 and self.freed < self.reserved:  # noqa: ASYNC110 - one place
            await trio.sleep(0.002)
        self.stumble("reserve", lease.rows)
        if not may_go() or self.where == "turned away":
            return None
        self.reserved += 1
        way = type(self).__new__(type(self))
        way.__dict__ = self.__dict__ | {"rows": min(rows, self.handful), "route": self}
        return way

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Calls:
        self.route.stumble("render", lease.rows[wanted])
        call = Call(method="POST", url="", headers={}, body=b"", index=np.arange(len(wanted)))
        return Calls(calls=(call,), usable=np.ones(len(wanted), np.bool_))

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo, early: Early = ignored
    ) -> Delivered:
        await trio.sleep(0.01)
        self.route.sent += lease.rows[index].tolist()
        self.route.stumble("deliver", lease.rows[index])
        return self.route.answer(lease.rows[index])

    def free(self) -> None:
        self.route.freed += 1

    async def close(self) -> None:
        assert self.freed == self.reserved, "each way is left"

    route: Fragile


def tried(store: SqliteStore, batch: int) -> int:
    """How often a batch was given back."""
    with store._file.reading() as db:
        found: tuple[int] = db.execute("SELECT attempt FROM batches WHERE id = ?", (batch,)).fetchone()
    return found[0]


def _taken(rows: NDArray[np.uint32]) -> Delivered:
    codes, zeros = np.full(len(rows), 200, np.int16), np.zeros(len(rows), np.uint8)
    return Delivered(codes, Outcome(np.full(len(rows), Event.ACCEPT, np.uint8), zeros), 0.0, 1, 1)


def _refused(rows: NDArray[np.uint32]) -> Delivered:
    event, reason = np.full(len(rows), Event.RETRY, np.uint8), np.full(len(rows), Reason.NETWORK, np.uint8)
    return Delivered(np.full(len(rows), NO_CONNECTION, np.int16), Outcome(event, reason), 0.0, None, None)


def _put_off(rows: NDArray[np.uint32]) -> Delivered:
    event, reason = np.full(len(rows), Event.RETRY, np.uint8), np.full(len(rows), Reason.QUOTA, np.uint8)
    return Delivered(np.full(len(rows), 429, np.int16), Outcome(event, reason), 600.0, None, None)


@asynccontextmanager
async def sending(
    store: SqliteStore, *routes: Fragile, registry: Registry | None = None, **dispatch: object
) -> AsyncIterator[None]:
    settings = settings_for("https://127.0.0.1:9", Path("ca.pem"), **dispatch)
    stop = trio.Event()
    registry = registry or Registry()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await run_sender(
                store, registry, settings, owner="one", clock_ms=clock_ms, stop=stop,
                routes={route.name: route for route in routes},
            )  # fmt: skip

        nursery.start_soon(run)
        yield
        stop.set()


@pytest.mark.parametrize("where", ["reserve", "render", "deliver"])
async def test_a_batch_that_goes_wrong_once_ends_nothing(
    store: SqliteStore, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    push, text = Fragile(FCM, where, times=1), Fragile(SMS, where, times=1)
    action = start(store, {FCM: range(30), SMS: range(30)}, size=10)
    async with sending(store, push, text):
        await sent_all(store, action)
    if where == "deliver":
        assert states(store, action) == {"ACCEPTED": 50, "UNKNOWN": 10}
        assert sorted(push.sent) == sorted([*range(30), *range(10, 20)]), "what may have gone is sent again quietly"
        assert sorted(text.sent) == [*range(30)], "and where it rings not at all"
        found = {row: what for row, what in reasons(store, action).items() if what[0] == State.UNKNOWN}
        assert found == dict.fromkeys(range(10, 20), (State.UNKNOWN, Reason.CRASH))
    else:
        assert states(store, action) == {"ACCEPTED": 60}
        assert sorted(push.sent) == sorted(text.sent) == [*range(30)]
    assert "RecursionError at test_handling.py" in caplog.text
    assert "31612345678" not in caplog.text, "an error's words may quote somebody"


async def test_a_batch_that_always_goes_wrong_has_its_attempts_and_moves(store: SqliteStore) -> None:
    push, voice = Fragile(FCM, "render"), Fragile(VOICE)
    action = start(store, {FCM: range(30)}, size=10)
    async with sending(store, push, voice, attempts_max=3, fall_back=["fcm", "voice"]):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 30, "MOVED": 10}
    assert sorted(voice.sent) == [*range(10, 20)]


async def test_who_is_put_off_beyond_the_end_is_told_by_the_next_channel_in_time(store: SqliteStore) -> None:
    push, voice = Fragile(FCM), Fragile(VOICE)
    push.answer = _put_off
    action = start(store, {FCM: range(30)}, size=10, end_ms=clock_ms() + 300_000)
    async with sending(store, push, voice, attempts_max=50, fall_back=["fcm", "voice"]):
        await sent_all(store, action)
    assert states(store, action) == {"ACCEPTED": 30, "MOVED": 30}
    assert sorted(push.sent) == sorted(voice.sent) == [*range(30)]


async def test_who_stands_in_line_behind_a_pause_until_after_the_end_is_told_by_the_next_channel(
    store: SqliteStore,
) -> None:
    """Nothing of theirs was tried; who has no other channel waits on, and so do all whose action lasts longer."""
    chat, text, registry = Fragile(WHATSAPP), Fragile(SMS), Registry()
    chat.pause_s = 600.0
    registry.only = {row: [WHATSAPP, SMS] for row in range(20)} | {4: [WHATSAPP]}
    short = start(store, {WHATSAPP: range(10)}, size=10, end_ms=clock_ms() + 300_000)
    long = start(store, {WHATSAPP: range(10, 20)}, size=10, reference="long")
    async with sending(store, chat, text, registry=registry, fall_back=["whatsapp", "sms"]):
        await until(lambda: states(store, short) == {"ACCEPTED": 9, "MOVED": 9, "PENDING": 1})
    assert states(store, long) == {"PENDING": 10}
    assert (sorted(text.sent), chat.sent) == ([0, 1, 2, 3, 5, 6, 7, 8, 9], [])


def webhook(*failed: tuple[str, int]) -> Sequence[Receipts]:
    """What Meta says of messages that it had accepted, and of which code each failed."""
    statuses = [
        {"status": "failed", "biz_opaque_callback_data": reference, "errors": [{"code": code}]}
        for reference, code in failed
    ]
    body = msgspec.json.encode({"entry": [{"changes": [{"value": {"statuses": statuses}}]}]})
    return receipts.read("whatsapp", {"x-hub-signature-256": receipts.sign(body, "s")}, body, secret="s").receipts


async def test_who_has_no_whatsapp_after_all_is_told_by_the_next_channel_once(store: SqliteStore) -> None:
    chat, text, registry = Fragile(WHATSAPP), Fragile(SMS), Registry()
    registry.only = {row: [WHATSAPP, SMS] for row in range(10)} | {4: [WHATSAPP]}
    action = start(store, {WHATSAPP: range(10)}, size=10)
    async with sending(store, chat, text, registry=registry, fall_back=["whatsapp", "sms"]):
        await sent_all(store, action)
        assert states(store, action) == {"ACCEPTED": 10}
        told = webhook((f"{action}-0-3", 131026), (f"{action}-0-4", 131026), (f"{action}-0-5", 131000))
        assert store.apply_receipts(told) == [3]
        assert store.apply_receipts(told) == [0]
        await until(lambda: states(store, action) == {"ACCEPTED": 8, "MOVED": 1, "FAILED": 2})
        assert store.apply_receipts(told) == [0]
        assert not store.ready(channels=(WHATSAPP, SMS), lanes=(0, 1, 2), now_ms=clock_ms())
    assert text.sent == [3]
    assert sorted(chat.sent) == [*range(10)]
    assert reasons(store, action)[4] == reasons(store, action)[5] == (State.FAILED, Reason.UNDELIVERED)


@pytest.mark.parametrize("turned_away", [True, False])
async def test_who_has_another_channel_does_not_wait_for_a_provider_that_is_given_up(
    store: SqliteStore, turned_away: bool
) -> None:
    """Probes go one at a time: until a nation had its attempts by them, the child would be grown up."""
    push, voice, registry = Fragile(FCM, "turned away" if turned_away else ""), Fragile(VOICE), Registry()
    push.answer, push.dead = _refused, True
    registry.only = {row: [FCM] for row in range(10)}
    action = start(store, {FCM: range(30)}, size=10)
    quick: dict[str, Any] = {"pause_first_s": 0.01, "pause_most_s": 0.01}
    async with sending(store, push, voice, registry=registry, attempts_max=3, fall_back=["fcm", "voice"], **quick):
        await until(lambda: len(voice.sent) == 20)
        assert sorted(voice.sent) == [*range(10, 30)]
        if turned_away:  # nothing of theirs went, so nothing counts
            batch = next(batch for batch in store.batches(action) if 0 in batch.rows)
            await until(lambda: tried(store, batch.batch) > 3)
            assert states(store, action) == {"PENDING": 10, "MOVED": 20, "ACCEPTED": 20}
            push.where, push.dead, push.answer = "", False, _taken
        await sent_all(store, action)
    last = {"ACCEPTED": 30} if turned_away else {"ACCEPTED": 20, "FAILED": 10}
    assert states(store, action) == {"MOVED": 20} | last


async def test_looks_that_claim_leave_no_more_in_hand_than_there_is_room_for(store: SqliteStore) -> None:
    free, here, most = trio.Event(), 0, 0

    class Held(Fragile):
        async def deliver(self, *args: Any, **more: Any) -> Delivered:
            nonlocal here, most
            here += 1
            most = max(most, here)
            await free.wait()
            here -= 1
            return await super().deliver(*args, **more)

    push = Held(FCM)
    async with sending(store, push, batches_in_hand=1):
        actions = []
        for number in range(6):  # each rings
            actions.append(start(store, {FCM: range(2_048)}, reference=str(number), size=2_048))
            await until(lambda wanted=min(2, number + 1): here == wanted)  # type: ignore[misc]
        free.set()
        for action in actions:
            await sent_all(store, action)
    assert most == 2
    assert len(push.sent) == 6 * 2_048


async def test_the_nearest_wait_for_no_commit_of_others(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    free, group = threading.Event(), store.group

    @contextmanager
    def slow() -> Iterator[None]:
        assert free.wait(60)
        with group():
            yield

    monkeypatch.setattr(store, "group", slow)
    push = Fragile(FCM)
    action = start(store, {FCM: range(20)}, size=10)
    async with sending(store, push):
        try:
            await until(lambda: len(push.sent) == 10)
            assert states(store, action) == {"INTENDED": 10, "PENDING": 10}
        finally:
            free.set()
        await sent_all(store, action)
    assert push.sent == [*range(20)]


async def test_the_nearest_are_off_before_others_are_begun(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "HEAD_START_S", 60.0)
    steps: list[tuple[str, int]] = []

    class Noted(Fragile):
        def render(self, message: Message, addresses: Column, lease: Lease, *args: Any, **more: Any) -> Calls:
            steps.append(("render", lease.seq))
            return super().render(message, addresses, lease, *args, **more)

        async def deliver(self, batch: Batch, lease: Lease, *args: Any, **more: Any) -> Delivered:
            steps.append(("deliver", lease.seq))
            return await super().deliver(batch, lease, *args, **more)

    action = start(store, {FCM: range(30)}, size=10)
    async with sending(store, Noted(FCM)):
        await sent_all(store, action)
    assert steps[:2] == [("render", 0), ("deliver", 0)]
    assert len(steps) == 6


async def test_others_do_not_wait_for_the_nearest_who_cannot_go(store: SqliteStore) -> None:
    class Barred(Fragile):
        async def reserve(self, lease: Lease, rows: int, may_go: MayGo) -> Any:
            if lease.seq == 0:
                await open_now.wait()
            return await super().reserve(lease, rows, may_go)

    open_now, push = trio.Event(), Barred(FCM)
    action = start(store, {FCM: range(30)}, size=10)
    async with sending(store, push):
        await until(lambda: sorted(push.sent) == [*range(10, 30)])
        open_now.set()
        await sent_all(store, action)
    assert sorted(push.sent) == [*range(30)]


async def test_handfuls_of_a_batch_are_each_their_own(store: SqliteStore) -> None:
    for where, expected in (("deliver", {"ACCEPTED": 26, "UNKNOWN": 4}), ("render", {"ACCEPTED": 30})):
        text = Fragile(SMS, where, times=1, handful=4)
        action = start(store, {SMS: range(30)}, size=30, reference=where)
        async with sending(store, text):
            await sent_all(store, action)
        assert states(store, action) == expected
        assert sorted(text.sent) == [*range(30)], "each once"


async def test_who_stays_behind_a_failing_provider_shares_the_attempt(store: SqliteStore) -> None:
    text, voice = Fragile(SMS, handful=1), Fragile(VOICE)
    action = start(store, {SMS: range(30)}, size=30)

    def open_after_one(rows: NDArray[np.uint32]) -> Delivered:
        text.where = "turned away"
        return _refused(rows)

    async def tried_again() -> None:
        while True:
            await trio.sleep(0.1)
            text.where = ""

    text.answer = open_after_one
    async with sending(store, text, voice, attempts_max=3, fall_back=["sms", "voice"]), trio.open_nursery() as nursery:
        nursery.start_soon(tried_again)
        await sent_all(store, action)
        nursery.cancel_scope.cancel()
    assert states(store, action) == {"ACCEPTED": 30, "MOVED": 30}
    assert len(text.sent) < 30, "a probe at a time spoke for all of them"
    assert sorted(voice.sent) == [*range(30)]


async def test_who_is_over_the_budget_waits_longer(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FLOOR_ROWS", 15)
    monkeypatch.setattr(budget, "SHARE", 0.0)
    text = Fragile(SMS)
    text.answer = _refused
    action = start(store, {SMS: range(10)}, size=10)
    async with sending(store, text, pause_first_s=0.01, pause_most_s=30.0, attempts_max=50):
        await until(lambda: len(text.sent) == 20)
        await trio.sleep(0.5)
        assert len(text.sent) == 20, "the third attempt is over the budget"
    assert states(store, action) == {"PENDING": 10}, "and is not given up"
