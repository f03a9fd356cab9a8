"""The process that takes receipts in, where `api.receipts_listen` names a door of their own (`inbound/door.py`).

It is a process of its own, a fork beside the senders, for two reasons: a night's receipts cost a core, which the API
must not lose; and this is the door at which strangers knock: what they break is started again in milliseconds, while
its socket, which the engine holds, keeps those who come meanwhile.

TLS is the API's own certificate. `api.client_ca` is not asked for: suppliers prove themselves by what they sign.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import partial
from typing import Final

import trio

from fanout import memory
from fanout.children import watch_parent
from fanout.inbound import receipts
from fanout.inbound.door import Door
from fanout.listening import tls_of
from fanout.settings import ProvidersSettings, Settings
from fanout.stores import open_store

CUT_S: Final = 5.0
"""Beyond `api.drain_s`: for what is being committed when the last connections are cut."""


async def take_in(settings: Settings, handle: int) -> None:
    """Take receipts in on the socket with this handle until the parent is gone."""
    stop = trio.Event()
    watch_parent(stop, settings.api.drain_s + CUT_S)
    store = await trio.to_thread.run_sync(open_store, settings)
    try:
        door = Door(partial(_read, settings.providers), store.apply_receipts)
        tls = tls_of(settings.api)
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])
        memory.settle()
        os.write(1, b"ready\n")
        await door.serve(socket.socket(fileno=handle), stop, tls=tls, drain_s=settings.api.drain_s)
    finally:
        await trio.to_thread.run_sync(store.close_store)


def _read(providers: ProvidersSettings, provider: str, headers: Mapping[str, str], body: bytes) -> receipts.Read:
    return receipts.read(provider, headers, body, secret=receipts.secret_of(providers, provider))
