"""Kernels of polylines: the runs of a corridor, and the distance of a point from a line.

A line is joined by great-circle arcs. Distances are compared as *chords* of the unit sphere, which keep the triangle
inequality of ordinary space and need no arc sine.

* **Corridor.** The points of a band of latitude are halved by longitude. All of a stretch lies in a ball; where the
  line is nearer to its centre than the corridor is wide, by more than the ball's radius, the whole stretch is one run,
  and where it is further away by more than that, none of it is. What is left is halved again, asked only of the arcs
  that come near it, and in the end its few points are measured one by one: those along the rim, whoever lives between.
  So a corridor costs as much as its rim is long, however many people are in it and however many corners it has.
* **Distance.** Arcs lie in balls, and blocks of neighbouring arcs too; the arc that was nearest to the cell of the map
  before is asked first, as points come in its order. In a cell only the few arcs are asked that may be the nearest.

Exactness: a ball is a little too large and chords are compared with slack; at the rim, where rounding might decide, the
angle is taken (`line_distance_rad`, cross-track distance clipped to the ends of each arc).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fanout.geo.kernels import RUNS_FIRST, emit, first_not_below

_LAT_MAX = 900_000_000
_LON_MAX = 1_800_000_000
_RAD = math.pi / 180 / 10_000_000
_EARTH_M = 6_371_008.8
_FEW = 8  # points of a stretch that are measured rather than halved again
_SMALL_RAD = 0.05  # below this, sines and cosines are polynomials exact to the last bit
_MORE = 1.0 + 1e-9  # balls are a little too large, so that rounding passes nothing over
_LITTLE = 1e-12
ARCS_A_BLOCK = 8
_CELL = 16  # a cell of the map is 2**16 fixed-point units wide and high: 730 m
_HALF_CELL = 1 << (_CELL - 1)
_IN_CELL = (1 << _CELL) - 1
_CELLS = 1 << 10  # so many are kept
_ALONE = -1
_CELL_REACH = math.sqrt(2.0) * _HALF_CELL * _RAD * _MORE  # from its middle, at the equator

CALLS = "bc4cb45bf5b2"  # of the files whose kernels are compiled into these: tests/test_kernels.py

_jit = njit(cache=True, nogil=True)


# --- arcs -------------------------------------------------------------------------------------------------------------


@_jit
def arcs_of(vectors):
    """(`arcs` float64[v - 1, 20], `blocks` float64[b, 4]) of a line's points, float64[v, 3], unit vectors.

    An arc from a to b is the centre and radius of a ball that has it in it; a, b, the unit normal n of its plane, n x a
    and b x n (beside the arc is where both have no negative product with a point); and 1, or 0 if a and b are one point
    or opposite ones. A block of arcs is such a ball.
    """
    arcs = np.zeros((vectors.shape[0] - 1, 20), np.float64)
    for v in range(arcs.shape[0]):
        _arc(vectors[v], vectors[v + 1], arcs[v])
    blocks = np.zeros(((arcs.shape[0] + ARCS_A_BLOCK - 1) // ARCS_A_BLOCK, 4), np.float64)
    for block in range(blocks.shape[0]):
        within = arcs[block * ARCS_A_BLOCK : (block + 1) * ARCS_A_BLOCK, :4]
        for axis in range(3):
            blocks[block, axis] = np.mean(within[:, axis])
        for arc in within:
            dx, dy, dz = arc[0] - blocks[block, 0], arc[1] - blocks[block, 1], arc[2] - blocks[block, 2]
            reach = (math.sqrt(dx * dx + dy * dy + dz * dz) + arc[3]) * _MORE + _LITTLE
            blocks[block, 3] = max(blocks[block, 3], reach)
    return arcs, blocks


@_jit
def _arc(a, b, out):
    out[4:7], out[7:10] = a, b
    mx, my, mz = a[0] + b[0], a[1] + b[1], a[2] + b[2]
    norm = math.sqrt(mx * mx + my * my + mz * mz)
    out[3] = 2.0  # between opposite ends it may go anywhere
    if norm > 1e-9:  # all of an arc is as near to its middle as its ends are
        mx, my, mz = mx / norm, my / norm, mz / norm
        out[0], out[1], out[2] = mx, my, mz
        out[3] = math.sqrt((mx - a[0]) ** 2 + (my - a[1]) ** 2 + (mz - a[2]) ** 2) * _MORE + _LITTLE
    nx, ny, nz = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    if length <= 1e-15:
        return
    nx, ny, nz = nx / length, ny / length, nz / length
    out[10], out[11], out[12] = nx, ny, nz
    out[13], out[14], out[15] = ny * a[2] - nz * a[1], nz * a[0] - nx * a[2], nx * a[1] - ny * a[0]
    out[16], out[17], out[18] = b[1] * nz - b[2] * ny, b[2] * nx - b[0] * nz, b[0] * ny - b[1] * nx
    out[19] = 1.0


@_jit
def _arc_chord2(x, y, z, arcs, arc):
    """The square of the shortest chord from a unit vector to an arc: cross-track beside it, else to the nearer end."""
    if (
        arcs[arc, 19] > 0.0
        and arcs[arc, 13] * x + arcs[arc, 14] * y + arcs[arc, 15] * z >= 0.0
        and arcs[arc, 16] * x + arcs[arc, 17] * y + arcs[arc, 18] * z >= 0.0
    ):
        sine = arcs[arc, 10] * x + arcs[arc, 11] * y + arcs[arc, 12] * z
        square = sine * sine
        if square < 0.5:
            return 2.0 * square / (1.0 + math.sqrt(1.0 - square))
        # so far away that a sine has lost its digits
        cosine = _beside(x, y, z, arcs[arc, 10], arcs[arc, 11], arcs[arc, 12], sine)
        return square + (1.0 - cosine) * (1.0 - cosine)
    ax, ay, az = x - arcs[arc, 4], y - arcs[arc, 5], z - arcs[arc, 6]
    bx, by, bz = x - arcs[arc, 7], y - arcs[arc, 8], z - arcs[arc, 9]
    return min(ax * ax + ay * ay + az * az, bx * bx + by * by + bz * bz)


@_jit
def _beside(x, y, z, nx, ny, nz, sine):
    """The cosine that goes with a sine: how far from the axis of a plane's normal a unit vector is."""
    qx, qy, qz = x - sine * nx, y - sine * ny, z - sine * nz
    return math.sqrt(qx * qx + qy * qy + qz * qz)


