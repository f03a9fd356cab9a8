"""Providers of a simulated night: what each does with a request, in its own weather, and the receipts it sends later.

A request meets a *fate*: whether it is taken, and what is answered, are two things, and every pair of them occurs.
Fates come three ways: a share of all requests (drizzle), a spell in which every request meets the same one (a storm,
an outage), and what the provider is like all night (a quota, one stream at a time, GOAWAY after some requests).
Whether a device is dead, or a number refused, is a property of the device: it is so all night.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, NOT_SENT, Answer, Call, Requests
from fanout.dispatch.lanes import Sent
from fanout.inbound.receipts import SIGNATURE, SIGNATURES, sign
from tests.simulation.world import PROCESS, TIMEOUT_S, Phones, clock_ms

SECRET: Final = "shared with the supplier"
RETRY_AFTER_S: Final = 1.0

TAKEN: Final = {"fine", "deaf", "slow", "garbage", "half", "mute"}
PERHAPS: Final = {"reset", "broken"}  # the connection broke after the request was read; 500: as chance has it
ROW_FATES: Final = (
    "lost", "deaf", "slow", "unreachable", "busy", "broken", "refused", "redirect", "stranger", "garbage", "reset",
)  # fmt: skip
CALL_FATES: Final = (*ROW_FATES, "half", "mute")
STATUS: Final = {"fine": 200, "slow": 200, "busy": 503, "broken": 500, "redirect": 302, "stranger": 401}
NO_STATUS: Final = {
    "lost": NO_ANSWER, "deaf": NO_ANSWER, "reset": NO_ANSWER, "garbage": GARBAGE,
    "unreachable": NO_CONNECTION, "refused": NO_CONNECTION,
}  # fmt: skip


class Weather:
    """One provider during one night."""

    def __init__(self, source: random.Random, fates: tuple[str, ...], *, calm: Callable[[], bool]) -> None:
        self._source, self._calm = source, calm
        worst = source.choice((0.0, 0.02, 0.1, 0.3))
        self._shares = {fate: source.random() * worst / 2 for fate in fates}
        begin_s = source.uniform(0, 15)
        spells = source.choice((0, 0, 1, 2))
        self._spells = [
            (start_s := begin_s + source.uniform(0, 8), start_s + source.uniform(0.5, 6), source.choice(fates))
            for _ in range(spells)
        ]
        self._dead_share = source.random() * worst
        self._quota_per_s = source.choice((0, 0, 0, 20, 100))
        self._second, self._used = 0, 0
        self.one_stream = source.random() < 0.1
        self.goaway_after = source.choice((0, 0, 0, 7, 30))

    def __repr__(self) -> str:
        spells = ", ".join(f"{fate} {begin:.1f}-{end:.1f} s" for begin, end, fate in self._spells)
        return (
            f"drizzle {sum(self._shares.values()):.2f}, dead {self._dead_share:.2f}, quota {self._quota_per_s}, "
            f"one stream {self.one_stream}, goaway {self.goaway_after}, spells [{spells}]"
        )

    def is_dead(self, person: int) -> bool:
        """Whether the device is gone: it is so all night, or a row could fail that was reached before."""
        return zlib.crc32(b"%d" % person) / 2**32 < self._dead_share

    def over_quota(self, rows: int) -> bool:
        if not self._quota_per_s or self._calm():
            return False
        if (second := int(trio.current_time())) != self._second:
            self._second, self._used = second, 0
        self._used += rows
        return self._used > max(rows, self._quota_per_s)

    def fate(self) -> str:
        """`fine`, or what goes wrong with this request."""
        if self._calm():
            return "fine"
        now_s = trio.current_time()
        for begin_s, end_s, fate in self._spells:
            if begin_s <= now_s < end_s:
                return fate
        spot = self._source.random()
        for fate, share in self._shares.items():
            if spot < share:
                return fate
            spot -= share
        return "fine"

    def takes(self, fate: str) -> bool:
        """Whether a request of this fate does its work."""
        if fate in PERHAPS:
            return self._source.random() < 0.5
        return fate in TAKEN

    def share(self, most: float) -> bool:
        """A coin for each recipient, where some fare otherwise than others."""
        return not self._calm() and self._source.random() < most * (self._dead_share + sum(self._shares.values()))

    def latency_s(self) -> float:
        return self._source.uniform(0.005, 0.05)


# --- push -----------------------------------------------------------------------------------------------------------

_ACTION_PHASE: Final = re.compile(rb'"action":"(\d+)","phase":"(\d+)"')
_TOPIC: Final = re.compile(r"topic: a(\d+)p(\d+)")
_QUIET: Final = re.compile(rb'"quiet":"1"|"passive"')
_TOKEN: Final = re.compile(rb"[0-9a-f]{64}")
_DEAD: Final = {
    "fcm": (404, b'{"error":{"status":"NOT_FOUND","details":[{"errorCode":"UNREGISTERED"}]}}'),
    "apns": (410, b'{"reason":"Unregistered","timestamp":0}'),
    "webpush": (410, b""),
}


class PushLane:
    """The wire to a push service: one request a row."""

    def __init__(self, name: str, phones: Phones, weather: Weather) -> None:
        self._name, self._phones, self._weather = name, phones, weather
        self._asked_s = 0.0

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        columns = [column.rows() for column in requests.columns]
        codes = np.full(len(index), NOT_SENT, np.int16)
        bodies: dict[int, bytes] = {}
        times: list[int] = []
        gone = self._weather.goaway_after
        self._asked_s = 0.0

        async def one(place: int, row: int) -> None:
            template = requests.templates[requests.which[row]]
            url, body = (
                b"".join(piece if isinstance(piece, bytes) else columns[piece][row] for piece in pieces)
                for pieces in (template.url, template.body)
            )
            if gone and place >= gone:
                codes[place] = NO_CONNECTION
                return
            codes[place], bodies[place] = await self._request(url, body, " ".join(template.headers))
            if 200 <= codes[place] < 300:
                times.append(clock_ms())

        async with trio.open_nursery() as nursery:
            for place, row in enumerate(index.tolist()):
                if not may_go():
                    break
                if self._weather.one_stream:
                    await one(place, row)
                else:
                    nursery.start_soon(one, place, row)
                    await trio.sleep(0.002)
        said = {place: body for place, body in bodies.items() if body}
        return Sent(codes, said, self._asked_s, min(times, default=None), max(times, default=None))

    async def _request(self, url: bytes, body: bytes, headers: str) -> tuple[int, bytes]:
        if (process := PROCESS.get()) is not None:
            process.step()
        weather, sent_ms = self._weather, clock_ms()
        fate = weather.fate()
        if fate in ("unreachable", "refused"):
            return NO_CONNECTION, b""
        await trio.sleep(weather.latency_s())
        key, quiet = self._read(url, body, headers)
        if weather.over_quota(1):
            self._asked_s = RETRY_AFTER_S
            return 429, b"{}"
        if fate in ("fine", "slow", "broken") and weather.is_dead(key[3]):
            return _DEAD[self._name]
        if weather.takes(fate) and not weather.is_dead(key[3]):
            self._phones.take(key, sent_ms, quiet=quiet)
        if fate in ("lost", "deaf"):
            await trio.sleep(TIMEOUT_S)
        elif fate == "slow":
            await trio.sleep(TIMEOUT_S / 2)
        elif fate == "busy":
            self._asked_s = RETRY_AFTER_S
        return (NO_STATUS[fate] if fate in NO_STATUS else STATUS[fate]), b""

    def _read(self, url: bytes, body: bytes, headers: str) -> tuple[tuple[int, int, str, int], bool]:
        found = _TOPIC.search(headers) if self._name == "webpush" else _ACTION_PHASE.search(body)
        token = _TOKEN.search(url) or _TOKEN.search(body)
        assert found is not None
        assert token is not None
        quiet = "urgency: normal" in headers or _QUIET.search(body) is not None
        return (int(found[1]), int(found[2]), self._name, int(token[0], 16)), quiet

    async def warm(self, url: str) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


# --- SMS, voice and WhatsApp ----------------------------------------------------------------------------------------

NEVER_SENT: Final = 131026
NOBODY_KNOWS: Final = 131000


class PhoneCaller:
    """The wire to a supplier that rings: SMS in calls of many numbers, voice and WhatsApp in calls of one."""

    def __init__(self, name: str, phones: Phones, weather: Weather, post: PostOffice) -> None:
        self._name, self._phones, self._weather, self._post = name, phones, weather, post

    async def call(self, call: Call) -> Answer:
        if (process := PROCESS.get()) is not None:
            process.step()
        weather, sent_ms = self._weather, clock_ms()
        fate = weather.fate()
        if fate in ("unreachable", "refused"):
            return Answer(code=NO_CONNECTION)
        await trio.sleep(weather.latency_s())
        asked = json.loads(call.body)
        messages = asked["messages"]["msg"] if self._name == "sms" else [asked]
        if weather.over_quota(len(messages)):
            return Answer(code=429, headers={"retry-after": "1"})
        if fate == "busy":
            return Answer(code=503, headers={"retry-after": "1"})
        taken = weather.takes(fate)
        statuses = [self._one(message, sent_ms) for message in messages] if taken else []
        if fate in ("lost", "deaf"):
            await trio.sleep(TIMEOUT_S)
        elif fate == "slow":
            await trio.sleep(TIMEOUT_S / 2)
        if fate in NO_STATUS:
            return Answer(code=NO_STATUS[fate])
        if fate == "mute":
            return Answer(code=200, body=b"<html>Thank you</html>")
        if fate in ("fine", "slow", "half"):
            return self._answer(statuses, half=fate == "half")
        return Answer(code=STATUS[fate])

    def _one(self, message: dict[str, str | list[dict[str, str]]], sent_ms: int) -> tuple[str, bool]:
        """Take one message or call; returns its reference, and whether it was refused."""
        named = ("reference", "instruction-id", "biz_opaque_callback_data")
        (reference,) = (str(message[name]) for name in named if name in message)
        action, phase, _ = reference.split("-", 2)
        to = message.get("to") or message["callee"]
        number = to[0]["number"] if isinstance(to, list) else to
        person = int(number[-8:])
        if self._weather.is_dead(person):
            return reference, True
        key = (int(action), int(phase), self._name, person)
        self._phones.take(key, sent_ms)
        self._post.taken(self._name, reference, key)
        return reference, False

    def _answer(self, statuses: list[tuple[str, bool]], *, half: bool) -> Answer:
        if self._name == "whatsapp":
            ((_, refused),) = statuses
            if refused:
                return Answer(code=400, body=b'{"error":{"code":%d}}' % NEVER_SENT)
            return Answer(code=200, body=b"{}" if half else b'{"messages":[{"id":"wamid.1"}]}')
        if self._name == "voice":
            ((_, refused),) = statuses
            if refused:
                return Answer(code=422, body=b'{"success":false}')
            return Answer(code=200, body=b"{}" if half else b'{"call-id":"c","success":true}')
        said = [
            {
                "to": "", "status": "Rejected" if refused else "Accepted", "reference": reference, "parts": 1,
                "messageErrorCode": 302 if refused else 0,
            }
            for reference, refused in (statuses[: len(statuses) // 2] if half else statuses)
        ]  # fmt: skip
        return Answer(code=200, body=json.dumps({"details": "Created", "errorCode": 0, "messages": said}).encode())

    async def aclose(self) -> None:
        """Nothing is open."""


class PostOffice:
    """Receipts on their way to the engine: lost, doubled, late, out of order, of both verdicts, and of nobody's.

    WhatsApp may say of a message that it certainly never sent it; of that it is never wrong.
    """

    def __init__(self, source: random.Random, phones: Phones) -> None:
        self._source, self._phones = source, phones
        worst = source.choice((0.0, 0.1, 0.4))
        self._lost, self._doubled, self._failed = (source.random() * worst for _ in range(3))
        self._late_s = source.choice((0.5, 3.0, 10.0))
        self.waiting: list[tuple[float, str, str, bool]] = []
        self._keys: dict[tuple[str, str], tuple[int, int, str, int]] = {}
        self.acknowledged: defaultdict[tuple[int, int, str, int], set[bool]] = defaultdict(set)
        self._never_sent: set[tuple[str, str]] = set()
        self.bounced_ms: dict[tuple[int, int, str, int], int] = {}  # when the engine acknowledged that

    def taken(self, provider: str, reference: str, key: tuple[int, int, str, int]) -> None:
        """A supplier has taken a message, and knows by now whether it will ever ring."""
        delivered = self._source.random() >= self._failed
        if not delivered:
            self._phones.never_rang.add(key)
            if provider == "whatsapp" and self._source.random() < 0.7:
                self._never_sent.add((provider, reference))
        self._keys[provider, reference] = key
        if self._source.random() < self._lost:
            return
        verdicts = [delivered]
        if self._source.random() < self._doubled:
            verdicts.append(delivered)
        if delivered and self._source.random() < self._failed:
            verdicts.append(False)  # a network that gave up too early, and was wrong
        for verdict in verdicts:
            due_s = trio.current_time() + self._source.uniform(0.05, self._late_s)
            self.waiting.append((due_s, provider, reference, verdict))

    def due(self) -> tuple[str, dict[str, str], bytes, list[tuple[str, str, bool]]] | None:
        """(provider, headers, body, what is in it) of one post of what is due now, taken from what waits."""
        now_s = trio.current_time()
        provider = next((one[1] for one in self.waiting if one[0] <= now_s), None)
        if provider is None:
            return None
        mine = [one for one in self.waiting if one[0] <= now_s and one[1] == provider][: self._source.randint(1, 20)]
        for one in mine:
            self.waiting.remove(one)
        self._source.shuffle(mine)
        reports = [(reference, verdict) for _, _, reference, verdict in mine]
        strangers = [("9999-0-1", True), ("nonsense", True), (reports[0][0] + "00000000", False)]
        reports += self._source.sample(strangers, self._source.randint(0, 2))
        if provider == "voice":
            whole: object = {
                "events": [{"reference": one, "status": "answered" if good else "busy"} for one, good in reports]
            }
        elif provider == "whatsapp":
            statuses = [self._status(provider, one, good) for one, good in reports]
            whole = {"entry": [{"changes": [{"value": {"statuses": statuses}}]}]}
        else:
            whole = {
                "messages": {"msg": [{"reference": one, "status": {"code": 2 if good else 3}} for one, good in reports]}
            }
        body = json.dumps(whole).encode()
        signed = {SIGNATURES.get(provider, SIGNATURE): sign(body, SECRET)}
        return provider, signed, body, [(provider, one, good) for _, _, one, good in mine]

    def _status(self, provider: str, reference: str, good: bool) -> dict[str, object]:
        """As Meta's webhook has it."""
        code = NEVER_SENT if (provider, reference) in self._never_sent else NOBODY_KNOWS
        fate: dict[str, object] = {"status": "delivered"} if good else {"status": "failed", "errors": [{"code": code}]}
        return fate | {"biz_opaque_callback_data": reference}

    def delivered(self, reports: list[tuple[str, str, bool]]) -> None:
        """The engine has acknowledged these."""
        for provider, reference, verdict in reports:
            key = self._keys[provider, reference]
            self.acknowledged[key].add(verdict)
            if (provider, reference) in self._never_sent:
                self.bounced_ms.setdefault(key, clock_ms())

    def back(self, reports: list[tuple[str, str, bool]]) -> None:
        """The engine has not acknowledged these: again, later."""
        for provider, reference, verdict in reports:
            self.waiting.append((trio.current_time() + 1.0, provider, reference, verdict))
