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
                cell = np.zeros((ascent + descent, max(advance, 0)), np.bool_)
                for row in range(height):
                    digits = next(lines)
                    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[:width]
                    y = ascent - bottom - height + row
                    if 0 <= y < cell.shape[0]:
                        columns = np.flatnonzero(bits) + left
                        cell[y, columns[(columns >= 0) & (columns < cell.shape[1])]] = True
                if code >= 32:
                    advances[chr(code)] = advance
                    glyphs[chr(code)] = cell
    return ascent + descent, advances, glyphs
