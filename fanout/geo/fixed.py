"""Fixed-point degrees, and the one sphere on which metres are measured.

Rules:

1. A coordinate is an `int32` of degrees x 10,000,000: 1.1 cm on the equator, exact to compare, exact to hash, half the
   room of a float. Longitude -180 and 180 are one meridian, stored as -180.
2. Conversion rounds to nearest, ties to even, as `numpy.rint` does; it is done once, where a coordinate comes in.
3. Metres are great-circle metres on the sphere of the mean earth radius (IUGG: 6,371,008.8 m). The ellipsoid differs by
   at most 0.56 %; operators draw circles by thumb, and a sphere has one formula that holds at the poles and the
   antimeridian.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fanout.errors import Refused

SCALE: Final = 10_000_000
LON_MAX: Final = 180 * SCALE
LAT_MAX: Final = 90 * SCALE
TURN: Final = 360 * SCALE
EARTH_RADIUS_M: Final = 6_371_008.8

Int32s = NDArray[np.int32]


def to_fixed(lon: ArrayLike, lat: ArrayLike, *, where: str = "") -> tuple[Int32s, Int32s]:
    """Columns of degrees (float) or of fixed-point degrees (int32) to two int32[n], longitude 180 folded to -180.

    Raises `Refused("area_coordinate_not_finite" | "area_coordinate_range")` naming the first bad row, and
    `Refused("places_malformed")` for what is no pair of columns.
    """
    lons, lats = _column(lon, "lon"), _column(lat, "lat")
    if lons.size != lats.size:
        raise Refused("places_malformed", where or "lat", detail=f"{lons.size} longitudes and {lats.size} latitudes")
    if lons.dtype == np.int32 and lats.dtype == np.int32:
        if not (_within(lons, LON_MAX) and _within(lats, LAT_MAX)):
            outside = (lons < -LON_MAX) | (lons > LON_MAX) | (lats < -LAT_MAX) | (lats > LAT_MAX)
            _refuse_bad(outside, "area_coordinate_range", lons / SCALE, lats / SCALE, where)
    else:
        lons, lats = lons.astype(np.float64, copy=False), lats.astype(np.float64, copy=False)
        if not (_within(lons, 180) and _within(lats, 90)):
            _refuse_bad(~(np.isfinite(lons) & np.isfinite(lats)), "area_coordinate_not_finite", lons, lats, where)
            _refuse_bad((np.abs(lons) > 180) | (np.abs(lats) > 90), "area_coordinate_range", lons, lats, where)
        lons, lats = _rounded(lons), _rounded(lats)
    if lons.size and lons.max() == LON_MAX:
        lons = np.where(lons == LON_MAX, np.int32(-LON_MAX), lons)
    return lons, lats


def _within(column: NDArray[Any], most: int) -> bool:
    """Whether all are finite and from -most to most; of a NaN the least and the greatest are NaN."""
    return column.size == 0 or bool(column.min() >= -most and column.max() <= most)


def _rounded(degrees: NDArray[np.float64]) -> Int32s:
    scaled = degrees * SCALE
    return np.rint(scaled, out=scaled).astype(np.int32)


def to_degrees(fixed: NDArray[np.integer]) -> NDArray[np.float64]:
    """Fixed-point degrees to float64 degrees, same shape."""
    return fixed / np.float64(SCALE)


def _column(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        column = np.atleast_1d(np.asarray(values))
    except ValueError as error:  # rows of unequal length
        raise Refused("places_malformed", name, detail=str(error)) from None
    if column.ndim != 1 or (column.size and column.dtype.kind not in "iuf"):
        raise Refused("places_malformed", name, detail=f"an array of {column.ndim} dimensions of {column.dtype}")
    return column


def _refuse_bad(
    bad: NDArray[np.bool_], code: str, lons: NDArray[np.float64], lats: NDArray[np.float64], where: str
) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise Refused(code, where or f"row {row}", lon=float(lons[row]), lat=float(lats[row]))
