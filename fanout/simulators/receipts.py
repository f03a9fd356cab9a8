"""Receipts as providers send them: later, some lost, some doubled, some long after the others; signed, in batches.

What a provider took is collected for `after_ms`, and goes in posts of `PER_CALL`; what is late goes `after_ms` after
the rest. A post that is not taken is tried again for minutes, as suppliers do: an engine that was killed has its
receipts when it is back.

The client is made once: to make one reads every certificate there is, and would hold up all pushes for a tenth of a
second.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Literal

import httpx
import msgspec

from fanout.inbound.receipts import SIGNATURE, sign
from fanout.simulators.moods import Dice, Receipts

PER_CALL: Final = 500
ATTEMPTS: Final = 60  # suppliers try for hours; these for five minutes
PAUSE_S: Final = 0.5, 5.0  # the first one, doubled up to the last
DELIVERED, FAILED = 2, 3  # CM.com's codes of a status report

Provider = Literal["sms", "sms_second", "voice"]

log = logging.getLogger("fanout.simulators")


class PostOffice:
    """The receipts of one worker, of all its suppliers. `mood` may change: what is not taken yet goes where it says."""

    def __init__(self) -> None:
        self.mood = Receipts()
        self._waiting: dict[Provider, list[str]] = {"sms": [], "sms_second": [], "voice": []}
        self._posts: set[asyncio.Task[None]] = set()
        self._dice = Dice()
        self._client = httpx.AsyncClient(trust_env=False, timeout=10)

    def add(self, provider: Provider, references: list[str]) -> None:
        """Post a receipt for each reference, later, as the mood has it."""
        waiting = self._waiting[provider]
        if references and self.mood.url:
            if not waiting:
                task = asyncio.get_running_loop().create_task(self._collect(provider))
                self._posts.add(task)
                task.add_done_callback(self._posts.discard)
            waiting += references

    async def close(self) -> None:
        """Post nothing more."""
        for task in self._posts:
            task.cancel()
        await asyncio.gather(*self._posts, return_exceptions=True)
        await self._client.aclose()

    async def _collect(self, provider: Provider) -> None:
        mood, dice = self.mood, self._dice
        await asyncio.sleep(mood.after_ms / 1000)
        references, self._waiting[provider] = self._waiting[provider], []
        now: list[tuple[str, bool]] = []
        late: list[tuple[str, bool]] = []
        for reference in references:
            if dice.hit("lost", mood.lost):
                continue
            report = reference, not dice.hit("failed", mood.failed)
            (late if dice.hit("late", mood.late) else now).append(report)
            if dice.hit("doubled", mood.doubled):
                late.append(report)
        for reports in (now, late):
            for start in range(0, len(reports), PER_CALL):
                await self._post(provider, reports[start : start + PER_CALL])
            await asyncio.sleep(mood.after_ms / 1000)

    async def _post(self, provider: Provider, reports: list[tuple[str, bool]]) -> None:
        body = _body(provider, reports)
        first_s, last_s = PAUSE_S
        for attempt in range(ATTEMPTS):
            mood = self.mood
            secret = mood.secret_second if provider == "sms_second" and mood.secret_second else mood.secret
            headers = {"content-type": "application/json", SIGNATURE: sign(body, secret)} | mood.headers
            try:
                answer = await self._client.post(f"{mood.url}/{provider}", content=body, headers=headers)
            except httpx.HTTPError as error:
                log.warning("receipts were not taken: %r", error)
            else:
                if answer.status_code < 500:
                    return
            await asyncio.sleep(min(first_s * 2**attempt, last_s))


def _body(provider: Provider, reports: list[tuple[str, bool]]) -> bytes:
    """CM.com's status report of messages, or the ends of calls."""
    if provider == "voice":
        ends = [{"reference": one, "status": "answered" if good else "no-answer"} for one, good in reports]
        return msgspec.json.encode({"events": ends})
    messages = [{"reference": one, "status": {"code": DELIVERED if good else FAILED}} for one, good in reports]
    return msgspec.json.encode({"messages": {"msg": messages}})
