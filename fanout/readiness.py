"""Whether the engine takes actions, for whoever sends it work or takes it out of the rotation (`GET /readyz`).

An engine whose ledger is away or whose disk is full refuses every action, so it must not say that it is ready. Rules:

1. A probe costs nothing: it is told what is known. What is known comes from one small write of our own, every
   `EVERY_S`, in a commit that others share; after a failure it is tried every `AGAIN_S`, so readiness comes back by
   itself.
2. A write that has not ended after `PATIENCE_S` is one that failed: who waits for a ledger that hangs waits, too.
3. A disk with less than `FREE_BYTES_MIN` left is full: a log that has room for a few more bytes has none for an action.

Why not what callers were refused: an engine that nobody sends to, since it is not ready, would never learn.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from fanout.errors import Refused

EVERY_S: Final = 5.0
AGAIN_S: Final = 1.0
PATIENCE_S: Final = 3.0
FREE_BYTES_MIN: Final = 32 * 1024 * 1024  # about what the ledger takes for an action to 1.6 million people

SPACE: Final = "engine"
KEY: Final = "ready"


class Readiness:
    """`why_not` answers at once; `start` and `watch` keep it true. `write`: a durable write, as small as can be."""

    def __init__(self, write: Callable[[], Awaitable[None]], folder: Path) -> None:
        self._write, self._folder = write, folder
        self._waiting_for: str | None = "senders"
        self._refused: str | None = None
        self._asked_s: float | None = None

    def start(self) -> None:
        """Everything runs."""
        self._waiting_for = None

    def why_not(self) -> dict[str, str] | None:
        """None if it takes actions, else what the answer says of that."""
        if self._waiting_for is not None:
            return {"status": "starting", "waiting_for": self._waiting_for}
        refused = self._refused
        if self._asked_s is not None and trio.current_time() - self._asked_s >= PATIENCE_S:
            refused = f"The ledger has not answered for {trio.current_time() - self._asked_s:.0f} s."
        return None if refused is None else {"status": "refusing", "code": "store_unavailable", "message": refused}

    async def watch(self) -> None:
        """See for ever whether the ledger takes what is written."""
        while True:
            self._asked_s = trio.current_time()
            try:
                await self._write()
                self._refused = self._full()
            except (Refused, OSError) as error:
                self._refused = getattr(error, "message", type(error).__name__)
            self._asked_s = None
            await trio.sleep(EVERY_S if self._refused is None else AGAIN_S)

    def _full(self) -> str | None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        if free >= FREE_BYTES_MIN:
            return None
        return (
            f"The disk of {self._folder} is full: {free:,} bytes are left of the {FREE_BYTES_MIN:,} that an action may "
            "take; free some space."
        )
