"""msgpack to columns, for the one form of live positions that clients write. The only numba of this package.

`{"positions": [{"id": str, "lon": float 64, "lat": float 64, "at_ms": int}, …]}`, the four keys in any order, each
once. Everything is checked that the contract asks; at the first thing that is not so the answer is no, and nothing that
was written counts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_jit = njit(cache=True, nogil=True)

_KEY = np.frombuffer(b"\x81\xa9positions", np.uint8).copy()
_FIELDS = 15  # a bit for each of the four


@_jit
def count_positions(data):
    """(how many positions a body says it has, where the first begins); (-1, 0) if it begins otherwise."""
    at = _KEY.size
    if data.size < at + 5:
        return (0, at + 1) if data.size == at + 1 and _begins(data) and data[at] == 0x90 else (-1, 0)
    if not _begins(data):
        return -1, 0
    if data[at] >> 4 == 9:
        return np.int64(data[at] & 15), at + 1
    if data[at] == 0xDC:
        return _unsigned(data, at + 1, 2), at + 3
    if data[at] == 0xDD:
        return _unsigned(data, at + 1, 4), at + 5
    return -1, 0


@_jit
def _begins(data):
    same = True
    for k in range(_KEY.size):
        same &= data[k] == _KEY[k]
    return same


@_jit
def _unsigned(data, at, size):
    value = np.int64(0)
    for k in range(size):
        value = value << 8 | np.int64(data[at + k])
    return value


@_jit
def read_positions(data, at, id_bytes_max, ids, offsets, lon, lat, at_ms):
    """Fill the columns from the first position on; whether all of the body was as it should be.

    `ids` uint8[bytes], `offsets` int64[n + 1], `lon`, `lat` float64[n], `at_ms` int64[n].
    """
    bits = np.empty(1, np.int64)
    number = bits.view(np.float64)
    end = data.size
    for i in range(lon.size):
        if at >= end or data[at] != 0x84:
            return False
        at += 1
        met = 0
        for _ in range(4):
            if (
                at + 7 > end
            ):  # the shortest: two letters and a number of one byte would fit, but no id is so near the end
                return False
            size = data[at] - 0xA0
            if size == 2 and data[at + 1] == 105 and data[at + 2] == 100:  # id
                met, at = met | 1, at + 3
                length = np.int64(data[at]) - 0xA0
                at += 1
                if data[at - 1] == 0xD9:
                    length = np.int64(data[at])
                    at += 1
                elif data[at - 1] >> 5 != 5:
                    return False
                if not 1 <= length <= id_bytes_max or at + length > end:
                    return False
                start = offsets[i]
                for k in range(length):
                    if not _of_an_id(data[at + k]):
                        return False
                    ids[start + k] = data[at + k]
                offsets[i + 1] = start + length
                at += length
            elif size == 3 and data[at + 1] == 108 and at + 13 <= end and data[at + 4] == 0xCB:  # lon, lat
                bits[0] = _unsigned(data, at + 5, 8)
                if data[at + 2] == 111 and data[at + 3] == 110 and abs(number[0]) <= 180.0:
                    met, lon[i] = met | 2, number[0]
                elif data[at + 2] == 97 and data[at + 3] == 116 and abs(number[0]) <= 90.0:
                    met, lat[i] = met | 4, number[0]
                else:
                    return False
                at += 13
            elif size == 5 and data[at + 1] == 97 and data[at + 2] == 116 and data[at + 3] == 95 \
                    and data[at + 4] == 109 and data[at + 5] == 115:  # fmt: skip  # at_ms
                met, at = met | 8, at + 6
                width = 8 if data[at] == 0xCF else 4 if data[at] == 0xCE else 0
                if not width or at + 1 + width > end or (width == 8 and data[at + 1] >> 7):
                    return False
                at_ms[i] = _unsigned(data, at + 1, width)
                at += 1 + width
            else:
                return False
        if met != _FIELDS:
            return False
    return at == end


@_jit
def _of_an_id(letter):
    return (
        97 <= letter <= 122
        or 65 <= letter <= 90
        or 48 <= letter <= 58  # the digits and the colon
        or letter == 45
        or letter == 46
        or letter == 64
        or letter == 95
    )
