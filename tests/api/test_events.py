"""Streams of changes: who waits is woken, and while nobody does nobody looks for changes."""

from __future__ import annotations

import trio
import trio.testing

from fanout.api.events import Changes

LONG_S = 60.0


async def test_a_ring_wakes_all_who_wait(autojump_clock: trio.testing.MockClock) -> None:
    changes, began_s = Changes(), trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(changes.wait, LONG_S)
        await trio.testing.wait_all_tasks_blocked()
        changes.ring()
    assert trio.current_time() == began_s
    await changes.wait(LONG_S)
    assert trio.current_time() == began_s + LONG_S


async def test_changes_are_wanted_while_somebody_waits_for_them(autojump_clock: trio.testing.MockClock) -> None:
    changes = Changes()

    async def is_wanted() -> bool:
        with trio.move_on_after(1.0):
            await changes.wanted()
            return True
        return False

    assert not await is_wanted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.wait, LONG_S)
        nursery.start_soon(changes.wait, 2 * LONG_S)
        assert await is_wanted()
        await trio.sleep(1.5 * LONG_S)
        assert await is_wanted()
    assert not await is_wanted()
