"""Readiness: what a probe is told while the ledger is away, hangs, or has no disk left, and afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import trio

from fanout import readiness
from fanout.demo.crew import Crew
from fanout.errors import Refused
from fanout.readiness import AGAIN_S, EVERY_S, PATIENCE_S, Readiness
from signage.broker import free_port
from tests.store.test_redis_store import pytestmark as needs_redis
from tests.store.test_redis_store import server
from tests.test_app import started, write_settings


class Ledger:
    """Takes what it is given, or does not."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.slow_s = 0.0

    async def write(self) -> None:
        self.asked += 1
        await trio.sleep(self.slow_s)
        if self.error is not None:
            raise self.error


async def test_a_ledger_that_takes_nothing_is_told_of_and_comes_back(tmp_path: Path, autojump_clock: object) -> None:
    ledger = Ledger()
    ready = Readiness(ledger.write, tmp_path)
    assert ready.why_not() == {"status": "starting", "waiting_for": "senders"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ready.watch)
        ready.start()
        await trio.sleep(10 * EVERY_S)
        assert ready.why_not() is None
        asked, ledger.error = ledger.asked, Refused("store_unavailable", detail="the disk is full")
        for _ in range(1_000):
            ready.why_not()
        assert ledger.asked == asked <= 11, "a probe costs nothing"
        await trio.sleep(EVERY_S)
        assert ready.why_not() == {
            "status": "refusing", "code": "store_unavailable",
            "message": "The ledger cannot be written: the disk is full.",
        }  # fmt: skip
        ledger.error = None
        await trio.sleep(AGAIN_S)
        assert ready.why_not() is None
        ledger.slow_s = 60.0
        await trio.sleep(EVERY_S + PATIENCE_S)
        why = ready.why_not()
        assert why is not None
        assert why["message"].startswith("The ledger has not answered for ")
        ledger.slow_s = 0.0
        await trio.sleep(60.0)
        assert ready.why_not() is None
        nursery.cancel_scope.cancel()


async def test_a_disk_without_room_for_an_action_is_full(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = readiness.FREE_BYTES_MIN

    def statvfs(_folder: Path) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=free, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)
    ready = Readiness(Ledger().write, tmp_path)
    ready.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ready.watch)
        await trio.sleep(1.0)
        assert ready.why_not() is None
        free -= 1
        await trio.sleep(EVERY_S)
        assert "bytes are left of the 33,554,432 that an action may take; free some space" in str(ready.why_not())
        free += 1
        await trio.sleep(AGAIN_S)
        assert ready.why_not() is None
        nursery.cancel_scope.cancel()


@needs_redis
def test_an_engine_whose_redis_is_away_says_so_until_it_is_back(tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "redis"
    folder.mkdir()
    settings = write_settings(
        tmp_path, f'[api]\nlisten = "127.0.0.1:0"\n[store]\nkind = "redis"\nredis = "redis://127.0.0.1:{port}/0"\n'
    )

    def says(address: str, status: int) -> bool:
        answer = httpx.get(f"{address}/readyz", trust_env=False, timeout=60)
        return answer.status_code == status and (status == 200 or answer.json()["code"] == "store_unavailable")

    def asked(crew: Crew, what: str, answered: Callable[[], bool]) -> None:
        crew.wait_for(what, answered, 120)

    with Crew(tmp_path / "logs") as crew:
        with server(folder, port=port):
            _, address = started(crew, settings)
            asked(crew, "ready", partial(says, address, 200))
        asked(crew, "503 without Redis", partial(says, address, 503))
        with server(folder, port=port):
            asked(crew, "ready again", partial(says, address, 200))
