"""Pages as dots, as braille, and as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from signage import draw
from signage.cli import app
from signage.fonts import load_face
from signage.layout import Pace, lay_out, model_of
from signage.simulators.models import MODELS

TEXT = "Vermist: jongen, 6 jaar, 1.15 m, kort donker haar, gele regenjas. Gezien? Bel 112."


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_drawn_within_its_edges(name: str, tmp_path: Path) -> None:
    model = model_of(MODELS[name])
    layout = lay_out([(("nl", TEXT),)], model, Pace())
    pages = [draw.page_dots(page, model, layout.font) for page in layout.pages]
    for page, dots in zip(layout.pages, pages, strict=True):
        if model.kind != "characters":
            assert dots.shape == (model.height_px, model.width_px)
            lit = sum(int(load_face(layout.font).draw(line).sum()) for line in page.lines)
            assert int(dots.sum()) == lit, "no dot is cut"
        assert len(draw.braille(dots, 100).splitlines()[0]) <= 100
    draw.picture(pages, tmp_path / "board.png")
    with Image.open(tmp_path / "board.png") as image:
        assert image.width > 100


def test_braille_is_the_dots() -> None:
    dots = np.zeros((4, 4), np.bool_)
    dots[0, 0] = dots[3, 3] = True
    assert draw.braille(dots) == "\u2801\u2880"


def test_preview_draws_or_says_why() -> None:
    fits = CliRunner().invoke(app, ["preview", TEXT, "--model", "led-3x26"])
    assert fits.exit_code == 0
    assert "paged" in fits.output
    unfit = CliRunner().invoke(app, ["preview", "Vermist: 🚨", "--model", "led-3x26"])
    assert unfit.exit_code == 1
    assert "cannot show it: it has no character for '🚨'" in unfit.output


def test_simulate_names_moods_and_models_and_refuses_others() -> None:
    named = CliRunner().invoke(app, ["simulate", "--list-moods"])
    assert "flapping" in named.output
    assert "led-3x26" in named.output
    wrong = CliRunner().invoke(app, ["simulate", "--moods", "grumpy=0.5"])
    assert wrong.exit_code == 2
