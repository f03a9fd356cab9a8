"""The one pass of a selection: candidates in, keys out. The only numba of this package.

For every place in the runs of a shape: is its person current, wanted, reachable, and the place's hours in force; and
how far is it. What passes becomes one uint64: the float32 distance's bits above (for distances, which are not negative,
bits order as numbers do), the row below. Sorting these integers *is* "nearest first, ties by row", and it is
deterministic.

People and places that filters cannot tell apart are of one kind, and a query judges each kind once (`want`); a
candidate then costs a sequential read and a look into a small table. Neighbours have neighbouring rows, for the rest.
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
NO_ROWS = np.zeros(0, np.uint32)
NO_ROWS.setflags(write=False)
_NEVER = np.int64(-(2**63))


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
def want(
    profiles, place_profile, place_hours, in_force, channels, kinds, tenants, languages, age_groups,
    out_profiles, out_places,
):  # fmt: skip
    """Judge each kind of person and of place once (see `registry.view.Kinds`); `in_force` uint8[time zones, forms]."""
    for p in range(profiles.size):
        out_profiles[p] = _wanted(profiles[p], channels, kinds, tenants, languages, age_groups)
    for k in range(place_profile.size):
        profile = place_profile[k]
        out_places[k] = out_profiles[profile] and in_force[profiles[profile].timezone, place_hours[k]]


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
        # the arc sine's series: the first term left out is below 1e-14 of the whole
        return 2.0 * _EARTH_M * math.sqrt(a) * (1.0 + a * (1.0 / 6.0 + a * (3.0 / 40.0 + a * (15.0 / 336.0))))
    a = haversine(dlon, lat0_rad, lat * _RAD)
    return 2.0 * _EARTH_M * math.asin(min(1.0, math.sqrt(a)))


@_jit
def choose_places(
    runs, lon, lat, persons, kinds, wanted, stale, row_of, excluded,
    live_at_ms, moved, moved_rows, moved_at_ms, since_ms, lon0, lat0, line, out_rows, out_metres,
):  # fmt: skip
    """Keys of one part's places; returns how many were written.

    `runs` int64[r, 2] over the part's places; `persons`, `kinds` uint32, `lon`, `lat` int32 in that order; `wanted`
    uint8 by kind (see `want`). `stale` uint8[people] or [0]; `row_of` uint32[people], or [0] if persons are rows;
    `excluded` uint8[rows] or [0]. Who has a live position not older than `since_ms` is left out (see
    `located_ms`). `out_rows` uint32[2 n] and `out_metres` float32[2 n] are two views of the keys: the low and high
    halves.
    """
    sin0, cos0 = math.sin(lat0 * _RAD), math.cos(lat0 * _RAD)
    count = 0
    for r in range(runs.shape[0]):
        for i in range(runs[r, 0], runs[r, 1]):
            if not wanted[kinds[i]]:
                continue
            number = persons[i]
            if stale.size and stale[number]:
                continue
            row = row_of[number] if row_of.size else number
            if row < excluded.size and excluded[row]:
                continue
            if moved.size and located_ms(row, live_at_ms, moved, moved_rows, moved_at_ms) >= since_ms:
                continue
            out_rows[2 * count] = row
            out_metres[2 * count + 1] = _metres(lon[i], lat[i], lon0, lat0, sin0, cos0, line)
            count += 1
    return count


@_jit
def located_ms(row, live_at_ms, moved, moved_rows, moved_at_ms):
    """When the live position of a row was measured; far in the past if it has none (see `registry.live.LiveView`)."""
    if row >= moved.size:
        return _NEVER
    if not moved[row]:
        return live_at_ms[row] if row < live_at_ms.size else _NEVER
    low, high = 0, moved_rows.size
    while low < high:
        middle = (low + high) >> 1
        if moved_rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return moved_at_ms[low]


@_jit
def fresh_positions(runs, rows, at_ms, moved, since_ms, out):
    """Positions in the runs measured not before `since_ms` and not moved since: their places in the index."""
    count = 0
    for r in range(runs.shape[0]):
        for i in range(runs[r, 0], runs[r, 1]):
            number = rows[i]
            if at_ms[number] >= since_ms and not (moved.size and moved[number]):
                out[count] = i
                count += 1
    return count


@_jit
def reached_places(
    runs, lon, lat, persons, kinds, wanted, stale, row_of, excluded, people, lon0, lat0, line, single,
    out_rows, out_places, out_metres,
):  # fmt: skip
    """As `choose_places` without order: each person once, with the position of the place that decides; returns how
    many.

    `people`: how many the part has; `single`: none of them has two places, so nothing is measured. `out_*` of as many
    as there are candidates.
    """
    twice = np.zeros(0 if single else (people >> 6) + 1, np.uint64)
    if not single:
        _mark_twice(runs, persons, kinds, wanted, twice)
    met = np.zeros(twice.size, np.uint64)
    slots = np.empty(0 if single else people, np.uint32)  # of those met, if they are to be met again
    sin0, cos0 = math.sin(lat0 * _RAD), math.cos(lat0 * _RAD)
    count = 0
    for r in range(runs.shape[0]):
        for i in range(runs[r, 0], runs[r, 1]):
            if not wanted[kinds[i]]:
                continue
            number = persons[i]
            if stale.size and stale[number]:
                continue
            row = row_of[number] if row_of.size else number
            if row < excluded.size and excluded[row]:
                continue
            slot = count
            if twice.size and twice[number >> 6] >> np.uint64(number & 63) & np.uint64(1):
                metres = np.float32(_metres(lon[i], lat[i], lon0, lat0, sin0, cos0, line))
                word, bit = number >> 6, np.uint64(1) << np.uint64(number & 63)
                if met[word] & bit:
                    slot = np.int64(slots[number])
                    if metres >= out_metres[slot]:
                        continue
                met[word] |= bit
                slots[number] = slot
                out_metres[slot] = metres
            out_rows[slot] = row
            out_places[slot] = i
            count += slot == count
    return count


@_jit
def _mark_twice(runs, persons, kinds, wanted, twice):
    """Set the bit of every person with several places among the candidates: only theirs must be measured."""
    seen = np.zeros(twice.size, np.uint64)
    for r in range(runs.shape[0]):
        for i in range(runs[r, 0], runs[r, 1]):
            if wanted[kinds[i]]:
                number = persons[i]
                word, bit = number >> 6, np.uint64(1) << np.uint64(number & 63)
                twice[word] |= seen[word] & bit
                seen[word] |= bit


@_jit
def count_cells(lon, lat, west, south, width, height, out):
    """Count points into `out` uint32[rows, columns] over a box of `width` by `height` fixed-point units."""
    rows, columns = out.shape
    for i in range(lon.size):
        x = (np.int64(lon[i]) - west) * columns // width
        y = (np.int64(lat[i]) - south) * rows // height
        out[y, x] += 1


@_jit
def choose_people(profile, wanted, stale, row_of, excluded, out):
    """As `choose_places`, of all people, wherever they are: rows to `out` uint32[n], ascending; returns how many."""
    count = 0
    for number in range(profile.size):
        if not wanted[profile[number]] or (stale.size and stale[number]):
            continue
        row = row_of[number] if row_of.size else np.uint32(number)
        if row < excluded.size and excluded[row]:
            continue
        out[count] = row
        count += 1
    return count


@_jit
def choose_positions(
    lon, lat, rows, people, channels, kinds, tenants, languages, age_groups, excluded, lon0, lat0, line,
    out_rows, out_metres,
):  # fmt: skip
    """As `choose_places`, for live positions: `people` PERSON[n] are the records of `rows` uint32[n]; no hours."""
    sin0, cos0 = math.sin(lat0 * _RAD), math.cos(lat0 * _RAD)
    count = 0
    for i in range(rows.size):
        row = rows[i]
        if not _wanted(people[i], channels, kinds, tenants, languages, age_groups):
            continue
        if row < excluded.size and excluded[row]:
            continue
        out_rows[2 * count] = row
        out_metres[2 * count + 1] = _metres(lon[i], lat[i], lon0, lat0, sin0, cos0, line)
        count += 1
    return count


@_jit
def sort_keys(keys, spare):
    """Sort keys ascending; `spare` uint64[n]. The sorted keys are in the array that is returned, one of the two.

    Least-significant-digit radix sort of the distances (11 bits a pass, as many passes as their range needs), then each
    run of equal distances by row. Against a comparison sort: 6 ns instead of 40 a key.
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
            if i - start > 1:
                here[start:i].sort()
            start = i
    return here


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
