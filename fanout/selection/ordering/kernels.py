"""Keys in order: the sort of a selection, the k-th of a preview, the first of each person.

A key is one uint64: the bits of a distance (float32, not negative) above, the row below; see `selection.kernels`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_FEW = 16

_jit = njit(cache=True, nogil=True)


@_jit
def sort_keys(keys, spare):
    """Sort keys ascending; `spare` uint64[n]. The sorted keys are in the array that is returned, one of the two.

    Least-significant-digit radix sort of the distances (11 bits a pass, as many passes as their range needs), then each
    run of equal distances by row. Against a comparison sort: 6 ns instead of 40 a key. A household is such a run.
    """
    low, high = keys[0], keys[0]
    for key in keys:
        low = min(low, key)
        high = max(high, key)
    low = low >> np.uint64(32)
    span = (high >> np.uint64(32)) - low
    here, there = keys, spare
    counts = np.empty(2048, np.int64)
    shift = np.uint64(0)
    while span >> shift:
        counts[:] = 0
        for key in here:
            counts[(((key >> np.uint64(32)) - low) >> shift) & np.uint64(2047)] += 1
        total = 0
        for digit in range(2048):
            count = counts[digit]
            counts[digit] = total
            total += count
        for key in here:
            digit = (((key >> np.uint64(32)) - low) >> shift) & np.uint64(2047)
            there[counts[digit]] = key
            counts[digit] += 1
        here, there = there, here
        shift += np.uint64(11)
    start = 0
    for i in range(1, here.size + 1):
        if i == here.size or here[i] >> np.uint64(32) != here[start] >> np.uint64(32):
            if i - start > _FEW:
                here[start:i].sort()
            elif i - start > 1:
                _insert(here, start, i)
            start = i
    return here


@_jit
def _insert(keys, start, end):
    """Sort a few, in place: those of one household, whom a sort for many would cost as much as a thousand."""
    for i in range(start + 1, end):
        key, at = keys[i], i
        while at > start and keys[at - 1] > key:
            keys[at] = keys[at - 1]
            at -= 1
        keys[at] = key


@_jit
def key_at(keys, k):
    """The k-th smallest key, from 0; `keys` uint64[n], each once. One look at all by distance, then a sort of few."""
    low, high = keys[0], keys[0]
    for key in keys:
        low = min(low, key)
        high = max(high, key)
    low = low >> np.uint64(32)
    shift = np.uint64(0)
    while ((high >> np.uint64(32)) - low) >> shift >= np.uint64(4096):
        shift += np.uint64(1)
    counts = np.zeros(4096, np.int64)
    for key in keys:
        counts[((key >> np.uint64(32)) - low) >> shift] += 1
    bucket, before = 0, 0
    while before + counts[bucket] <= k:
        before += counts[bucket]
        bucket += 1
    few = np.empty(counts[bucket], np.uint64)
    count = 0
    for key in keys:
        if ((key >> np.uint64(32)) - low) >> shift == np.uint64(bucket):
            few[count] = key
            count += 1
    few.sort()
    return few[k - before]


@_jit
def first_of_each(keys, rows):
    """Keep the first key of every row, in place; returns how many. `rows`: the upper bound of any row."""
    seen = np.zeros((rows >> 6) + 1, np.uint64)
    kept = 0
    for i in range(keys.size):
        row = keys[i] & np.uint64(0xFFFFFFFF)
        word, bit = row >> np.uint64(6), np.uint64(1) << (row & np.uint64(63))
        if seen[word] & bit:
            continue
        seen[word] |= bit
        keys[kept] = keys[i]
        kept += 1
    return kept
