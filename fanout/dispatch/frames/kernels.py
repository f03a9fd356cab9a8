"""Kernels of the frame lane: rows in, HTTP/2 frames out; bytes in, finished streams out.

Numbers are RFC 9113's (frames) and RFC 7541's (header blocks). Everything a connection needs to know while rows are
written and answers are read stands in three arrays, so that neither direction makes an object per row:

* `state` int64[STATE_SIZE]: the connection, by the names below (`NEXT`, `WINDOW`, ...).
* `slots` int64[ring, SLOT_SIZE]: open streams. Stream s lives in slot `(s >> 1) & (ring - 1)`; a stream whose slot is
  still taken is skipped, which the protocol allows. `ring` is a power of two, at least twice the streams open at once.
* pieces int64[k, 3]: a text with holes: (-1, start, end) is `consts[start:end]`, (c, 0, 0) is the row's value in
  column c. Columns lie end to end in `data` uint8, `offsets` int64[columns, n + 1].

What a kernel does not know to be plain it leaves to Python: a row too big for one frame, a status other than 200 and
201, and every frame but DATA, HEADERS and the connection's own WINDOW_UPDATE. It then reports the frame as it stands,
in order, and from its first odd frame on (`ODD`) a stream is Python's.

Serial and `nogil`; `warm` compiles or loads all of it before the first action.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# state
NEXT = 0  # the next stream's id
OPEN = 1  # streams open
WINDOW = 2  # bytes of DATA the peer lets the connection send
STREAM_WINDOW = 3  # bytes of DATA the peer lets a new stream send
FRAME_MAX = 4  # the longest frame the peer takes
TAIL = 5  # bytes in the output buffer
POSITION = 6  # bytes ever put into the output buffer
RECEIVED = 7  # bytes of DATA taken in that we have not given back to the peer's window yet
EXPECT = 8  # the stream whose header block goes on in the next frame, or 0
WHY = 9  # why `write_rows` stopped: one of the four below
STATE_SIZE = 10

ALL, NO_SPACE, NO_WINDOW, TOO_BIG = 0, 1, 2, 3

# slots
STREAM, JOB, PLACE, END, DUE, STATUS, GOT = 0, 1, 2, 3, 4, 5, 6
SLOT_SIZE = 7
ODD = -1

# frames
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
FRAME_HEAD = 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
FRAME_BYTES_MAX = 16_384  # the protocol's least and our setting: a longer frame is a mistake
WINDOW_MAX = 2**31 - 1
STREAM_MAX = 2**31 - 1
INITIAL_BYTES = 65_535  # every window at first

_PATH_LITERAL = 0x04  # literal without indexing, name :path
_LENGTH_LITERAL = 0x0F0D  # the same, name content-length
_SHORT = 32  # below this a loop beats a call of memcpy

_jit = njit(cache=True, nogil=True)


# --- out --------------------------------------------------------------------------------------------------------------


@_jit
def _copy(source, start, end, out, at):
    """Append `source[start:end]` to `out` at `at`; returns the new end."""
    if end - start > _SHORT:
        out[at : at + end - start] = source[start:end]
    else:
        for i in range(end - start):
            out[at + i] = source[start + i]
    return at + end - start


@_jit
def _length(pieces, offsets, row):
    """Bytes of a text with holes for one row."""
    total = 0
    for p in range(pieces.shape[0]):
        column = pieces[p, 0]
        if column < 0:
            total += pieces[p, 2] - pieces[p, 1]
        else:
            total += offsets[column, row + 1] - offsets[column, row]
    return total


@_jit
def _fill(pieces, consts, data, offsets, row, out, at):
    """Write a text with holes for one row; returns the new end."""
    for p in range(pieces.shape[0]):
        column = pieces[p, 0]
        if column < 0:
            at = _copy(consts, pieces[p, 1], pieces[p, 2], out, at)
        else:
            at = _copy(data, offsets[column, row], offsets[column, row + 1], out, at)
    return at


@_jit
def _put_integer(value, first, mask, out, at):
    """HPACK's integer: `first` holds the bits above the prefix, `mask` is the prefix's greatest value."""
    if value < mask:
        out[at] = first | value
        return at + 1
    out[at] = first | mask
    at += 1
    value -= mask
    while value >= 128:
        out[at] = 128 | (value & 127)
        at += 1
        value >>= 7
    out[at] = value
    return at + 1


@_jit
def _put_frame_head(length, kind, flags, stream, out, at):
    out[at] = length >> 16
    out[at + 1] = (length >> 8) & 255
    out[at + 2] = length & 255
    out[at + 3] = kind
    out[at + 4] = flags
    out[at + 5] = stream >> 24
    out[at + 6] = (stream >> 16) & 255
    out[at + 7] = (stream >> 8) & 255
    out[at + 8] = stream & 255
    return at + FRAME_HEAD


@_jit
def _put_block(head, tail, consts, path, path_bytes, with_length, body_bytes, data, offsets, row, out, at):
    """The header block of one row: constant beginning, path if it has a hole, constant rest, content-length."""
    at = _copy(head, 0, head.shape[0], out, at)
    if path.shape[0]:
        out[at] = _PATH_LITERAL
        at = _put_integer(path_bytes, 0, 127, out, at + 1)
        at = _fill(path, consts, data, offsets, row, out, at)
    at = _copy(tail, 0, tail.shape[0], out, at)
    if with_length:
        out[at] = _LENGTH_LITERAL >> 8
        out[at + 1] = _LENGTH_LITERAL & 255
        digits, rest = 1, body_bytes
        while rest >= 10:
            rest //= 10
            digits += 1
        out[at + 2] = digits
        rest = body_bytes
        for i in range(digits):
            out[at + 2 + digits - i] = 48 + rest % 10
            rest //= 10
        at += 3 + digits
    return at


@_jit
def sizes(head, tail, path, body, offsets, row):
    """(bytes of the header block at most, bytes of the body) of one row."""
    path_bytes = _length(path, offsets, row)
    return head.shape[0] + tail.shape[0] + path_bytes + 32, _length(body, offsets, row)


@_jit
def render(head, tail, consts, path, body, with_length, data, offsets, row, out):
    """Write one row's header block and then its body to `out`; returns where each ends."""
    body_bytes = _length(body, offsets, row)
    path_bytes = _length(path, offsets, row)
    middle = _put_block(head, tail, consts, path, path_bytes, with_length, body_bytes, data, offsets, row, out, 0)
    return middle, _fill(body, consts, data, offsets, row, out, middle)


