"""Header blocks read by kernels: HPACK (RFC 7541) with its dynamic table, as a server needs it.

One connection's table is three arrays, made by `new_table`:

* `table` int64[TABLE_SIZE]: how many entries, the newest one's place, their size as the RFC counts it, the limit of
  that, and how far `arena` is filled.
* `entries` int64[ENTRIES, 3]: a ring of (name begins, name ends and value begins, value ends) in `arena`.
* `arena` uint8[ARENA_BYTES]: the bytes of entries. New ones go to its end; when it is full, those that live are moved
  to its beginning.

`read_block` gives the fields of a block as spans of one text. All is serial and `nogil`.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fanout.simulators.http2.blocks.tables import (
    BITS_MAX,
    COUNTS,
    FIRSTS,
    PLACES,
    SHORT,
    SHORT_BITS,
    SORTED,
    STATIC_SPANS,
    STATIC_TEXT,
)

COUNT, NEWEST, SIZE, SIZE_MAX, FILLED = 0, 1, 2, 3, 4
TABLE_SIZE = 5
TABLE_BYTES = 4_096  # the protocol's default, which we do not change
ENTRY_OVERHEAD = 32
ENTRIES = 128  # TABLE_BYTES / ENTRY_OVERHEAD
ARENA_BYTES = 4 * TABLE_BYTES
STATIC_COUNT = 61

BROKEN = -1
_INTEGER_MAX = 1 << 24

_jit = njit(cache=True, nogil=True)


@_jit
def _integer(buffer, at, end, mask):
    """(value, where it ends) of HPACK's integer, `mask` its prefix's greatest value; (BROKEN, at) if cut off."""
    if at >= end:
        return BROKEN, at
    value = np.int64(buffer[at]) & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while at < end and shift < 24:
        byte = np.int64(buffer[at])
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value if value < _INTEGER_MAX else BROKEN), at
    return BROKEN, at


@_jit
def _long(window, bits):
    """(symbol, its bits) of a code longer than `SHORT_BITS` at the top of the last `bits` bits; (BROKEN, 0) if none."""
    for length in range(SHORT_BITS + 1, min(bits, BITS_MAX) + 1):
        above = ((window >> (bits - length)) & ((1 << length) - 1)) - FIRSTS[length]
        if 0 <= above < COUNTS[length]:
            return SORTED[PLACES[length] + above], length
    return BROKEN, 0


@_jit
def _huffman(buffer, at, end, out, to):
    """Write the text of a Huffman-coded string to `out` at `to`; returns its end, or BROKEN."""
    window, bits = 0, 0
    while at < end or bits >= SHORT_BITS:
        if bits < SHORT_BITS:
            window = ((window << 8) | np.int64(buffer[at])) & 0xFF_FFFF_FFFF
            bits += 8
            at += 1
        short = SHORT[(window >> (bits - SHORT_BITS)) & 255]
        if short:
            symbol, taken = short >> 4, short & 15
        else:
            symbol, taken = _long(window, bits)
            if taken == 0:
                if at >= end or bits > BITS_MAX:
                    return BROKEN
                window = ((window << 8) | np.int64(buffer[at])) & 0xFF_FFFF_FFFF
                bits += 8
                at += 1
                continue
        if to >= out.shape[0]:
            return BROKEN
        out[to] = symbol
        to += 1
        bits -= taken
    while bits:  # what is left is a short code, or padding: ones
        rest = window & ((1 << bits) - 1)
        if rest == (1 << bits) - 1:
            break
        short = SHORT[(rest << (SHORT_BITS - bits)) | ((1 << (SHORT_BITS - bits)) - 1)]
        if short == 0 or (short & 15) > bits or to >= out.shape[0]:
            return BROKEN
        out[to] = short >> 4
        to += 1
        bits -= short & 15
    return to


@_jit
def _string(buffer, at, end, out, to):
    """(where it ends in `buffer`, where its text ends in `out`) of a string literal; (BROKEN, to) if it is none."""
    if at >= end:
        return BROKEN, to
    coded = buffer[at] & 128
    length, at = _integer(buffer, at, end, 127)
    if length < 0 or at + length > end:
        return BROKEN, to
    if coded:
        filled = _huffman(buffer, at, at + length, out, to)
        return (at + length if filled >= 0 else BROKEN), filled
    if to + length > out.shape[0]:
        return BROKEN, to
    for i in range(length):
        out[to + i] = buffer[at + i]
    return at + length, to + length


@_jit
def _copied(source, start, end, out, to):
    """Append to `out`; its new end, or BROKEN."""
    if to + end - start > out.shape[0]:
        return BROKEN
    for i in range(end - start):
        out[to + i] = source[start + i]
    return to + end - start


@_jit
def _known(table, entries, arena, index, out, to, with_value):
    """Write a known field's name, and its value if asked, to `out`: (end of name, end of value); BROKEN if unknown."""
    if index == 0 or index > STATIC_COUNT + table[COUNT]:
        return BROKEN, BROKEN
    if index <= STATIC_COUNT:
        begin, middle, end = STATIC_SPANS[index - 1, 0], STATIC_SPANS[index - 1, 1], STATIC_SPANS[index - 1, 2]
        name = _copied(STATIC_TEXT, begin, middle, out, to)
        if name < 0 or not with_value:
            return name, name
        return name, _copied(STATIC_TEXT, middle, end, out, name)
    place = (table[NEWEST] - (index - STATIC_COUNT - 1)) & (ENTRIES - 1)
    name = _copied(arena, entries[place, 0], entries[place, 1], out, to)
    if name < 0 or not with_value:
        return name, name
    return name, _copied(arena, entries[place, 1], entries[place, 2], out, name)


