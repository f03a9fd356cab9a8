"""Sockets, TLS and processes of the simulators: HTTP/2 by `connection.py`, HTTP/1.1 by h11, on one port.

One event loop a worker, a callback per connection that has something to read or to take. Workers are forks that share
the port by SO_REUSEPORT, so the kernel spreads connections over them; they end when who started them does, since they
read a pipe that ends with it.

Why not a server of somebody else's: to take a push in and answer it costs granian, the quickest there is for Python,
forty microseconds of this project's usual machine and the application ten more, and that was half of what a nation
costs. Pushes are alike but for their token, as the client's lane of frames knows, and so does this. What the engine is
told by servers of other makes (nginx, hypercorn) is a matter of its own tests.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import h11

from fanout.dispatch.tls_socket import TlsSocket
from fanout.simulators.http2.connection import BODY_BYTES_MAX, HALF_BYTES, Asked, Connection, Request
from fanout.simulators.http2.known import Known
from fanout.simulators.replies import Headers

SEND_BYTES: Final = 256 * 1024  # handed to TLS at once
PIECES: Final = 16  # of these one after the other, before other connections have a turn
BACKLOG: Final = 1_024
READ_BYTES: Final = 65_536


class _OneByOne:
    """A connection over HTTP/1.1: one request after the other. The same face as `Connection`."""

    def __init__(self, asked: Asked, woken: Callable[[], None]) -> None:
        self._asked, self._woken = asked, woken
        self._http = h11.Connection(h11.SERVER)
        self._buffer = bytearray(READ_BYTES)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._reading = self._gone = False
        self.out = bytearray()
        self.broken: str | None = None

    def closed(self) -> None:
        """The owner has closed the socket."""
        self._gone = True

    def room(self) -> memoryview:
        """Where the next bytes are to be put; then say how many to `receive`."""
        return memoryview(self._buffer)

    def receive(self, count: int) -> None:
        """Read what came."""
        self._reading = True
        try:
            self._http.receive_data(bytes(self._buffer[:count]))
            self._go_on()
        except h11.RemoteProtocolError as error:
            self.broken = str(error)
        finally:
            self._reading = False

    def _go_on(self) -> None:
        while self.broken is None:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._head, self._body = event, bytearray()
                if self._http.they_are_waiting_for_100_continue:
                    self.out += self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > BODY_BYTES_MAX:
                    self.broken = "a body is too long"
            elif isinstance(event, h11.EndOfMessage):
                self._whole()
            else:
                if isinstance(event, h11.ConnectionClosed):
                    self.broken = "the client left"
                return

    def _whole(self) -> None:
        head = self._head
        assert head is not None
        path, _, query = head.target.decode("latin-1").partition("?")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        request = Request(head.method.decode("latin-1"), path, query, headers, bytes(self._body))
        self._asked(request, _Turn(self, head))

    def pull(self) -> None:
        """There is no more: what is answered is in `out`."""

    def answer(self, status: int, headers: Headers, body: bytes, length: int) -> None:
        """The answer to the request whose turn it is; a `length` that its body has not ends the connection."""
        if self._gone or self._http.our_state is not h11.SEND_RESPONSE:
            return
        whole = [*headers, ("content-length", str(length))]
        self.out += self._http.send(h11.Response(status_code=status, headers=whole)) or b""
        self.out += (self._http.send(h11.Data(data=body)) or b"") if body else b""
        if length != len(body):
            self.end("half an answer")
            return
        self.out += self._http.send(h11.EndOfMessage()) or b""
        try:
            self._http.start_next_cycle()
        except h11.LocalProtocolError:
            self.broken = "the connection was for one request"
        if not self._reading:
            self._reading = True
            try:
                self._go_on()
            finally:
                self._reading = False
            self._woken()

    def end(self, why: str) -> None:
        """The connection ends once `out` is sent."""
        self.broken = why
        if not self._reading:
            self._woken()


class _Turn:
    """The reply to one request over HTTP/1.1, as `rough.Reply` says: where a stream would end the connection does."""

    def __init__(self, whose: _OneByOne, head: h11.Request) -> None:
        self._whose, self._head = whose, head

    def __call__(self, status: int, headers: Headers, body: bytes) -> None:
        said = b"" if self._head.method == b"HEAD" else body
        self._whose.answer(status, headers if said == body else [], said, len(said))

    def go_away(self) -> bool:
        self._whose.end("went away")
        return True

    def shed(self) -> None:
        self._whose.end("not taken")

    def reset(self) -> None:
        self._whose.end("reset")

    def drop(self) -> None:
        self._whose.end("dropped")

    def half(self, status: int, headers: Headers) -> None:
        self._whose.answer(status, headers, b"", HALF_BYTES)

    def endless(self, status: int, headers: Headers) -> None:
        self._whose.answer(status, headers, bytes(HALF_BYTES), HALF_BYTES)

    def streams(self, most: int) -> None:
        """There are none."""


class _Link:
    """One connection's socket."""

    def __init__(self, server: Server, raw: socket.socket) -> None:
        self._server, self._loop = server, server.loop
        self._tls = TlsSocket(raw, server.context, None, read_bytes=READ_BYTES)
        self._http: Connection | _OneByOne | None = None
        self._fd = self._tls.fileno()
        self._writing = False
        self._loop.add_reader(self._fd, self._readable)

    def close(self) -> None:
        """End it, whatever is under way."""
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._tls.close()
        self._server.links.discard(self)
        if self._http is not None:
            self._http.closed()

    def _readable(self) -> None:
        try:
            self._tls.fetch()
            if self._http is None:
                if not self._tls.shake():
                    return
                self._http = self._spoken()
            more = True
            while more and self._http.broken is None:
                count, more = self._tls.receive(self._http.room())
                if not count:
                    break
                self._http.receive(count)
        except OSError:
            self.close()
            return
        self._flush()

    def _spoken(self) -> Connection | _OneByOne:
        server = self._server
        if self._tls.protocol == "h2":
            return Connection(server.known, server.asked, streams=server.streams, woken=self._flush)
        return _OneByOne(server.asked, self._flush)

    def _flush(self) -> None:
        """Send what there is, as far as the socket takes it."""
        http = self._http
        assert http is not None
        if self not in self._server.links:
            return
        try:
            for _ in range(PIECES):
                if not http.out and not self._tls.waits:
                    http.pull()
                    if not http.out:
                        break
                with memoryview(http.out) as whole, whole[:SEND_BYTES] as piece:
                    sent = self._tls.send(piece)
                del http.out[:sent]
                if self._tls.waits:
                    break
            else:
                self._loop.call_soon(self._flush)  # after the others
        except OSError:
            self.close()
            return
        if self._tls.waits != self._writing:
            self._writing = self._tls.waits
            if self._writing:
                self._loop.add_writer(self._fd, self._flush)
            else:
                self._loop.remove_writer(self._fd)
        if http.broken is not None and not http.out and not self._writing:
            self.close()


