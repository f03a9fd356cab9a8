"""Kernels of the place index: arrays and numbers in, runs of positions out. The only numba of this package.

The index keeps points in *bands* of latitude, `2**shift` fixed-point units high, and within a band by longitude. A
*run* is a half-open interval of positions in that order; every query is answered as ascending, disjoint runs, so that

* a stretch known to be wholly inside is one run however many points it has, and copying it is one `memcpy`,
* counting touches no point of it, and union, intersection and difference are merges of short lists.

How each query classifies (the sources are named where there are any):

* **Circle.** In one band the half width of a circle, as a function of latitude, has one maximum; so the widest and the
  narrowest half width over the band are known from at most three evaluations. Left of the narrowest all are inside,
  right of the widest none; only points between are measured, by haversine (Sinnott 1984).
* **Polygon.** The edges that pass through a band cover stretches of longitude. Between two stretches nothing crosses:
  the whole gap is inside or outside, known from the parity of the edges left of it. Only points within a stretch are
  tested, by crossing parity (Shimrat 1962, half-open as in Hao 2018), and only against the edges of that stretch, or,
  where these are many, against those of them that reach over the point.

Exactness: coordinates are integers, differences int64. Cross products are taken only for a point within an edge's box;
there both products have one sign and are at most 3.6e9 * 1.8e9 < 2**63, so no test can overflow or round.

All kernels are serial and `nogil`: callers run several at once in threads. No fast-math: a comparison that is off by an
ulp is a person left out.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_LAT_MAX = 900_000_000
_LON_MAX = 1_800_000_000
_TURN = 3_600_000_000
_RAD = math.pi / 180 / 10_000_000  # radians of one fixed-point unit
_EARTH_M = 6_371_008.8
_POLAR = 899_000_000
_NEAR_RAD = 0.05  # below this, sines are polynomials exact to the last bit or two
RUNS_FIRST = 512
_SWEEP_EDGES = 6  # from so many edges in a stretch, sweeping it costs less than testing all

_jit = njit(cache=True, nogil=True)


# --- runs -------------------------------------------------------------------------------------------------------------


@_jit
def emit(runs, count, start, end):
    """Append a run, or lengthen the last; returns (runs, count): `runs` int64[capacity, 2] may be a new array."""
    if start >= end:
        return runs, count
    if count and runs[count - 1, 1] == start:
        runs[count - 1, 1] = end
        return runs, count
    if count == runs.shape[0]:
        grown = np.empty((2 * count, 2), np.int64)
        grown[:count] = runs
        runs = grown
    runs[count, 0] = start
    runs[count, 1] = end
    return runs, count + 1


@_jit
def copy_runs(runs, values, out):
    """Concatenate `values[start:end]` of every run into `out`."""
    at = 0
    for r in range(runs.shape[0]):
        start, end = runs[r, 0], runs[r, 1]
        if end - start > 32:
            out[at : at + end - start] = values[start:end]
            at += end - start
        else:
            for i in range(start, end):
                out[at] = values[i]
                at += 1


@_jit
def count_runs(runs):
    total = 0
    for r in range(runs.shape[0]):
        total += runs[r, 1] - runs[r, 0]
    return total


@_jit
def combine_runs(a, b, keep_a, keep_both, keep_b):
    """Merge two lists of runs: keep what is only in a, in both, only in b. Union is (1,1,1), intersection (0,1,0)."""
    runs = np.empty((max(a.shape[0] + b.shape[0], 1) * 2, 2), np.int64)
    count = 0
    i = j = 0
    at = np.int64(0)
    end_of_all = np.int64(1) << 62
    while i < a.shape[0] or j < b.shape[0]:
        in_a = i < a.shape[0] and a[i, 0] <= at
        in_b = j < b.shape[0] and b[j, 0] <= at
        until = end_of_all
        if i < a.shape[0]:
            until = min(until, a[i, 1] if in_a else a[i, 0])
        if j < b.shape[0]:
            until = min(until, b[j, 1] if in_b else b[j, 0])
        if (in_a and in_b and keep_both) or (in_a and not in_b and keep_a) or (in_b and not in_a and keep_b):
            runs, count = emit(runs, count, at, until)
        at = until
        if i < a.shape[0] and a[i, 1] <= at:
            i += 1
        if j < b.shape[0] and b[j, 1] <= at:
            j += 1
    return runs[:count]


@_jit
def first_not_below(lon, start, end, x):
    """The first position in [start, end) with longitude >= x, or end. `x` int64. Without a branch to mispredict."""
    size = end - start
    if size <= 0:
        return end
    while size > 1:
        half = size >> 1
        start += half * np.int64(lon[start + half - 1] < x)
        size -= half
    return start + np.int64(lon[start] < x)


# --- distance ---------------------------------------------------------------------------------------------------------


@_jit
def wrap(dlon):
    """A difference of longitudes, the short way round."""
    if dlon > _LON_MAX:
        return dlon - _TURN
    if dlon < -_LON_MAX:
        return dlon + _TURN
    return dlon


@_jit
def haversine(dlon, lat0_rad, lat_rad):
    """sin^2 of half the central angle."""
    s = math.sin(0.5 * (lat_rad - lat0_rad))
    t = math.sin(0.5 * dlon)
    return s * s + math.cos(lat0_rad) * math.cos(lat_rad) * t * t


@_jit
def _half_sine(x):
    """sin(x / 2) for |x| <= 0.05: the Taylor series up to h^7; the first term left out is below 1e-18 of the whole."""
    h = 0.5 * x
    q = h * h
    return h * (1.0 - q * (1.0 / 6.0 - q * (1.0 / 120.0 - q * (1.0 / 5040.0))))


@_jit
def haversine_near(dlon, dlat, sin0, cos0):
    """As `haversine`, for differences up to `_NEAR_RAD` (radians): no library calls."""
    s = _half_sine(dlat)
    t = _half_sine(dlon)
    q = s * s
    cos1 = cos0 * (1.0 - 2.0 * q) - sin0 * (2.0 * s * (1.0 - 0.5 * q - 0.125 * q * q))
    return q + cos0 * cos1 * t * t


# --- circle -----------------------------------------------------------------------------------------------------------


@_jit
def _half_width(lat_rad, lat0_rad, hav):
    """Half width in radians of longitude of a circle (its haversine `hav`) at a latitude; -1 outside, pi: all round."""
    s = math.sin(0.5 * (lat_rad - lat0_rad))
    room = hav - s * s
    if room < 0.0:
        return -1.0
    across = math.cos(lat_rad) * math.cos(lat0_rad)
    if room >= across:
        return math.pi
    return 2.0 * math.asin(math.sqrt(room / across))


@_jit
def circle_runs(lon, lat, offsets, shift, lon0, lat0, radius_m):
    """Runs of the points at most `radius_m` from (lon0, lat0), fixed-point; `radius_m` may be of any size."""
    runs = np.empty((RUNS_FIRST, 2), np.int64)
    count = 0
    delta = radius_m / _EARTH_M
    if delta >= math.pi:
        return emit(runs, 0, np.int64(0), np.int64(lon.size))[0][: min(1, lon.size)]
    lat0_rad = lat0 * _RAD
    sin0, cos0 = math.sin(lat0_rad), math.cos(lat0_rad)
    hav = math.sin(0.5 * delta) ** 2
    near = delta < 0.8 * _NEAR_RAD and abs(lat0_rad) + delta < 1.4
    reach = math.ceil(delta / _RAD) + 2
    low = max(np.int64(lat0) - reach, -_LAT_MAX)
    high = min(np.int64(lat0) + reach, _LAT_MAX)
    # the latitude at which the circle is widest; with a pole inside it, that is the pole
    wide_sine = sin0 / math.cos(delta) if delta < 0.5 * math.pi else 2.0
    widest_rad = math.asin(wide_sine) if abs(wide_sine) < 1.0 else math.copysign(0.5 * math.pi, sin0)
    first = (low + _LAT_MAX) >> shift
    at_south = _half_width(((np.int64(first) << shift) - _LAT_MAX) * _RAD, lat0_rad, hav)
    for band in range(first, ((high + _LAT_MAX) >> shift) + 1):
        south = (np.int64(band) << shift) - _LAT_MAX
        north = south + (np.int64(1) << shift)
        at_north = _half_width(north * _RAD, lat0_rad, hav)
        outer, inner = max(at_south, at_north), min(at_south, at_north)
        at_south = at_north
        start, end = np.int64(offsets[band]), np.int64(offsets[band + 1])
        if start == end:
            continue
        if delta < 1.57 and south > -_POLAR and north < _POLAR:
            if south * _RAD <= widest_rad <= north * _RAD:
                outer = max(outer, _half_width(widest_rad, lat0_rad, hav))
            outer = max(outer, 0.0)  # the rim may pass between the band's border and the first latitude beyond it
        else:  # so near a pole that widths lose their digits, or wider than a hemisphere: measure every point
            inner, outer = -1.0, math.pi
        slack = 1e-7 + 1e-9 * outer  # half a metre: where the rim is nearly level, widths have half the digits
        wide = min(math.ceil((outer + slack) / _RAD) + 1, _LON_MAX)
        narrow = math.floor((inner - slack) / _RAD) - 1 if inner > slack else -1
        fast = near and wide * _RAD <= _NEAR_RAD
        runs, count = _circle_band(
            lon, lat, start, end, np.int64(lon0), np.int64(lat0), np.int64(wide), np.int64(narrow), hav, sin0, cos0,
            fast, runs, count,
        )  # fmt: skip
    return runs[:count]


@_jit
def _circle_band(lon, lat, start, end, lon0, lat0, wide, narrow, hav, sin0, cos0, fast, runs, count):
    """The runs of one band: the window [lon0 - wide, lon0 + wide], folded at the antimeridian, west part first."""
    west, east = lon0 - wide, lon0 + wide
    if wide >= _LON_MAX:
        stop, begin = end, end
    elif west < -_LON_MAX or east >= _LON_MAX:
        stop = first_not_below(lon, start, end, (east if west < -_LON_MAX else east - _TURN) + 1)
        begin = first_not_below(lon, stop, end, west + _TURN if west < -_LON_MAX else west)
    else:
        stop = start
        begin = first_not_below(lon, start, end, west)
        end = first_not_below(lon, begin, end, east + 1)
    runs, count = _circle_window(lon, lat, start, stop, lon0, lat0, narrow, hav, sin0, cos0, fast, runs, count)
    return _circle_window(lon, lat, begin, end, lon0, lat0, narrow, hav, sin0, cos0, fast, runs, count)


@_jit
def _circle_window(lon, lat, start, end, lon0, lat0, narrow, hav, sin0, cos0, fast, runs, count):
    sure_in, sure_out = hav * (1.0 - 1e-11), hav * (1.0 + 1e-11)
    i = start
    while i < end:
        dlon = wrap(lon[i] - lon0)
        if abs(dlon) <= narrow:
            # the rest of the sure stretch, unless the antimeridian or a full turn cuts it: then it is met again
            last = lon[i] - dlon + narrow
            stop = first_not_below(lon, i, end, last + 1)
            runs, count = emit(runs, count, i, stop)
            i = stop
            continue
        dlat = (np.int64(lat[i]) - lat0) * _RAD
        a = haversine_near(dlon * _RAD, dlat, sin0, cos0) if fast else -1.0
        if not fast or (sure_in < a <= sure_out):
            a = haversine(dlon * _RAD, lat0 * _RAD, lat[i] * _RAD)
        if a <= hav:
            runs, count = emit(runs, count, i, i + 1)
        i += 1
    return runs, count


# --- polygon ----------------------------------------------------------------------------------------------------------


@_jit
def polygon_runs(lon, lat, offsets, shift, edges, turns):
    """Runs of the points inside or on a set of closed rings (even-odd), for each of `turns` in the order given.

    `edges` int64[e, 4]: x1, y1, x2, y2 with y1 <= y2, sorted by y1; x is unwrapped longitude and may pass 180 degrees.
    `turns` int64[t]: what is added to a point's longitude before it is tested (0, or a full turn either way).
    """
    runs = np.empty((RUNS_FIRST, 2), np.int64)
    count = 0
    total = edges.shape[0]
    if total == 0 or lon.size == 0:
        return runs[:0]
    top = edges[0, 3]
    for e in range(total):
        top = max(top, edges[e, 3])
    active = np.empty(total, np.int64)  # edges that reach into the band
    left = np.empty(total, np.int64)  # their stretch of longitude within the band, by slot of `active`
    right = np.empty(total, np.int64)
    actives = 0
    next_edge = 0
    first_band = (max(edges[0, 1], -_LAT_MAX) + _LAT_MAX) >> shift
    last_band = (min(top, _LAT_MAX) + _LAT_MAX) >> shift
    for band in range(first_band, last_band + 1):
        start, end = np.int64(offsets[band]), np.int64(offsets[band + 1])
        if start == end:
            continue
        south = (np.int64(band) << shift) - _LAT_MAX
        north = south + (np.int64(1) << shift) - 1
        kept = 0
        for k in range(actives):
            if edges[active[k], 3] >= south:
                active[kept] = active[k]
                kept += 1
        actives = kept
        while next_edge < total and edges[next_edge, 1] <= north:
            if edges[next_edge, 3] >= south:
                active[actives] = next_edge
                actives += 1
            next_edge += 1
        for k in range(actives):
            left[k], right[k] = _stretch(edges, active[k], south, north)
        order = np.argsort(left[:actives]) if actives > 24 else _small_order(left, actives)
        for t in range(turns.size):
            runs, count = _polygon_band(
                lon, lat, start, end, edges, turns[t], south, active, left, right, order, runs, count
            )
    return runs[:count]


@_jit
def _small_order(left, n):
    order = np.arange(n)
    for i in range(1, n):
        slot = order[i]
        j = i - 1
        while j >= 0 and left[order[j]] > left[slot]:
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = slot
    return order


@_jit
def _stretch(edges, e, south, north):
    """The longitudes an edge takes within a band, at most one unit too wide on either side."""
    x1, y1, x2, y2 = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
    low, high = min(x1, x2), max(x1, x2)
    if y1 >= south and y2 <= north:
        return low, high
    slope = (x2 - x1) / (y2 - y1)
    at_south = x1 + (max(south, y1) - y1) * slope
    at_north = x1 + (min(north, y2) - y1) * slope
    west = np.int64(math.floor(min(at_south, at_north))) - 1
    east = np.int64(math.ceil(max(at_south, at_north))) + 1
    return max(low, west), min(high, east)


@_jit
def _polygon_band(lon, lat, start, end, edges, turn, south, active, left, right, order, runs, count):
    inside = False  # of the gap left of the stretch at hand
    at = start
    k = 0
    while k < order.size:
        west = left[order[k]]
        east = right[order[k]]
        first = k
        k += 1
        while k < order.size and left[order[k]] <= east:
            east = max(east, right[order[k]])
            k += 1
        begin = first_not_below(lon, at, end, west - turn)
        if inside:
            runs, count = emit(runs, count, at, begin)
        stop = first_not_below(lon, begin, end, east - turn + 1)
        if k - first < _SWEEP_EDGES:
            for i in range(begin, stop):
                if _inside_stretch(lon[i] + turn, np.int64(lat[i]), edges, active, order, first, k, inside):
                    runs, count = emit(runs, count, i, i + 1)
        else:
            runs, count = _sweep_stretch(
                lon, lat, begin, stop, turn, south, edges, active, left, right, order[first:k], inside, runs, count
            )
        for slot in range(first, k):
            e = active[order[slot]]
            if edges[e, 1] <= south < edges[e, 3]:
                inside = not inside
        at = stop
        if at == end:
            break
    return runs, count


@_jit
def on_the_west(x, y, x1, y1, x2, y2):
    """Whether an edge (y1 <= y2) crosses the ray to the west of a point: 1 or 0; or 2, if the point is on it."""
    if y < y1 or y > y2:
        return 0
    if x < x1 and x < x2:
        return 0
    if x > x1 and x > x2:
        return np.int64(y < y2)  # half-open: the upper end belongs to the next edge
    # within the edge's box: which side of it; positive means the edge passes left of the point
    side = (x - x1) * (y2 - y1) - (x2 - x1) * (y - y1)
    if side == 0:
        return 2
    return np.int64(side > 0 and y < y2)


@_jit
def _inside_stretch(x, y, edges, active, order, first, last, inside):
    """Whether (x, y) is inside or on the border, from the state of the gap on its left and the edges of its stretch."""
    for slot in range(first, last):
        e = active[order[slot]]
        crossed = on_the_west(x, y, edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3])
        if crossed == 2:
            return True
        inside = inside != (crossed == 1)
    return inside


@_jit
def _sweep_stretch(lon, lat, begin, stop, turn, south, edges, active, left, right, order, inside, runs, count):
    """As testing every point of a stretch against all its edges, for stretches of many: west to east, only those near.

    From the gap on the left a path leads along the band's southern border to below the point, then up to it. An edge
    that ends west of the point can only cross the first leg, and whether it does is known. For an edge that reaches
    over the point, path and westward ray enclose the ground between them, so it crosses the path as often as it crosses
    the ray and has ends in that ground together (mod 2): all in integers. The path runs a hair east and north of whole
    coordinates, so that ends and points at equal coordinates have an order.
    """
    window = np.empty(order.size, np.int64)
    size = opened = 0
    for i in range(begin, stop):
        x, y = lon[i] + turn, np.int64(lat[i])
        while opened < order.size and left[order[opened]] <= x:
            window[size] = order[opened]
            size += 1
            opened += 1
        state, border, kept = inside, False, 0
        for w in range(size):
            slot = window[w]
            e = active[slot]
            x1, y1, x2, y2 = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
            if right[slot] < x:
                if y1 <= south < y2:
                    inside = not inside
                    state = not state
                continue
            window[kept] = slot
            kept += 1
            if x1 <= x and south < y1 <= y:
                state = not state
            if x2 <= x and south < y2 <= y:
                state = not state
            if y < y1 or y > y2 or (x < x1 and x < x2):
                continue
            if x > x1 and x > x2:
                state = state != (y < y2)
                continue
            side = (x - x1) * (y2 - y1) - (x2 - x1) * (y - y1)
            border = border or side == 0
            state = state != (side > 0 and y < y2)
        size = kept
        if state or border:
            runs, count = emit(runs, count, i, i + 1)
    return runs, count
