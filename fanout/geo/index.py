"""`PlaceIndex`: an immutable, packed index over points on the globe. Build once, share, ask; replace it whole.

    index = PlaceIndex.build(lon, lat)            # degrees float64[n], or fixed-point int32[n]
    rows = index.select(circle(6.56, 53.22, 1_500.0))   # uint32[hits]: rows of the arrays it was built from

Points are kept in bands of latitude and by longitude within a band (see `kernels`): 12 bytes a point and 4 a band.
The band's height follows the number of points; a band costs nothing to skip when it is empty, so a world with one
crowded country is as quick as that country alone. There is no tree: building is a counting sort and a radix sort, quick
enough to build anew rather than to mutate, which is what makes an index safe to share between threads and processes.

Every answer is a function of the points and the shape alone, in one deterministic order: by band, longitude, row.
Queries hold no lock and release the GIL; the index is never written after it was built.

`runs` is the face for those who keep columns in the index's own order (`order` at building): half-open intervals of
positions instead of rows.
"""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any, Final, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fanout.errors import Refused
from fanout.geo import arrayfile, kernels, shapes
from fanout.geo.closest import kernels as closest
from fanout.geo.fixed import EARTH_RADIUS_M, LAT_MAX, LON_MAX, TURN, Int32s, to_fixed
from fanout.geo.lines import kernels as lines
from fanout.geo.sorting import kernels as sorting

Rows = NDArray[np.uint32]
Runs = NDArray[np.int64]

_SHIFTS: Final = ((8_000_000, 14), (400_000, 15), (0, 16))  # (at least so many points, band height)
_SHIFT_MAX: Final = 24  # bands of 187 km
_SHIFT_MOST: Final = 31  # one band for the whole world
_WHAT: Final = "place index"


