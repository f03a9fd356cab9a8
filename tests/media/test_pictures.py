"""Pictures: upright, small, bare of everything but pixels; strangers' files end in a refusal and nothing else."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from fanout import limits
from fanout.errors import Refused
from fanout.media.pictures import SIDE_MAX, THUMBNAIL_SIDE, Picture, normalised

ORIENTATION, MAKER, GPS = 0x0112, 0x010F, 0x8825


def file_of(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=("JPEG",))


def gradient(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


def noise(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), 100).convert("RGB")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_comes_in_goes_out_as_a_small_jpeg(kind: str) -> None:
    picture = normalised(file_of(gradient(3_000, 1_000), kind))
    assert (picture.width, picture.height) == (SIDE_MAX, 533)
    shown = opened(picture.data)
    assert (shown.format, shown.mode, shown.size) == ("JPEG", "RGB", (picture.width, picture.height))
    assert max(opened(picture.thumbnail).size) == THUMBNAIL_SIDE
    assert len(picture.data) <= limits.PICTURE_BYTES_KEPT_MAX


def test_small_ones_are_not_blown_up_and_the_same_file_is_the_same_picture() -> None:
    file = file_of(gradient(40, 30), "PNG")
    assert normalised(file) == normalised(file)
    assert normalised(file)[2:] == (40, 30)


def test_noise_is_made_to_fit() -> None:
    assert len(normalised(file_of(noise(2_000, 2_000))).data) <= limits.PICTURE_BYTES_KEPT_MAX


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_lies_as_its_camera_was_held_and_tells_nothing_else(orientation: int) -> None:
    upright = Image.new("RGB", (80, 40), "white")
    upright.paste("red", (0, 0, 20, 20))  # red is top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    held = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = orientation, "a camera"
    exif.get_ifd(GPS)[2] = (52.0, 59.0, 48.0)
    file = file_of(held, quality=95, exif=exif, comment=b"taken at home")
    assert b"a camera" in file
    picture = normalised(file)
    shown = opened(picture.data)
    assert shown.size == (80, 40)
    red, green, _ = shown.getpixel((10, 10))  # type: ignore[misc]
    assert red > 200 > 80 > green
    assert not dict(shown.getexif())
    assert not {"comment", "icc_profile", "exif"} & set(shown.info)
    for data in picture[:2]:
        assert b"a camera" not in data
        assert b"taken at home" not in data
        assert b"Exif" not in data


def test_transparency_becomes_white_and_depths_become_eight_bits() -> None:
    clear = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert opened(normalised(file_of(clear, "PNG")).data).getpixel((5, 5)) == (255, 255, 255)
    palette = gradient(20, 20).quantize(8)
    palette.info["transparency"] = 0
    assert normalised(file_of(palette, "PNG"))[2:] == (20, 20)
    deep = Image.new("I;16", (10, 10), 32_768)
    grey = opened(normalised(file_of(deep, "PNG")).data).getpixel((5, 5))
    assert all(abs(value - 128) < 4 for value in grey)  # type: ignore[union-attr]
    assert normalised(file_of(Image.new("CMYK", (9, 9))))[2:] == (9, 9)
    assert normalised(file_of(Image.new("1", (9, 9)), "PNG"))[2:] == (9, 9)


def test_colours_are_brought_to_srgb_and_a_broken_profile_is_left_out() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (lab, b"nonsense"):
        assert normalised(file_of(gradient(10, 10), icc_profile=profile))[2:] == (10, 10)


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8_001, 8_000), (10_000, 10_000), (65_000, 65_000), (2**31 - 1, 1)])
def test_bombs_are_told_by_their_header(width: int, height: int) -> None:
    with pytest.raises(Refused) as caught:
        normalised(png(width, height, bytes(1_000_000)))
    assert caught.value.code == "picture_too_large"


def test_too_many_bytes() -> None:
    with pytest.raises(Refused) as caught:
        normalised(bytes(limits.PICTURE_BYTES_MAX + 1))
    assert caught.value.code == "picture_too_large"


GOOD = file_of(gradient(64, 64))


@pytest.mark.parametrize(
    "file",
    [
        b"", b"\xff\xd8\xff", b"GIF89a" + bytes(100), b"%PDF-1.4", b"<svg onload='x'/>", b"\x00" * 1_000,
        GOOD[: len(GOOD) // 2], GOOD[:300], file_of(gradient(64, 64), "PNG")[:-40], png(0, 5, b""), png(4, 4, b""),
        file_of(gradient(8, 8), "GIF"), file_of(gradient(8, 8), "TIFF"), file_of(gradient(8, 8), "BMP"),
    ],
)  # fmt: skip
def test_garbage_is_refused(file: bytes) -> None:
    with pytest.raises(Refused) as caught:
        normalised(file)
    assert caught.value.code == "picture_unreadable"
    assert " at 0x" not in str(caught.value), "an address in our memory is nobody's business, and says nothing"


@given(st.binary(max_size=200), st.integers(0, len(GOOD)), st.sampled_from([GOOD, file_of(gradient(64, 64), "WEBP")]))
def test_broken_files_end_in_a_picture_or_a_refusal(noise: bytes, at: int, file: bytes) -> None:
    found: Picture | None = None
    code = ""
    try:
        found = normalised(file[:at] + noise + file[at + len(noise) :])
    except Refused as refused:
        code = refused.code
    assert (
        code in ("picture_unreadable", "picture_too_large") if found is None else opened(found.data).size == found[2:]
    )
