"""The world around a simulated engine: phones, providers with bad days, and processes that can be killed.

Rules:

1. Everything random comes from one seeded source, time is trio's virtual clock, and blocking calls are made where they
   are asked for instead of in threads. So a run is a function of its seed.
2. A process is a task and all its children, known by a context variable. Before and after every blocking call it may
   be its time to die: then nothing of it runs on, no `finally` reaches the ledger, and what it had on the wire arrives
   or not, as the wire pleases.
3. Phones keep what arrived, whatever anybody answered about it: they are the truth the ledger is compared with.
"""

from __future__ import annotations

import contextvars
import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT, Answer, Call, Requests
from fanout.dispatch.lanes import Sent

START_MS = 1_790_000_000_000
TIMEOUT_S = 1.0


def clock_ms() -> int:
    """The virtual time of day."""
    return START_MS + int(trio.current_time() * 1000)


# --- processes ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """This process is no more. Nothing catches it but who started the process."""


class Process:
    """A process that may be killed from outside, or dies at a step of its own choosing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.steps_left: int | None = None
        self.scope = trio.CancelScope()

    def step(self) -> None:
        """Between two statements."""
        if self.steps_left is not None and not self.dead:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.kill()
        if self.dead:
            raise Killed(self.name)

    def kill(self) -> None:
        self.dead = True
        self.scope.cancel()


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("PROCESS", default=None)


async def run_here(call: Callable[..., Any], *args: Any, **_options: Any) -> Any:
    """In the place of `trio.to_thread.run_sync`: now, here, and with a chance to die before and after."""
    process = PROCESS.get()
    await trio.lowlevel.checkpoint()
    if process is not None:
        process.step()
    if getattr(getattr(call, "func", call), "__name__", "") == "wait":
        result = await _wait(call, *args)
    else:
        result = call(*args)
    if process is not None:
        process.step()
    return result


async def _wait(call: Any, *args: float) -> bool:
    """`Store.wait`, in virtual time."""
    (timeout_s,) = args or call.args
    look = partial(getattr(call, "func", call), 0.0)
    end_s = trio.current_time() + timeout_s
    while not look():
        if trio.current_time() >= end_s:
            return False
        await trio.sleep(0.02)
        if (process := PROCESS.get()) is not None:
            process.step()
    return True


# --- phones ---------------------------------------------------------------------------------------------------------


class Arrival(NamedTuple):
    """One message on one phone. `sent_ms`: when it went on the wire; `quiet`: without a sound."""

    at_ms: int
    sent_ms: int
    quiet: bool


class Phones:
    """Everything that ever arrived, by (action, phase, channel, address)."""

    def __init__(self) -> None:
        self.got: defaultdict[tuple[int, int, str, str], list[Arrival]] = defaultdict(list)

    def take(self, key: tuple[int, int, str, str], sent_ms: int, quiet: bool) -> None:
        self.got[key].append(Arrival(clock_ms(), sent_ms, quiet))

    def who(self, action: int, phase: int) -> set[tuple[str, str]]:
        """(channel, address) of all that got a phase of an action."""
        return {(channel, address) for of, number, channel, address in self.got if (of, number) == (action, phase)}


# --- providers ------------------------------------------------------------------------------------------------------


class Weather:
    """How providers behave today, drawn once a run: shares of requests that meet each fate."""

    FATES = ("lost", "deaf", "unreachable", "busy", "broken", "slow")

    def __init__(self, source: random.Random) -> None:
        self._source = source
        worst = source.choice((0.0, 0.02, 0.1, 0.3))
        self.shares = {fate: source.random() * worst for fate in self.FATES}
        self.dead_share = source.random() * worst
        self.calm = False

    def is_dead(self, token: bytes) -> bool:
        """Whether the device is gone: it is so all night, or a row could fail that was reached before."""
        return zlib.crc32(token) / 2**32 < self.dead_share

    def fate(self) -> str:
        """`fine`, or what goes wrong with this request."""
        if self.calm:
            return "fine"
        spot = self._source.random()
        for fate, share in self.shares.items():
            if spot < share:
                return fate
            spot -= share
        return "fine"

    def latency_s(self) -> float:
        return self._source.uniform(0.005, 0.05)


_ACTION_PHASE = re.compile(rb'"action":"(\d+)","phase":"(\d+)"')
_QUIET = re.compile(rb'"quiet":"1"|"passive"')
_TOKEN = re.compile(rb"[0-9a-f]{64}")


class PushLane:
    """The wire to a push service: one request a row."""

    def __init__(self, name: str, phones: Phones, weather: Weather) -> None:
        self._name, self._phones, self._weather = name, phones, weather

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        columns = [column.rows() for column in requests.columns]
        codes = np.full(len(index), NOT_SENT, np.int16)
        bodies: dict[int, bytes] = {}
        times: list[int] = []

        async def one(place: int, row: int) -> None:
            template = requests.templates[requests.which[row]]
            url, body = (
                b"".join(piece if isinstance(piece, bytes) else columns[piece][row] for piece in pieces)
                for pieces in (template.url, template.body)
            )
            codes[place], bodies[place] = await self._request(url, body)
            if codes[place] == 200:
                times.append(clock_ms())

        async with trio.open_nursery() as nursery:
            for place, row in enumerate(index.tolist()):
                if not may_go():
                    break
                nursery.start_soon(one, place, row)
                await trio.sleep(0.002)
        said = {place: body for place, body in bodies.items() if body}
        return Sent(codes, said, 0.0, min(times, default=None), max(times, default=None))

    async def _request(self, url: bytes, body: bytes) -> tuple[int, bytes]:
        process = PROCESS.get()
        if process is not None:
            process.step()
        sent_ms, fate = clock_ms(), self._weather.fate()
        if fate == "unreachable":
            return NO_CONNECTION, b""
        await trio.sleep(self._weather.latency_s())
        found = _ACTION_PHASE.search(body)
        token = _TOKEN.search(url + body)
        assert found is not None
        assert token is not None
        if fate == "busy":
            return 503, b"{}"
        if self._name == "apns" and self._weather.is_dead(token[0]):
            return 410, b'{"reason":"Unregistered","timestamp":0}'
        if fate not in ("lost", "broken"):  # 500 of a push service means that it did nothing, says its channel
            key = (int(found[1]), int(found[2]), self._name, token[0].decode())
            self._phones.take(key, sent_ms, _QUIET.search(body) is not None)
        if fate in ("lost", "deaf"):
            await trio.sleep(TIMEOUT_S)
            return NO_ANSWER, b""
        if fate == "slow":
            await trio.sleep(TIMEOUT_S / 2)
        return (500 if fate == "broken" else 200), b""

    def close(self) -> None:
        """Nothing is open."""


class SmsCaller:
    """The wire to an SMS supplier: one request for many numbers, answered by a status each."""

    def __init__(self, phones: Phones, weather: Weather) -> None:
        self._phones, self._weather = phones, weather

    async def call(self, call: Call) -> Answer:
        process = PROCESS.get()
        if process is not None:
            process.step()
        sent_ms, fate = clock_ms(), self._weather.fate()
        if fate == "unreachable":
            return Answer(code=NO_CONNECTION)
        await trio.sleep(self._weather.latency_s())
        if fate == "busy":
            return Answer(code=503)
        if fate == "lost":
            await trio.sleep(TIMEOUT_S)
            return Answer(code=NO_ANSWER)
        statuses = []
        for message in json.loads(call.body)["messages"]["msg"]:
            action, phase, _ = message["reference"].split("-", 2)
            for to in message["to"]:
                self._phones.take((int(action), int(phase), "sms", to["number"][-9:]), sent_ms, False)
                statuses.append(_cm_status(to["number"], message["reference"]))
        if fate == "deaf":
            await trio.sleep(TIMEOUT_S)
            return Answer(code=NO_ANSWER)
        if fate == "broken":
            return Answer(code=500)
        if fate == "slow":
            await trio.sleep(TIMEOUT_S / 2)
        whole = {"details": "Created", "errorCode": 0, "messages": statuses}
        return Answer(code=200, body=json.dumps(whole).encode())

    async def aclose(self) -> None:
        """Nothing is open."""


def _cm_status(number: str, reference: str) -> Mapping[str, object]:
    return {
        "to": number, "status": "Accepted", "reference": reference, "parts": 1, "messageDetails": None,
        "messageErrorCode": 0,
    }  # fmt: skip
