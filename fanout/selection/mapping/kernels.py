"""Kernels of a map of districts: which of many polygons a point is in.

The map is a grid of cells, and a cell that no border passes through is all in one district, or in none: nearly every
point is answered by one look. In the others the point is tested by crossing parity, as the place index tests it, and
only against borders in its own row of cells, of districts that reach over it there: a *strip* is what one district has
in one row, with the longitudes it takes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fanout.geo.kernels import on_the_west

CALLS = "bc4cb45bf5b2"  # of the files whose kernels are compiled into these: tests/test_kernels.py

_jit = njit(cache=True, nogil=True)

NOWHERE = 0xFFFF
MIXED = 0xFFFE


@_jit
def cross_cells(edges, row_of_edge, box, cells):
    """Make every cell MIXED that an edge passes through in its row. `edges` int64[m, 4], `row_of_edge` int64[m].

    `box` int64[4]: west, south, and the width and height of a cell; `cells` uint16[rows, columns].
    """
    west, south, width, height = box
    for e in range(edges.shape[0]):
        x1, y1, x2, y2 = edges[e]
        low, high = min(x1, x2), max(x1, x2)
        if y2 > y1:
            floor = max(y1, south + row_of_edge[e] * height)
            top = min(y2, south + (row_of_edge[e] + 1) * height)
            slope = (x2 - x1) / (y2 - y1)
            here, there = x1 + (floor - y1) * slope, x1 + (top - y1) * slope
            low = max(low, np.int64(math.floor(min(here, there))) - 1)
            high = min(high, np.int64(math.ceil(max(here, there))) + 1)
        first = max(0, (low - west) // width)
        last = min(cells.shape[1] - 1, (high - west) // width)
        for column in range(first, last + 1):
            cells[row_of_edge[e], column] = MIXED


@_jit
def _district(x, y, row, edges, strips, rows):
    """The first district that a point in a row of cells is in, by its borders; NOWHERE if there is none."""
    for s in range(rows[row], rows[row + 1]):
        if x < strips[s, 3] or x > strips[s, 4]:
            continue
        inside = False
        for e in range(strips[s, 1], strips[s, 2]):
            crossed = on_the_west(x, y, edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3])
            if crossed == 2:
                inside = True
                break
            inside = inside != (crossed == 1)
        if inside:
            return strips[s, 0]
    return NOWHERE


@_jit
def fill_cells(edges, strips, rows, box, cells):
    """Give every cell that is not MIXED the district of its middle."""
    west, south, width, height = box
    for row in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            if cells[row, column] != MIXED:
                x, y = west + column * width + width // 2, south + row * height + height // 2
                cells[row, column] = _district(x, y, row, edges, strips, rows)


@_jit
def locate(places, lon, lat, edges, strips, rows, box, cells, out):
    """The district of each place of an index, to `out` uint16[n].

    `strips` int64[s, 5]: district, first edge and the end of its edges, west, east; `rows` int64[rows + 1]: where the
    strips of a row of cells begin, districts ascending. `edges`, `box`, `cells`: see `cross_cells`.
    """
    west, south, width, height = box
    for i in range(places.size):
        x, y = np.int64(lon[places[i]]), np.int64(lat[places[i]])
        column, row = (x - west) // width, (y - south) // height
        out[i] = NOWHERE
        if 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]:
            found = cells[row, column]
            out[i] = found if found != MIXED else _district(x, y, row, edges, strips, rows)
