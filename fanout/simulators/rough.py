"""The rough port: the same providers behind a front that breaks connections, as moods have it.

    python -m fanout.simulators.providers --port 8443 --rough-port 8444

The server of the providers is made to be quick and keeps to HTTP/2: it sends no GOAWAY, resets no stream, and lowers
no number of streams in the middle. So those moods (`moods.ROUGH`) hold on a second port: a small front, frame by frame
(`frames.py`) and HTTP/1.1 by h11, that hands every request on to the first port and relays the answer. All that holds
there (addresses, quotas, storms, what was seen) holds here too, and what a fault keeps back is not seen. A client is
pointed at this port instead of the other; it takes some thousand requests a second, not tens of thousands.

Moods are set on either port, `PUT /_moods`; the providers keep them in a file of their folder (`MOODS_FILE`), which is
looked at for every request, so they hold from the next one on. Over HTTP/1.1 there are no streams: `goaway` and `shed`
end the connection before the request is taken, `reset` and `drop` after it, and `streams` says nothing.

It ends when its standard input does, so it never outlives who started it.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import h2.exceptions
import h11
import httpx
import msgspec
import trio
import typer

from fanout.simulators import social, tls
from fanout.simulators.frames import BODY_BYTES_MAX, STREAMS, Fault, H2Connection, Headers, Reply, Request
from fanout.simulators.moods import MOODS_FILE, Dice, Mood, Moods

UPSTREAM_CONNECTIONS: Final = 64
PIECE_BYTES: Final = 65_536
ANSWER_S_MAX: Final = 4_000.0  # longer than any mood keeps an answer back

_MOODS: Final = msgspec.json.Decoder(Moods)
_FAULTS: Final[tuple[tuple[str, Fault], ...]] = (
    ("goaway", "goaway"), ("shed", "refuse"), ("reset", "reset"), ("drop", "drop"), ("half", "half"),
    ("endless", "endless"),
)  # fmt: skip
_OWN: Final = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server", "host", "upgrade"}


def channel_of(path: str, headers: Headers) -> str | None:
    """Whose request it is, None for a question about the simulators."""
    if (network := social.network_of(path)) is not None:
        return network
    if path.startswith("/3/device/"):
        return "apns"
    if path.endswith("/messages:send"):
        return "fcm"
    if path.startswith("/push/"):
        return "webpush"
    if path == "/v1.0/message":
        return "sms_second" if dict(headers).get("x-cm-producttoken", "").endswith("second") else "sms"
    if path.startswith("/voiceapi/"):
        return "voice"
    return "whatsapp" if path.endswith("/messages") else None


class Front:
    """Everything that connections share: the moods, how often each strikes, and the way to the providers."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self._file = folder / MOODS_FILE
        self._stamp = (0, 0)
        self._moods = Moods()
        self._dice: dict[str, Dice] = {}
        self._client = httpx.AsyncClient(
            base_url=upstream,
            verify=ssl.create_default_context(cafile=str(folder / "ca.pem")),
            http2=False,  # a request that its caller dropped ends its own connection, not one that others share
            trust_env=False,
            timeout=ANSWER_S_MAX,
            limits=httpx.Limits(max_connections=UPSTREAM_CONNECTIONS, max_keepalive_connections=UPSTREAM_CONNECTIONS),
        )

    def mood(self, channel: str) -> Mood:
        """A channel's mood as it is now."""
        try:
            status = self._file.stat()
            if (stamp := (status.st_mtime_ns, status.st_ino)) != self._stamp:
                self._moods, self._stamp = _MOODS.decode(self._file.read_bytes()), stamp
        except FileNotFoundError:
            pass
        found: Mood = getattr(self._moods, channel)
        return found

    def fault(self, request: Request) -> tuple[Fault, int]:
        """What is done to a request, and how many streams its connection may have."""
        channel = channel_of(request.path.partition("?")[0], request.headers)
        if channel is None:
            return "none", STREAMS
        mood = self.mood(channel)
        dice = self._dice.setdefault(channel, Dice())
        struck = [fault for name, fault in _FAULTS if dice.hit(name, getattr(mood, name))]
        return struck[0] if struck else "none", mood.streams or STREAMS

    async def reply(self, request: Request) -> Reply:
        """What the providers answer."""
        headers = [pair for pair in request.headers if pair[0] not in _OWN]
        try:
            answer = await self._client.request(request.method, request.path, headers=headers, content=request.body)
        except httpx.HTTPError:
            return 502, [], b""
        return answer.status_code, [pair for pair in answer.headers.items() if pair[0] not in _OWN], answer.content


class _Judge:
    """One connection over HTTP/2: whose it is, it learns from its first request."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._streams = STREAMS

    def streams(self) -> int:
        return self._streams

    def fault(self, request: Request) -> Fault:
        fault, self._streams = self._front.fault(request)
        return fault

    async def reply(self, request: Request) -> Reply:
        return await self._front.reply(request)


async def serve(
    front: Front, files: tls.Files, port: int, *, started: Callable[[int], None] = lambda port: None
) -> None:
    """Serve on a port of loopback until cancelled."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2", "http/1.1"])

    async def connection(raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        try:
            await stream.do_handshake()
            if stream.selected_alpn_protocol() == "h2":
                await H2Connection(_Judge(front), stream).run()
            else:
                await _one_by_one(front, stream)
        except* (
            trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError, h11.ProtocolError, OSError,
        ):  # fmt: skip
            pass
        finally:
            await trio.aclose_forcefully(stream)

    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    started(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(connection, listeners)


async def _one_by_one(front: Front, stream: trio.SSLStream[trio.SocketStream]) -> None:
    """A connection over HTTP/1.1."""
    http = h11.Connection(h11.SERVER)
    while (request := await _read(http, stream)) is not None:
        fault, _ = front.fault(request)
        if fault in ("goaway", "refuse"):
            return
        status, headers, body = await front.reply(request)
        if fault in ("reset", "drop"):
            return
        length = str(len(body) + 1_000_000 if fault in ("half", "endless") else len(body))
        head = h11.Response(status_code=status, headers=[*headers, ("content-length", length)])
        await stream.send_all(http.send(head) or b"")
        if fault == "half":
            return
        if fault == "endless":
            body = b"x" * (len(body) + 1_000_000)
        for at in range(0, len(body), PIECE_BYTES):
            await stream.send_all(http.send(h11.Data(data=body[at : at + PIECE_BYTES])) or b"")
        await stream.send_all(http.send(h11.EndOfMessage()) or b"")
        if http.our_state is h11.MUST_CLOSE or http.their_state is not h11.DONE:
            return
        http.start_next_cycle()


async def _read(http: h11.Connection, stream: trio.SSLStream[trio.SocketStream]) -> Request | None:
    """The next request, read whole; None if the client leaves."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES_MAX:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
            return Request(head.method.decode(), head.target.decode("latin-1"), headers, bytes(body))
        else:
            return None


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")],
    upstream: Annotated[str, typer.Option(help="Where the providers are.")],
    folder: Annotated[Path, typer.Option(help="Their folder: certificates and moods.")],
) -> None:
    """The rough port, until standard input ends."""

    async def until_it_ends() -> None:
        files = tls.Files(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, Front(folder, upstream), files, port)
            await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()

    trio.run(until_it_ends)


if __name__ == "__main__":
    typer.run(main)
