"""Pages as a board shows them: in the terminal, and as a picture with its lamps.

A page becomes dots (bool, height × width): on pixel boards those of its font, on line boards a 5x7 cell for each
character with a gap between, on TFTs the pixels. Dots become braille in a terminal (two by four to a character, so a
board of 208 × 56 takes 104 columns and 14 rows) or round lamps in a PNG. What is drawn is the page that would be sent,
through no other code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from signage.dialects.native import Page
from signage.fonts import load_face
from signage.layout import Model

Dots = NDArray[np.bool_]

CELL_FONT: Final = "5x7"
PITCH_PX: Final = 7  # of one lamp in a picture, its gap included
AMBER: Final = (255, 176, 32)
DARK: Final = (38, 30, 18)
CASE: Final = (10, 10, 12)
PICTURE_PX_MAX: Final = 4_000  # a TFT is drawn one pixel to one, lamps only where they fit


def page_dots(page: Page, model: Model, font: str, box: Sequence[int] = ()) -> Dots:
    """The dots of a page; lines are centred on pixel boards (in their box), and left on line boards as they stand."""
    if model.kind == "characters":
        return _cells(page.lines, model)
    face = load_face(font)
    board = np.zeros((model.height_px, model.width_px), np.bool_)
    box_left, box_top, box_width, box_height = box or (0, 0, model.width_px, model.height_px)
    top = box_top + max(0, (box_height - len(page.lines) * face.height) // 2)
    for number, line in enumerate(page.lines):
        dots = face.draw(line)
        left = box_left + max(0, (box_width - dots.shape[1]) // 2)
        y = top + number * face.height
        height, width = min(dots.shape[0], board.shape[0] - y), min(dots.shape[1], board.shape[1] - left)
        board[y : y + height, left : left + width] = dots[:height, :width]
    return board


def _cells(lines: Sequence[str], model: Model) -> Dots:
    """Character cells of 5 x 7 with one dot between, and two between lines. A running line is as long as it is."""
    face = load_face(CELL_FONT)
    columns = max(model.characters, *(len(line) for line in lines)) if lines else model.characters
    board = np.zeros((model.lines * 9 + 1, columns * 6 + 1), np.bool_)
    for number, line in enumerate(lines):
        for at, character in enumerate(line):
            glyph = face.draw(character if face.has(character) else "?")
            board[number * 9 + 1 : number * 9 + 8, at * 6 + 1 : at * 6 + 6] = glyph[:7, :5]
    return board


def braille(dots: Dots, columns_max: int = 120) -> str:
    """Dots as text. Boards wider than the terminal are drawn at every second, third … dot."""
    step = max(1, -(-dots.shape[1] // (2 * columns_max)))
    if step > 1:
        height, width = dots.shape[0] // step * step, dots.shape[1] // step * step
        blocks = dots[:height, :width].reshape(height // step, step, width // step, step)
        dots = blocks.mean(axis=(1, 3)) > 0.35
    tall, wide = -(-dots.shape[0] // 4) * 4, -(-dots.shape[1] // 2) * 2
    padded = np.zeros((tall, wide), np.uint16)
    padded[: dots.shape[0], : dots.shape[1]] = dots
    weights = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint16)
    codes = (padded.reshape(tall // 4, 4, wide // 2, 2) * weights[None, :, None, :]).sum(axis=(1, 3))
    return "\n".join("".join(chr(0x2800 + int(code)) for code in row) for row in codes)


def picture(pages: Sequence[Dots], path: Path, photo: Image.Image | None = None, box: Sequence[int] = ()) -> None:
    """Pages below one another as a PNG: lamps for LED boards, plain pixels for boards too large for that; a photo in
    its box.
    """
    drawn = [_lamps(dots) if max(dots.shape) * PITCH_PX <= PICTURE_PX_MAX else _pixels(dots) for dots in pages]
    if photo is not None and box:
        left, up, wide, high = box
        for image in drawn:
            image.paste(photo.convert("RGB").resize((wide, high)), (left, up))
    width, gap = max(image.width for image in drawn), 2 * PITCH_PX
    sheet = Image.new("RGB", (width + 2 * gap, sum(image.height + gap for image in drawn) + gap), CASE)
    top = gap
    for image in drawn:
        sheet.paste(image, (gap, top))
        top += image.height + gap
    sheet.save(path, format="PNG", optimize=True)


def _lamps(dots: Dots) -> Image.Image:
    """Round lamps with a soft edge, lit or dark: one stamp of each, tiled by the dots."""
    axis = np.arange(PITCH_PX) - (PITCH_PX - 1) / 2
    distance = np.hypot(*np.meshgrid(axis, axis))
    stamp = np.clip(PITCH_PX / 2 - distance, 0.0, 1.0)
    level = np.kron(dots, np.ones((PITCH_PX, PITCH_PX)))
    soft = np.tile(stamp, dots.shape)
    colour = np.where(level[..., None] > 0, np.array(AMBER), np.array(DARK))
    pixels = np.array(CASE) * (1 - soft[..., None]) + colour * soft[..., None]
    return Image.fromarray(pixels.astype(np.uint8))


def _pixels(dots: Dots) -> Image.Image:
    pixels = np.where(dots[..., None], np.array((245, 245, 245)), np.array((16, 24, 48)))
    return Image.fromarray(pixels.astype(np.uint8))
