"""The k points nearest to a point: a circle wide enough, found in two or three guesses, and its k nearest in order.

1. **How wide.** The points beside the centre in its own band say how dense people are here; a circle of that density
   with half as many again as wanted is tried, and corrected by what is found. Guesses bracket the answer, so a village
   beside a city, or a hundred thousand people at one coordinate, end the search too.
2. **Which, in order.** Points of one density are spread evenly over the *area* of the circle, and the haversine (the
   squared sine of half the angle) grows as the area does: so it goes straight into as many buckets as there are points
   (bucket sort, Isaac and Singleton 1956). Whole buckets beyond the k-th are never placed; within a bucket of two or
   three an insertion sort is left to do, within a crowded one a merge sort. Both are stable: ties stay in the index's
   order. No square root or arc sine is taken: the order needs none.

Against measuring in metres, a partition and a comparison sort of what is left, this takes a quarter of the time.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fanout.geo.kernels import circle_runs, count_runs, first_not_below, haversine, haversine_near, wrap

_LAT_MAX = 900_000_000
_RAD = math.pi / 180 / 10_000_000
_EARTH_M = 6_371_008.8
_WORLD_M = math.pi * _EARTH_M + 1.0  # a circle of this radius has everything in it
_NEAR_RAD = 0.05
_NEAR_LAT_RAD = 1.35
_GUESSES_MAX = 60
_CROWD = 24  # from so many in a bucket, a merge sort costs less than insertions

CALLS = "bc4cb45bf5b2"  # of the files whose kernels are compiled into these: tests/test_kernels.py

_jit = njit(cache=True, nogil=True)


@_jit
def _first_guess_m(lon, offsets, shift, lon0, lat0, k):
    """A radius by the density of people beside the centre, in its band of latitude."""
    band = (lat0 + _LAT_MAX) >> shift
    start, end = np.int64(offsets[band]), np.int64(offsets[band + 1])
    if end - start < 8:
        return 1_000.0
    beside = max(8, k >> 2)
    here = first_not_below(lon, start, end, lon0)
    west, east = max(start, here - beside), min(end - 1, here + beside)
    metres = _RAD * _EARTH_M
    width_m = max(1.0, (np.int64(lon[east]) - np.int64(lon[west])) * metres * math.cos(lat0 * _RAD))
    height_m = (np.int64(1) << shift) * metres
    return math.sqrt(1.5 * (k + 4) * width_m * height_m / (math.pi * (east - west + 1)))


@_jit
def enough_runs(lon, lat, offsets, shift, lon0, lat0, k):
    """(radius in metres, runs) of a circle with at least min(k, n) points, seldom more than three times as many."""
    wanted = min(k, lon.size)
    radius_m = min(_WORLD_M, _first_guess_m(lon, offsets, shift, lon0, lat0, wanted))
    too_small, enough_m = 0.0, _WORLD_M
    enough = circle_runs(lon, lat, offsets, shift, lon0, lat0, radius_m)
    runs = enough
    for _ in range(_GUESSES_MAX):
        count = count_runs(runs)
        if count >= wanted:
            enough_m, enough = radius_m, runs
            if count <= 3 * wanted + 40 or enough_m < 1.02 * too_small or enough_m < 0.01:
                return enough_m, enough
        else:
            too_small = radius_m
            if too_small >= _WORLD_M:
                return _WORLD_M, runs
        radius_m *= min(8.0, max(0.1, math.sqrt((1.5 * wanted + 6.0) / max(1, count))))
        if not too_small < radius_m < enough_m:
            radius_m = 0.5 * (too_small + min(enough_m, 8.0 * too_small + 1_000.0))
        runs = circle_runs(lon, lat, offsets, shift, lon0, lat0, radius_m)
    if enough_m == _WORLD_M:
        enough = circle_runs(lon, lat, offsets, shift, lon0, lat0, _WORLD_M)
    return enough_m, enough


@_jit
def nearest_positions(lon, lat, offsets, shift, lon0, lat0, k):
    """int64[min(k, n)]: positions of the nearest points in the index, nearest first, ties by position."""
    _, runs = enough_runs(lon, lat, offsets, shift, lon0, lat0, k)
    total = count_runs(runs)
    positions, measured = np.empty(total, np.int64), np.empty(total, np.float64)
    furthest = _measure(runs, lon, lat, lon0, lat0, positions, measured)
    wanted = min(k, total)
    if total == 0 or furthest == 0.0:
        return positions[:wanted]
    buckets = min(total, 1 << 16)
    scale = buckets / (furthest * (1.0 + 1e-12))
    ends = np.zeros(buckets + 1, np.int64)
    for i in range(total):
        ends[np.int64(measured[i] * scale) + 1] += 1
    last = 0  # the bucket in which the k-th nearest is
    for b in range(buckets):
        ends[b + 1] += ends[b]
        if ends[b] < wanted:
            last = b
    kept = ends[last + 1]
    cursor = ends[: last + 1].copy()
    out, keys = np.empty(kept, np.int64), np.empty(kept, np.float64)
    for i in range(total):
        b = np.int64(measured[i] * scale)
        if b <= last:
            out[cursor[b]] = positions[i]
            keys[cursor[b]] = measured[i]
            cursor[b] += 1
    for b in range(last + 1):
        if ends[b + 1] - ends[b] > _CROWD:
            _merge_sort(keys[ends[b] : ends[b + 1]], out[ends[b] : ends[b + 1]])
    _insertion_sort(keys, out)
    return out[:wanted]


@_jit
def _measure(runs, lon, lat, lon0, lat0, positions, measured):
    """Every position in the runs and its haversine from a point; returns the greatest of these."""
    lat0_rad = lat0 * _RAD
    sin0, cos0 = math.sin(lat0_rad), math.cos(lat0_rad)
    near = abs(lat0_rad) < _NEAR_LAT_RAD
    furthest = 0.0
    at = 0
    for r in range(runs.shape[0]):
        for i in range(runs[r, 0], runs[r, 1]):
            dlon = wrap(np.int64(lon[i]) - lon0) * _RAD
            dlat = (np.int64(lat[i]) - lat0) * _RAD
            if near and abs(dlon) < _NEAR_RAD and abs(dlat) < _NEAR_RAD:
                a = haversine_near(dlon, dlat, sin0, cos0)
            else:
                a = haversine(dlon, lat0_rad, lat[i] * _RAD)
            positions[at] = i
            measured[at] = a
            furthest = max(furthest, a)
            at += 1
    return furthest


@_jit
def _merge_sort(keys, values):
    """Sort both by `keys` (float64[n]) in place; equal keys stay in order."""
    order = np.argsort(keys, kind="mergesort")
    keys[:] = keys[order]
    values[:] = values[order]


@_jit
def _insertion_sort(keys, values):
    """As `_merge_sort`, for what is nearly in order: buckets are, so nothing moves further than its own bucket."""
    for i in range(1, keys.size):
        key, value = keys[i], values[i]
        j = i - 1
        while j >= 0 and keys[j] > key:
            keys[j + 1] = keys[j]
            values[j + 1] = values[j]
            j -= 1
        keys[j + 1] = key
        values[j + 1] = value
