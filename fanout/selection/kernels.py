"""The one pass of a selection: candidates in, keys out. The only numba of this package.

For every place in the runs of a shape: is its person current, wanted, reachable, and the place's hours in force; and
how far is it. What passes becomes one uint64: the float32 distance's bits above (for distances, which are not negative,
bits order as numbers do), the row below. Sorting these integers *is* "nearest first, ties by row", and it is
deterministic.

A person is one record of 20 bytes, so that a candidate costs about one cache miss; tests that refuse most come first.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fanout.geo.kernels import haversine, haversine_near, line_distance_rad, wrap

_EARTH_M = 6_371_008.8
_RAD = math.pi / 180 / 10_000_000
_NEAR_RAD = 0.05
_NEAR_LAT_RAD = 1.35

_jit = njit(cache=True, nogil=True)

FLAG_ERASED = 1


@_jit
def _wanted(person, channels, kinds, tenants, languages, age_groups):
    """Whether a person takes part at all. `kinds`, `tenants`: one of these bits must be set; `languages`: bool[256]."""
    return (
        person.channels & channels != 0
        and person.flags & FLAG_ERASED == 0
        and person.kinds & kinds != 0
        and person.tenants & tenants != 0
        and languages[person.language] != 0
        and (age_groups >> person.age_group) & 1 != 0
    )


@_jit
def _metres(lon, lat, lon0, lat0, sin0, cos0, line):
    """Distance from the centre, or from the line if there is one; 0 if there is neither (`lat0` beyond the pole)."""
    if line.shape[0]:
        return _EARTH_M * line_distance_rad(lon, lat, line)
    if lat0 > 900_000_000:
        return 0.0
    dlon = wrap(np.int64(lon) - lon0) * _RAD
    dlat = (np.int64(lat) - lat0) * _RAD
    lat0_rad = lat0 * _RAD
    if abs(dlon) < _NEAR_RAD and abs(dlat) < _NEAR_RAD and abs(lat0_rad) < _NEAR_LAT_RAD:
        a = haversine_near(dlon, dlat, sin0, cos0)
    else:
        a = haversine(dlon, lat0_rad, lat * _RAD)
    return 2.0 * _EARTH_M * math.asin(min(1.0, math.sqrt(a)))


@_jit
def choose_places(
    runs, lon, lat, persons, hours, people, stale, row_of, in_force,
    channels, kinds, tenants, languages, age_groups, excluded, located, lon0, lat0, line, metres, out,
):  # fmt: skip
    """Keys of one part; returns how many were written to `out` uint64[candidates].

    `runs` int64[r, 2] over the part's places; `persons` uint32, `hours` uint16, `lon`, `lat` int32 in that order.
    `people` PERSON[n]; `stale` uint8[n] or [0]; `row_of` uint32[n], or [0] if persons are rows; `in_force` uint8[time
    zones, forms]; `excluded`, `located` uint8[rows] or [0]: rows to leave out. `metres` float32[1] view of `bits`.
    """
    sin0, cos0 = math.sin(lat0 * _RAD), math.cos(lat0 * _RAD)
    count = 0
    for r in range(runs.shape[0]):
        for i in range(runs[r, 0], runs[r, 1]):
            number = persons[i]
            if stale.size and stale[number]:
                continue
            person = people[number]
            if not _wanted(person, channels, kinds, tenants, languages, age_groups):
                continue
            if not in_force[person.timezone, hours[i]]:
                continue
            row = row_of[number] if row_of.size else number
            if row < excluded.size and excluded[row]:
                continue
            if row < located.size and located[row]:
                continue
            metres[0] = _metres(lon[i], lat[i], lon0, lat0, sin0, cos0, line)
            out[count] = (np.uint64(metres.view(np.uint32)[0]) << np.uint64(32)) | np.uint64(row)
            count += 1
    return count


@_jit
def choose_people(people, stale, row_of, channels, kinds, tenants, languages, age_groups, excluded, out):
    """As `choose_places`, of all people, wherever they are: rows to `out` uint32[n], ascending; returns how many."""
    count = 0
    for number in range(people.size):
        if stale.size and stale[number]:
            continue
        row = row_of[number] if row_of.size else np.uint32(number)
        if row < excluded.size and excluded[row]:
            continue
        if _wanted(people[number], channels, kinds, tenants, languages, age_groups):
            out[count] = row
            count += 1
    return count


@_jit
def choose_positions(
    lon, lat, rows, people, channels, kinds, tenants, languages, age_groups, excluded, lon0, lat0, line, metres, out
):
    """As `choose_places`, for live positions: `people` PERSON[n] are the records of `rows` uint32[n]; no hours."""
    sin0, cos0 = math.sin(lat0 * _RAD), math.cos(lat0 * _RAD)
    count = 0
    for i in range(rows.size):
        row = rows[i]
        if not _wanted(people[i], channels, kinds, tenants, languages, age_groups):
            continue
        if row < excluded.size and excluded[row]:
            continue
        metres[0] = _metres(lon[i], lat[i], lon0, lat0, sin0, cos0, line)
        out[count] = (np.uint64(metres.view(np.uint32)[0]) << np.uint64(32)) | np.uint64(row)
        count += 1
    return count


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


@_jit
def split(keys, rows, metres_bits):
    """Keys to `rows` uint32[n] and the bits of their distances, uint32[n]."""
    for i in range(keys.size):
        rows[i] = np.uint32(keys[i] & np.uint64(0xFFFFFFFF))
        metres_bits[i] = np.uint32(keys[i] >> np.uint64(32))