@_jit
def write_rows(
    state, slots, head, tail, consts, path, body, with_length, data, offsets, rows, places, job, due_ms, out
):
    """Write HEADERS and DATA of `rows` int64[k] until all are written or one does not fit; returns how many are.

    `places` int64[k]: the rows' places in their job, kept in the slots with the number of the job. `state[WHY]` says
    why it stopped. `out` uint8: the output buffer, filled from `state[TAIL]`.
    """
    ring = slots.shape[0]
    at, base = state[TAIL], state[POSITION] - state[TAIL]
    window, frame_max = state[WINDOW], state[FRAME_MAX]
    body_max = min(frame_max, state[STREAM_WINDOW])
    stream = state[NEXT]
    done, why = 0, ALL
    for k in range(rows.shape[0]):
        row = rows[k]
        path_bytes = _length(path, offsets, row)
        body_bytes = _length(body, offsets, row)
        block_max = head.shape[0] + tail.shape[0] + path_bytes + 32
        if body_bytes > body_max or block_max > frame_max:
            why = TOO_BIG
            break
        if body_bytes > window:
            why = NO_WINDOW
            break
        if at + block_max + body_bytes + 2 * FRAME_HEAD > out.shape[0]:
            why = NO_SPACE
            break
        slot = (stream >> 1) & (ring - 1)
        while slots[slot, STREAM]:
            stream += 2
            slot = (stream >> 1) & (ring - 1)
        block = at + FRAME_HEAD
        end = _put_block(head, tail, consts, path, path_bytes, with_length, body_bytes, data, offsets, row, out, block)
        flags = END_HEADERS if body_bytes else END_HEADERS | END_STREAM
        _put_frame_head(end - block, HEADERS, flags, stream, out, at)
        at = end
        if body_bytes:
            at = _put_frame_head(body_bytes, DATA, END_STREAM, stream, out, at)
            at = _fill(body, consts, data, offsets, row, out, at)
        window -= body_bytes
        slots[slot, STREAM] = stream
        slots[slot, JOB] = job
        slots[slot, PLACE] = places[k]
        slots[slot, END] = base + at
        slots[slot, DUE] = due_ms
        slots[slot, STATUS] = 0
        slots[slot, GOT] = 0
        stream += 2
        done += 1
    state[NEXT] = stream
    state[OPEN] += done
    state[WINDOW] = window
    state[POSITION] = base + at
    state[TAIL] = at
    state[WHY] = why
    return done


