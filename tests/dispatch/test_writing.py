"""Writing for certain: again and again until it is taken, or the caller has no more time."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from fanout.dispatch.writing import PAUSE_S, SAY_EVERY_S, Complaints, Writing
from fanout.errors import Refused


class Disk:
    """Full for so many calls."""

    def __init__(self, full: int) -> None:
        self.full, self.asked = full, 0

    async def write(self, call: Any, *args: Any, **options: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.asked <= self.full:
            raise Refused("store_unavailable", detail="the disk is full")
        return call(*args, **options)


async def test_until_it_is_taken(autojump_clock: object) -> None:
    disk = Disk(full=5)
    writing = Writing(disk.write, disk.write)
    stuck: list[bool] = []

    async def look() -> None:
        await trio.sleep(PAUSE_S / 2)
        stuck.append(writing.stuck)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        assert await writing.for_certain(writing.write, lambda a, b: a + b, 1, b=2) == 3
    assert stuck == [True]
    assert not writing.stuck
    assert trio.current_time() == pytest.approx(5 * PAUSE_S)


async def test_no_longer_than_its_caller_has(autojump_clock: object) -> None:
    disk = Disk(full=10**9)
    writing = Writing(disk.write, disk.write)
    with trio.move_on_after(3.0) as scope:
        await writing.for_certain(writing.write, lambda: None)
    assert scope.cancelled_caught
    assert not writing.stuck


async def test_other_errors_are_their_callers(autojump_clock: object) -> None:
    writing = Writing(Disk(0).write, Disk(0).write)
    with pytest.raises(ZeroDivisionError):
        await writing.for_certain(writing.write, lambda: 1 / 0)
    assert not writing.stuck


async def test_a_refusal_is_said_now_and_then(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()
    for _ in range(100):
        complaints.say("it waits", Refused("store_unavailable", detail="x"))
        await trio.sleep(SAY_EVERY_S / 25)
    assert len(caplog.records) == 4
