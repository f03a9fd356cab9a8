"""A provider that breaks the protocol: HTTP/2 over TLS, frame by frame, with one fault per server.

granian speaks HTTP/2 too well to misbehave. This server is slow and small, and does what a tired load balancer, a
restarting front end or an attacker does. It counts every request it *read whole*, by path and body, so that a test can
say how often a row really arrived, whatever the client believes.

Faults: `none` · `goaway` (after `after` requests: the rest of the connection's streams are refused, new connections
are served) · `refuse` (every second stream REFUSED_STREAM) · `reset` (every second stream INTERNAL_ERROR after it was
read) · `drop` (after `after` requests the connection ends without a word) · `half` (headers, then the connection ends)
· `hang` (reads, never answers) · `endless` (an answer without an end) · `one_stream` (the server allows one stream at
a time) · `shrink` (1,000 streams at first, one after `after` requests) · `garbage` (bytes that are no HTTP/2) · `mute`
(TLS, then nothing).
"""

from __future__ import annotations

import math
import ssl
from collections import Counter
from pathlib import Path
from typing import Final, Literal, TypeAlias

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio

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
    """One faulty provider on a port of loopback. `arrived` counts requests read whole, by (path, body)."""

    def __init__(self, fault: Fault, *, cert: Path, key: Path, after: int = 5) -> None:
        self.fault, self.after = fault, after
        self.arrived: Counter[tuple[str, bytes]] = Counter()
        self.streams_most = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._context.set_alpn_protocols(["h2"])
        self._spent = False

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
            await _Connection(self, stream).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError, ConnectionError):
            return
        finally:
            await trio.aclose_forcefully(stream)


class _Ended(Exception):
    """The fault ends this connection."""


class _Connection:
    """One client's connection."""

    def __init__(self, server: FaultyServer, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.server, self.stream = server, stream
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.paths: dict[int, str] = {}
        self.bodies: dict[int, bytearray] = {}
        self.answered = 0

    async def run(self) -> None:
        if self.server.fault == "mute":
            await trio.sleep_forever()
        if self.server.fault == "garbage":
            await self.stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n" * 100)
            await trio.sleep(1)
            return
        streams = 1 if self.server.fault == "one_stream" else 1_000
        self.http.local_settings = h2.settings.Settings(  # in the first frame: h2 would name its own limit after ours
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: streams}
        )
        self.http.initiate_connection()
        await self._flush()
        while data := await self.stream.receive_some():
            try:
                for event in self.http.receive_data(data):
                    self._take(event)
            except _Ended:
                await self._flush()
                return
            await self._flush()
            self.server.streams_most = max(self.server.streams_most, len(self.bodies))

    async def _flush(self) -> None:
        if data := self.http.data_to_send():
            await self.stream.send_all(data)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers = dict(event.headers)
            self.paths[event.stream_id] = str(headers[":path"])  # type: ignore[index]
            self.bodies[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self._answer(event.stream_id)

    def _answer(self, stream: int) -> None:
        path, body = self.paths.pop(stream), bytes(self.bodies.pop(stream))
        if path == "/":  # a warming HEAD
            self.http.send_headers(stream, [(":status", "404")], end_stream=True)
            return
        self.answered += 1
        server = self.server
        odd = self.answered % 2 == 1
        late = self.answered > server.after
        match server.fault:
            case "refuse" if odd:
                self.http.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
                return
            case "goaway" if late and not server._spent:
                server._spent = True
                self.http.close_connection(h2.errors.ErrorCodes.NO_ERROR, last_stream_id=stream - 2)
                raise _Ended
        server.arrived[path, body] += 1
        match server.fault:
            case "reset" if odd:
                self.http.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
            case "drop" if late and not server._spent:
                server._spent = True
                raise _Ended
            case "half":
                self.http.send_headers(stream, [(":status", "200"), ("content-length", "100")])
                raise _Ended
            case "hang":
                return
            case "endless":
                self.http.send_headers(stream, [(":status", "200")])
                window = self.http.local_flow_control_window(stream)
                for _ in range(math.ceil(window / 16_384)):
                    size = min(16_384, self.http.local_flow_control_window(stream))
                    if size:
                        self.http.send_data(stream, b"x" * size)
            case _:
                if server.fault == "shrink" and self.answered == server.after:
                    self.http.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
                self.http.send_headers(stream, [(":status", "200")], end_stream=True)