# --- in ---------------------------------------------------------------------------------------------------------------


@_jit
def _status(buffer, at, end):
    """200 or 201 if the block at `buffer[at:end]` says so in one of the usual ways, else 0.

    Usual is: the static table's entry, or a literal value with a name of the static table, plain or Huffman-coded; also
    after the table-size update to nothing that our settings ask for.
    """
    if at < end and buffer[at] == 0x20:
        at += 1
    if at >= end:
        return 0
    first = buffer[at]
    if first == 0x88:
        return 200
    literal = first if first < 0x20 else first - 0x40 + 0x10
    if not (0x08 <= literal <= 0x0E or 0x18 <= literal <= 0x1E) or at + 4 > end:
        return 0
    if buffer[at + 1] == 0x82 and buffer[at + 2] == 0x10:  # Huffman: 2 is 00010, 0 is 00000, 1 is 00001
        return 200 if buffer[at + 3] == 0x01 else 201 if buffer[at + 3] == 0x03 else 0
    if buffer[at + 1] == 3 and at + 5 <= end and buffer[at + 2] == 50 and buffer[at + 3] == 48:
        return 200 if buffer[at + 4] == 48 else 201 if buffer[at + 4] == 49 else 0
    return 0


@_jit
def _number(buffer, at, size):
    """A big-endian number of `size` bytes, without the reserved bit of a four-byte one."""
    value = np.int64(0)
    for i in range(size):
        value = (value << 8) | np.int64(buffer[at + i])
    return value & WINDOW_MAX


@_jit
def _padding_fits(buffer, start, length, flags):
    return flags & PADDED == 0 or (length > 0 and np.int64(buffer[start]) < length)


@_jit
def _read_data(state, slots, slot, known, buffer, start, length, flags, answer_max):
    """A frame of a body: (whether it is dealt with, whether its stream has ended plainly)."""
    state[RECEIVED] += length
    if not known:
        return True, False  # of a stream given up
    if slots[slot, STATUS] <= 0 or not _padding_fits(buffer, start, length, flags):
        return False, False
    slots[slot, GOT] += length
    if flags & END_STREAM:
        return True, True
    return slots[slot, GOT] < answer_max, False


@_jit
def _read_headers(slots, slot, known, buffer, start, length, flags):
    """A whole header block, as `_read_data`."""
    if not known or not flags & END_HEADERS or not _padding_fits(buffer, start, length, flags):
        return False, False
    ended = flags & END_STREAM != 0
    if slots[slot, STATUS] > 0:
        return ended, ended  # trailers
    if slots[slot, STATUS] == 0:
        block, stop = start, start + length
        if flags & PADDED:
            stop -= np.int64(buffer[block])
            block += 1
        if flags & PRIORITIZED:
            block += 5
        slots[slot, STATUS] = _status(buffer, block, stop)
        return slots[slot, STATUS] > 0, ended and slots[slot, STATUS] > 0
    return False, False


