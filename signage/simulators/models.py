"""Models of boards to simulate, of sizes met in practice. Synthetic: no maker's board is meant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from signage.dialects.native import Caps

_FOUR: Final = ["nl", "en", "de", "fr"]
_LED: Final = Caps(board="", model="", colours="amber", languages=_FOUR)
_TFT: Final = Caps(
    board="", model="", kind="image", colours="rgb", charset="utf-8", media=["image/jpeg"], languages=_FOUR
)
_WITH: Final = msgspec.structs.replace

MODELS: Final[dict[str, Caps]] = {
    caps.model: caps
    for caps in (
        _WITH(_LED, model="led-3x26", lines=3, characters=26, charset="latin-1", pages=6),
        _WITH(_LED, model="led-2x20", lines=2, characters=20, pages=8),
        _WITH(_LED, model="ticker-1x24", lines=1, characters=24, pages=8, scrolls=True, scroll_characters=300),
        _WITH(_LED, model="line-4x90", lines=4, characters=90, charset="windows-1252", pages=2),
        _WITH(
            _LED,
            model="matrix-208x56",
            kind="pixels",
            width_px=208,
            height_px=56,
            charset="utf-8",
            pages=6,
            fonts=["10x20", "8x13", "7x13", "6x10", "5x8"],
        ),
        _WITH(_TFT, model="tft-1920x1080", width_px=1920, height_px=1080, pages=4),
        _WITH(_TFT, model="tft-1920x360", width_px=1920, height_px=360, pages=6, form="json"),
    )
}

PASSENGER_MODELS: Final[dict[str, Caps]] = {
    "pid-led-3x26": Caps(
        board="",
        model="pid-led-3x26",
        lines=3,
        characters=26,
        charset="utf-8",
        scrolls=True,
        scroll_characters=150,
        pages=8,
    ),
}
"""Displays of RTIG T047, as their capability response describes them: for previews."""

DEFAULT: Final = "led-3x26"


def caps_for(
    board: str,
    model: str,
    lon: float | None,
    lat: float | None,
    place: str,
    controller: str = "",
    areas: Sequence[str] = (),
) -> Caps:
    """A birth document. An unknown model is an error of the caller: `KeyError`."""
    return _WITH(MODELS[model], board=board, lon=lon, lat=lat, place=place, controller=controller, areas=list(areas))


def areas_for(model: str, lon: float, lat: float) -> list[str]:
    """Area topics of a simulated board: its model's in its square of one degree, and its model's everywhere."""
    return [f"all.{model}", f"square-{math.floor(lon)}-{math.floor(lat)}.{model}"]
