"""Pictures beside the text: only where a board takes them, never at the cost of a word, never with a result."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fanout import wire
from signage import draw
from signage.layout import Model, Pace, Unfit, lay_out, model_of
from signage.pictures import SIDE_PX_MIN, lay_out_beside, place
from signage.simulators.models import MODELS
from tests.signage.worlds import START_MS, World, action, kept_documents

HOUR_MS = 3_600_000
PHOTO = wire.Photo(hash="ab" * 32, mime="image/jpeg", width=900, height=1200, bytes=90_000, url="https://x/v1/media/ab")
TFT = model_of(MODELS["tft-1920x1080"])
FORMS = ((("nl", "Vermist: meisje (8), rode jas, blauwe rugzak, laatst gezien in Assen. Gezien? Bel 112."),),)


@given(st.integers(1, 4_000), st.integers(1, 4_000), st.integers(1, 4_000), st.integers(1, 4_000))
def test_boxes_lie_on_the_screen_and_apart(width: int, height: int, across: int, down: int) -> None:
    boxes = place(msgspec.structs.replace(TFT, width_px=across, height_px=down), width, height)
    if boxes is None:
        return
    picture, text = boxes
    for box in boxes:
        assert box.left >= 0
        assert box.top >= 0
        assert box.left + box.width <= across
        assert box.top + box.height <= down
        assert min(box.width, box.height) > 0
    assert text.left >= picture.left + picture.width or text.top >= picture.top + picture.height
    assert min(picture.width, picture.height) >= SIDE_PX_MIN
    assert picture.width / picture.height == pytest.approx(width / height, rel=0.03)


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (1920, 360), (960, 540)])
def test_the_text_keeps_to_its_box_and_loses_no_word(size: tuple[int, int]) -> None:
    model = msgspec.structs.replace(TFT, width_px=size[0], height_px=size[1])
    laid, picture, text = lay_out_beside(FORMS, model, Pace(), (900, 1200))
    assert picture is not None
    assert text is not None
    words = " ".join(" ".join(page.lines) for page in laid.pages)
    assert words.replace("- ", "") == FORMS[0][0][1]
    for page in laid.pages:
        dots = draw.page_dots(page, model, laid.font, text)
        rows, columns = np.nonzero(dots)
        assert columns.min() >= text.left
        assert columns.max() < text.left + text.width
        assert rows.min() >= text.top


def test_words_come_before_the_picture() -> None:
    small = msgspec.structs.replace(TFT, width_px=480, height_px=240, pages=1)
    fates = []
    for words in range(10, 600, 10):
        text = ((("nl", " ".join(["Uitkijken"] * words)),),)
        try:
            laid, picture, _ = lay_out_beside(text, small, Pace(), (900, 1200))
        except Unfit:
            fates.append("refused")
            continue
        fates.append("without" if picture is None else "beside")
        assert picture is not None or laid == lay_out(text, small, Pace())
    assert sorted(set(fates), key=fates.index) == ["beside", "without", "refused"], "the longer, the less"
    assert fates == sorted(fates, key=["beside", "without", "refused"].index)


def test_only_boards_that_take_pictures_get_one_and_a_result_has_none() -> None:
    world = World(["well"] * 2, models=["tft-1920x1080", "led-3x26"])
    world.show(1, action(end_ms=START_MS + HOUR_MS), photo=PHOTO)
    tft, led = world.displays
    (item,) = kept_documents(world, tft)[0].items
    (picture,) = item.media
    assert (picture.sha256, picture.url, picture.content_type) == (PHOTO.hash, PHOTO.url, "image/jpeg")
    assert picture.expires_ms == item.end_ms
    assert item.box[0] >= picture.box[0] + picture.box[2]
    assert kept_documents(world, led)[0].items[0].media == []
    world.update(1, "Nieuw: blauwe jas. Bel 112.")
    assert kept_documents(world, tft)[0].items[0].media == [picture]
    world.restart_engine()
    assert kept_documents(world, tft)[0].items[0].media == [picture]
    world.end(1, {"nl": "Gevonden. Dank u wel."})
    assert kept_documents(world, tft)[0].items[0].media == []


def test_a_picture_that_nobody_can_fetch_is_not_sent() -> None:
    world = World(["well"], models=["tft-1920x1080"])
    world.show(1, action(end_ms=START_MS + HOUR_MS), photo=msgspec.structs.replace(PHOTO, url=""))
    assert kept_documents(world, world.displays[0])[0].items[0].media == []


def test_a_preview_draws_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model: Model = TFT
    laid, box, text = lay_out_beside(FORMS, model, Pace(), (90, 120))
    assert box is not None
    assert text is not None
    pages = [draw.page_dots(page, model, laid.font, text) for page in laid.pages]
    draw.picture(pages, tmp_path / "one.png", Image.new("RGB", (90, 120), (200, 30, 40)), box)
    with Image.open(tmp_path / "one.png") as drawn:
        gap = 2 * draw.PITCH_PX
        assert drawn.getpixel((gap + box.left + 5, gap + box.top + 5)) == (200, 30, 40)
