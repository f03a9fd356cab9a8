"""HTTP/2 by hand, a connection at a time: a server that can be told to break the protocol, and where.

Servers that speak HTTP/2 well cannot be made to misbehave; this one is small and slow (some thousand requests a second)
and asks a `Judge` about every request it has read whole: what to do to it (`Fault`), what to answer, and how many
streams the client may have open. Faults of a request:

`none` · `goaway` (this one and all that come after it on the connection are refused unread; earlier ones are answered,
then the connection ends) · `refuse` (REFUSED_STREAM, not taken) · `reset` (taken, then INTERNAL_ERROR) · `drop` (taken,
then the connection ends without a word) · `half` (taken, headers, then the connection ends) · `hang` (taken, never
answered) · `endless` (taken, and an answer without an end).

A request that was not taken never reaches `Judge.reply`, so whoever counts there counts the truth.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hyperframe.frame import GoAwayFrame

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
STREAMS: Final = 1_000

Fault: TypeAlias = Literal["none", "goaway", "refuse", "reset", "drop", "half", "hang", "endless"]
Headers: TypeAlias = list[tuple[str, str]]
Reply: TypeAlias = tuple[int, Headers, bytes]


class Request(NamedTuple):
    """One request, read whole. `headers` without the pseudo-headers, lower-case."""

    method: str
    path: str
    headers: Headers
    body: bytes


class Judge(Protocol):
    """What becomes of the requests of one connection."""

    def streams(self) -> int:
        """How many streams the client may have open from now on."""

    def fault(self, request: Request) -> Fault:
        """What is done to a request; asked once, in the order in which they arrived."""

    async def reply(self, request: Request) -> Reply:
        """The answer of a request that was taken."""


class Ended(Exception):
    """A fault ends this connection."""


class H2Connection:
    """One client's connection."""

    def __init__(self, judge: Judge, stream: trio.abc.Stream) -> None:
        self._judge, self._stream = judge, stream
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._heads: dict[int, tuple[str, str, Headers]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._raw = bytearray()  # frames that h2 would not send
        self._sending = trio.Lock()
        self._windows = trio.Event()
        self._streams = 0
        self._taken_last = 0
        self._in_flight = 0
        self._leaving = False

    async def run(self) -> None:
        """Serve until the client leaves or a fault ends it."""
        self._streams = self._judge.streams()
        self._http.local_settings = h2.settings.Settings(  # in the first frame: h2 would name its own limit after ours
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self._streams}
        )
        self._http.initiate_connection()
        await self._flush()
        try:
            async with trio.open_nursery() as nursery:
                while data := await self._stream.receive_some():
                    for event in self._http.receive_data(data):
                        self._take(event, nursery)
                    await self._flush()
                nursery.cancel_scope.cancel()
        except* Ended:
            with trio.move_on_after(1):
                await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            data = self._http.data_to_send() + bytes(self._raw)
            self._raw.clear()
            if data:
                await self._stream.send_all(data)

    def _take(self, event: h2.events.Event, nursery: trio.Nursery) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers = [(str(name), str(value)) for name, value in event.headers]
            known = dict(headers)
            rest = [pair for pair in headers if not pair[0].startswith(":")]
            self._heads[event.stream_id] = known[":method"], known[":path"], rest
            self._bodies[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived) and event.stream_id in self._bodies:
            self._bodies[event.stream_id] += event.data
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if len(self._bodies[event.stream_id]) > BODY_BYTES_MAX:
                raise Ended
        elif isinstance(event, h2.events.StreamEnded) and event.stream_id in self._heads:
            request = Request(*self._heads.pop(event.stream_id), bytes(self._bodies.pop(event.stream_id)))
            self._judged(event.stream_id, request, nursery)
        elif isinstance(event, h2.events.StreamReset):
            self._heads.pop(event.stream_id, None)
            self._bodies.pop(event.stream_id, None)
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._windows.set()
            self._windows = trio.Event()

    def _judged(self, stream: int, request: Request, nursery: trio.Nursery) -> None:
        if self._leaving:
            return  # the client knows that it was not taken
        fault = self._judge.fault(request)
        if fault == "refuse":
            self._http.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif fault == "goaway" and stream > self._taken_last:
            self._leaving = True
            self._raw += GoAwayFrame(0, last_stream_id=self._taken_last).serialize()
            if not self._in_flight:
                raise Ended
        else:
            self._taken_last = max(self._taken_last, stream)
            self._in_flight += 1
            nursery.start_soon(self._answer, stream, request, "none" if fault == "goaway" else fault)
        if (streams := self._judge.streams()) != self._streams:
            self._streams = streams
            self._http.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: streams})

    async def _answer(self, stream: int, request: Request, fault: Fault) -> None:
        status, headers, body = await self._judge.reply(request)
        if fault == "drop":
            raise Ended
        try:
            if fault == "reset":
                self._http.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
            elif fault == "half":
                self._http.send_headers(stream, [(":status", str(status)), ("content-length", "1000000")])
                raise Ended
            elif fault == "endless":
                self._http.send_headers(stream, [(":status", str(status)), *headers])
                while True:
                    await self._send(stream, b"x" * 16_384, end=False)
            elif fault != "hang":
                self._http.send_headers(stream, [(":status", str(status)), *headers], end_stream=not body)
                if body:
                    await self._send(stream, body, end=True)
        except (h2.exceptions.StreamClosedError, h2.exceptions.NoSuchStreamError):
            pass  # the client gave it up
        await self._flush()
        self._in_flight -= 1
        if self._leaving and not self._in_flight:
            raise Ended

    async def _send(self, stream: int, body: bytes, *, end: bool) -> None:
        """Send data as the client's windows let it."""
        at = 0
        while at < len(body):
            windows = self._windows
            room = min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)
            piece = body[at : at + max(0, room)]
            if piece:
                at += len(piece)
                self._http.send_data(stream, piece, end_stream=end and at == len(body))
            await self._flush()
            if not piece:
                await windows.wait()
