"""Sockets to listen on: bound before anything starts that would serve them, so that a port that is taken is told; and
what is shown to those who call there, read before anything starts, so that a file that is none is told.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

from fanout.errors import Refused
from fanout.settings import ApiSettings

RECEIPTS: Final = "receipts"
"""The process at the door of receipts (`intake.py`)."""


def bind(listen: str, setting: str) -> socket.socket:
    """A socket on `host:port`. Errors: `Refused("port_in_use")` at this setting, also for a host that is not ours."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise Refused("port_in_use", setting, address=listen, detail=error.strerror or error) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The `host:port` it is bound to, where the port may have been 0."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tls_of(api: ApiSettings) -> ssl.SSLContext | None:
    """With the certificate of the API and of its door of receipts; None: plain HTTP. Whom `client_ca` lets in, the API
    asks for. Errors: `Refused("settings_invalid")` for files that cannot be used, or that would never be.
    """
    if not api.tls_certificate:
        if api.client_ca:
            raise _unusable("api.client_ca", "is asked for over TLS alone: set api.tls_certificate and api.tls_key")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(api.tls_certificate, api.tls_key, password="")  # nobody is there to be asked for one
    except (OSError, ValueError) as error:
        raise _unusable("api.tls_certificate", f"{api.tls_certificate!r} with {api.tls_key!r}: {error}") from None
    if api.client_ca:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(api.client_ca)
        except OSError as error:
            raise _unusable("api.client_ca", f"{api.client_ca!r}: {error}") from None
    return context


def _unusable(setting: str, why: str) -> Refused:
    return Refused("settings_invalid", setting, count=1, problems=f"{setting}: {why}")
