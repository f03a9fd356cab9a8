"""Faces: how wide a character is on a board, and, for pictures, which dots it has.

Rules:

1. A face measures in the board's own unit: characters on a line-matrix board, dots on a pixel board. Widths are
   advances of the font (BDF `DWIDTH`), without kerning: what boards do.
2. A face says which characters it has; what it lacks is transliterated by `signage.charsets` or refused, never dropped.
3. The bitmap fonts are X11's misc-fixed (public domain) and Spleen (BSD-2), cut to Latin; their notices stand beside
   them in `signage/data/fonts`. A `*2` behind the name is the same face with every dot doubled, as large displays
   need.
4. Files are read once, on first use, and only those asked for.

Why not a font library: a BDF file is forty lines to read, and boards have bitmap fonts, not outlines.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

NAMES: Final = (
    "10x20", "9x18B", "8x13", "8x13B", "7x13", "7x13B", "6x13", "6x13B", "6x12", "6x10", "6x9", "5x8", "5x7", "4x6",
)  # fmt: skip
"""Fonts of the contract, the largest first. A pixel board names those it has; naming none it can show all."""


class Face:
    """One font. `height`: of a line, in the board's unit; `advance` of a character that is not there is None."""

    __slots__ = ("_advances", "_glyphs", "height", "name", "scale", "single")

    def __init__(
        self, name: str, height: int, advances: dict[str, int], glyphs: dict[str, NDArray[np.bool_]], scale: int
    ) -> None:
        self.name = name
        self.height = height * scale
        self.scale = scale
        self._advances = advances
        self._glyphs = glyphs
        widths = set(advances.values())
        self.single = widths.pop() * scale if len(widths) == 1 else 0
        """The one width of all characters, 0 when they differ."""

    def has(self, character: str) -> bool:
        return character in self._advances

    def measure(self, text: str) -> int:
        """Width of a text all of whose characters the face has."""
        if self.single:
            return self.single * len(text)
        return sum(self._advances[character] for character in text) * self.scale

    def draw(self, text: str) -> NDArray[np.bool_]:
        """Dots of one line, bool (height, width)."""
        cells = [self._glyphs[character] for character in text]
        if not cells:
            return np.zeros((self.height, 0), np.bool_)
        dots = np.concatenate(cells, axis=1)
        return dots.repeat(self.scale, axis=0).repeat(self.scale, axis=1) if self.scale > 1 else dots


@cache
def load_face(name: str) -> Face:
    """A font of `NAMES`, or any other in the folder, by its name: `6x10`, `10x20*2`. `KeyError` when there is none."""
    stem, _, factor = name.partition("*")
    if factor and not (factor.isdecimal() and 1 <= int(factor) <= 16):
        raise KeyError(name)
    scale = int(factor) if factor else 1
    if not stem.replace("-", "").isalnum():
        raise KeyError(name)
    height, advances, glyphs = _font(stem)
    return Face(name, height, advances, glyphs, scale)


@cache
def _font(stem: str) -> tuple[int, dict[str, int], dict[str, NDArray[np.bool_]]]:
    file = resources.files("signage").joinpath("data", "fonts", f"{stem}.bdf")
    if not file.is_file():
        raise KeyError(stem)
    return _read_bdf(file.read_text(encoding="latin-1"))


def _placed(dots: NDArray[np.uint8], top: int, left: int, height: int, advance: int) -> NDArray[np.bool_]:
    """Dots of a glyph in its cell, bool[height, advance]; what would stick out is left out."""
    cell = np.zeros((height, max(advance, 0)), np.bool_)
    above, before = max(0, -top), max(0, -left)
    seen = dots[above : max(0, height - top), before : max(0, cell.shape[1] - left)]
    cell[top + above :, left + before :][: seen.shape[0], : seen.shape[1]] = seen
    return cell


def _read_bdf(text: str) -> tuple[int, dict[str, int], dict[str, NDArray[np.bool_]]]:
    """Line height, advance per character, dots per character (each of the full line height) of a BDF font."""
    advances: dict[str, int] = {}
    glyphs: dict[str, NDArray[np.bool_]] = {}
    lines = iter(text.splitlines())
    ascent = descent = code = advance = 0
    width = height = left = bottom = 0
    for line in lines:
        key, _, rest = line.partition(" ")
        match key:
            case "FONT_ASCENT":
                ascent = int(rest)
            case "FONT_DESCENT":
                descent = int(rest)
            case "ENCODING":
                code = int(rest.split()[0])
            case "DWIDTH":
                advance = int(rest.split()[0])
            case "BBX":
                width, height, left, bottom = (int(number) for number in rest.split())
            case "BITMAP":
                rows = bytes.fromhex("".join(islice(lines, height)))
                if code >= 32:
                    dots = np.unpackbits(np.frombuffer(rows, np.uint8).reshape(height, -1), axis=1)[:, :width]
                    advances[chr(code)] = advance
                    glyphs[chr(code)] = _placed(dots, ascent - bottom - height, left, ascent + descent, advance)
    return ascent + descent, advances, glyphs
