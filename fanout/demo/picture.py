"""The country as people see it: every person reached is a point, its colour the moment they were told.

No map is needed: 1.6 million homes draw the country themselves. Plate carrée, stretched by the cosine of the middle
latitude so that it looks as it does on a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

HEIGHT_PX: Final = 1_200
MARGIN_PX: Final = 40
LEGEND_PX: Final = 330
GROUND: Final = (11, 14, 26)
INK: Final = (226, 230, 240)
FAINT: Final = (120, 128, 150)
# Early is bright and warm, late is cold and dim: the eye finds the first ones first.
COLOURS: Final = np.array(
    [[255, 246, 196], [255, 205, 96], [247, 136, 54], [214, 70, 92], [140, 52, 140], [66, 66, 160]], np.float64
)


class Ring(NamedTuple):
    """A local action: where, how far, and what to call it."""

    lon: float
    lat: float
    radius_m: float
    name: str


def draw(
    path: Path,
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    told_s: NDArray[np.float64],
    rings: Sequence[Ring],
    title: str,
    lines: Sequence[str],
) -> None:
    """Write a PNG. `lon`, `lat` (degrees) and `told_s` (seconds; NaN: not told) have shape [people]."""
    west, east = (float(value) for value in np.percentile(lon, [0.02, 99.98])) if len(lon) else (3.3, 7.3)
    south, north = (float(value) for value in np.percentile(lat, [0.02, 99.98])) if len(lat) else (50.7, 53.6)
    squeeze = math.cos(math.radians((south + north) / 2))
    scale = (HEIGHT_PX - 2 * MARGIN_PX) / max(north - south, 1e-6)
    width = int((east - west) * squeeze * scale) + 2 * MARGIN_PX + LEGEND_PX
    canvas = np.empty((HEIGHT_PX, width, 3), np.uint8)
    canvas[:] = GROUND
    x = (MARGIN_PX + (lon - west) * squeeze * scale).astype(np.int64)
    y = (MARGIN_PX + (north - lat) * scale).astype(np.int64)
    inside = (x >= 0) & (x < width - LEGEND_PX) & (y >= 0) & (y < HEIGHT_PX)
    told = inside & ~np.isnan(told_s)
    last_s = float(np.nanmax(told_s)) if told.any() else 1.0
    canvas[y[inside & ~told], x[inside & ~told]] = (40, 44, 60)
    order = np.flatnonzero(told)[np.argsort(-told_s[told], kind="stable")]
    canvas[y[order], x[order]] = _colour(told_s[order] / max(last_s, 1e-9))
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    for ring in rings:
        _draw_ring(pen, ring, west, north, squeeze, scale)
    _draw_legend(pen, width - LEGEND_PX + 10, title, lines, last_s)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def _colour(share: NDArray[np.float64]) -> NDArray[np.uint8]:
    at = np.clip(share, 0, 1) * (len(COLOURS) - 1)
    low = np.minimum(at.astype(np.int64), len(COLOURS) - 2)
    mixed: NDArray[np.float64] = COLOURS[low] + (COLOURS[low + 1] - COLOURS[low]) * (at - low)[:, None]
    return mixed.astype(np.uint8)


def _draw_ring(pen: ImageDraw.ImageDraw, ring: Ring, west: float, north: float, squeeze: float, scale: float) -> None:
    x = MARGIN_PX + (ring.lon - west) * squeeze * scale
    y = MARGIN_PX + (north - ring.lat) * scale
    radius = max(9.0, ring.radius_m / 111_195 * scale)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(120, 235, 255), width=2)
    pen.text((x + radius + 6, y - 9), ring.name, fill=(120, 235, 255), font=_font(16))


def _draw_legend(pen: ImageDraw.ImageDraw, left: int, title: str, lines: Sequence[str], last_s: float) -> None:
    pen.text((left, MARGIN_PX), title, fill=INK, font=_font(24))
    top = MARGIN_PX + 44
    for line in lines:
        pen.text((left, top), line, fill=FAINT, font=_font(15))
        top += 22
    top += 16
    bar = 300
    for step in range(bar):
        colour = tuple(int(part) for part in _colour(np.array([step / bar]))[0])
        pen.line((left, top + step, left + 22, top + step), fill=colour)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        pen.text((left + 32, top + share * bar - 9), f"{last_s * share:5.1f} s", fill=INK, font=_font(15))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