@_jit
def _meets(x, y, z, balls, ball, chord):
    """Whether any of a ball may be as near as `chord`; its centre and radius are the first four columns."""
    dx, dy, dz = x - balls[ball, 0], y - balls[ball, 1], z - balls[ball, 2]
    within = chord + balls[ball, 3]
    return dx * dx + dy * dy + dz * dz <= within * within


# --- distance ---------------------------------------------------------------------------------------------------------


@_jit
def line_metres(places, lon, lat, arcs, blocks, out):
    """Metres of places, uint32[n], from a line, to `out` float32[n]; `lon`, `lat` int32 by place, fixed-point.

    The first place in a cell of the map is measured from the line; with the second, arcs are looked for that may be the
    nearest to anything in the cell, and only these are asked from then on. Sines and cosines are those of the middle of
    the cell and a little more. Neither makes a distance depend on who came before.
    """
    keys, counts = np.full(_CELLS, -1, np.int64), np.empty(_CELLS, np.int64)
    near, middles = np.empty((_CELLS, arcs.shape[0]), np.uint32), np.empty((_CELLS, 4), np.float64)
    guess = 0
    for i in range(places.size):
        lo, la = np.int64(lon[places[i]]) + _LON_MAX, np.int64(lat[places[i]]) + _LAT_MAX
        column, row = lo >> _CELL, la >> _CELL
        slot = (column + 151 * row) & (_CELLS - 1)
        if keys[slot] != column << 32 | row:
            keys[slot] = column << 32 | row
            x = ((column << _CELL) + _HALF_CELL - _LON_MAX) * _RAD
            y = ((row << _CELL) + _HALF_CELL - _LAT_MAX) * _RAD
            sin_x, cos_x, sin_y, cos_y = math.sin(x), math.cos(x), math.sin(y), math.cos(y)
            middles[slot, 0], middles[slot, 1], middles[slot, 2], middles[slot, 3] = sin_x, cos_x, sin_y, cos_y
            counts[slot] = _ALONE
        elif counts[slot] == _ALONE:
            sin_x, cos_x, sin_y, cos_y = middles[slot, 0], middles[slot, 1], middles[slot, 2], middles[slot, 3]
            counts[slot], guess = _arcs_near(cos_y * cos_x, cos_y * sin_x, sin_y, arcs, blocks, guess, near[slot])
        sin_x, cos_x, sin_y, cos_y = middles[slot, 0], middles[slot, 1], middles[slot, 2], middles[slot, 3]
        s, c = _sine_cosine(((lo & _IN_CELL) - _HALF_CELL) * _RAD)
        sine_lon, cosine_lon = sin_x * c + cos_x * s, cos_x * c - sin_x * s
        s, c = _sine_cosine(((la & _IN_CELL) - _HALF_CELL) * _RAD)
        sine_lat, cosine_lat = sin_y * c + cos_y * s, cos_y * c - sin_y * s
        x, y = cosine_lat * cosine_lon, cosine_lat * sine_lon
        if counts[slot] == _ALONE:
            best, guess = _nearest_arc(x, y, sine_lat, arcs, blocks, guess)
        else:
            best = 16.0
            for k in range(counts[slot]):
                best = min(best, _arc_chord2(x, y, sine_lat, arcs, near[slot, k]))
        chord = math.sqrt(best)
        if chord < _SMALL_RAD:  # the arc sine's series: the first term left out is below 1e-14 of the whole
            wide = chord * (1.0 + best * (1.0 / 24.0 + best * (3.0 / 640.0 + best * (5.0 / 7168.0))))
        else:
            wide = 2.0 * math.asin(min(1.0, 0.5 * chord))
        out[i] = _EARTH_M * wide


