"""The one pass of a selection: candidates in, keys out. Order is for `ordering`.

For every place in the runs of a shape: is its person current, wanted, reachable, and the place's hours in force; and
how far is it. What passes becomes one uint64: the float32 distance's bits above (for distances, which are not negative,
bits order as numbers do), the row below. Sorting these integers *is* "nearest first, ties by row", and it is
deterministic.

People and places that filters cannot tell apart are of one kind, and a query judges each kind once (`want`); a
candidate then costs a sequential read and a look into a small table. Neighbours have neighbouring rows, for the rest.

`centre` is what distances count from (`query.Centre`): a point, a line of great-circle arcs, or neither. Of a line,
blocks of arcs have a bounding sphere, and the arc that was nearest to the candidate before is asked first, as
candidates come in the order of the map: most blocks are passed over.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fanout.geo.kernels import haversine, haversine_near, wrap

_EARTH_M = 6_371_008.8
_RAD = math.pi / 180 / 10_000_000
_NEAR_RAD = 0.05
_NEAR_LAT_RAD = 1.35

_jit = njit(cache=True, nogil=True)

FLAG_ERASED = 1
ARCS_A_BLOCK = 8
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
def _metres(lon, lat, centre, sin0, cos0, last):
    """Distance from the centre's line if it has one, else from its point; 0 if it has neither (`lat` beyond the pole).

    `sin0`, `cos0`: of the point's latitude. `last` int64[1]: the arc that was nearest to the point before.
    """
    if centre.arcs.shape[0]:
        return _line_metres(lon, lat, centre.arcs, centre.blocks, last)
    if centre.lat > 900_000_000:
        return 0.0
    dlon = wrap(np.int64(lon) - centre.lon) * _RAD
    dlat = (np.int64(lat) - centre.lat) * _RAD
    lat0_rad = centre.lat * _RAD
    if abs(dlon) < _NEAR_RAD and abs(dlat) < _NEAR_RAD and abs(lat0_rad) < _NEAR_LAT_RAD:
        a = haversine_near(dlon, dlat, sin0, cos0)
        # the arc sine's series: the first term left out is below 1e-14 of the whole
        return 2.0 * _EARTH_M * math.sqrt(a) * (1.0 + a * (1.0 / 6.0 + a * (3.0 / 40.0 + a * (15.0 / 336.0))))
    a = haversine(dlon, lat0_rad, lat * _RAD)
    return 2.0 * _EARTH_M * math.asin(min(1.0, math.sqrt(a)))


@_jit
def _line_metres(lon, lat, arcs, blocks, last):
    """Distance from a line (see `query.line_of`): chords are compared, and only the shortest becomes metres."""
    la, lo = lat * _RAD, lon * _RAD
    x, y, z = math.cos(la) * math.cos(lo), math.cos(la) * math.sin(lo), math.sin(la)
    best = _arc_chord2(x, y, z, arcs, last[0])
    chord = math.sqrt(best)
    for block in range(blocks.shape[0]):
        dx, dy, dz = x - blocks[block, 0], y - blocks[block, 1], z - blocks[block, 2]
        if math.sqrt(dx * dx + dy * dy + dz * dz) - blocks[block, 3] > chord:
            continue
        for arc in range(block * ARCS_A_BLOCK, min(arcs.shape[0], (block + 1) * ARCS_A_BLOCK)):
            found = _arc_chord2(x, y, z, arcs, arc)
            if found < best:
                best = found
                chord = math.sqrt(best)
                last[0] = arc
    return 2.0 * _EARTH_M * math.asin(min(1.0, 0.5 * chord))


@_jit
def _arc_chord2(x, y, z, arcs, arc):
    """The square of the shortest chord from a unit vector to an arc: cross-track beside it, else to the nearer end."""
    ax, ay, az = x - arcs[arc, 0], y - arcs[arc, 1], z - arcs[arc, 2]
    bx, by, bz = x - arcs[arc, 3], y - arcs[arc, 4], z - arcs[arc, 5]
    best = min(ax * ax + ay * ay + az * az, bx * bx + by * by + bz * bz)
    if (
        arcs[arc, 15] > 0.0
        and arcs[arc, 9] * x + arcs[arc, 10] * y + arcs[arc, 11] * z >= 0.0
        and arcs[arc, 12] * x + arcs[arc, 13] * y + arcs[arc, 14] * z >= 0.0
    ):
        sine = arcs[arc, 6] * x + arcs[arc, 7] * y + arcs[arc, 8] * z
        square = min(1.0, sine * sine)
        best = min(best, 2.0 * square / (1.0 + math.sqrt(1.0 - square)))
    return best


@_jit
def choose_places(
    runs, lon, lat, persons, kinds, wanted, stale, row_of, excluded,
    live_at_ms, moved, moved_rows, moved_at_ms, since_ms, centre, out_rows, out_metres,
):  # fmt: skip
    """Keys of one part's places; returns how many were written.

    `runs` int64[r, 2] over the part's places; `persons`, `kinds` uint32, `lon`, `lat` int32 in that order; `wanted`
    uint8 by kind (see `want`). `stale` uint8[people] or [0]; `row_of` uint32[people], or [0] if persons are rows;
    `excluded` uint8[rows] or [0]. Who has a live position not older than `since_ms` is left out (see
    `located_ms`). `out_rows` uint32[2 n] and `out_metres` float32[2 n] are two views of the keys: the low and high
    halves.
    """
    sin0, cos0 = math.sin(centre.lat * _RAD), math.cos(centre.lat * _RAD)
    last = np.zeros(1, np.int64)
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
            out_metres[2 * count + 1] = _metres(lon[i], lat[i], centre, sin0, cos0, last)
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
def reached_places(
    runs, lon, lat, persons, kinds, wanted, stale, row_of, excluded, people,
    live_at_ms, moved, moved_rows, moved_at_ms, since_ms, centre, single, measured, out_rows, out_places, out_metres,
):  # fmt: skip
    """As `choose_places` without order: each person once, with the position of the place that decides; returns how
    many.

    `people`: how many the part has; `single`: none of them has two places. Only who has several is measured, unless
    all are to be (`measured`). `out_*` of as many as there are candidates.
    """
    twice = np.zeros(0 if single else (people >> 6) + 1, np.uint64)
    if not single:
        _mark_twice(runs, persons, kinds, wanted, twice)
    met = np.zeros(twice.size, np.uint64)
    slots = np.empty(0 if single else people, np.uint32)  # of those met, if they are to be met again
    sin0, cos0 = math.sin(centre.lat * _RAD), math.cos(centre.lat * _RAD)
    last = np.zeros(1, np.int64)
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
            slot = count
            several = twice.size and twice[number >> 6] >> np.uint64(number & 63) & np.uint64(1)
            if measured or several:
                metres = np.float32(_metres(lon[i], lat[i], centre, sin0, cos0, last))
                if several:
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
def nearer_of_both(rows, places, metres, measured, lon, lat, centre, live_rows, live_metres, live_kept):
    """Who was reached by a place and by a live position: the nearer decides, the place where they are as near.

    `rows`, `places` uint32[n], `metres` float32[n] of one part (`reached_places`; `metres` is right where `measured`);
    those for whom the live position decides are taken out, in place; returns how many are left. `live_kept` uint8[m]
    becomes 0 for those for whom the place does. `live_rows` each once.
    """
    size = 16
    while size < 2 * live_rows.size:
        size *= 2
    table = np.zeros(size, np.uint32)
    for slot in range(live_rows.size):
        at = (np.uint64(live_rows[slot]) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & np.uint64(size - 1)
        while table[at]:
            at = (at + np.uint64(1)) & np.uint64(size - 1)
        table[at] = slot + 1
    sin0, cos0 = math.sin(centre.lat * _RAD), math.cos(centre.lat * _RAD)
    last = np.zeros(1, np.int64)
    kept = 0
    for i in range(rows.size):
        row = rows[i]
        at = (np.uint64(row) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & np.uint64(size - 1)
        while table[at] and live_rows[table[at] - 1] != row:
            at = (at + np.uint64(1)) & np.uint64(size - 1)
        if table[at]:
            slot = table[at] - 1
            if not measured:
                place = places[i]
                metres[i] = _metres(lon[place], lat[place], centre, sin0, cos0, last)
            if live_metres[slot] < metres[i]:
                continue
            live_kept[slot] = 0
        rows[kept], places[kept], metres[kept] = row, places[i], metres[i]
        kept += 1
    return kept


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
    across, up = columns / width, rows / height  # a point at a cell's border may count in the next
    for i in range(lon.size):
        x = min(columns - 1, np.int64((np.int64(lon[i]) - west) * across))
        y = min(rows - 1, np.int64((np.int64(lat[i]) - south) * up))
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
    runs, lon, lat, numbers, row_of, at_ms, moved, since_ms, profile, wanted, stale, changed_rows, changed_profile,
    changed_wanted, excluded, centre, out_rows, out_metres, out_at,
):  # fmt: skip
    """As `choose_places`, for live positions measured not before `since_ms`, whatever the hours; and where each is.

    `numbers` uint32 in the index's order, of which `at_ms` int64 is when each was measured, `moved` uint8 (or [0])
    whether it is out of date, and `row_of` uint32 (or [0]) the row. A row's person is in the base (`profile` uint32 by
    row, `wanted` uint8 by profile) unless it is `stale` there, then among `changed_rows` uint32, ascending.
    `out_at` uint32[n]: positions in the index.
    """
    sin0, cos0 = math.sin(centre.lat * _RAD), math.cos(centre.lat * _RAD)
    last = np.zeros(1, np.int64)
    count = 0
    for r in range(runs.shape[0]):
        for i in range(runs[r, 0], runs[r, 1]):
            number = numbers[i]
            if at_ms[number] < since_ms or (moved.size and moved[number]):
                continue
            row = row_of[number] if row_of.size else number
            if row < excluded.size and excluded[row]:
                continue
            if row < stale.size and not stale[row]:
                if not wanted[profile[row]]:
                    continue
            else:
                slot = np.searchsorted(changed_rows, row)
                if slot == changed_rows.size or changed_rows[slot] != row or not changed_wanted[changed_profile[slot]]:
                    continue
            out_rows[2 * count] = row
            out_metres[2 * count + 1] = _metres(lon[i], lat[i], centre, sin0, cos0, last)
            out_at[count] = i
            count += 1
    return count