def shift_for(points: int) -> int:
    """The band height for so many points, as a power of two of fixed-point units.

    728 m for 100,000, half of it for millions, less for more: measured on circles and municipalities. For few the
    bands are higher, so that there is at most one for every two points.
    """
    shift = next(shift for least, shift in _SHIFTS if points >= least)
    while shift < _SHIFT_MAX and 2 * LAT_MAX >> shift > max(64, points // 2):
        shift += 1
    return shift


class PlaceIndex:
    """Points on the globe, packed. Make one with `build`, `load`; attributes are read-only arrays.

    `lon`, `lat` int32[n], `rows` uint32[n]: the points in the index's order; `offsets` uint32[bands + 1].
    """

    __slots__ = ("__weakref__", "lat", "lon", "offsets", "rows", "shift")

    def __init__(self, lon: Int32s, lat: Int32s, rows: Rows, offsets: NDArray[np.uint32], shift: int) -> None:
        self.lon, self.lat, self.rows, self.offsets, self.shift = lon, lat, rows, offsets, shift
        for array in (lon, lat, rows, offsets):
            array.setflags(write=False)

    def __len__(self) -> int:
        return int(self.lon.size)

    def __repr__(self) -> str:
        return f"<PlaceIndex of {len(self):,} points, {self.nbytes:,} bytes>"

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.lon.nbytes + self.lat.nbytes + self.rows.nbytes + self.offsets.nbytes

    # --- making -------------------------------------------------------------------------------------------------------

    @classmethod
    def build(cls, lon: ArrayLike, lat: ArrayLike) -> PlaceIndex:
        """Index n points: degrees (float[n]) or fixed-point degrees (int32[n]). Rows are 0 … n-1 as given.

        Raises `Refused("area_coordinate_not_finite" | "area_coordinate_range")` naming the row, and
        `Refused("places_malformed")` for columns of unequal length, of more than one dimension, or not of numbers.
        Time O(n).
        """
        return cls.build_ordered(lon, lat)[0]

    @classmethod
    def build_ordered(
        cls, lon: ArrayLike, lat: ArrayLike, rows: Rows | None = None, *, shift: int | None = None
    ) -> tuple[PlaceIndex, Rows]:
        """As `build`, with rows of the caller's naming; and `order` uint32[n]: which input each position has.

        `shift`: height of a band, 2**shift fixed-point units; None: what suits the number of points.
        """
        lons, lats = (np.require(column, np.int32, ["C", "W"]) for column in to_fixed(lon, lat))
        shift = shift_for(lons.size) if shift is None else shift
        offsets = np.empty((2 * LAT_MAX >> shift) + 2, np.uint32)
        order = np.empty(lons.size, np.uint32)
        lon_out, lat_out = np.empty(lons.size, np.int32), np.empty(lons.size, np.int32)
        sorting.sort_into_bands(lons, lats, shift, offsets, order, lon_out, lat_out)
        named = order if rows is None else rows[order]
        return cls(lon_out, lat_out, named, offsets, shift), order

    # --- asking -------------------------------------------------------------------------------------------------------

    def select(self, shape: shapes.Shape) -> Rows:
        """uint32[hits]: rows of the points in the shape, the border included, in the index's order.

        For `Nearest`: nearest first, ties by the index's order. `TypeError` for what is no shape.
        """
        if isinstance(shape, shapes.Nearest):
            return self._nearest(shape.lon, shape.lat, shape.count)
        if isinstance(shape, shapes.Everyone):
            return self.rows.copy()
        runs = self.runs(shape)
        out = np.empty(kernels.count_runs(runs), np.uint32)
        kernels.copy_runs(runs, self.rows, out)
        return out

    def count(self, shape: shapes.Shape) -> int:
        """How many points are in the shape; no row is written."""
        return int(kernels.count_runs(self.runs(shape)))

    def nearest(self, lon: float, lat: float, k: SupportsIndex | float) -> Rows:
        """uint32[min(k, n)]: the k nearest points in great-circle metres, nearest first; ties by the index's order.

        `k` is a whole number, of any type (`TypeError` if not); of less than 1 the answer is empty.
        """
        x, y = shapes.fixed_point(lon, lat, "point")
        return self._nearest(x, y, _whole(k))

    def runs(self, shape: shapes.Shape) -> Runs:
        """int64[r, 2]: half-open intervals of positions, ascending and disjoint."""
        found: Runs
        match shape:
            case shapes.Circle(lon=lon, lat=lat, radius_m=radius_m):
                found = kernels.circle_runs(self.lon, self.lat, self.offsets, self.shift, lon, lat, radius_m)
            case shapes.Polygon(edges=edges, passes=passes):
                found = self._polygon(edges, passes)
            case shapes.Everyone():
                found = np.array([[0, len(self)]], np.int64)[: min(1, len(self))]
            case shapes.Corridor(vectors=vectors, radius_m=radius_m):
                found = lines.corridor_runs(
                    self.lon, self.lat, self.offsets, self.shift, vectors, radius_m / EARTH_RADIUS_M
                )
            case shapes.Nearest(lon=lon, lat=lat, count=count):
                found = self._nearest_runs(lon, lat, count)
            case shapes.Union(of=parts):
                found = self._any(parts)
            case shapes.Intersection(of=parts):
                found = self.runs(parts[0])
                for part in parts[1:]:
                    found = kernels.combine_runs(found, self.runs(part), False, True, False)
            case shapes.Difference(of=of, without=without):
                found = kernels.combine_runs(self.runs(of), self.runs(without), True, False, False)
            case other:
                raise TypeError(f"{type(other).__name__!r} is no shape; of GeoJSON `fanout.geo.from_geojson` makes one")
        return found

    def _polygon(self, edges: shapes.Edges, passes: tuple[tuple[int, ...], ...]) -> Runs:
        found: Runs | None = None
        for turns in passes:
            more = kernels.polygon_runs(self.lon, self.lat, self.offsets, self.shift, edges, np.array(turns, np.int64))
            found = more if found is None else kernels.combine_runs(found, more, True, True, True)
        assert found is not None, "every polygon meets the world"
        return found

    def _any(self, parts: tuple[shapes.Shape, ...]) -> Runs:
        """A union, by halves: a thousand parts are merged ten times each, not each with all before it."""
        if len(parts) == 1:
            return self.runs(parts[0])
        middle = len(parts) // 2
        merged: Runs = kernels.combine_runs(self._any(parts[:middle]), self._any(parts[middle:]), True, True, True)
        return merged

    # --- nearest ------------------------------------------------------------------------------------------------------

    def radius_of(self, lon: int, lat: int, k: int) -> float:
        """A radius in metres within which there are at least min(k, n) points, seldom more than three times as many."""
        return float(closest.enough_runs(self.lon, self.lat, self.offsets, self.shift, lon, lat, k)[0])

    def _nearest_positions(self, lon: int, lat: int, k: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] = closest.nearest_positions(
            self.lon, self.lat, self.offsets, self.shift, lon, lat, min(max(0, k), len(self))
        )
        return found

    def _nearest(self, lon: int, lat: int, k: int) -> Rows:
        return self.rows[self._nearest_positions(lon, lat, k)]

    def _nearest_runs(self, lon: int, lat: int, k: int) -> Runs:
        positions = np.sort(self._nearest_positions(lon, lat, k))
        return np.column_stack([positions, positions + 1])

    # --- keeping ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one file, synced to disk; `load` maps it back without a copy."""
        sections = {"lon": self.lon, "lat": self.lat, "rows": self.rows, "offsets": self.offsets}
        rows_end = int(self.rows.max()) + 1 if len(self) else 0
        arrayfile.write(Path(path), _WHAT, sections, meta={"shift": self.shift, "rows_end": rows_end})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> PlaceIndex:
        """Map a saved index: pages are shared by all processes that do. `verify` reads all of it once.

        Raises `Refused("file_magic" | "file_version" | "file_dtype" | "file_count" | "file_checksum")`, and
        `Refused("file_contradictory")` for a file that is whole and whose arrays do not fit each other: with them
        kernels, which do not look, would read beyond their ends.
        """
        path = Path(path)
        wanted = {"lon": "<i4", "lat": "<i4", "rows": "<u4", "offsets": "<u4"}
        arrays, meta = arrayfile.read(path, _WHAT, wanted, verify=verify)
        if wrong := _contradiction(arrays, meta, rows=verify):
            raise Refused("file_contradictory", path=path.name, detail=wrong)
        return cls(arrays["lon"], arrays["lat"], arrays["rows"], arrays["offsets"], int(meta["shift"]))


def _contradiction(arrays: dict[str, NDArray[Any]], meta: dict[str, Any], *, rows: bool) -> str:
    """What does not fit in a saved index, or nothing. `rows`: whether these are read too."""
    counts = {name: arrays[name].size for name in ("lon", "lat", "rows")}
    points = counts["lon"]
    if len(set(counts.values())) != 1:
        return "counts differ: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    shift = meta.get("shift")
    if not isinstance(shift, int) or not 0 <= shift <= _SHIFT_MOST:
        return f"its height of bands is {shift!r}"
    offsets, wanted = arrays["offsets"], (2 * LAT_MAX >> shift) + 2
    if offsets.size != wanted:
        return f"it has {offsets.size} offsets, of bands of this height there are {wanted}"
    if offsets[0] != 0 or offsets[-1] != points or (offsets[1:] < offsets[:-1]).any():
        return f"its offsets do not ascend from 0 to {points}"
    end = meta.get("rows_end")  # not `points`: rows may be people, of whom some have no place; old files have none
    if rows and points and end is not None and int(arrays["rows"].max()) >= end:
        return f"a row is not below {end}"
    return ""


def _whole(number: SupportsIndex | float) -> int:
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        if not isinstance(number, float | np.floating) or not float(number).is_integer():
            raise TypeError(f"a count is a whole number, not {number!r}") from None
    return int(number)


def warm() -> None:
    """Compile every kernel (or load it from the cache), so that no request waits for a compiler."""
    index = PlaceIndex.build(np.array([0.0, 0.001, 179.9999]), np.array([0.0, 0.001, 10.0]))
    square = np.array([[0, 0], [TURN // 100, 0], [TURN // 100, LAT_MAX], [0, LAT_MAX], [0, 0]], np.int64)
    shape = shapes.Union(
        (
            shapes.Circle(0, 0, 1000.0),
            shapes.polygon([square]),
            shapes.Nearest(LON_MAX - 1, 0, 2),
            shapes.corridor([(0.0, 0.0), (0.0, 1.0)], 10.0),
        )
    )
    index.select(shape)
    index.count(shapes.Circle(0, 0, 9e6))
