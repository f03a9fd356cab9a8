"""A provider with one fault: HTTP/2 over TLS that does what a tired load balancer or an attacker does, always the same.

For tests that want to know what one fault does to a client; what moods do to a whole provider is in `rough.py`.
It counts every request that was taken, by path and body, so that a test can say how often a row really arrived,
whatever the client believes. Beside the faults of `frames.py`, of which `goaway`, `drop` strike once a server and after
`after` requests of a connection, and `refuse`, `reset` every second request:

`one_stream` (the server allows one stream at a time) · `shrink` (1,000 streams at first, one after `after` requests) ·
`garbage` (bytes that are no HTTP/2) · `mute` (TLS, then nothing).
"""

from __future__ import annotations

import ssl
from collections import Counter
from pathlib import Path
from typing import Final, Literal, TypeAlias

import h2.exceptions
import trio

from fanout.simulators import frames
from fanout.simulators.frames import STREAMS, H2Connection, Reply, Request

Fault: TypeAlias = Literal[
    "none",
    "goaway",
    "refuse",
    "reset",
    "drop",
    "half",
    "hang",
    "endless",
    "one_stream",
    "shrink",
    "garbage",
    "mute",
]
FAULTS: Final[tuple[Fault, ...]] = Fault.__args__  # type: ignore[attr-defined]


class FaultyServer:
    """One faulty provider on a port of loopback. `arrived` counts requests that were taken, by (path, body)."""

    def __init__(self, fault: Fault, *, cert: Path, key: Path, after: int = 5) -> None:
        self.fault, self.after = fault, after
        self.arrived: Counter[tuple[str, bytes]] = Counter()
        self.spent = False
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._context.set_alpn_protocols(["h2"])

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; starts with the port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._connection, listeners)
            task_status.started(port)

    async def _connection(self, raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, self._context, server_side=True, https_compatible=True)
        try:
            await stream.do_handshake()
            if self.fault == "mute":
                await trio.sleep_forever()
            elif self.fault == "garbage":
                await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n" * 100)
                await trio.sleep(1)
            else:
                await H2Connection(_Judge(self), stream).run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError, ConnectionError):
            pass
        finally:
            await trio.aclose_forcefully(stream)


class _Judge:
    """What the fault does on one connection."""

    def __init__(self, server: FaultyServer) -> None:
        self.server = server
        self.asked = 0

    def streams(self) -> int:
        shrunk = self.server.fault == "shrink" and self.asked >= self.server.after
        return 1 if shrunk or self.server.fault == "one_stream" else STREAMS

    def fault(self, request: Request) -> frames.Fault:
        server = self.server
        if request.path == "/":  # a warming HEAD
            return "none"
        self.asked += 1
        match server.fault:
            case "goaway" | "drop" if self.asked > server.after and not server.spent:
                server.spent = True
                return server.fault
            case "refuse" | "reset" if self.asked % 2 == 1:
                return server.fault
            case "half" | "hang" | "endless":
                return server.fault
        return "none"

    async def reply(self, request: Request) -> Reply:
        if request.path == "/":
            return 404, [], b""
        self.server.arrived[request.path, request.body] += 1
        return 200, [], b""
