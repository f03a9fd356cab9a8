"""The live stream of one action: server-sent events, one whole `ActionView` each.

Rules:

1. An event is whole, never a difference: a reader that missed some has lost nothing.
2. An event is sent when the view changed, at most every `INTERVAL_S`; a comment line goes out when nothing changed for
   `SILENCE_S`, so that a dead connection is noticed on both sides.
3. The stream ends by itself when the action is over, its rows are settled, and its boards are clear; and when the key
   that asked for it is revoked.
4. Readers wait on one `Changes`: a commit anywhere wakes them, and they read the ledger at their own pace.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

import trio

from fanout import wire

INTERVAL_S: Final = 0.25
SILENCE_S: Final = 10.0
OVER: Final = ("closed", "cancelled", "expired")


class Viewer(Protocol):
    """What a stream asks of the engine."""

    async def view(self, tenant: str, action_id: int) -> wire.ActionView: ...


class Changes:
    """A bell: `ring` wakes everyone that waits."""

    def __init__(self) -> None:
        self._bell = trio.Event()
        self._waiting = 0
        self._wanted = trio.Event()

    def ring(self) -> None:
        """Something may have changed."""
        self._bell.set()
        self._bell = trio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Until the next ring, or until the time is over."""
        self._waiting += 1
        self._wanted.set()
        try:
            with trio.move_on_after(timeout_s):
                await self._bell.wait()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted = trio.Event()

    async def wanted(self) -> None:
        """Until somebody waits for a ring: to look for changes that nobody reads costs a share of a core."""
        await self._wanted.wait()


async def stream(
    engine: Viewer, changes: Changes, tenant: str, action_id: int, holds: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Chunks of `text/event-stream`, while `holds`. Errors: `Refused("not_found")` before the first chunk."""
    previous = b""
    silent_since_s = trio.current_time()
    while await holds():
        view = await engine.view(tenant, action_id)
        current = wire.encode_json(view)
        now_s = trio.current_time()
        if current != previous:
            yield b"event: action\ndata: " + current + b"\n\n"
            previous, silent_since_s = current, now_s
        elif now_s - silent_since_s >= SILENCE_S:
            yield b": still here\n\n"
            silent_since_s = now_s
        if is_over(view):
            return
        await trio.sleep(INTERVAL_S)
        await changes.wait(1.0)


def is_over(view: wire.ActionView) -> bool:
    """Nothing of this action will change any more, but for late receipts."""
    settled = not any(tally.waiting for tally in view.tallies)
    return view.state in OVER and settled and view.boards.cleared >= view.boards.shown
