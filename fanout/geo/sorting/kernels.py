"""Sorting points into bands of latitude, and by longitude within a band: the making of an index.

Bands first, in one counting sort: what is then sorted by longitude is one band at a time, and fits the cache. Least
significant digit first, 11 bits a pass, as many passes as the band's width needs; a handful of points by insertion.
Every step is stable, so points of one coordinate stay in the order they came in, and the order is a function of the
points alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_LAT_MAX = 900_000_000
_LON_MAX = 1_800_000_000

_jit = njit(cache=True, nogil=True)


@_jit
def sort_into_bands(lon, lat, shift, offsets, order, out_lon, out_lat):
    """Fill `offsets` uint32[bands + 1] and `order` uint32[n]: points by (band, longitude, input order).

    `out_lon`, `out_lat` int32[n]: the points in that order; longitudes are in the keys, latitudes are fetched.

    A counting sort over bands, then a radix sort (11 bits a pass, least significant first) within each band, which
    fits the cache. `lon`, `lat` int32[n].
    """
    n = lon.size
    bands = offsets.size - 1
    for i in range(bands + 1):
        offsets[i] = 0
    for i in range(n):
        offsets[((lat[i] + _LAT_MAX) >> shift) + 1] += 1
    for b in range(bands):
        offsets[b + 1] += offsets[b]
    cursor = offsets[:-1].copy()
    keys = np.empty(n, np.uint64)  # longitude above, input row below
    for i in range(n):
        b = (lat[i] + _LAT_MAX) >> shift
        keys[cursor[b]] = (np.uint64(np.int64(lon[i]) + _LON_MAX) << np.uint64(32)) | np.uint64(i)
        cursor[b] += 1
    widest = 0
    for b in range(bands):
        widest = max(widest, np.int64(offsets[b + 1]) - np.int64(offsets[b]))
    spare = np.empty(widest, np.uint64)
    counts = np.empty(2048, np.int64)
    for b in range(bands):
        start, end = np.int64(offsets[b]), np.int64(offsets[b + 1])
        if end - start > 96:
            _radix_by_longitude(keys[start:end], spare[: end - start], counts)
        else:
            _insertion(keys[start:end])
    for i in range(n):
        row = keys[i] & np.uint64(0xFFFFFFFF)
        order[i] = row
        out_lon[i] = np.int64(keys[i] >> np.uint64(32)) - _LON_MAX
        out_lat[i] = lat[row]


@_jit
def _insertion(keys):
    for i in range(1, keys.size):
        key = keys[i]
        j = i - 1
        while j >= 0 and keys[j] > key:
            keys[j + 1] = keys[j]
            j -= 1
        keys[j + 1] = key


@_jit
def _radix_by_longitude(keys, spare, counts):
    low, high = keys[0], keys[0]
    for key in keys:
        low = min(low, key)
        high = max(high, key)
    low = low >> np.uint64(32)
    span = (high >> np.uint64(32)) - low
    here, there = keys, spare
    moved = False
    shift = np.uint64(0)
    while span >> shift:
        counts[:] = 0
        for key in here:
            counts[(((key >> np.uint64(32)) - low) >> shift) & np.uint64(2047)] += 1
        total = 0
        for d in range(2048):
            count = counts[d]
            counts[d] = total
            total += count
        for key in here:
            d = (((key >> np.uint64(32)) - low) >> shift) & np.uint64(2047)
            there[counts[d]] = key
            counts[d] += 1
        here, there = there, here
        moved = not moved
        shift += np.uint64(11)
    if moved:
        keys[:] = here
