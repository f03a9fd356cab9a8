"""The sender processes: which there are, started, watched, started again, ended in order.

They are the first that runs of an engine, and what runs beside everything else: nothing that was accepted before a
crash waits for registry, boards or API. So this module loads no more than it needs to start them.

Rules:

1. A sender that dies is started again, and its batches are released at once; what it had on the wire is resolved by the
   ledger's rules.
2. Senders end with this process, also when it is killed.
3. What takes receipts in at a door of their own (`intake.py`) is a process among them, and lives and ends as they do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Final

import trio

from fanout.dispatch.terms import PUSH, ends_within_s, nearest_apart
from fanout.errors import Refused
from fanout.forkserver import Fork, ForkServer, open_forkserver
from fanout.listening import RECEIPTS, address_of, bind
from fanout.settings import Settings, dump
from fanout.store.protocol import Share, Store
from fanout.wire import CHANNELS

log = logging.getLogger("fanout.app")

BACKLOG: Final = 512
"""Connections at the door of receipts that wait while its process is started again."""

AGAIN_S: Final = 1.0
"""Pause before a ledger that refused is asked again to release the batches of a dead sender."""


STEADY_S: Final = 10.0
"""A sender that lived so long is started again at once; one that did not, after `senders.restart_pause_s`."""


class Senders:
    """The sender processes. `warm` is set when each of them is; `end` lets them finish what they have on the wire."""

    def __init__(self) -> None:
        self.warm = trio.Event()
        self.receipts_address = ""
        self._ended = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self, settings: Settings, store: Store) -> None:
        """Keep them alive until `end`; they get warm side by side."""
        with self._scope, ExitStack() as open_files:
            wanted: list[tuple[str, Sequence[str], Sequence[int]]]
            wanted = [(f"sender-{name}", (share, *channels), ()) for name, share, channels in crews(settings)]
            if settings.api.receipts_listen:
                door = open_files.enter_context(bind(settings.api.receipts_listen, "api.receipts_listen"))
                door.listen(BACKLOG)
                self.receipts_address = address_of(door)
                wanted.append((RECEIPTS, (), (door.fileno(),)))
            if not wanted:
                self.warm.set()
                await trio.sleep_forever()
            async with open_forkserver("fanout.sender", dump(settings)) as server, trio.open_nursery() as nursery:
                async with trio.open_nursery() as starting:
                    for what in wanted:
                        starting.start_soon(nursery.start, _supervise, server, settings, store, *what)
                self.warm.set()
        self._ended.set()

    async def end(self) -> None:
        """Returns when the last one has ended."""
        self._scope.cancel()
        await self._ended.wait()


@asynccontextmanager
async def open_senders(settings: Settings, store: Store) -> AsyncIterator[Senders]:
    """Senders for the time of the block; they start at once, and get warm beside what the block does."""
    senders = Senders()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(senders.run, settings, store)
        yield senders
        nursery.cancel_scope.cancel()


def crews(settings: Settings) -> list[tuple[str, Share, tuple[str, ...]]]:
    """Senders by name, what each claims of what waits, and the channels of each.

    The nearest people of each action have one of their own for app push (`senders.nearest`): all that lies between the
    ledger and their first message waits for the interpreter, and for a core, of a process that carries a nation. Others
    leave these batches to it for a moment, and take them if it does not. The rest of app push has `senders.processes`;
    all else, where a call costs a hundred times as much, has one of its own, so that no push waits for the interpreter
    behind a call. Web Push, which encrypts for each, has another: what rings waited for it by the second.
    """
    if not settings.senders.processes:
        return []
    enabled = [name for name in CHANNELS if name not in PUSH and getattr(settings.providers, name).enabled]
    apart = tuple(name for name in PUSH if nearest_apart(settings, name))
    nearest = [("nearest", Share.NEAREST, apart)] if apart else []
    rest = Share.OTHERS if apart else Share.ALL
    push = [(f"push-{number}", rest, PUSH) for number in range(settings.senders.processes)]
    others = {"webpush": ("webpush",), "calls": tuple(name for name in enabled if name != "webpush")}
    return [
        *nearest,
        *push,
        *((name, Share.ALL, channels) for name, channels in others.items() if set(channels) & set(enabled)),
    ]


async def _supervise(
    server: ForkServer,
    settings: Settings,
    store: Store,
    name: str,
    arguments: Sequence[str],
    handles: Sequence[int],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    starts = 0
    while True:
        owner, since_s = f"{name}.{os.getpid()}.{starts}", trio.current_time()
        async with _process(server, settings, [owner, *arguments], handles) as process:
            await process.line()
            if not starts:
                task_status.started()
            end = await process.wait()
        log.warning("%s: %s; %d batches released", owner, end or "was not started", await _release(store, owner))
        starts += 1
        if trio.current_time() - since_s < STEADY_S:
            await trio.sleep(settings.senders.restart_pause_s)


async def _release(store: Store, owner: str) -> int:
    """End the leases of a sender that is dead, however often it takes until the ledger can be written."""
    while True:
        try:
            return await trio.to_thread.run_sync(store.release, owner)
        except Refused as error:
            log.error("the batches of %s wait: %s", owner, error.message)
            await trio.sleep(AGAIN_S)


@asynccontextmanager
async def _process(
    server: ForkServer, settings: Settings, arguments: Sequence[str], handles: Sequence[int]
) -> AsyncIterator[Fork]:
    process = await server.fork(arguments, handles)
    try:
        yield process
    finally:
        await process.end(max(settings.api.drain_s, ends_within_s(settings)))
