"""The first moments of an engine, in the order in which they matter: folder, ledger, senders, and then all else.

After a crash, what was accepted is told again as soon as senders stand; they need settings and ledger, and none of what
takes an engine seconds. So this module loads little, and `app`, with registry, boards and API, is loaded in a thread
while senders get warm.

Rules:

1. One folder, one engine: a second one on the same data is refused. So is one on the same ledger (`holding.py`).
2. What cannot start says so in one sentence of the catalogue, before anything was begun.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import trio

from fanout import memory
from fanout.clock import clock_ms
from fanout.crews import open_senders
from fanout.errors import Refused
from fanout.holding import holding
from fanout.listening import tls_of
from fanout.named_files import check_files
from fanout.settings import Settings
from fanout.stores import open_store

SWITCH_S: Final = 0.0005
"""How long a thread that has the interpreter keeps it while another waits, instead of Python's 5 ms: a query of a tenth
of a millisecond beside a batch of positions would wait for it several times over."""


def lock_folder(settings: Settings) -> int:
    """Hold the data folder for this process. Errors: `Refused("data_in_use" | "data_unwritable")`."""
    run = settings.data / "run"
    try:
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Refused("data_unwritable", "engine.data", path=error.filename, detail=error.strerror) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise Refused("data_in_use", "engine.data", folder=str(settings.data)) from None
    return handle


async def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Run the engine until SIGTERM or SIGINT. `on_ready(address)` is called when everything runs."""
    tls_of(settings.api)
    check_files(settings)
    lock = lock_folder(settings)
    sys.setswitchinterval(SWITCH_S)
    memory.spare_scipy()
    try:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, stop)
            await _run(settings, stop, on_ready)
            nursery.cancel_scope.cancel()
    finally:
        os.close(lock)


async def _run(settings: Settings, stop: trio.Event, on_ready: Callable[[str], None]) -> None:
    store = await trio.to_thread.run_sync(open_store, settings)
    alone = settings.store.kind == "sqlite"  # in the folder, which is locked
    try:
        async with (
            nullcontext() if alone else holding(store, settings.data, clock_ms),
            open_senders(settings, store) as senders,
        ):
            app: Any = await trio.to_thread.run_sync(importlib.import_module, "fanout.app")
            await app.run(settings, store, senders, stop, on_ready)
    finally:
        await trio.to_thread.run_sync(store.close_store)


async def _stop_on_signal(stop: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop.set()
