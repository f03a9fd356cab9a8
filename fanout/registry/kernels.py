"""Kernels of the registry: packed strings and the table that finds a row by its id. The only numba of this package.

The table is open addressing with linear probing (Knuth 6.4 L), at most half full: uint32 slots that hold a row + 1, the
key itself stays in the packed ids. Hashing is FNV-1a over 8 bytes at a time with a final mix (Steele et al., SplitMix);
ids come from outside, so lookups are bounded by the table's size and a flood of collisions is slow, not wrong.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_jit = njit(cache=True, nogil=True)

NONE = -1
_BLOCK = 128


@_jit
def gather(data, offsets, rows, out_offsets, out):
    """Copy the strings of `rows` int64[n] (below 0: none) to `out` uint8[], laid out by `out_offsets` int64[n + 1]."""
    for i in range(rows.size):
        row = rows[i]
        if row < 0:
            continue
        at, start = out_offsets[i], offsets[row]
        length = offsets[row + 1] - start
        if length:
            out[at : at + length] = data[start : start + length]


@_jit
def overlay(base, base_offsets, values, value_offsets, pick, offsets, first, last, out):
    """Rows `first` to `last` of a packed column with replacements: `pick[row]` is a row of `values`, or -1: of base."""
    shift = offsets[first]
    for row in range(first, last):
        at = offsets[row] - shift
        length = offsets[row + 1] - offsets[row]
        if pick[row] < 0:
            if length:
                start = base_offsets[row]
                out[at : at + length] = base[start : start + length]
        else:
            start = value_offsets[pick[row]]
            out[at : at + length] = values[start : start + length]


@_jit
def _hash(data, start, end):
    h = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        h = (h ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    h ^= h >> np.uint64(31)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(29))


@_jit
def _equal(data, start, length, other, other_start):
    for i in range(length):
        if data[start + i] != other[other_start + i]:
            break
    else:
        return True
    return False


@_jit
def insert_ids(data, offsets, table, twice):
    """Fill `table` uint32[2**k] (zeros) with rows; `twice` int64[n]: an earlier row of the same id, or -1."""
    mask = np.uint64(table.size - 1)
    for row in range(offsets.size - 1):
        twice[row] = NONE
        start, end = offsets[row], offsets[row + 1]
        if start == end:
            continue
        slot = _hash(data, start, end) & mask
        while table[slot]:
            other = np.int64(table[slot]) - 1
            if offsets[other + 1] - offsets[other] == end - start and _equal(
                data, start, end - start, data, offsets[other]
            ):
                twice[row] = other
                break
            slot = (slot + np.uint64(1)) & mask
        if twice[row] == NONE:
            table[slot] = row + 1


@_jit
def find_ids(data, offsets, table, wanted, wanted_offsets, out):
    """`out` int64[n]: the row of each wanted id, or -1.

    Every look is a miss of all caches, so looks are made side by side: first all slots of a block, then all offsets,
    then the strings; few ids are not where they are looked for first.
    """
    mask = np.uint64(table.size - 1)
    slots, rows = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int64)
    starts, ends = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64)
    for first in range(0, out.size, _BLOCK):
        size = min(_BLOCK, out.size - first)
        for k in range(size):
            slots[k] = _hash(wanted, wanted_offsets[first + k], wanted_offsets[first + k + 1]) & mask
        for k in range(size):
            rows[k] = np.int64(table[slots[k]]) - 1
        for k in range(size):
            row = max(rows[k], 0)
            starts[k], ends[k] = offsets[row], offsets[row + 1]
        for k in range(size):
            start, length = wanted_offsets[first + k], wanted_offsets[first + k + 1] - wanted_offsets[first + k]
            if rows[k] < 0 or length == 0:
                out[first + k] = NONE
            elif ends[k] - starts[k] == length and _equal(wanted, start, length, data, starts[k]):
                out[first + k] = rows[k]
            else:
                out[first + k] = _find_from(data, offsets, table, slots[k], wanted, start, length)


@_jit
def _find_from(data, offsets, table, slot, wanted, start, length):
    """The row of one id that does not stand in `slot`, but may stand in one after it."""
    mask = np.uint64(table.size - 1)
    slot = (slot + np.uint64(1)) & mask
    while table[slot]:
        row = np.int64(table[slot]) - 1
        if offsets[row + 1] - offsets[row] == length and _equal(wanted, start, length, data, offsets[row]):
            return row
        slot = (slot + np.uint64(1)) & mask
    return NONE


@_jit
def factorise(a, b, codes, firsts):
    """Number the distinct pairs of `a`, `b` uint64[n] in the order they are met; returns how many there are.

    `codes` uint32[n]: the number of each; `firsts` uint32[n]: where each number was first met. The table starts small
    and grows, so that few distinct pairs are found in the nearest cache.
    """
    table = np.zeros(1 << 10, np.uint32)
    count = 0
    for i in range(a.size):
        if 2 * count >= table.size:
            table = np.zeros(4 * table.size, np.uint32)
            for code in range(count):
                slot = _slot_of(a, b, firsts, table, a[firsts[code]], b[firsts[code]])
                table[slot] = code + 1
        slot = _slot_of(a, b, firsts, table, a[i], b[i])
        if table[slot] == 0:
            firsts[count] = i
            count += 1
            table[slot] = count
        codes[i] = table[slot] - 1
    return count


@_jit
def _slot_of(a, b, firsts, table, x, y):
    mask = np.uint64(table.size - 1)
    h = (x * np.uint64(0x9E3779B97F4A7C15)) ^ (y * np.uint64(0xC2B2AE3D27D4EB4F))
    h ^= h >> np.uint64(29)
    slot = (h * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(32) & mask
    while table[slot]:
        first = firsts[table[slot] - 1]
        if a[first] == x and b[first] == y:
            break
        slot = (slot + np.uint64(1)) & mask
    return slot


@_jit
def addresses(generation, erased, base_offsets, rows, generations, out):
    """`out` int64[n]: the row whose address may be used, or -1 (erased, of another generation, or without one)."""
    for i in range(rows.size):
        row = np.int64(rows[i])
        known = row < base_offsets.size - 1 and row < generation.size
        if known and generation[row] == generations[i] and not erased[row] & 1:
            out[i] = row
        else:
            out[i] = NONE


@_jit
def take_positions(rows, lon, lat, at_ms, now_ms, expired_ms, all_lon, all_lat, all_at_ms, level, fresh, out):
    """Take live positions in, in this order: one that is older than what there is, or not after `expired_ms`, is not.

    `rows` int64[n], `lon`, `lat` int32[n], `at_ms` int64[n], at most `now_ms`; `all_*` by row, written. Rows whose
    `level` uint8 was not `fresh` become so, and are written to `out` uint32[n]; returns how many.
    """
    count = 0
    for i in range(rows.size):
        row, at = rows[i], min(at_ms[i], now_ms)
        if at < all_at_ms[row] or at <= expired_ms:
            continue
        all_lon[row], all_lat[row], all_at_ms[row] = lon[i], lat[i], at
        if level[row] != fresh:
            level[row] = fresh
            out[count] = row
            count += 1
    return count
