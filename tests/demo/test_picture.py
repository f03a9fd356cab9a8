"""The picture of the country: early is bright, the untold are dim, and it survives nobody at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fanout.demo.picture import COLOURS, GROUND, Ring, draw


def test_colours_tell_when(tmp_path: Path) -> None:
    lon = np.linspace(3.5, 7.0, 2_000)
    lat = np.linspace(51.0, 53.4, 2_000)
    told_s = np.linspace(0.0, 10.0, 2_000)
    told_s[1_000:1_100] = np.nan
    path = tmp_path / "deep" / "reached.png"
    draw(path, lon, lat, told_s, [Ring(5.0, 52.0, 2_000, "somewhere")], "title", ["line"])
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    assert tuple(COLOURS[0].astype(int).tolist()) in colours
    assert tuple(COLOURS[-1].astype(int).tolist()) in colours
    assert (40, 44, 60) in colours, "those who were not told are drawn too"
    assert GROUND in colours


def test_nobody_is_a_picture_too(tmp_path: Path) -> None:
    nothing = np.empty(0)
    draw(tmp_path / "empty.png", nothing, nothing, nothing, [], "nobody", [])
    assert (tmp_path / "empty.png").stat().st_size > 0
