"""The server's side of one HTTP/2 connection (RFC 9113, RFC 7541): bytes in, requests out; answers in, bytes out.

`kernels.py` reads frames and answers plain pushes; what it leaves is read here, a frame at a time. Rules:

1. A request is handed on when it is whole: `asked(request, reply)`. The reply (`rough.Reply`) is given at once or
   later, once; for a stream that its client has given up it does nothing.
2. What is to be sent gathers in `out`; the owner sends it after `receive`, and after a reply when `woken` calls. Then
   it asks for more (`pull`): long bodies come in pieces.
3. A body goes out as far as the client's windows let it, the rest when they open.
4. Streams above the number that was offered are refused unread (REFUSED_STREAM). What breaks the protocol ends the
   connection with GOAWAY: `broken` is then the reason. So does what is bigger than we read (`BODY_BYTES_MAX`). The
   owner closes a broken connection once `out` is sent.
5. Windows for bodies are as wide as may be: a simulator's memory is no one else's affair, and a client is to be limited
   by its own rules, not by ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from fanout.simulators.http2 import kernels as k
from fanout.simulators.http2.blocks.kernels import new_table, read_block
from fanout.simulators.http2.blocks.writing import block_of
from fanout.simulators.http2.known import DEVICE, Known
from fanout.simulators.replies import Headers
from fanout.simulators.rough import Reply

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
BUFFER_BYTES: Final = 256 * 1024
WINDOW_BYTES: Final = 65_535  # every window at first
TOP_UP_BYTES: Final = 1 << 29  # of bodies taken in, before the client gets them back
RING: Final = 4_096  # heads that may wait for their body at once; more are read by Python
_RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _CONTINUATION = 3, 4, 5, 6, 7, 9
_MAX_CONCURRENT, _INITIAL_WINDOW, _FRAME_SIZE = 3, 4, 5
_PROTOCOL, _INTERNAL, _FLOW, _SIZE, _REFUSED, _COMPRESSION, _CALM = 1, 2, 3, 6, 7, 9, 11
HALF_BYTES: Final = 1_000_000  # that half an answer promises
OUT_BYTES: Final = 256 * 1024  # that wait in `out`, beyond a frame or two
_ENDLESS: Final = memoryview(bytes(k.FRAME_BYTES_MAX))


class Request(NamedTuple):
    """One request, read whole; `path` without, `query` what follows its question mark; names in small letters."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


Asked = Callable[[Request, Reply], None]


class _Stream:
    """A request that Python reads, then its answer."""

    __slots__ = ("answer", "body", "endless", "extra", "fields", "sent", "whole")

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.fields = fields
        self.body = bytearray()
        self.extra = 0  # window beyond the initial one
        self.sent = 0
        self.answer: memoryview | None = None
        self.endless = self.whole = False


class _Reply:
    """The reply to one request, as `rough.Reply` says."""

    def __init__(self, connection: Connection, stream: int, found: _Stream) -> None:
        self._connection, self._stream, self._found = connection, stream, found

    def __call__(self, status: int, headers: Headers, body: bytes) -> None:
        self._connection.respond(self._stream, self._found, status, headers, body)

    def go_away(self) -> bool:
        return self._connection.go_away(self._stream)

    def shed(self) -> None:
        self._connection.reset(self._stream, self._found, _REFUSED)

    def reset(self) -> None:
        self._connection.reset(self._stream, self._found, _INTERNAL)

    def drop(self) -> None:
        self._connection.drop()

    def half(self, status: int, headers: Headers) -> None:
        self._connection.half(self._stream, self._found, status, headers)

    def endless(self, status: int, headers: Headers) -> None:
        self._found.endless = True
        self._connection.respond(self._stream, self._found, status, headers, bytes(_ENDLESS))

    def streams(self, most: int) -> None:
        self._connection.allow(most)


class _Broken(Exception):
    """The connection ends: (error code, why)."""


