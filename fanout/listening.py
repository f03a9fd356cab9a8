"""Sockets to listen on: bound before anything starts that would serve them, so that a port that is taken is told."""

from __future__ import annotations

import socket
from typing import Final

from fanout.errors import Refused

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
