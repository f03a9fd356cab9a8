"""What senders are: `python -m fanout.sender`, started by `crews`, which hands it its settings and asks for forks.

It loads once what every sender needs, and each sender is a fork of that (`forkserver.py`), with an owner's name and
channels; and so is what takes receipts in at a door of their own (`intake.py`). It is a program of its own, and imports
no more than it needs: no API, no boards, no registry but its replica.
"""

from __future__ import annotations

import os
from typing import Final

import httpcore  # noqa: F401  httpx loads it with its first client: here once, not in each fork
import numpy as np
import trio

from fanout import logs, memory
from fanout.channels import ece
from fanout.children import read_first_line, watch_parent
from fanout.clock import clock_ms
from fanout.dispatch.frames import kernels as frames
from fanout.dispatch.sender import run_sender
from fanout.dispatch.terms import PUSH, ends_within_s, nearest_apart
from fanout.forkserver import call_process, serve_forks
from fanout.intake import take_in
from fanout.listening import RECEIPTS
from fanout.registry.replica import Replica
from fanout.settings import Settings, parse
from fanout.store.protocol import Share
from fanout.stores import open_store
from fanout.wire import CHANNELS

SEALING_STEPS_BACK: Final = 5
"""The niceness of who seals Web Push. In a nation that takes a core for a third of the time, in which the API took up
to 276 ms to accept a local action, and 50 now. It seldom holds the ledger; who holds it often may not step back."""
BEHIND_S: Final = 0.015  # the nearest are on the wire by then, where nothing else is to do


async def send(settings: Settings, owner: str, share: Share, channels: list[str]) -> None:
    """Claim batches of these channels and send them until the parent is gone."""
    stop = trio.Event()
    watch_parent(stop, ends_within_s(settings))
    store = await trio.to_thread.run_sync(open_store, settings)
    replica = await trio.to_thread.run_sync(Replica.open, settings.data / "registry", store)
    await trio.to_thread.run_sync(_warm, replica)
    apart = any(nearest_apart(settings, name) for name in PUSH)
    try:
        await run_sender(
            store,
            replica,
            settings,
            owner=owner,
            clock_ms=clock_ms,
            stop=stop,
            channels=channels,
            share=share,
            behind_s=BEHIND_S if apart and share is not Share.NEAREST else 0.0,
            on_warm=_say_ready,
        )
    finally:
        await trio.to_thread.run_sync(store.close_store)


def _warm(replica: Replica) -> None:
    """Look an address up on every channel: kernels are loaded then, and the pages they need are mapped."""
    for channel in range(len(CHANNELS)):
        replica.addresses(channel, np.zeros(1, np.uint32), np.zeros(1, np.uint16))


def _say_ready() -> None:
    memory.settle()
    os.write(1, b"ready\n")


def main() -> None:
    """Run as the module says."""
    memory.spare_scipy()
    call_process("sender-forks")
    settings = parse(read_first_line())
    logs.set_up(settings)
    frames.warm()
    ece.warm()
    if arguments := serve_forks():
        owner, *rest = arguments
        name = owner.partition(".")[0]
        call_process(name)
        if name == RECEIPTS:
            trio.run(take_in, settings, int(rest[0]))
        else:
            share, *channels = rest
            if channels == ["webpush"]:
                os.nice(SEALING_STEPS_BACK)
            trio.run(send, settings, owner, Share(share), channels)


if __name__ == "__main__":
    main()
