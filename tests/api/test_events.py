"""Streams of changes: who waits is woken, and while nobody does nobody looks for changes."""

from __future__ import annotations

import trio
import trio.testing

from fanout import wire
from fanout.api.events import Changes, stream

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


class Busy:
    """An engine with an action that goes on and on."""

    async def view(self, tenant: str, action_id: int) -> wire.ActionView:
        tally = wire.Tally(phase="start", waiting=1, accepted=int(trio.current_time()))
        return wire.ActionView(
            id=action_id, reference="r", kind="x", lane="life", state="open", created_ms=0, end_ms=1, outcome=None,
            tallies=[tally], boards=wire.BoardCounts(),
        )  # fmt: skip


async def test_a_stream_ends_with_its_key(autojump_clock: trio.testing.MockClock) -> None:
    """Who may not ask any more is not told any more either, for as long as the action may last."""

    async def holds() -> bool:
        return trio.current_time() < until_s

    until_s, events = trio.current_time() + LONG_S, 0
    with trio.fail_after(2 * LONG_S):
        async for _ in stream(Busy(), Changes(), "police", 1, holds):
            events += 1
    assert events > LONG_S / 2
    assert trio.current_time() < until_s + 2.0