@_jit
def _arcs_near(x, y, z, arcs, blocks, guess, near):
    """Arcs that may be the nearest to a point of the cell about (x, y, z), to `near` uint32[arcs]; how many, and the
    nearest to the middle. `guess`: an arc that may be it."""
    best, nearest = _nearest_arc(x, y, z, arcs, blocks, guess)
    within, found = math.sqrt(best) + 2.0 * _CELL_REACH, 0
    for block in range(blocks.shape[0]):
        if not _meets(x, y, z, blocks, block, within):
            continue
        for arc in range(block * ARCS_A_BLOCK, min(arcs.shape[0], (block + 1) * ARCS_A_BLOCK)):
            if _meets(x, y, z, arcs, arc, within):
                near[found] = arc
                found += 1
    return found, nearest


@_jit
def _nearest_arc(x, y, z, arcs, blocks, guess):
    """The square of the chord to the nearest arc, and which it is; `guess` is asked first."""
    best, nearest = _arc_chord2(x, y, z, arcs, guess), guess
    chord = math.sqrt(best)
    for block in range(blocks.shape[0]):
        if not _meets(x, y, z, blocks, block, chord):
            continue
        for arc in range(block * ARCS_A_BLOCK, min(arcs.shape[0], (block + 1) * ARCS_A_BLOCK)):
            if _meets(x, y, z, arcs, arc, chord):
                found = _arc_chord2(x, y, z, arcs, arc)
                if found < best:
                    best, nearest = found, arc
                    chord = math.sqrt(best)
    return best, nearest


@_jit
def _arc_distance(px, py, pz, ax, ay, az, bx, by, bz):
    """Central angle between a point and a great-circle arc: cross-track, clipped to its ends; unit vectors."""
    nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    to_a = _angle(px, py, pz, ax, ay, az)
    to_b = _angle(px, py, pz, bx, by, bz)
    best = min(to_a, to_b)
    if length < 1e-15:
        return best
    nx, ny, nz = nx / length, ny / length, nz / length
    # beside the arc if p is on b's side of a and on a's side of b, seen along the arc
    past_a = (ny * az - nz * ay) * px + (nz * ax - nx * az) * py + (nx * ay - ny * ax) * pz
    before_b = (by * nz - bz * ny) * px + (bz * nx - bx * nz) * py + (bx * ny - by * nx) * pz
    if past_a >= 0.0 and before_b >= 0.0:
        sine = nx * px + ny * py + nz * pz
        best = min(best, math.atan2(abs(sine), _beside(px, py, pz, nx, ny, nz, sine)))
    return best


@_jit
def _angle(ax, ay, az, bx, by, bz):
    dx, dy, dz = ax - bx, ay - by, az - bz
    return 2.0 * math.asin(min(1.0, 0.5 * math.sqrt(dx * dx + dy * dy + dz * dz)))


