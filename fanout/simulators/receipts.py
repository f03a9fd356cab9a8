"""Receipts as providers send them: later, some lost, some doubled, some long after the others; signed, in batches."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import httpx
import msgspec

from fanout.inbound.receipts import SIGNATURE, sign
from fanout.simulators.moods import Dice, Receipts

PER_CALL: Final = 100
DELIVERED, FAILED = 2, 3

log = logging.getLogger("fanout.simulators")


async def post_receipts(mood: Receipts, references: list[str], dice: Dice) -> None:
    """Post a CM.com status report for each reference, as the mood has it."""
    now: list[dict[str, object]] = []
    late: list[dict[str, object]] = []
    for reference in references:
        if dice.hit("lost", mood.lost):
            continue
        code = FAILED if dice.hit("failed", mood.failed) else DELIVERED
        report: dict[str, object] = {"reference": reference, "status": {"code": code}}
        (late if dice.hit("late", mood.late) else now).append(report)
        if dice.hit("doubled", mood.doubled):
            late.append(report)
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        for reports in (now, late):
            await asyncio.sleep(mood.after_ms / 1000)
            for start in range(0, len(reports), PER_CALL):
                body = msgspec.json.encode({"messages": {"msg": reports[start : start + PER_CALL]}})
                headers = {"content-type": "application/json", SIGNATURE: sign(body, mood.secret)} | mood.headers
                try:
                    await client.post(mood.url, content=body, headers=headers)
                except httpx.HTTPError as error:
                    log.warning("a receipt was not taken: %r", error)
