"""Processes of our own that end when their parent does, however it dies.

A child gets its settings as one line on its standard input, and the pipe then stays open and silent: when the parent is
gone, for whatever reason (kill -9 too), the kernel closes it and the child reads the end. That works for grandchildren,
from any thread, without signals and on every Unix; `prctl(PR_SET_PDEATHSIG)` is tied to the thread that started the
child, which in trio is a pool thread that ends.

Children run in a session of their own, so that Ctrl-C in a terminal reaches the parent alone, which ends them in order.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Final

import trio

GRACE_S: Final = 15.0
"""Seconds a child may take to finish what it has in flight, after its parent is gone, before it ends itself hard."""


async def start_child(arguments: Sequence[str], pipe: int, environment: Mapping[str, str]) -> trio.Process:
    """Start `python -m ARGUMENTS…` with a standard input that its parent keeps open, and has its settings on."""
    return await trio.lowlevel.open_process(
        [sys.executable, "-m", *arguments],
        stdin=pipe,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    )


def read_first_line() -> str:
    """In a child: the line the parent sent. Unbuffered, since the rest of the pipe belongs to `watch_parent`."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def watch_parent(stop: trio.Event, grace_s: float = GRACE_S) -> None:
    """In a child, inside trio: set `stop` when the parent is gone, and end hard if we still run `grace_s` later."""
    token = trio.lowlevel.current_trio_token()

    def watch() -> None:
        while os.read(0, 4096):
            pass
        timer = threading.Timer(grace_s, os._exit, (3,))
        timer.daemon = True
        timer.start()
        try:
            token.run_sync_soon(stop.set)
        except trio.RunFinishedError:
            os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
