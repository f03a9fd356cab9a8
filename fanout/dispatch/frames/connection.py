"""One HTTP/2 connection to a push service, as a client sees it: bytes in, bytes out, no socket, no clock, no task.

The plain traffic runs in `kernels.py`; this is what holds the arrays for it and deals with everything unusual, by
RFC 9113. What it promises for every row written to it:

1. It ends once, by `take`, with a status, `NO_ANSWER`, `GARBAGE`, or one of two that say that the peer certainly did
   not take it. `NOT_SENT`: it may go again at once, since its last byte never left (`sent`), the peer refused the
   stream unprocessed (REFUSED_STREAM), or it stands above the last stream that a GOAWAY names; who had begun to answer
   is not believed. `NO_CONNECTION`: all its time went by and the peer did not let it through; from one that lets nobody
   through, the connection is `stuck`.
2. A request is whole on the wire or it is not sent: TLS delivers whole records only, so a row whose last byte the
   socket never took cannot have been read by the peer.
3. The peer's limits hold from the moment they arrive: streams, windows, frame size, header table. Nothing is sent
   before the peer's SETTINGS are there, since some peers (APNs) allow one stream at first.
4. A mistake of the peer ends the stream where the protocol says so, otherwise the connection (`broken` says why).

Header blocks that come in refer to no dynamic table, since ours has no byte (SETTINGS_HEADER_TABLE_SIZE = 0): any block
can be read without having read those before it, which is what lets the kernel skip them.

The shell owes: bytes as they arrive (`space`, `read`), `output` written in order and `sent` told of it, `expire` every
now and then, and `lose` when the connection has ended. Times are milliseconds of any clock that does not go back.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, NOT_SENT
from fanout.dispatch.frames import kernels as k
from fanout.dispatch.frames.heads import head_of
from fanout.dispatch.frames.outbox import Outbox
from fanout.dispatch.frames.plans import Blocks, Columns, Encoder, Text
from fanout.dispatch.frames.uploads import Uploads
from fanout.limits import ANSWER_BYTES_MAX

UNSENT_BYTES_MAX: Final = (
    64 * 1024
)  # more than this before the socket and no row is added: late rows of lane 0 wait behind it
IN_BYTES: Final = 128 * 1024
HEADER_BYTES_MAX: Final = 64 * 1024  # of one header block in several frames; an honest one has a few hundred bytes
WINDOW: Final = 8 * 1024 * 1024  # bytes of answers on their way to us on one connection
ENDS_MAX: Final = 1_024  # streams ended, and odd frames, per call of the kernel
NEVER: Final = 2**62

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 1, 3, 6, 7, 8, 9
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = range(1, 6)
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Note(NamedTuple):
    """What an answer that was no plain success said: its body, and its Retry-After as it stood there."""

    job: int
    place: int
    code: int
    body: bytes
    retry_after: str


class Ended(NamedTuple):
    """Rows that have ended: `rows` int64[n, 3] of (job, place, code), and notes on some of them."""

    rows: NDArray[np.int64]
    notes: list[Note]


class _Answer:
    """An answer under way that is no plain success."""

    def __init__(self, status: int, retry_after: str) -> None:
        self.status, self.retry_after, self.body = status, retry_after, bytearray()


class _Broken(Exception):
    """The peer broke the protocol; the connection ends."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Connection:
    """The client's side of one connection."""

    def __init__(self, authority: str, *, streams: int, first_stream: int = 1) -> None:
        self._streams = streams
        self._peer_streams = 0  # until its SETTINGS are there
        ring = 64
        while ring < 4 * streams:
            ring *= 2
        self._state = np.zeros(k.STATE_SIZE, np.int64)
        self._state[[k.NEXT, k.WINDOW, k.STREAM_WINDOW, k.FRAME_MAX]] = (
            first_stream,
            k.INITIAL_BYTES,
            k.INITIAL_BYTES,
            k.FRAME_BYTES_MAX,
        )
        self._slots = np.zeros((ring, k.SLOT_SIZE), np.int64)
        self._out = Outbox(self._state)
        self._in = np.empty(IN_BYTES, np.uint8)
        self._in_view = self._in.data
        self._filled = 0
        self._ended = np.empty((ENDS_MAX, 3), np.int64)
        self._odd = np.empty((ENDS_MAX, 5), np.int64)
        self._arrays: list[NDArray[np.int64]] = []
        self._rows: list[tuple[int, int, int]] = []
        self._notes: list[Note] = []
        self._encoder = Encoder(authority)
        self._answers: dict[int, _Answer] = {}
        self._uploads = Uploads(self._state, self._slots, self._out)
        self._block: tuple[int, bool, bytearray] | None = None
        self._choked = False
        self.ready = False
        self.draining = False
        self.broken = ""
        self.stuck = False
        self.answered = 0
        self.pongs = 0
        self._gave_garbage = False
        self._out.put(PREFACE)
        settings = ((TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW, ANSWER_BYTES_MAX))
        self._out.frame(k.SETTINGS, 0, 0, b"".join(n.to_bytes(2) + value.to_bytes(4) for n, value in settings))
        self._out.frame(k.WINDOW_UPDATE, 0, 0, (WINDOW - k.INITIAL_BYTES).to_bytes(4))

    def __repr__(self) -> str:
        state = self.broken or ("draining" if self.draining else "ready" if self.ready else "new")
        return f"<Connection {state}, {self.open} of {self.streams} streams>"

    # --- rows out -------------------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """Streams without an end."""
        return int(self._state[k.OPEN])

    @property
    def streams(self) -> int:
        """Streams that may be open at once."""
        return min(self._streams, self._peer_streams)

    @property
    def room(self) -> int:
        """Rows that may be written now."""
        if self.draining or self.broken or self._choked or self.unsent > UNSENT_BYTES_MAX or self._uploads.full:
            return 0
        return max(0, self.streams - self.open)

    @property
    def served(self) -> bool:
        """Whether it is over, and let some through."""
        return (self.draining or bool(self.broken)) and (self.answered > 0 or self.open > 0)

    def write(
        self,
        job: int,
        text: Text,
        columns: Columns,
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
        *,
        due_ms: int,
    ) -> int:
        """Write requests for `rows` int64[k] of one template; returns how many were, always the first ones."""
        assert len(rows) <= self.room, "the shell asks `room` first"
        self._out.compact()
        done = 0
        blocks = self._encoder.ready(text)
        if blocks is None:
            first = self._encoder.prepare(text)
            if first is not None:  # whatever the windows say, this block must be the next one sent
                done = self._plain(job, text, first, columns, rows[:1], places[:1], due_ms)
                if not done:
                    self._slowly(job, text, first, columns, int(rows[0]), int(places[0]), due_ms)
                    done = 1
            blocks = self._encoder.ready(text)
            assert blocks is not None
        while done < len(rows):
            done += self._plain(job, text, blocks, columns, rows[done:], places[done:], due_ms)
            why = int(self._state[k.WHY])
            if why == k.TOO_BIG or (why == k.NO_WINDOW and not self.open):
                self._slowly(job, text, blocks, columns, int(rows[done]), int(places[done]), due_ms)
                done += 1
                if self._uploads.full:
                    break
            elif why != k.ALL:
                self._choked = why == k.NO_WINDOW
                break
        return done

    def _plain(
        self,
        job: int,
        text: Text,
        blocks: Blocks,
        columns: Columns,
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
        due_ms: int,
    ) -> int:
        return int(
            k.write_rows(
                self._state,
                self._slots,
                blocks.head,
                blocks.tail,
                text.consts,
                text.path,
                text.body,
                text.with_length,
                columns.data,
                columns.offsets,
                rows,
                places,
                job,
                due_ms,
                self._out.buffer,
            )
        )

    def _slowly(
        self, job: int, text: Text, blocks: Blocks, columns: Columns, row: int, place: int, due_ms: int
    ) -> None:
        """Send one row's headers, and its body as the peer's windows and frame size let it."""
        offsets = columns.offsets
        scratch = np.empty(sum(k.sizes(blocks.head, blocks.tail, text.path, text.body, offsets, row)), np.uint8)
        middle, end = k.render(
            blocks.head,
            blocks.tail,
            text.consts,
            text.path,
            text.body,
            text.with_length,
            columns.data,
            offsets,
            row,
            scratch,
        )
        block, body = scratch[:middle].tobytes(), scratch[middle:end].tobytes()
        stream, slot = self._next_slot()
        self._slots[slot] = stream, job, place, NEVER, due_ms, k.ODD, 0
        most = int(self._state[k.FRAME_MAX])
        pieces = [block[at : at + most] for at in range(0, len(block), most)]
        for number, piece in enumerate(pieces):
            flags = k.END_HEADERS if number == len(pieces) - 1 else 0
            if number == 0 and not body:
                flags |= k.END_STREAM
            self._out.frame(k.CONTINUATION if number else k.HEADERS, flags, stream, piece)
        if body:
            self._uploads.add(stream, slot, body)
        else:
            self._slots[slot, k.END] = self._state[k.POSITION]

    def _next_slot(self) -> tuple[int, int]:
        """Open the next stream; returns it and its slot."""
        stream = int(self._state[k.NEXT])
        while self._slots[slot := self._slot(stream), k.STREAM]:
            stream += 2
        self._state[k.NEXT] = stream + 2
        self._state[k.OPEN] += 1
        return stream, slot

    # --- bytes out ------------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._out.unsent

    def output(self) -> memoryview:
        """What is to be written next."""
        return self._out.output()

    def sent(self, count: int) -> None:
        """The socket took so many bytes of `output`."""
        self._out.sent(count)
        if self._uploads and not self._out.unsent:
            self._uploads.pump()

    def _reset(self, stream: int, code: int) -> None:
        self._out.frame(k.RST_STREAM, 0, stream, code.to_bytes(4))

    def ping(self) -> None:
        """Ask for a sign of life; `pongs` counts the answers."""
        self._out.frame(k.PING, 0, 0, bytes(8))

    # --- bytes in -------------------------------------------------------------------------------------------------

    def space(self) -> memoryview:
        """Where to put bytes that arrive; `read` looks at them. Empty when there is enough to look at."""
        return self._in_view[self._filled :]

    def put(self, count: int) -> None:
        """So many bytes were put into `space`."""
        self._filled += count

    def read(self) -> None:
        """Take in what has arrived."""
        at, window = 0, int(self._state[k.WINDOW])
        while not self.broken:
            stopped, ends, odds = k.read_frames(
                self._state, self._slots, self._in, at, self._filled, ANSWER_BYTES_MAX, self._ended, self._odd
            )
            if ends:
                self._arrays.append(self._ended[:ends].copy())
                self.answered += ends
            try:
                for kind, flags, stream, start, stop in self._odd[:odds].tolist():
                    self._frame_in(kind, flags, stream, start, stop)
            except _Broken as broken:
                self._break(broken.code, str(broken))
            if stopped == at:
                break
            at = stopped
        self._in[: self._filled - at] = self._in[at : self._filled]
        self._filled -= at
        if self._state[k.RECEIVED] > WINDOW // 2:
            self._out.frame(k.WINDOW_UPDATE, 0, 0, int(self._state[k.RECEIVED]).to_bytes(4))
            self._state[k.RECEIVED] = 0
        if self._uploads:
            self._uploads.pump()
        if self._out.full:
            self.broken = self.broken or "does not read what it asks for"
        if self._choked and (self._state[k.WINDOW] > window or not self.open):
            self._choked = False
        if self._state[k.NEXT] > k.STREAM_MAX - 4 * len(self._slots):
            self.draining = True  # the ids are used up

    def _frame_in(self, kind: int, flags: int, stream: int, start: int, stop: int) -> None:
        """A frame that the kernel left to us."""
        if stop - start > k.FRAME_BYTES_MAX:
            raise _Broken(FRAME_SIZE_ERROR, "a frame too long, or no HTTP/2")
        if not self.ready and kind != k.SETTINGS:
            raise _Broken(PROTOCOL_ERROR, "does not begin with settings")
        if self._block is not None and (kind != k.CONTINUATION or stream != self._block[0]):
            raise _Broken(PROTOCOL_ERROR, "a frame within a header block")
        payload = self._in[start:stop].tobytes()
        match kind:
            case k.DATA:
                self._on_data(stream, flags, payload)
            case k.HEADERS:
                self._on_headers(stream, flags, payload)
            case k.CONTINUATION:
                self._on_continuation(flags, payload)
            case k.RST_STREAM:
                self._on_reset(stream, payload)
            case k.SETTINGS:
                self._on_settings(stream, flags, payload)
            case k.PING:
                self._on_ping(stream, flags, payload)
            case k.GOAWAY:
                self._on_goaway(stream, payload)
            case k.WINDOW_UPDATE:
                self._on_window(stream, payload)
            case k.PUSH_PROMISE:
                raise _Broken(PROTOCOL_ERROR, "pushes although it may not")

    # --- answers --------------------------------------------------------------------------------------------------

    def _on_data(self, stream: int, flags: int, payload: bytes) -> None:
        if not stream:
            raise _Broken(PROTOCOL_ERROR, "a body on no stream")
        slot = self._slot(stream)
        payload = _unpadded(flags, payload)
        if self._slots[slot, k.STREAM] != stream:
            return
        answer = self._answers.get(stream)
        if answer is None:  # a body before its headers, or a success without an end
            self._give_up(stream, slot, GARBAGE)
            return
        answer.body += payload
        if flags & k.END_STREAM:
            self._finish(stream, slot)
        elif len(answer.body) >= ANSWER_BYTES_MAX:
            self._give_up(stream, slot, GARBAGE)

    def _on_headers(self, stream: int, flags: int, payload: bytes) -> None:
        payload = _unpadded(flags, payload)
        if flags & k.PRIORITIZED:
            payload = payload[5:]
        self._block = (stream, bool(flags & k.END_STREAM), bytearray(payload))
        if flags & k.END_HEADERS:
            self._end_block()

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise _Broken(PROTOCOL_ERROR, "continues no header block")
        block = self._block[2]
        block += payload
        if len(block) > HEADER_BYTES_MAX or not (payload or flags & k.END_HEADERS):
            raise _Broken(PROTOCOL_ERROR, "headers without an end")
        if flags & k.END_HEADERS:
            self._end_block()

    def _end_block(self) -> None:
        assert self._block is not None
        stream, ends, block = self._block
        self._block = None
        self._on_block(stream, bytes(block), ends)

    def _on_block(self, stream: int, block: bytes, ends: bool) -> None:
        slot = self._slot(stream)
        if self._slots[slot, k.STREAM] != stream:
            self._check_known(stream)
            return
        try:
            status, retry_after = head_of(block)
        except ValueError as error:
            raise _Broken(COMPRESSION_ERROR, "a header block that cannot be read") from error
        if self._answers_already(stream, slot):  # trailers
            if ends:
                self._finish(stream, slot)
            else:
                self._give_up(stream, slot, GARBAGE)
        elif not (len(status) == 3 and status.isdigit() and b"100" <= status < b"600") or (ends and status < b"200"):
            self._give_up(stream, slot, GARBAGE)
        elif status < b"200":  # more is to come
            self._slots[slot, k.STATUS] = k.ODD if stream in self._uploads else 0
        else:
            self._answers[stream] = _Answer(int(status), retry_after.decode("latin-1"))
            self._slots[slot, k.STATUS] = k.ODD
            if ends:
                self._finish(stream, slot)

    def _on_reset(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Broken(FRAME_SIZE_ERROR, "a reset of a wrong length")
        slot = self._slot(stream)
        if self._slots[slot, k.STREAM] != stream:
            self._check_known(stream)
            return
        if int.from_bytes(payload) == REFUSED_STREAM:
            self._refuse(stream, slot)
        else:
            self._end(stream, slot, NO_ANSWER)

    def _refuse(self, stream: int, slot: int) -> None:
        """The peer says that it did not look at a request; who has begun to answer it has."""
        self._end(stream, slot, NO_ANSWER if self._answers_already(stream, slot) else NOT_SENT)

    def _answers_already(self, stream: int, slot: int) -> bool:
        return bool(self._slots[slot, k.STATUS] > 0) or stream in self._answers

    def _check_known(self, stream: int) -> None:
        """A stream that is over may still be spoken of, one that never was may not."""
        if stream % 2 == 0 or stream >= self._state[k.NEXT]:
            raise _Broken(PROTOCOL_ERROR, "speaks of a stream that never was")

    def _finish(self, stream: int, slot: int) -> None:
        """A whole answer."""
        answer = self._answers.get(stream)
        code = answer.status if answer else int(self._slots[slot, k.STATUS])
        if answer and code not in (200, 201):
            job, place = self._slots[slot, [k.JOB, k.PLACE]].tolist()
            self._notes.append(Note(job, place, code, bytes(answer.body), answer.retry_after))
        self.answered += 1
        if stream in self._uploads:  # it did not want to hear the rest
            self._reset(stream, CANCEL)
        self._end(stream, slot, code)

    def _give_up(self, stream: int, slot: int, code: int) -> None:
        self._reset(stream, CANCEL)
        self._end(stream, slot, code)

    def _end(self, stream: int, slot: int, code: int) -> None:
        job, place = self._slots[slot, [k.JOB, k.PLACE]].tolist()
        self._rows.append((job, place, code))
        self._slots[slot, k.STREAM] = 0
        self._state[k.OPEN] -= 1
        self._answers.pop(stream, None)
        self._uploads.drop(stream)

    # --- the connection's own frames --------------------------------------------------------------------------------

    def _on_settings(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise _Broken(PROTOCOL_ERROR, "settings on a stream")
        if len(payload) % 6 or (flags & k.ACK and payload):
            raise _Broken(FRAME_SIZE_ERROR, "settings of a wrong length")
        if flags & k.ACK:
            if not self.ready:
                raise _Broken(PROTOCOL_ERROR, "does not begin with settings")
            return
        if not self.ready:
            self.ready, self._peer_streams = True, NEVER
        for at in range(0, len(payload), 6):
            self._on_setting(int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6]))
        self._out.frame(k.SETTINGS, k.ACK, 0, b"")

    def _on_setting(self, name: int, value: int) -> None:
        if name == TABLE_SIZE:
            self._encoder.limit(value)
        elif name == MAX_STREAMS:
            self._peer_streams = value
        elif name == INITIAL_WINDOW:
            if value > k.WINDOW_MAX:
                raise _Broken(FLOW_CONTROL_ERROR, "a window too large")
            more = value - int(self._state[k.STREAM_WINDOW])
            self._state[k.STREAM_WINDOW] = value
            self._uploads.shift(more)
        elif name == MAX_FRAME:
            if not k.FRAME_BYTES_MAX <= value < 2**24:
                raise _Broken(PROTOCOL_ERROR, "a frame size out of range")
            self._state[k.FRAME_MAX] = value

    def _on_ping(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise _Broken(PROTOCOL_ERROR, "a ping on a stream")
        if len(payload) != 8:
            raise _Broken(FRAME_SIZE_ERROR, "a ping of a wrong length")
        if flags & k.ACK:
            self.pongs += 1
        else:
            self._out.frame(k.PING, k.ACK, 0, payload)

    def _on_goaway(self, stream: int, payload: bytes) -> None:
        if stream or len(payload) < 8:
            raise _Broken(PROTOCOL_ERROR, "a goodbye that cannot be read")
        last = int.from_bytes(payload[:4]) & k.STREAM_MAX
        self.draining = True
        for slot in np.flatnonzero(self._slots[:, k.STREAM] > last).tolist():
            self._refuse(int(self._slots[slot, k.STREAM]), slot)

    def _on_window(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Broken(FRAME_SIZE_ERROR, "a window of a wrong length")
        more = int.from_bytes(payload) & k.WINDOW_MAX
        if not stream:
            raise _Broken(FLOW_CONTROL_ERROR if more else PROTOCOL_ERROR, "a window out of range")
        slot = self._slot(stream)
        if self._slots[slot, k.STREAM] != stream:
            self._check_known(stream)
            return
        if more == 0 or not self._uploads.widen(stream, more):
            self._give_up(stream, slot, NO_ANSWER)

    # --- ends -----------------------------------------------------------------------------------------------------

    def take(self) -> Ended | None:
        """The rows that have ended since the last call."""
        if not self._arrays and not self._rows:
            return None
        if self._rows:
            self._arrays.append(np.array(self._rows, np.int64))
        rows = self._arrays[0] if len(self._arrays) == 1 else np.concatenate(self._arrays)
        notes, self._notes, self._arrays, self._rows = self._notes, [], [], []
        return Ended(rows, notes)

    def expire(self, now_ms: int) -> int:
        """Give up requests that are due; returns how many. Some that could not be written: perhaps it is `stuck`."""
        late = np.flatnonzero((self._slots[:, k.STREAM] != 0) & (self._slots[:, k.DUE] <= now_ms)).tolist()
        for slot in late:
            stream, written = int(self._slots[slot, k.STREAM]), self._is_written(slot)
            if not written and self._uploads.stands_still(stream):
                self.stuck, self.broken = True, self.broken or "takes no bytes"
                break
            self._give_up(stream, slot, NO_ANSWER if written else NO_CONNECTION)
        return len(late)

    def lose(self) -> None:
        """The connection is no more."""
        lost = GARBAGE if self.broken and self._gave_garbage else NO_ANSWER
        self.broken = self.broken or "ended"
        unsent = NO_CONNECTION if self.stuck else NOT_SENT
        for slot in np.flatnonzero(self._slots[:, k.STREAM]).tolist():
            self._end(int(self._slots[slot, k.STREAM]), slot, lost if self._is_written(slot) else unsent)

    def _is_written(self, slot: int) -> bool:
        return bool(self._slots[slot, k.END] <= self._out.written)

    def _break(self, code: int, why: str) -> None:
        self.broken, self._gave_garbage = why, True
        self._out.frame(k.GOAWAY, 0, 0, bytes(4) + code.to_bytes(4))

    def _slot(self, stream: int) -> int:
        return (stream >> 1) & (len(self._slots) - 1)


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & k.PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _Broken(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
