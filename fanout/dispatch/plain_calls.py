"""Single calls over HTTP/1.1 and TLS with nothing in between: SMS, voice and WhatsApp.

One in a hundred of a nation is rung, by a call each, and by httpx a call costs 3 ms of a core, of which the client is
nine tenths: more than thirty pushes. So h11 reads and writes the protocol here, `tls_socket.py` the records, and all
that is left is when to wait. The rules are those of `calls.py`, whose contract (`Caller`) this keeps. Besides:

1. An idle connection on which anything has happened, a goodbye or a byte that nobody asked for, is not used again.
2. A call goes out in one piece. Whatever happens from its first byte on, it may have been taken.
3. A provider that answers before it has read all, and closes, is heard: its answer counts.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Final

import h11
import numpy as np
import trio

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, Answer, Call
from fanout.dispatch.calls import ANSWER_BYTES_MAX, KEEP_S
from fanout.dispatch.frames.plans import origin_of
from fanout.dispatch.tls_socket import RECORD_BYTES, TlsSocket, connect

HEAD_BYTES_MAX: Final = 64 * 1024  # of an answer's headers; an honest one has some hundred bytes
READ_BYTES: Final = 2 * RECORD_BYTES  # at once, into one buffer a connection: most answers are a few hundred bytes
_WITH_BODY: Final = ("POST", "PUT", "PATCH")


class _Link:
    """One connection: an exchange at a time."""

    def __init__(self, tls: TlsSocket) -> None:
        self._tls = tls
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._view = memoryview(bytearray(READ_BYTES))
        self.idle_since_s = 0.0

    def quiet(self) -> bool:
        """Whether nothing has happened since its last answer. What TLS itself says (session tickets) is taken in."""
        try:
            self._tls.fetch()
            return self._tls.receive(self._view) == (0, False)
        except OSError:
            return False

    async def exchange(self, request: h11.Request, body: bytes) -> Answer:
        """One call. Errors: `OSError`, or `h11.RemoteProtocolError`; it may have been taken then."""
        http = self._http
        pieces = [http.send(request), http.send(h11.Data(data=body)) if body else b"", http.send(h11.EndOfMessage())]
        with suppress(OSError):  # it may have answered all the same
            await self._send(memoryview(b"".join(piece for piece in pieces if piece)))
        return await self._answer()

    def again(self) -> bool:
        """Make ready for another exchange; False if there can be none."""
        if self._http.trailing_data[0]:
            return False
        try:
            self._http.start_next_cycle()
        except h11.ProtocolError:
            return False
        return True

    def close(self) -> None:
        self._tls.close()

    async def _send(self, data: memoryview) -> None:
        while data or self._tls.waits:
            data = data[self._tls.send(data) :]
            if self._tls.waits:
                await trio.lowlevel.wait_writable(self._tls.fileno())

    async def _answer(self) -> Answer:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._read()
                if not data and self._http.their_state is h11.SEND_RESPONSE:
                    raise ConnectionResetError("ended without an answer")
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > ANSWER_BYTES_MAX:
                    raise h11.RemoteProtocolError("an answer without an end")
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return Answer(code=head.status_code, headers=_headers(head), body=bytes(body))
            elif not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("speaks of something else")

    async def _read(self) -> bytes:
        """What comes next; nothing once the peer has ended. Errors: `OSError`."""
        while True:
            try:
                count, ended = self._tls.receive(self._view)
            except ConnectionResetError:
                return b""
            if count:
                return bytes(self._view[:count])
            if not ended:
                await trio.lowlevel.wait_readable(self._tls.fileno())
                self._tls.fetch()


class PlainCaller:
    """One provider's connections in one process; https only. Close with `aclose`."""

    def __init__(self, *, ca: str, timeout_s: float, connections: int) -> None:
        self._timeout_s = timeout_s
        self._context = ssl.create_default_context(cafile=ca or None)
        self._context.set_alpn_protocols(["http/1.1"])
        self._places = trio.Semaphore(connections)
        self._idle: dict[tuple[str, int], list[_Link]] = {}
        self._closed = False

    async def call(self, call: Call) -> Answer:
        """Make the call. *Errors*: none of the outside world; each has its code. *Cancellation*: the call may have
        arrived."""
        answer = Answer(code=NO_CONNECTION)
        with trio.move_on_after(self._timeout_s):
            host, port, authority = origin_of(call.url)
            try:
                request = _request(call, authority)
            except h11.LocalProtocolError:  # a header with a newline in it
                return answer
            async with self._places:
                try:
                    link = self._standing(host, port) or await self._open(host, port)
                except OSError:
                    return answer
                answer = Answer(code=NO_ANSWER)  # from here on
                answer = await self._exchange((host, port), link, request, call.body)
        return answer

    async def warm(self, url: str) -> bool:
        """Open a connection before the first action; True if the provider answered."""
        head = Call(method="HEAD", url=url, headers={}, body=b"", index=np.zeros(0, np.intp))
        return (await self.call(head)).code > 0

    async def aclose(self) -> None:
        self._closed = True
        for links in self._idle.values():
            while links:
                links.pop().close()

    async def _exchange(self, origin: tuple[str, int], link: _Link, request: h11.Request, body: bytes) -> Answer:
        kept = False
        try:
            answer = await link.exchange(request, body)
            kept = not self._closed and link.again()
            return answer
        except h11.RemoteProtocolError:
            return Answer(code=GARBAGE)
        except OSError:
            return Answer(code=NO_ANSWER)
        finally:
            if kept:
                link.idle_since_s = trio.current_time()
                self._idle.setdefault(origin, []).append(link)
            else:
                link.close()

    def _standing(self, host: str, port: int) -> _Link | None:
        """A connection that may be used again, the last used first."""
        links = self._idle.get((host, port), [])
        while links:
            link = links.pop()
            if trio.current_time() < link.idle_since_s + KEEP_S and link.quiet():
                return link
            link.close()
        return None

    async def _open(self, host: str, port: int) -> _Link:
        """A new connection. Errors: `OSError`."""
        return _Link(await connect(host, port, self._context, read_bytes=READ_BYTES))


def _request(call: Call, authority: str) -> h11.Request:
    """Errors: `h11.LocalProtocolError`."""
    _, _, rest = call.url.partition("://")
    target = rest[len(rest.partition("/")[0]) :].partition("#")[0] or "/"
    headers = [("host", authority), ("user-agent", "fanout"), ("accept", "*/*"), ("accept-encoding", "identity")]
    headers += call.headers.items()
    if call.body or call.method in _WITH_BODY:
        headers.append(("content-length", str(len(call.body))))
    return h11.Request(method=call.method, target=target, headers=headers)


def _headers(head: h11.Response) -> dict[str, str]:
    """Names in lower case; what stands there twice is joined."""
    found: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
