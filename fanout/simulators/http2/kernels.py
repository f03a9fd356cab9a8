"""What a push service does a million times, by kernels: read a request whose kind is known, keep its token, answer.

Bytes of one connection go in, frames of HTTP/2 (RFC 9113); a plain push is dealt with here, all else is handed to
Python as it stands, one at a time and in order. A push is plain when its fields (`heads`) and its body but for the
token (`forms`) are byte for byte those of one that Python has read before, and the token is not one of those that are
dead, bad or slow by their first letters. So what a body means is only ever decided by reading it.

* `state` int64[STATE_SIZE]: the connection, by the names below.
* `slots` int64[ring, SLOT_SIZE]: streams whose head was plain and whose body is still to come, stream s in slot
  `(s >> 1) & (ring - 1)`; their tokens, if the path has them, in `slot_tokens` uint8[ring, TOKEN_BYTES_MAX].
* known texts, of heads and of forms alike (`known.py`): `index` int64[2^k] of open addressing, `spans` int64[n, 4]
  (begins, ends, kind, digest) and `bytes` uint8.
* What came of it: `runs` int64[r, 3], successive pushes of one form (form, how many, where in `tokens` their tokens
  end), `lengths` uint32[n] of the tokens, `tokens` uint8[t]; frames to be sent in `out`.

Serial and `nogil`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fanout.dispatch.frames.kernels import _number, _put_frame_head
from fanout.simulators.http2.blocks.kernels import BROKEN, new_table, read_block

CALLS = "e1670c9b4cf0"  # of the files whose kernels are compiled into these: tests/test_kernels.py

# state
PLAIN = 0  # whether plain pushes may be answered here
LAST = 1  # the highest stream so far
WINDOW = 2  # bytes of DATA the peer lets the connection send
STREAM_WINDOW = 3  # bytes of DATA the peer lets a new stream send
RECEIVED = 4  # bytes of DATA taken in that the peer's window has not got back
WHY = 5  # why `read_requests` stopped: one of the names below
KIND, FLAGS, STREAM, START, STOP = 6, 7, 8, 9, 10  # the frame it stopped at
FIELDS = 11  # how many fields its block has
HEAD = 12  # the number of its head, or -1
KEY_BYTES = 13  # what it would be known by stands in `key`; BROKEN if it cannot be known
TAKEN = 14  # the highest stream that was answered here
RUNS, TOKENS, TOKEN_BYTES, SENT = 15, 16, 17, 18  # how far runs, lengths, tokens and out are filled
STATE_SIZE = 19

MORE, FULL, FRAME, REQUEST, PROMOTED, BAD_BLOCK, TOO_LONG = range(7)
"""Stopped since: more bytes are needed; what came of it must be taken away; a frame is for Python; a head is, its
fields are in `fields`; a body is, whose head was plain; a block cannot be read; a frame is longer than any may be."""

# kinds of heads
FCM, APNS, OTHER = 1, 2, 3

# slots
OF_STREAM, OF_HEAD, OF_TOKEN, OF_LENGTH = 0, 1, 2, 3
SLOT_SIZE = 4
TOKEN_BYTES_MAX = 512

DATA, HEADERS, PRIORITY, WINDOW_UPDATE = 0, 1, 2, 8
END_STREAM, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x4, 0x8, 0x20
FRAME_HEAD = 9
FRAME_BYTES_MAX = 16_384
WINDOW_MAX = 2**31 - 1

PATH = np.frombuffer(b":path", np.uint8)
DEVICE = np.frombuffer(b"/3/device/", np.uint8)
LENGTH = np.frombuffer(b"content-length", np.uint8)
FCM_OPEN = np.frombuffer(b'{"message":{"token":"', np.uint8)
MARKS = np.frombuffer(b"deadbad0510e", np.uint8).reshape(3, 4)
_QUOTE, _BACKSLASH, _QUESTION = 34, 92, 63

_jit = njit(cache=True, nogil=True)


@_jit
def _same(one, at, other, begin, end):
    """Whether `one` goes on at `at` as `other[begin:end]`."""
    if at + end - begin > one.shape[0]:
        return False
    differs = 0
    for i in range(end - begin):
        differs |= one[at + i] ^ other[begin + i]
    return differs == 0


@_jit
def digest(text, begin, end):
    """A number for a text: FNV-1a, four bytes side by side, since one after the other waits for each product."""
    prime = np.uint64(0x100000001B3)
    a = np.uint64(0xCBF29CE484222325)
    b, c, d = a + np.uint64(1), a + np.uint64(2), a + np.uint64(3)
    at = begin
    while at + 4 <= end:
        a = (a ^ np.uint64(text[at])) * prime
        b = (b ^ np.uint64(text[at + 1])) * prime
        c = (c ^ np.uint64(text[at + 2])) * prime
        d = (d ^ np.uint64(text[at + 3])) * prime
        at += 4
    while at < end:
        a = (a ^ np.uint64(text[at])) * prime
        at += 1
    mixed = a ^ (b * prime) ^ (c * prime * prime) ^ (d << np.uint64(17)) ^ np.uint64(end - begin)
    mixed ^= mixed >> np.uint64(29)
    return np.int64(mixed & np.uint64(0x7FFFFFFFFFFFFFFF))


@_jit
def digests(texts, ends, out):
    """The digest of each of the texts that lie end to end in `texts` uint8; `ends` int64[n], `out` int64[n]."""
    begin = 0
    for i in range(ends.shape[0]):
        out[i] = digest(texts, begin, ends[i])
        begin = ends[i]


@_jit
def find(index, spans, known, text, begin, end, kind):
    """The number of a known text of this kind (0: of any), or -1."""
    mark = digest(text, begin, end)
    place = mark & (index.shape[0] - 1)
    while index[place]:
        number = index[place] - 1
        alike = spans[number, 3] == mark and spans[number, 1] - spans[number, 0] == end - begin
        if alike and kind in (0, spans[number, 2]) and _same(known, spans[number, 0], text, begin, end):
            return number
        place = (place + 1) & (index.shape[0] - 1)
    return np.int64(-1)


@_jit
def _key(fields, count, text, key):
    """What a head is known by: its fields but for its length, a device's path without the token.

    Returns (bytes of `key`, where the token begins in `text` and ends: 0, 0 if the path has none, content-length or
    -1); the first is BROKEN if `key` is too small or the length no number.
    """
    to, token, token_end, length = 0, 0, 0, -1
    for f in range(count):
        begin, middle, end = fields[f, 0], fields[f, 1], fields[f, 2]
        if middle - begin == LENGTH.shape[0] and _same(text, begin, LENGTH, 0, LENGTH.shape[0]):
            length = 0
            for i in range(middle, end):
                digit = np.int64(text[i]) - 48
                if digit < 0 or digit > 9 or length > 1 << 40:
                    return BROKEN, 0, 0, -1
                length = 10 * length + digit
            continue
        if middle - begin == PATH.shape[0] and _same(text, begin, PATH, 0, PATH.shape[0]):
            after = middle + DEVICE.shape[0]
            if end > after and _same(text, middle, DEVICE, 0, DEVICE.shape[0]):
                token, token_end, end = after, end, after
        if to + end - begin + 2 > key.shape[0]:
            return BROKEN, 0, 0, -1
        for i in range(begin, middle):
            key[to] = text[i]
            to += 1
        key[to] = 0
        to += 1
        for i in range(middle, end):
            key[to] = text[i]
            to += 1
        key[to] = 10
        to += 1
    return to, token, token_end, length


@_jit
def _is_plain(text, begin, end, stop):
    """Whether a token is neither marked nor anything but printable ASCII without quote, backslash and `stop`."""
    if begin >= end or end - begin > TOKEN_BYTES_MAX:
        return False
    for m in range(MARKS.shape[0]):
        if end - begin >= 4 and _same(text, begin, MARKS[m], 0, 4):
            return False
    strange = False
    for i in range(begin, end):
        byte = text[i]
        strange |= byte < 33 or byte > 126 or byte in (_QUOTE, _BACKSLASH, stop)
    return not strange


@_jit
def _closing_quote(buffer, at, end):
    while at < end and buffer[at] != _QUOTE:
        at += 1
    return at


@_jit
def _keep(state, runs, lengths, tokens, form, source, begin, end):
    """A token was delivered."""
    filled, count, last = state[TOKEN_BYTES], state[TOKENS], state[RUNS] - 1
    for i in range(end - begin):
        tokens[filled + i] = source[begin + i]
    lengths[count] = end - begin
    state[TOKEN_BYTES], state[TOKENS] = filled + end - begin, count + 1
    if last < 0 or runs[last, 0] != form:
        last += 1
        runs[last, 0], runs[last, 1] = form, 0
        state[RUNS] = last + 1
    runs[last, 1] += 1
    runs[last, 2] = state[TOKEN_BYTES]


@_jit
def _answer(state, out, answer, body, stream):
    """HEADERS and, if it has a body, DATA; `answer` is the block and then the body."""
    at, block = state[SENT], answer.shape[0] - body
    at = _put_frame_head(block, HEADERS, END_HEADERS if body else END_HEADERS | END_STREAM, stream, out, at)
    for i in range(block):
        out[at + i] = answer[i]
    at += block
    if body:
        at = _put_frame_head(body, DATA, END_STREAM, stream, out, at)
        for i in range(body):
            out[at + i] = answer[block + i]
        at += body
        state[WINDOW] -= body
    state[SENT] = at
    state[TAKEN] = max(state[TAKEN], stream)


@_jit
def _read_head(state, slots, slot_tokens, table, heads, texts, buffer):
    """A head that stands in `buffer` as `state` says: whether it is plain and waits for its body."""
    text, fields, key = texts
    index, spans, known = heads
    begin, end = state[START], state[STOP]
    flags, stream = state[FLAGS], state[STREAM]
    if flags & PRIORITIZED:
        begin += 5
    count = read_block(table[0], table[1], table[2], buffer, begin, end, text, fields) if begin <= end else BROKEN
    state[FIELDS], state[HEAD], state[KEY_BYTES] = count, -1, BROKEN
    if count < 0:
        state[WHY] = BAD_BLOCK
        return False
    state[WHY] = REQUEST
    size, token, token_end, length = _key(fields, count, text, key)
    state[KEY_BYTES] = size
    if size < 0:
        return False
    head = find(index, spans, known, key, 0, size, 0)
    state[HEAD] = head
    if head < 0 or flags & END_STREAM or not state[PLAIN] or stream <= state[LAST]:
        return False
    kind = spans[head, 2]
    slot = (stream >> 1) & (slots.shape[0] - 1)
    if kind == OTHER or slots[slot, OF_STREAM]:
        return False
    if kind == APNS:
        if not _is_plain(text, token, token_end, _QUESTION):
            return False
        for i in range(token_end - token):
            slot_tokens[slot, i] = text[token + i]
    slots[slot, OF_STREAM], slots[slot, OF_HEAD] = stream, head
    slots[slot, OF_TOKEN], slots[slot, OF_LENGTH] = token_end - token, length
    state[LAST] = stream
    return True


@_jit
def _read_body(state, slot, slots, slot_tokens, heads, forms, answers, buffer, came, out):
    """The whole body of a plain head: whether it was taken and answered."""
    runs, lengths, tokens = came
    begin, end = state[START], state[STOP]
    kind = heads[1][slots[slot, OF_HEAD], 2]
    if slots[slot, OF_LENGTH] >= 0 and slots[slot, OF_LENGTH] != end - begin:
        return False
    if kind == APNS:
        form = find(forms[0], forms[1], forms[2], buffer, begin, end, APNS)
        if form < 0:
            return False
        _keep(state, runs, lengths, tokens, form, slot_tokens[slot], 0, slots[slot, OF_TOKEN])
        _answer(state, out, answers[1], 0, state[STREAM])
        return True
    token = begin + FCM_OPEN.shape[0]
    if token >= end or not _same(buffer, begin, FCM_OPEN, 0, FCM_OPEN.shape[0]):
        return False
    token_end = _closing_quote(buffer, token, end)
    if not _is_plain(buffer, token, token_end, 0):
        return False
    body = answers[2][0]
    if state[WINDOW] < body or state[STREAM_WINDOW] < body:
        return False
    form = find(forms[0], forms[1], forms[2], buffer, token_end, end, FCM)
    if form < 0:
        return False
    _keep(state, runs, lengths, tokens, form, buffer, token, token_end)
    _answer(state, out, answers[0], body, state[STREAM])
    return True


@_jit
def read_requests(state, slots, slot_tokens, table, heads, forms, answers, texts, buffer, at, end, came, out):
    """Read the frames of `buffer[at:end]` until there is no whole one or `state[WHY]` tells otherwise; returns where.

    A frame that is for Python lies before the place that is returned; its payload at `buffer[START:STOP]`, by `state`.
    """
    runs, lengths, tokens = came
    room = answers[0].shape[0] + answers[1].shape[0] + 4 * FRAME_HEAD
    while end - at >= FRAME_HEAD:
        length = _number(buffer, at, 3)
        if length > FRAME_BYTES_MAX:
            state[WHY] = TOO_LONG
            return at
        start, stop = at + FRAME_HEAD, at + FRAME_HEAD + length
        if stop > end:
            break
        spare = min(runs.shape[0] - state[RUNS], lengths.shape[0] - state[TOKENS])
        if spare < 1 or tokens.shape[0] - state[TOKEN_BYTES] < TOKEN_BYTES_MAX or out.shape[0] - state[SENT] < room:
            state[WHY] = FULL
            return at
        kind, flags, stream = np.int64(buffer[at + 3]), np.int64(buffer[at + 4]), _number(buffer, at + 5, 4)
        state[KIND], state[FLAGS], state[STREAM], state[START], state[STOP] = kind, flags, stream, start, stop
        at = stop
        slot = (stream >> 1) & (slots.shape[0] - 1)
        if kind == HEADERS and flags & END_HEADERS and not flags & PADDED:
            if not _read_head(state, slots, slot_tokens, table, heads, texts, buffer):
                return at
        elif kind == DATA:
            state[RECEIVED] += length
            waits = stream != 0 and slots[slot, OF_STREAM] == stream
            if not waits or not flags & END_STREAM or flags & PADDED or not state[PLAIN]:
                state[WHY] = PROMOTED if waits else FRAME
                return at
            if not _read_body(state, slot, slots, slot_tokens, heads, forms, answers, buffer, came, out):
                state[WHY] = PROMOTED
                return at
            slots[slot, OF_STREAM] = 0
        elif kind == WINDOW_UPDATE and length == 4 and stream == 0:
            more = _number(buffer, start, 4)
            if more == 0 or state[WINDOW] + more > WINDOW_MAX:
                state[WHY] = FRAME
                return at
            state[WINDOW] += more
        elif kind != PRIORITY:
            state[WHY] = FRAME
            return at
    state[WHY] = MORE
    return at


def warm() -> None:
    """Compile or load all of it."""
    state, slots = np.zeros(STATE_SIZE, np.int64), np.zeros((2, SLOT_SIZE), np.int64)
    known = np.zeros(2, np.int64), np.zeros((1, 4), np.int64), np.zeros(1, np.uint8)
    constant, bytes_, spans = np.frombuffer(b"x", np.uint8), np.zeros(16, np.uint8), np.zeros((1, 3), np.int64)
    answers = constant, constant, np.zeros(1, np.int64)
    texts, came = (bytes_, spans, bytes_), (spans, np.zeros(1, np.uint32), bytes_)
    tokens = np.zeros((2, TOKEN_BYTES_MAX), np.uint8)
    read_requests(state, slots, tokens, new_table(), known, known, answers, texts, bytes_, 0, 0, came, bytes_)
    read_block(*new_table(), constant, 0, 0, bytes_, spans)
    find(*known, constant, 0, 0, 0)
    digest(constant, 0, 0)
    digests(constant, np.zeros(0, np.int64), np.zeros(0, np.int64))
