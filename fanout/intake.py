"""The process that takes receipts in, where `api.receipts_listen` names a door of their own (`inbound/door.py`).

It is a process of its own, a fork beside the senders, for two reasons: a night's receipts cost a core, which the API
must not lose; and this is the door at which strangers knock: what they break is started again in milliseconds, while
its socket, which the engine holds, keeps those who come meanwhile.

TLS is the API's own certificate. `api.client_ca` is not asked for: suppliers prove themselves by what they sign.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from typing import Final

import trio

from fanout import memory
from fanout.children import watch_parent
from fanout.inbound import receipts
from fanout.inbound.door import Door
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
        tls = _tls(settings)
        memory.settle()
        os.write(1, b"ready\n")
        await door.serve(socket.socket(fileno=handle), stop, tls=tls, drain_s=settings.api.drain_s)
    finally:
        await trio.to_thread.run_sync(store.close_store)


def _read(providers: ProvidersSettings, provider: str, headers: Mapping[str, str], body: bytes) -> receipts.Read:
    return receipts.read(provider, headers, body, secret=receipts.secret_of(providers, provider))


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.api.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.api.tls_certificate, settings.api.tls_key)
    context.set_alpn_protocols(["http/1.1"])
    return context
