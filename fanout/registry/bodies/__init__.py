"""Bodies that are columns: live positions in msgpack, read without an object a position.

200,000 positions a second are as many objects a second, and while they are made nobody else in the process has the
interpreter. So the body as clients write it goes from bytes to columns in a kernel. Whatever else the contract allows,
and all that it does not, is for `wire` to read, and to refuse by name: `positions` answers None then.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout import limits
from fanout.registry.bodies import kernels
from fanout.registry.packed import Packed, pack


class Positions(NamedTuple):
    """n live positions: ids packed; degrees, float64[n] each; milliseconds since 1970, int64[n]."""

    ids: Packed
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    at_ms: NDArray[np.int64]


def positions(body: bytes) -> Positions | None:
    """The columns of a `wire.PositionsRequest` in msgpack, or None: let `wire` read it."""
    if not body:
        return None
    data = np.frombuffer(body, np.uint8)
    count, start = kernels.count_positions(data)
    if not 0 <= count <= limits.POSITIONS_PER_REQUEST_MAX:
        return None
    offsets, ids = np.zeros(count + 1, np.int64), np.empty(data.size, np.uint8)
    lon, lat, at_ms = np.empty(count, np.float64), np.empty(count, np.float64), np.empty(count, np.int64)
    if not kernels.read_positions(data, start, limits.PARTICIPANT_ID_CHARS_MAX, ids, offsets, lon, lat, at_ms):
        return None
    return Positions(pack(ids[: offsets[-1]], offsets), lon, lat, at_ms)


def warm() -> None:
    """Compile the kernels (or load them from the cache), so that no request waits for a compiler."""
    positions(b"\x81\xa9positions\x90")
    positions(b"\x81\xa9positions\x91\x80")