@_jit
def line_distance_rad(lon, lat, vectors):
    """Central angle from a point (fixed-point) to a polyline of great-circle arcs; `vectors` float64[v, 3], unit."""
    la, lo = lat * _RAD, lon * _RAD
    px, py, pz = math.cos(la) * math.cos(lo), math.cos(la) * math.sin(lo), math.sin(la)
    best = _angle(px, py, pz, vectors[0, 0], vectors[0, 1], vectors[0, 2])
    for v in range(vectors.shape[0] - 1):
        angle = _arc_distance(
            px, py, pz,
            vectors[v, 0], vectors[v, 1], vectors[v, 2], vectors[v + 1, 0], vectors[v + 1, 1], vectors[v + 1, 2],
        )  # fmt: skip
        best = min(best, angle)
    return best


# --- corridor ---------------------------------------------------------------------------------------------------------


@_jit
def corridor_runs(lon, lat, offsets, shift, vectors, radius_rad):
    """Runs of the points at most `radius_rad` from the line through `vectors`, float64[v, 3]."""
    runs, count = np.empty((RUNS_FIRST, 2), np.int64), 0
    if radius_rad >= math.pi:
        return emit(runs, 0, np.int64(0), np.int64(lon.size))[0][: min(1, lon.size)]
    arcs, _ = arcs_of(vectors)
    boxes = np.empty((arcs.shape[0], 4), np.int64)
    for arc in range(arcs.shape[0]):
        _box(arcs[arc], radius_rad, boxes[arc])
    first, last = (boxes[:, 1] + _LAT_MAX) >> shift, (boxes[:, 3] + _LAT_MAX) >> shift  # bands of each arc
    order = np.argsort(first)
    active, actives, following = np.empty(arcs.shape[0], np.int64), 0, 0
    for band in range(first[order[0]], last.max() + 1):
        start, end = np.int64(offsets[band]), np.int64(offsets[band + 1])
        if start == end:
            continue
        kept = 0
        for k in range(actives):
            if last[active[k]] >= band:
                active[kept] = active[k]
                kept += 1
        actives = kept
        while following < order.size and first[order[following]] <= band:
            if last[order[following]] >= band:
                active[actives] = order[following]
                actives += 1
            following += 1
        west, east = _LON_MAX, -_LON_MAX
        for k in range(actives):
            west, east = min(west, boxes[active[k], 0]), max(east, boxes[active[k], 2])
        start = first_not_below(lon, start, end, west)
        end = first_not_below(lon, start, end, east + 1)
        if start < end:
            south = (np.int64(band) << shift) - _LAT_MAX
            runs, count = _corridor_band(
                lon, lat, start, end, south, shift, arcs, vectors, radius_rad, active[:actives], runs, count
            )
    return runs[:count]


@_jit
def _box(arc, radius_rad, out):
    """West, south, east, north of all within a distance of an arc, fixed-point; all round where that is not simple."""
    out[0], out[1], out[2], out[3] = -_LON_MAX, -_LAT_MAX, _LON_MAX, _LAT_MAX
    if arc[3] >= 2.0:
        return
    reach_rad = 2.0 * math.asin(0.5 * arc[3]) + radius_rad + 1e-8
    lat_rad = math.asin(max(-1.0, min(1.0, arc[2])))
    out[1] = max(-_LAT_MAX, math.floor((lat_rad - reach_rad) / _RAD))
    out[3] = min(_LAT_MAX, math.ceil((lat_rad + reach_rad) / _RAD))
    if abs(lat_rad) + reach_rad < 1.5:
        lon_rad = math.atan2(arc[1], arc[0])
        wide_rad = math.asin(min(1.0, math.sin(reach_rad) / math.cos(lat_rad))) + 1e-8
        if abs(lon_rad) + wide_rad < math.pi:
            out[0], out[2] = math.floor((lon_rad - wide_rad) / _RAD), math.ceil((lon_rad + wide_rad) / _RAD)