@_jit
def _read_window(state, slots, slot, known, stream, buffer, start):
    """More room to send; whether it is dealt with."""
    more = _number(buffer, start, 4)
    if stream:
        return more > 0 and not (known and slots[slot, STATUS] == ODD)
    if more == 0 or state[WINDOW] + more > WINDOW_MAX:
        return False
    state[WINDOW] += more
    return True


@_jit
def read_frames(state, slots, buffer, at, end, answer_max, finished, odd):
    """Read the whole frames of `buffer[at:end]`; returns (where it stopped, how many finished, how many odd).

    `finished` int64[f, 3]: (job, place, code) of streams that ended plainly; their slots are free. `odd` int64[o, 5]:
    (kind, flags, stream, start, end) of frames for Python, payloads in `buffer`. It stops before a frame that is not
    whole, after one that is longer than any may be, and when `finished` or `odd` is full.
    """
    ring = slots.shape[0]
    ends, odds = 0, 0
    while end - at >= FRAME_HEAD and ends < finished.shape[0] and odds < odd.shape[0]:
        length = _number(buffer, at, 3)
        kind, flags = np.int64(buffer[at + 3]), np.int64(buffer[at + 4])
        stream = _number(buffer, at + 5, 4)
        start, stop = at + FRAME_HEAD, at + FRAME_HEAD + length
        if stop > end and length <= FRAME_BYTES_MAX:
            break
        slot = (stream >> 1) & (ring - 1)
        known = stream != 0 and slots[slot, STREAM] == stream
        plain, ended = False, False
        if state[EXPECT] == 0 and length <= FRAME_BYTES_MAX:
            if kind == DATA and stream:
                plain, ended = _read_data(state, slots, slot, known, buffer, start, length, flags, answer_max)
            elif kind == HEADERS:
                plain, ended = _read_headers(slots, slot, known, buffer, start, length, flags)
            elif kind == WINDOW_UPDATE and length == 4:
                plain = _read_window(state, slots, slot, known, stream, buffer, start)
        if ended:
            finished[ends, 0] = slots[slot, JOB]
            finished[ends, 1] = slots[slot, PLACE]
            finished[ends, 2] = slots[slot, STATUS]
            slots[slot, STREAM] = 0
            state[OPEN] -= 1
            ends += 1
        if not plain:
            if known and slots[slot, STATUS] == 0:
                slots[slot, STATUS] = ODD
            if kind in (HEADERS, CONTINUATION, PUSH_PROMISE):
                state[EXPECT] = 0 if flags & END_HEADERS else stream
            odd[odds, 0] = kind
            odd[odds, 1] = flags
            odd[odds, 2] = stream
            odd[odds, 3] = start
            odd[odds, 4] = stop
            odds += 1
            if length > FRAME_BYTES_MAX:
                break
        at = stop
    return at, ends, odds


def warm() -> None:
    """Compile or load every kernel, for columns as `plans.columns_of` makes them: read-only."""
    state, slots = np.zeros(STATE_SIZE, np.int64), np.zeros((4, SLOT_SIZE), np.int64)
    finished, odd = np.zeros((1, 3), np.int64), np.zeros((1, 5), np.int64)
    head = tail = consts = np.frombuffer(bytes(64), np.uint8)
    out = np.zeros(64, np.uint8)
    pieces, rows = np.zeros((1, 3), np.int64), np.zeros(0, np.int64)
    data, offsets = np.frombuffer(b"x", np.uint8), np.frombuffer(bytes(16), np.int64).reshape(1, 2)
    write_rows(state, slots, head, tail, consts, pieces, pieces, True, data, offsets, rows, rows, 0, 0, out)
    render(head[:0], tail[:0], consts, pieces, pieces, True, data, offsets, 0, out)
    sizes(head, tail, pieces, pieces, offsets, 0)
    read_frames(state, slots, out, 0, 0, 0, finished, odd)
