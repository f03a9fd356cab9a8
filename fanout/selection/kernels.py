"""The one pass of a selection: candidates in, people out. Order is for `ordering`. All in arrays, side by side:

`candidates` (places) and `positions` (live ones) write down who passes all filters, and where; `measure` writes how far
each is; `settle` keeps the nearest of each person; `pack` makes one uint64 of each: the float32 distance's bits above
(for distances, which are not negative, bits order as numbers do), the row below. Sorting these integers *is* "nearest
first, ties by row", and it is deterministic.

People and places that filters cannot tell apart are of one kind, and a query judges each kind once (`want`); a
candidate then costs a sequential read and a look into a small table. Neighbours have neighbouring rows, for the rest.
Distances are a loop of their own, without branches, as the compiler then takes four at a time.

`centre` is what distances count from (`query.Centre`): a point, a line of great-circle arcs, or neither.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fanout.geo.kernels import haversine, haversine_near, wrap
from fanout.geo.lines.kernels import line_metres

_EARTH_M = 6_371_008.8
_RAD = math.pi / 180 / 10_000_000
_NEAR_RAD = 0.05
_NEAR_LAT_RAD = 1.35
_CHUNK = 512

CALLS = "bf8b36120967"  # of the files whose kernels are compiled into these: tests/test_kernels.py

_jit = njit(cache=True, nogil=True)

FLAG_ERASED = 1
NO_ROWS = np.zeros(0, np.uint32)
NO_ROWS.setflags(write=False)
_NEVER = np.int64(-(2**63))


# --- who --------------------------------------------------------------------------------------------------------------


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
def candidates(
    runs, persons, kinds, wanted, stale, row_of, excluded,
    level, live_at_ms, moved_rows, moved_at_ms, fresh_rows, fresh_at_ms, since_ms,
    out_rows, out_places,
):  # fmt: skip
    """Places of one part whose person passes, with their hours in force; returns how many were written.

    `runs` int64[r, 2] over the part's places; `persons`, `kinds` uint32 in that order; `wanted` uint8 by kind
    (see `want`). `stale` uint8[people] or [0]; `row_of` uint32[people], or [0] if persons are rows;
    `excluded` uint8[rows] or [0]. Who has a live position not older than `since_ms` is left out (see
    `located_ms`). `out_*`: rows, and positions in the index; of as many as the runs have.
    """
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
            if level.size and (
                located_ms(row, level, live_at_ms, moved_rows, moved_at_ms, fresh_rows, fresh_at_ms) >= since_ms
            ):
                continue
            out_rows[count], out_places[count] = row, i
            count += 1
    return count


@_jit
def located_ms(row, level, base_at_ms, moved_rows, moved_at_ms, fresh_rows, fresh_at_ms):
    """When the live position of a row was measured; far in the past if it has none (see `registry.live.LiveView`)."""
    if row >= level.size:
        return _NEVER
    if level[row] == 0:
        return base_at_ms[row] if row < base_at_ms.size else _NEVER
    if level[row] == 1:
        return moved_at_ms[np.searchsorted(moved_rows, row)]
    return fresh_at_ms[np.searchsorted(fresh_rows, row)]


@_jit
def positions(
    runs, numbers, row_of, at_ms, level, own_level, since_ms, profile, wanted, stale, changed_rows,
    changed_profile, changed_wanted, excluded, out_rows, out_places,
):  # fmt: skip
    """As `candidates`, of live positions measured not before `since_ms`, whatever the hours.

    `numbers` uint32 and `at_ms` int64, when each was measured, in the index's order; `row_of` uint32 (or [0]): the row
    of a number; a position is out of date unless the row's `level` uint8 is `own_level`. A row's person is in the base
    (`profile` uint32 by row, `wanted` uint8 by profile) unless it is `stale` there, then among `changed_rows` uint32,
    ascending.
    """
    count = 0
    for r in range(runs.shape[0]):
        for i in range(runs[r, 0], runs[r, 1]):
            number = numbers[i]
            row = row_of[number] if row_of.size else number
            if at_ms[i] < since_ms or level[row] != own_level:
                continue
            if row < excluded.size and excluded[row]:
                continue
            if row < stale.size and not stale[row]:
                if not wanted[profile[row]]:
                    continue
            else:
                slot = np.searchsorted(changed_rows, row)
                if slot == changed_rows.size or changed_rows[slot] != row or not changed_wanted[changed_profile[slot]]:
                    continue
            out_rows[count], out_places[count] = row, i
            count += 1
    return count


@_jit
def choose_people(profile, wanted, stale, row_of, excluded, out):
    """As `candidates`, of all people, wherever they are: rows to `out` uint32[n], ascending; returns how many."""
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


# --- how far ----------------------------------------------------------------------------------------------------------


@_jit
def measure(places, lon, lat, centre, out):
    """Metres of places from the centre, to `out` float32[n]; 0 without one. `lon`, `lat` int32 by place."""
    lon0, lat0, arcs, blocks = centre
    if arcs.shape[0]:
        line_metres(places, lon, lat, arcs, blocks, out)
        return
    if lat0 > 900_000_000:
        out[:] = 0.0
        return
    lat0_rad = lat0 * _RAD
    sin0, cos0 = math.sin(lat0_rad), math.cos(lat0_rad)
    x, y = np.empty(_CHUNK, np.float64), np.empty(_CHUNK, np.float64)  # away from the centre, in fixed-point degrees
    for start in range(0, places.size, _CHUNK):
        size = min(places.size - start, _CHUNK)
        far = 0.0
        for i in range(size):
            place = places[start + i]
            x[i], y[i] = lon[place] - lon0, lat[place] - lat0
            far = max(far, max(abs(x[i]), abs(y[i])))
        if far * _RAD < _NEAR_RAD and abs(lat0_rad) < _NEAR_LAT_RAD:
            for i in range(size):
                out[start + i] = _near_metres(haversine_near(x[i] * _RAD, y[i] * _RAD, sin0, cos0))
        else:
            for i in range(start, start + size):
                out[i] = _metres(lon[places[i]], lat[places[i]], lon0, lat0, sin0, cos0)


@_jit
def _near_metres(a):
    """Metres of a small haversine: the arc sine's series; the first term left out is below 1e-14 of the whole."""
    return 2.0 * _EARTH_M * math.sqrt(a) * (1.0 + a * (1.0 / 6.0 + a * (3.0 / 40.0 + a * (15.0 / 336.0))))


@_jit
def _metres(lon, lat, lon0, lat0, sin0, cos0):
    """Distance from a point, whose latitude has this sine and cosine."""
    dlon = wrap(np.int64(lon) - lon0) * _RAD
    dlat = (np.int64(lat) - lat0) * _RAD
    lat0_rad = lat0 * _RAD
    if abs(dlon) < _NEAR_RAD and abs(dlat) < _NEAR_RAD and abs(lat0_rad) < _NEAR_LAT_RAD:
        return _near_metres(haversine_near(dlon, dlat, sin0, cos0))
    a = haversine(dlon, lat0_rad, lat * _RAD)
    return 2.0 * _EARTH_M * math.asin(min(1.0, math.sqrt(a)))


# --- in order ---------------------------------------------------------------------------------------------------------


@_jit
def pack(rows, metres, out_rows, out_metres):
    """Keys: `out_rows` uint32[2 n] and `out_metres` float32[2 n] are two views of them, the low and high halves."""
    for i in range(rows.size):
        out_rows[2 * i] = rows[i]
        out_metres[2 * i + 1] = metres[i]