class Server:
    """What one worker listens with. `asked` is the application; `known` what it answers without being asked."""

    def __init__(self, known: Known, asked: Asked, *, context: ssl.SSLContext, streams: int) -> None:
        self.known, self.asked, self.context, self.streams = known, asked, context, streams
        self.links: set[_Link] = set()

    def listen(self, listener: socket.socket) -> None:
        """Serve what connects there, in the running event loop."""
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(listener.fileno(), self._accept, listener)

    def close(self, listener: socket.socket) -> None:
        """Stop, and end all connections."""
        self.loop.remove_reader(listener.fileno())
        for link in list(self.links):
            link.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                raw, _ = listener.accept()
                raw.setblocking(False)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.links.add(_Link(self, raw))


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """TLS of a server that speaks HTTP/2 and HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def listening(port: int, *, shared: bool) -> socket.socket:
    """A socket that listens on loopback; `shared` with other workers. Errors: `OSError`."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def run_workers(count: int, work: Callable[[Callable[[asyncio.Event], None]], None]) -> None:
    """Run `work` until SIGTERM or SIGINT, in this process or in `count` forks; it is given a way to learn of the end.

    A fork that ends by itself ends all. Errors: `RuntimeError` if one did.
    """
    if count == 1:
        work(_on_signals)
        return
    reads, writes = os.pipe()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os.close(writes)
            status = 1
            try:
                work(lambda ended: _on_end_of(reads, ended))
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(reads)
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        asked = True
        with suppress(OSError):
            os.close(writes)

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, stop)
    failed = False
    while children:
        ended, status = os.wait()
        if ended in children:
            children.remove(ended)
            failed |= not asked or status != 0
            stop()
    if failed:
        raise RuntimeError("a worker ended")


def _on_signals(ended: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, ended.set)


def _on_end_of(pipe: int, ended: asyncio.Event) -> None:
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)  # whoever started us is asked
    asyncio.get_running_loop().add_reader(pipe, ended.set)
