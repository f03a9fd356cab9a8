"""Where a picture stands on a TFT, and where the text beside it.

Rules:

1. Only boards that say so get pictures: kind `image`, with the content type in `caps.media`. The others are not told.
2. The words come first: a text that no longer fits beside the picture, or only without one of its languages, is shown
   without the picture, in full.
3. On a wide screen the picture stands on the left, on a tall one on top. It keeps its proportions, is never enlarged
   beyond its pixels by more than `ENLARGED_MAX`, and takes at most `SHARE_MAX` of the screen's longer side.
4. A picture that would be smaller than `SIDE_PX_MIN` on either side shows nothing to anybody: left out.

Boxes are `(left, top, width, height)` in pixels from the upper left corner. Pure.
"""

from __future__ import annotations

import contextlib
from typing import Final, NamedTuple

import msgspec

from signage.layout import Layout, Model, Pace, Unfit, lay_out

SHARE_MAX: Final = 0.42
MARGIN: Final = 0.02  # of the screen's shorter side, round the picture
ENLARGED_MAX: Final = 2.0
SIDE_PX_MIN: Final = 96


class Box(NamedTuple):
    """A rectangle on the screen, in pixels."""

    left: int
    top: int
    width: int
    height: int


class Placed(NamedTuple):
    """A text laid out, and the boxes of the picture and the text; None: no picture, the text has the whole screen."""

    layout: Layout
    picture: Box | None
    text: Box | None


def place(model: Model, width_px: int, height_px: int) -> tuple[Box, Box] | None:
    """The boxes of a picture of these pixels and of the text on a screen; None when it would be too small."""
    margin = round(MARGIN * min(model.width_px, model.height_px))
    wide = model.width_px >= model.height_px
    room_w = round(model.width_px * (SHARE_MAX if wide else 1.0)) - 2 * margin
    room_h = round(model.height_px * (1.0 if wide else SHARE_MAX)) - 2 * margin
    if min(width_px, height_px, room_w, room_h) < 1:
        return None
    scale = min(room_w / width_px, room_h / height_px, ENLARGED_MAX)
    width, height = int(width_px * scale), int(height_px * scale)
    if min(width, height) < SIDE_PX_MIN:
        return None
    if wide:
        picture = Box(margin, (model.height_px - height) // 2, width, height)
        left = width + 2 * margin
        return picture, Box(left, 0, model.width_px - left, model.height_px)
    picture = Box((model.width_px - width) // 2, margin, width, height)
    top = height + 2 * margin
    return picture, Box(0, top, model.width_px, model.height_px - top)


def lay_out_beside(
    forms: tuple[tuple[tuple[str, str], ...], ...], model: Model, pace: Pace, size_px: tuple[int, int] | None
) -> Placed:
    """A text with its picture (width and height) where both have room, else the text alone. Raises `Unfit`."""
    boxes = place(model, *size_px) if size_px is not None and model.kind == "image" else None
    if boxes is not None:
        picture, text = boxes
        beside = msgspec.structs.replace(model, width_px=text.width, height_px=text.height)
        with contextlib.suppress(Unfit):
            laid = lay_out(forms, beside, pace)
            if not laid.left_out:
                return Placed(laid, picture, text)
    return Placed(lay_out(forms, model, pace), None, None)