@_jit
def _evict(table, entries, room):
    """Let the oldest go until `room` bytes fit below the limit."""
    while table[COUNT] and table[SIZE] + room > table[SIZE_MAX]:
        oldest = (table[NEWEST] - table[COUNT] + 1) & (ENTRIES - 1)
        table[SIZE] -= entries[oldest, 2] - entries[oldest, 0] + ENTRY_OVERHEAD
        table[COUNT] -= 1


@_jit
def _compact(table, entries, arena):
    """Move the entries that live to the beginning of `arena`."""
    living = arena.copy()
    filled = 0
    for age in range(table[COUNT]):
        place = (table[NEWEST] - age) & (ENTRIES - 1)
        begin, middle, end = entries[place, 0], entries[place, 1], entries[place, 2]
        for i in range(end - begin):
            arena[filled + i] = living[begin + i]
        entries[place, 0], entries[place, 1], entries[place, 2] = filled, filled + middle - begin, filled + end - begin
        filled += end - begin
    table[FILLED] = filled


@_jit
def _insert(table, entries, arena, text, begin, middle, end):
    """A field enters the table; one too big for it empties it."""
    size = end - begin + ENTRY_OVERHEAD
    _evict(table, entries, size)
    if size > table[SIZE_MAX]:
        return
    if table[FILLED] + end - begin > ARENA_BYTES:
        _compact(table, entries, arena)
    at = table[FILLED]
    for i in range(end - begin):
        arena[at + i] = text[begin + i]
    place = (table[NEWEST] + 1) & (ENTRIES - 1)
    entries[place, 0], entries[place, 1], entries[place, 2] = at, at + middle - begin, at + end - begin
    table[FILLED] = at + end - begin
    table[NEWEST] = place
    table[COUNT] += 1
    table[SIZE] += size


@_jit
def read_block(table, entries, arena, buffer, at, end, text, fields):
    """Read the header block `buffer[at:end]`; returns how many fields it has, or BROKEN.

    `text` uint8[t] takes names and values, `fields` int64[f, 3] where each begins, its name ends, and it ends. More
    than fit there are BROKEN as well: the connection's table is then worth nothing.
    """
    count, to = 0, 0
    while at < end:
        first = np.int64(buffer[at])
        if first & 0xE0 == 0x20:
            limit, at = _integer(buffer, at, end, 31)
            if limit < 0 or limit > TABLE_BYTES or count:
                return BROKEN
            table[SIZE_MAX] = limit
            _evict(table, entries, 0)
            continue
        if count == fields.shape[0]:
            return BROKEN
        begin = to
        if first & 128:
            index, at = _integer(buffer, at, end, 127)
            if index < 0:
                return BROKEN
            middle, to = _known(table, entries, arena, index, text, to, True)
        else:
            index, at = _integer(buffer, at, end, 63 if first & 64 else 15)
            if index < 0:
                return BROKEN
            if index:
                middle, _ = _known(table, entries, arena, index, text, to, False)
            else:
                at, middle = _string(buffer, at, end, text, to)
            if at < 0 or middle < 0:
                return BROKEN
            at, to = _string(buffer, at, end, text, middle)
            if at >= 0 and to >= 0 and first & 64:
                _insert(table, entries, arena, text, begin, middle, to)
        if at < 0 or to < 0:
            return BROKEN
        fields[count, 0], fields[count, 1], fields[count, 2] = begin, middle, to
        count += 1
    return count


def new_table() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """(table, entries, arena) of a new connection."""
    table = np.zeros(TABLE_SIZE, np.int64)
    table[SIZE_MAX] = TABLE_BYTES
    return table, np.zeros((ENTRIES, 3), np.int64), np.zeros(ARENA_BYTES, np.uint8)
