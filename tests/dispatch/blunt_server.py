"""A provider with one fault, over HTTP/1.1 and TLS; what `simulators/faults.py` is for HTTP/2.

`none` · `slow` (an answer byte by byte) · `interim` (100, then 200) · `parting` (each answer is the connection's last,
without a word of it in the answer) · `chatty` (a second answer that nobody asked for) · `drop` (the request is read,
and the connection ends) · `reset` (the same, by RST) · `half_head`, `half` (an answer that stops) · `early` (413 before
the request is read, and the end) · `hang` · `endless`, `endless_head` · `garbage` · `mute` (TLS, then nothing) ·
`upgrade` (101, to something else).
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import h11
import trio

FAULTS: Final = (
    "none", "slow", "interim", "parting", "chatty", "drop", "reset", "half_head", "half", "early", "hang", "endless",
    "endless_head", "garbage", "mute", "upgrade",
)  # fmt: skip
GOOD: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-Twice: a\r\nx-twice: b\r\n\r\ndone"
ANSWERS: Final = {
    "none": GOOD,
    "parting": GOOD,
    "chatty": GOOD + GOOD,
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
    "half_head": GOOD[:30],
    "half": GOOD[:-2],
    "garbage": b"SSH-2.0-OpenSSH_9.2\r\n\r\n" * 100,
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: else\r\nconnection: upgrade\r\n\r\nwhat?",
}


class BluntServer:
    """`arrived` counts requests that were read whole, by (target, body); `connections` how many there were."""

    def __init__(self, fault: str, *, cert: Path, key: Path) -> None:
        self.fault = fault
        self.arrived: Counter[tuple[str, bytes]] = Counter()
        self.connections = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._context.set_alpn_protocols(["http/1.1"])

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; starts with the port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._connection, listeners)
            task_status.started(port)

    async def _connection(self, raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, self._context, server_side=True, https_compatible=True)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.do_handshake()
            self.connections += 1
            await self._requests(stream, raw)
        await trio.aclose_forcefully(stream)

    async def _requests(self, stream: trio.SSLStream[trio.SocketStream], raw: trio.SocketStream) -> None:
        if self.fault == "mute":
            await trio.sleep_forever()
        if self.fault == "early":
            await stream.send_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        http = h11.Connection(h11.SERVER)
        while (request := await self._read(http, stream)) is not None:
            self.arrived[request] += 1
            await self._answer(stream, raw)
            if self.fault not in ("none", "slow", "interim", "chatty"):
                return
            http = h11.Connection(h11.SERVER)

    async def _read(self, http: h11.Connection, stream: trio.SSLStream[trio.SocketStream]) -> tuple[str, bytes] | None:
        target, body = "", b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                data = await stream.receive_some()
                if not data:
                    return None
                http.receive_data(bytes(data))
            elif isinstance(event, h11.Request):
                target = event.target.decode()
            elif isinstance(event, h11.Data):
                body += event.data
        return target, body

    async def _answer(self, stream: trio.SSLStream[trio.SocketStream], raw: trio.SocketStream) -> None:
        if self.fault == "hang":
            await trio.sleep_forever()
        elif self.fault == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await raw.aclose()
        elif self.fault == "slow":
            for at in range(len(GOOD)):
                await stream.send_all(GOOD[at : at + 1])
        elif self.fault in ("endless", "endless_head"):
            begin = b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if self.fault == "endless" else b"")
            await stream.send_all(begin)
            while True:
                await stream.send_all(b"x-more: and more of it\r\n" * 500)
        elif self.fault != "drop":
            await stream.send_all(ANSWERS[self.fault])