class Connection:
    """One client's connection; `streams` is how many requests it may have open."""

    def __init__(self, known: Known, asked: Asked, *, streams: int, woken: Callable[[], None]) -> None:
        self.known, self._asked, self._limit, self._woken = known, asked, streams, woken
        self._told = streams
        self.buffer: Final = bytearray(BUFFER_BYTES)
        self._array = np.frombuffer(self.buffer, np.uint8)
        self.end = 0  # of what `buffer` holds
        self.out = bytearray()
        self.broken: str | None = None
        self._state = np.zeros(k.STATE_SIZE, np.int64)
        self._state[k.WINDOW] = self._state[k.STREAM_WINDOW] = WINDOW_BYTES
        self._slots = np.zeros((RING, k.SLOT_SIZE), np.int64)
        self._tokens = np.zeros((RING, k.TOKEN_BYTES_MAX), np.uint8)
        self._table = new_table()
        self._streams: dict[int, _Stream] = {}
        self._blocked: dict[int, _Stream] = {}  # whose answer waits for a window
        self._block = bytearray()  # of a head that goes on in the next frame
        self._block_of = (0, 0)  # its (stream, flags)
        self._begun = self._reading = False
        self._taken = 0  # the highest stream that Python took
        self._goes: int | None = None  # the last stream that is taken, once GOAWAY was sent
        settings = [(_MAX_CONCURRENT, streams), (_INITIAL_WINDOW, BODY_BYTES_MAX + k.FRAME_BYTES_MAX)]
        self._frame(_SETTINGS, 0, 0, b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in settings))
        self._frame(k.WINDOW_UPDATE, 0, 0, (k.WINDOW_MAX - WINDOW_BYTES).to_bytes(4))
        known.connections.add(self)

    def closed(self) -> None:
        """The owner has closed the socket: nothing is answered any more."""
        self.known.connections.discard(self)
        self._streams.clear()
        self._blocked.clear()

    def room(self) -> memoryview:
        """Where the next bytes are to be put; then say how many to `receive`."""
        return memoryview(self.buffer)[self.end :]

    def receive(self, count: int) -> None:
        """Read what came; answers gather in `out`."""
        self.end += count
        if self.broken is not None:
            self.end = 0
            return
        self._reading = True
        try:
            at = self._read()
        except _Broken as error:
            code, self.broken = error.args
            self._frame(_GOAWAY, 0, 0, int(self._state[k.LAST]).to_bytes(4) + code.to_bytes(4))
            at = self.end
        finally:
            self._reading = False
        rest = self.end - at
        self._array[:rest] = self._array[at : self.end].copy()
        self.end = rest

    def _read(self) -> int:
        at = 0
        if not self._begun:
            if self.end < len(PREFACE):
                return 0
            if not self.buffer.startswith(PREFACE):
                raise _Broken(_PROTOCOL, "no preface")
            self._begun, at = True, len(PREFACE)
        known, state = self.known, self._state
        while True:
            state[k.PLAIN] = known.plain
            at = int(k.read_requests(
                state, self._slots, self._tokens, self._table, known.heads.arrays, known.forms.arrays, known.answers,
                known.texts, self._array, at, self.end, known.came, known.sent,
            ))  # fmt: skip
            told = state.tolist()
            if told[k.SENT]:
                known.take(known.came[0][: told[k.RUNS]].tolist())
                self.out += known.sent[: told[k.SENT]].data
                state[k.RUNS :] = 0
            match told[k.WHY]:
                case k.MORE:
                    break
                case k.FRAME:
                    self._frame_came(told[k.KIND], told[k.FLAGS], told[k.STREAM], told[k.START], told[k.STOP])
                case k.REQUEST:
                    self._head_came(told)
                case k.PROMOTED:
                    self._promote(told[k.STREAM])
                    self._data_came(told[k.FLAGS], told[k.STREAM], told[k.START], told[k.STOP])
                case k.BAD_BLOCK:
                    raise _Broken(_COMPRESSION, "a header block cannot be read")
                case k.TOO_LONG:
                    raise _Broken(_SIZE, "a frame is too long")
        if state[k.RECEIVED] > TOP_UP_BYTES:
            self._frame(k.WINDOW_UPDATE, 0, 0, int(state[k.RECEIVED]).to_bytes(4))
            state[k.RECEIVED] = 0
        self.pull()
        return at

    # --- in -----------------------------------------------------------------------------------------------------------

    def _frame_came(self, kind: int, flags: int, stream: int, start: int, stop: int) -> None:
        """Any frame that the kernel leaves."""
        payload = bytes(self.buffer[start:stop])
        if self._block_of[0] and (kind != _CONTINUATION or stream != self._block_of[0]):
            raise _Broken(_PROTOCOL, "a head was not ended")
        match kind:
            case k.DATA:
                self._data_came(flags, stream, start, stop)
            case k.HEADERS:
                self._block_begins(flags, stream, _unpadded(flags, payload))
            case _ if kind == _CONTINUATION:
                self._block_goes_on(flags, stream, payload)
            case _ if kind == _SETTINGS:
                self._settings_came(flags, payload)
            case _ if kind == _PING:
                if len(payload) != 8:
                    raise _Broken(_SIZE, "a PING has eight bytes")
                if not flags & 1:
                    self._frame(_PING, 1, 0, payload)
            case k.WINDOW_UPDATE:
                self._window_came(stream, payload)
            case _ if kind == _RST_STREAM:
                self._free_slot(stream)
                self._done(stream)
            case _ if kind == _PUSH_PROMISE:
                raise _Broken(_PROTOCOL, "a client promises nothing")

    def _block_begins(self, flags: int, stream: int, payload: bytes) -> None:
        self._block = bytearray(payload[5:] if flags & k.PRIORITIZED else payload)
        self._block_of = stream, flags
        if flags & k.END_HEADERS:
            self._block_is_whole()

    def _block_goes_on(self, flags: int, stream: int, payload: bytes) -> None:
        if not self._block_of[0]:
            raise _Broken(_PROTOCOL, "a head goes on that never began")
        self._block += payload
        if len(self._block) > BUFFER_BYTES:
            raise _Broken(_CALM, "a head is too long")
        if flags & k.END_HEADERS:
            self._block_is_whole()

    def _block_is_whole(self) -> None:
        (stream, flags), self._block_of = self._block_of, (0, 0)
        text, fields, _ = self.known.texts
        block = np.frombuffer(bytes(self._block), np.uint8)
        count = read_block(*self._table, block, 0, len(block), text, fields)
        if count < 0:
            raise _Broken(_COMPRESSION, "a header block cannot be read")
        self._head(stream, flags, self._fields(count))

    def _head_came(self, told: list[int]) -> None:
        """A head that the kernel has read and that is not plain, or not known."""
        fields = self._fields(told[k.FIELDS])
        if told[k.HEAD] < 0 and told[k.KEY_BYTES] > 0:
            self.known.keep_head(self.known.texts[2][: told[k.KEY_BYTES]].tobytes(), fields)
        self._head(told[k.STREAM], told[k.FLAGS], fields)

    def _fields(self, count: int) -> list[tuple[str, str]]:
        text, fields, _ = self.known.texts
        raw = text[: fields[count - 1, 2] if count else 0].tobytes().decode("latin-1")
        return [(raw[begin:middle], raw[middle:end]) for begin, middle, end in fields[:count].tolist()]

    def _head(self, stream: int, flags: int, fields: list[tuple[str, str]]) -> None:
        if stream in self._streams or self._slots[self._slot(stream), k.OF_STREAM] == stream:  # trailers
            if not flags & k.END_STREAM:
                raise _Broken(_PROTOCOL, "trailers end a stream")
            self._promote(stream)
            self._whole(stream)
            return
        if stream % 2 == 0:
            raise _Broken(_PROTOCOL, f"stream {stream} cannot begin")
        if stream <= self._state[k.LAST]:
            return  # of one that was refused, or given up
        self._state[k.LAST] = stream
        if len(self._streams) >= self._limit:
            self._frame(_RST_STREAM, 0, stream, _REFUSED.to_bytes(4))
            return
        names = {name for name, _ in fields}
        if not {":method", ":path"} <= names or any(name != name.lower() for name in names):
            self._frame(_RST_STREAM, 0, stream, _PROTOCOL.to_bytes(4))
            return
        self._streams[stream] = _Stream(fields)
        if flags & k.END_STREAM:
            self._whole(stream)

    def _promote(self, stream: int) -> None:
        """A stream whose head was plain is Python's from now on."""
        slot = self._slots[self._slot(stream)]
        if slot[k.OF_STREAM] == stream:
            token = self._tokens[self._slot(stream), : slot[k.OF_TOKEN]].tobytes().decode("latin-1")
            fields = self.known.fields_of[slot[k.OF_HEAD]]
            if token:
                fields = [(name, DEVICE + token if name == ":path" else value) for name, value in fields]
            self._streams[stream] = _Stream(fields)
            slot[k.OF_STREAM] = 0

    def promote_all(self) -> None:
        """What heads are known by changes: none waits by number."""
        for stream in self._slots[:, k.OF_STREAM][self._slots[:, k.OF_STREAM] > 0].tolist():
            self._promote(stream)

    def _data_came(self, flags: int, stream: int, start: int, stop: int) -> None:
        found = self._streams.get(stream)
        if found is None or found.whole:
            if stream == 0 or stream > self._state[k.LAST]:
                raise _Broken(_PROTOCOL, "a body without a head")
            return  # of a stream that was refused or given up
        payload = self.buffer[start:stop]
        found.body += _unpadded(flags, bytes(payload))
        if len(found.body) > BODY_BYTES_MAX:
            raise _Broken(_CALM, "a body is too long")
        if flags & k.END_STREAM:
            self._whole(stream)

    def _whole(self, stream: int) -> None:
        """A request has come whole."""
        found = self._streams[stream]
        found.whole = True
        headers = {name: value for name, value in found.fields if not name.startswith(":")}
        names = dict(found.fields)
        path, _, query = names[":path"].partition("?")
        request = Request(names[":method"], path, query, headers, bytes(found.body))
        self._asked(request, _Reply(self, stream, found))
        if stream in self._streams:
            self._taken = max(self._taken, stream)

    def _settings_came(self, flags: int, payload: bytes) -> None:
        if flags & 1:
            return
        if len(payload) % 6:
            raise _Broken(_SIZE, "settings have six bytes each")
        for at in range(0, len(payload), 6):
            name, value = int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6])
            if name == _INITIAL_WINDOW:
                if value > k.WINDOW_MAX:
                    raise _Broken(_FLOW, "a window is too wide")
                self._state[k.STREAM_WINDOW] = value
            elif name == _FRAME_SIZE and not k.FRAME_BYTES_MAX <= value < 1 << 24:
                raise _Broken(_PROTOCOL, "frames cannot be that long")
        self._frame(_SETTINGS, 1, 0, b"")

    def _window_came(self, stream: int, payload: bytes) -> None:
        more = int.from_bytes(payload) & k.WINDOW_MAX
        if len(payload) != 4 or not more or not stream:
            raise _Broken(_FLOW if len(payload) == 4 else _SIZE, "no such window")
        if (found := self._streams.get(stream)) is not None:
            found.extra += more

    # --- out ----------------------------------------------------------------------------------------------------------

    def respond(self, stream: int, found: _Stream, status: int, headers: Headers, body: bytes) -> None:
        """The answer to a request, unless it was given up or has one."""
        if self._streams.get(stream) is not found or found.answer is not None:
            return
        self._taken = max(self._taken, stream)
        if (":method", "HEAD") in found.fields:
            body = b""
        block = block_of(status, headers, 0 if found.endless else len(body))
        self._frame(k.HEADERS, k.END_HEADERS if body else k.END_HEADERS | k.END_STREAM, stream, block)
        if body:
            found.answer = memoryview(body)
            self._blocked[stream] = found
            self.pull()
        else:
            self._done(stream)
        self._tell()

    def reset(self, stream: int, found: _Stream, code: int) -> None:
        """End a request with an error."""
        if self._streams.get(stream) is found:
            self._frame(_RST_STREAM, 0, stream, code.to_bytes(4))
            self._taken = max(self._taken, stream if code != _REFUSED else 0)
            self._done(stream)
            self._tell()

    def half(self, stream: int, found: _Stream, status: int, headers: Headers) -> None:
        """A head, and the end of the connection."""
        if self._streams.get(stream) is found:
            self._frame(k.HEADERS, k.END_HEADERS, stream, block_of(status, headers, HALF_BYTES))
            self.broken = "half an answer"
            self._tell()

    def drop(self) -> None:
        """The end of the connection, without a word."""
        self.out.clear()
        self.broken = "dropped"
        self._tell()

    def go_away(self, stream: int) -> bool:
        """Take nothing from this stream on; False if a later one was taken. The last answer ends the connection."""
        last = max(self._taken, int(self._state[k.TAKEN]))
        if stream <= last:
            return False
        self.promote_all()
        self._goes = last
        self._state[k.LAST] = k.WINDOW_MAX  # the highest there is: whatever begins from now on is not looked at
        for later in [one for one in self._streams if one > last]:
            self._streams.pop(later)
        self._frame(_GOAWAY, 0, 0, last.to_bytes(4) + bytes(4))
        self._gone()
        self._tell()
        return True

    def allow(self, most: int) -> None:
        """Tell the client how many requests it may have open, if that is news; 0: as many as usual."""
        most = most or self._limit
        if most != self._told:
            self._told = most
            self._frame(_SETTINGS, 0, 0, _MAX_CONCURRENT.to_bytes(2) + most.to_bytes(4))
            self._tell()

    def pull(self) -> None:
        """Send what waits, as far as windows let it, and no more than `OUT_BYTES` at a time."""
        for stream, found in list(self._blocked.items()):
            assert found.answer is not None
            while len(found.answer) > found.sent or found.endless:
                room = int(min(self._state[k.WINDOW], self._state[k.STREAM_WINDOW] + found.extra - found.sent))
                room = min(room, k.FRAME_BYTES_MAX) if len(self.out) < OUT_BYTES else 0
                begin = 0 if found.endless else found.sent
                piece = found.answer[begin : begin + room] if room > 0 else b""
                if not piece:
                    break
                found.sent += len(piece)
                self._state[k.WINDOW] -= len(piece)
                last = not found.endless and found.sent == len(found.answer)
                self._frame(k.DATA, k.END_STREAM if last else 0, stream, bytes(piece))
            else:
                self._done(stream)

    def _done(self, stream: int) -> None:
        """A request has its answer."""
        self._streams.pop(stream, None)
        self._blocked.pop(stream, None)
        self._gone()

    def _gone(self) -> None:
        """The connection has ended if it takes nothing more and has nothing left to answer."""
        if self._goes is not None and not self._streams:
            self.broken = "went away"

    def _tell(self) -> None:
        """Have what is in `out` sent."""
        if not self._reading:
            self._woken()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self.out += len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload

    def _slot(self, stream: int) -> int:
        return (stream >> 1) & (RING - 1)

    def _free_slot(self, stream: int) -> None:
        slot = self._slots[self._slot(stream)]
        if slot[k.OF_STREAM] == stream:
            slot[k.OF_STREAM] = 0


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & k.PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _Broken(_PROTOCOL, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