@_jit
def _corridor_band(lon, lat, start, end, south, shift, arcs, vectors, radius_rad, active, runs, count):
    """The runs of one band: its points halved until a stretch is inside, outside, or few."""
    half_rad = 0.5 * (np.int64(1) << shift) * _RAD
    middle_rad = south * _RAD + half_rad
    sine, cosine = math.sin(middle_rad), math.cos(middle_rad)
    # the widest parallel of the band, which bounds how far apart its longitudes are
    nearest_rad = max(0.0, abs(middle_rad) - half_rad)
    widest = math.cos(min(0.5 * math.pi, nearest_rad))
    rim = 2.0 * math.sin(0.5 * radius_rad)
    depth = 2
    while (end - start) >> depth:
        depth += 1
    near = np.empty((depth + 2) * active.size, np.int64)  # the arcs of each stretch, after those of what it is half of
    near[: active.size] = active
    todo = np.empty((2 * depth + 4, 4), np.int64)  # start, end, and where its arcs are in `near`
    todo[0, 0], todo[0, 1], todo[0, 2], todo[0, 3] = start, end, 0, active.size
    left = 1
    while left:
        left -= 1
        begin, stop, low, high = todo[left, 0], todo[left, 1], todo[left, 2], todo[left, 3]
        west, east = np.int64(lon[begin]), np.int64(lon[stop - 1])
        middle, wide_rad = (west + east) >> 1, 0.5 * (east - west + 1) * _RAD
        x, y, z = cosine * math.cos(middle * _RAD), cosine * math.sin(middle * _RAD), sine
        ball = math.sqrt(half_rad * half_rad + widest * wide_rad * widest * wide_rad) * _MORE + _LITTLE
        best, top = 16.0, high
        for k in range(low, high):
            if not _meets(x, y, z, arcs, near[k], rim + ball):
                continue
            chord2 = _arc_chord2(x, y, z, arcs, near[k])
            if chord2 <= (rim + ball) * (rim + ball):
                best = min(best, chord2)
                near[top] = near[k]
                top += 1
        if top == high:
            continue
        if rim > ball and best <= (rim - ball) * (rim - ball):
            runs, count = emit(runs, count, begin, stop)
        elif stop - begin <= _FEW or 2.0 * widest * wide_rad < half_rad:
            runs, count = _measured(
                lon, lat, begin, stop, middle, middle_rad, max(wide_rad, half_rad) < _SMALL_RAD, arcs, near[high:top],
                vectors, rim, radius_rad, runs, count,
            )  # fmt: skip
        else:
            half = (begin + stop) >> 1
            todo[left, 0], todo[left, 1], todo[left, 2], todo[left, 3] = half, stop, high, top
            todo[left + 1, 0], todo[left + 1, 1], todo[left + 1, 2], todo[left + 1, 3] = begin, half, high, top
            left += 2
    return runs, count


@_jit
def _measured(
    lon, lat, begin, stop, lon0, lat0_rad, small, arcs, near, vectors, rim, radius_rad, runs, count
):  # fmt: skip
    """Test the points of a stretch one by one; `small`: all are within `_SMALL_RAD` of (lon0, lat0), either way."""
    sure_in, sure_out = max(0.0, rim * (1.0 - 1e-9) - 1e-14) ** 2, (rim * (1.0 + 1e-9) + 1e-14) ** 2
    sin_lon, cos_lon = math.sin(lon0 * _RAD), math.cos(lon0 * _RAD)
    sin_lat, cos_lat = math.sin(lat0_rad), math.cos(lat0_rad)
    for i in range(begin, stop):
        if small:
            s, c = _sine_cosine((lon[i] - lon0) * _RAD)
            sine_x, cosine_x = sin_lon * c + cos_lon * s, cos_lon * c - sin_lon * s
            s, c = _sine_cosine(lat[i] * _RAD - lat0_rad)
            sine_y, cosine_y = sin_lat * c + cos_lat * s, cos_lat * c - sin_lat * s
        else:
            la, lo = lat[i] * _RAD, lon[i] * _RAD
            sine_x, cosine_x, sine_y, cosine_y = math.sin(lo), math.cos(lo), math.sin(la), math.cos(la)
        x, y, z = cosine_y * cosine_x, cosine_y * sine_x, sine_y
        best = 16.0
        for k in range(near.size):
            best = min(best, _arc_chord2(x, y, z, arcs, near[k]))
            if best < sure_in:
                break
        if best < sure_in or (best <= sure_out and line_distance_rad(lon[i], lat[i], vectors) <= radius_rad):
            runs, count = emit(runs, count, i, i + 1)
    return runs, count


@_jit
def _sine_cosine(x):
    """Of at most `_SMALL_RAD`: the Taylor series; the first terms left out are below 1e-17."""
    q = x * x
    sine = x * (1.0 - q * (1.0 / 6.0 - q * (1.0 / 120.0 - q * (1.0 / 5040.0))))
    return sine, 1.0 - q * (0.5 - q * (1.0 / 24.0 - q * (1.0 / 720.0 - q * (1.0 / 40320.0))))
