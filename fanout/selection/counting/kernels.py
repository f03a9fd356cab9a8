"""Kernels of a preview: each person once, and counts by kind, district and cell of a grid.

Somebody with several places in an area is met several times. Who was met is a bit each, 200 KB for 1.6 million people,
which a core keeps at hand; so nearly all are done with after one look. Only of those met again distances are asked, and
`settle` keeps the nearest. Among these a person's number is their rank in a second set of bits (a sum kept for every
word, and the bits below in it: Jacobson 1989), so that no array of all people is touched.

Everywhere `rows` and `places` (positions in an index) are uint32[n], `lon` and `lat` int32 by place, and bits of all
rows (`met`, `marked`, `bits`) uint64[(rows there are >> 6) + 1].
"""

from __future__ import annotations

import numpy as np
from numba import njit

_jit = njit(cache=True, nogil=True)

_ONE = np.uint64(1)
_CHUNK = 512


# --- each once --------------------------------------------------------------------------------------------------------


@_jit
def _has(bits, row):
    return bits[row >> 6] >> np.uint64(row & 63) & _ONE


@_jit
def mark(rows, bits):
    """Set the bit of every row."""
    for row in rows:
        bits[row >> 6] |= _ONE << np.uint64(row & 63)


@_jit
def meet(rows, places, met, again_rows, again_places):
    """Mark who is met; those who had been are taken out, to `again_*` uint32[n]. Returns how many are left, and not."""
    kept = out = 0
    for i in range(rows.size):
        row, place = rows[i], places[i]
        bit = _ONE << np.uint64(row & 63)
        before = met[row >> 6]
        if before & bit:
            again_rows[out], again_places[out] = row, place
            out += 1
        else:
            met[row >> 6] = before | bit
            rows[kept], places[kept] = row, place
            kept += 1
    return kept, out


@_jit
def unmet(rows, places, met):
    """Keep those who are not marked, in place; returns how many are left."""
    kept = 0
    for i in range(rows.size):
        rows[kept], places[kept] = rows[i], places[i]
        kept += 1 - np.int64(_has(met, rows[i]))
    return kept


@_jit
def take_out(rows, places, marked, out_rows, out_places):
    """Those who are marked, to `out_*` uint32[n]; the others stay, in place. Returns how many are left, and not."""
    kept = out = 0
    for i in range(rows.size):
        row, place = rows[i], places[i]
        if _has(marked, row):
            out_rows[out], out_places[out] = row, place
            out += 1
        else:
            rows[kept], places[kept] = row, place
            kept += 1
    return kept, out


@_jit
def _ones(word):
    """How many bits of a word are set."""
    word = word - (word >> np.uint64(1) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (word >> np.uint64(2) & np.uint64(0x3333333333333333))
    word = word + (word >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(word * np.uint64(0x0101010101010101) >> np.uint64(56))


@_jit
def settle(rows, metres, marked, keep):
    """Of each person the nearest, the first of those as near: `keep` uint8[n] of 1 becomes 0 for the others.

    `rows` uint32[n], each of them in `marked`; `metres` float32[n].
    """
    before = np.empty(marked.size, np.uint32)
    total = 0
    for word in range(marked.size):
        before[word] = total
        total += _ones(marked[word])
    slots = np.full(total, -1, np.int64)
    for i in range(rows.size):
        row = rows[i]
        lower = marked[row >> 6] & ((_ONE << np.uint64(row & 63)) - _ONE)
        rank = np.int64(before[row >> 6]) + _ones(lower)
        slot = slots[rank]
        if slot < 0:
            slots[rank] = i
        elif metres[i] < metres[slot]:
            keep[slot] = 0
            slots[rank] = i
        else:
            keep[i] = 0


@_jit
def only(keep, rows, places):
    """Take out all that is not to be kept (`keep` uint8[n]), in place; returns how many are left."""
    kept = 0
    for i in range(keep.size):
        rows[kept], places[kept] = rows[i], places[i]
        kept += keep[i] != 0
    return kept


# --- how many ---------------------------------------------------------------------------------------------------------


@_jit
def tally(places, values, out):
    """Count the values of places: `values` unsigned, by position in an index; `out` int64 by value, added to."""
    for i in range(places.size):
        out[values[places[i]]] += 1


@_jit
def tally_people(rows, profile, stale, changed_rows, changed_profile, out, changed_out):
    """Count the profiles of people, to `out` and, of those changed since the base, to `changed_out`.

    A row is in the base (`profile` uint32 by row) unless it is `stale` there, then among `changed_rows`, ascending.
    """
    for row in rows:
        if row < stale.size and not stale[row]:
            out[profile[row]] += 1
        else:
            changed_out[changed_profile[np.searchsorted(changed_rows, row)]] += 1


@_jit
def extend_box(places, lon, lat, box):
    """Make `box` int64[4] (west, south, east, north) wide enough for places of an index."""
    x, y = np.empty(_CHUNK, np.int32), np.empty(_CHUNK, np.int32)
    for start in range(0, places.size, _CHUNK):
        size = min(places.size - start, _CHUNK)
        for i in range(size):
            x[i], y[i] = lon[places[start + i]], lat[places[start + i]]
        west, south, east, north = x[0], y[0], x[0], y[0]
        for i in range(size):  # no branch and no gather: eight at a time
            west, east = min(west, x[i]), max(east, x[i])
            south, north = min(south, y[i]), max(north, y[i])
        box[0], box[1] = min(box[0], west), min(box[1], south)
        box[2], box[3] = max(box[2], east), max(box[3], north)


@_jit
def count_cells(places, lon, lat, box, out):
    """Count places of an index into `out` uint32[rows, columns] over a box (see `extend_box`) that has them all."""
    rows, columns = out.shape
    west, south, east, north = box
    across, up = columns / (east - west + 1), rows / (north - south + 1)  # at a cell's border it may count in the next
    for place in places:
        x = min(columns - 1, np.int64((lon[place] - west) * across))
        y = min(rows - 1, np.int64((lat[place] - south) * up))
        out[y, x] += 1
