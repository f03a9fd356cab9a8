"""A picture from outside, made into one of ours: a JPEG of bounded size that holds what one sees and nothing else.

What comes in is a stranger's file: a control room's photo with the place it was taken in its metadata, a phone's
picture lying on its side, a bomb of two kilobytes that unpacks to a gigabyte. What goes out is shown by phones, boards
and networks that each have limits of their own.

Rules:

1. JPEG, PNG and WebP, told by their content; nothing else is opened. One frame: the first.
2. The size is read from the header and judged before a pixel is unpacked.
3. Turned upright as its metadata says, its colours brought to sRGB, made to fit `SIDE_MAX`, on white where it was
   transparent. Only pixels are carried over: no metadata, no thumbnail of before, no comment.
4. At most `limits.PICTURE_BYTES_KEPT_MAX` bytes, by lowering the quality: FCM shows pictures up to 1 MB, X takes 5 MB.
5. The same file gives the same bytes, so the same picture is kept once.

A decoder that is fed by strangers may fail in any way; whatever it raises is `Refused("picture_unreadable")`.
Everything here is a matter of some 10 ms to 1 s of a core: callers use a thread.
"""

from __future__ import annotations

import io
import logging
from typing import Final, NamedTuple

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from fanout import limits
from fanout.errors import Refused

SIDE_MAX: Final = 1_600  # pixels of the longer side: more than any phone or post shows
THUMBNAIL_SIDE: Final = 320
QUALITIES: Final = (85, 75, 65, 50, 35)
FORMATS: Final = ("JPEG", "PNG", "WEBP")

_SRGB: Final = ImageCms.createProfile("sRGB")

logging.getLogger("PIL").setLevel(logging.WARNING)  # its readers tell every chunk of a file at level debug


class Picture(NamedTuple):
    """`data`, `thumbnail`: JPEG files; `width` and `height` of `data` in pixels."""

    data: bytes
    thumbnail: bytes
    width: int
    height: int


def normalised(file: bytes) -> Picture:
    """Our picture of a stranger's file.

    Errors: `Refused("picture_too_large")` by bytes or by pixels, `Refused("picture_unreadable")`.
    """
    if len(file) > limits.PICTURE_BYTES_MAX:
        raise Refused("picture_too_large", "body", detail=f"{len(file):,} bytes of {limits.PICTURE_BYTES_MAX:,}")
    try:
        upright = _upright(file)
        thumbnail = upright.copy()
        thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
        return Picture(_jpeg(upright), _jpeg(thumbnail), upright.width, upright.height)
    except Refused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused("picture_too_large", "body", detail=str(error)) from None
    except UnidentifiedImageError:  # whose words are an address in our memory
        raise Refused("picture_unreadable", "body", detail="it is none of these, or has no pixels") from None
    except Exception as error:
        raise Refused("picture_unreadable", "body", detail=str(error)[:200] or type(error).__name__) from None


def _upright(file: bytes) -> Image.Image:
    with Image.open(io.BytesIO(file), formats=FORMATS) as opened:
        pixels = opened.width * opened.height
        if pixels > limits.PICTURE_PIXELS_MAX:
            raise Refused("picture_too_large", "body", detail=f"{pixels:,} pixels of {limits.PICTURE_PIXELS_MAX:,}")
        if min(opened.size) < 1:
            raise Refused("picture_unreadable", "body", detail="it has no pixels")
        opened.draft("RGB", (SIDE_MAX, SIDE_MAX))  # a JPEG is unpacked at half or a quarter where that is enough
        opened.load()
        turned = ImageOps.exif_transpose(opened)
        assert turned is not None
        flat = _coloured(turned)
    flat.thumbnail((SIDE_MAX, SIDE_MAX), Image.Resampling.LANCZOS)
    bare = Image.new("RGB", flat.size)
    bare.paste(flat)  # pixels only: whatever else the file held stays behind
    return bare


def _coloured(image: Image.Image) -> Image.Image:
    """In sRGB, on white."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        try:
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), _SRGB, outputMode=mode
            )
            image = converted if converted is not None else image
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: colours as they are
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        ground = Image.new("RGBA", shown.size, "white")
        image = Image.alpha_composite(ground, shown)
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = image.point(lambda value: value / 256).convert("L")
    return image.convert("RGB")


def _jpeg(image: Image.Image) -> bytes:
    for quality in QUALITIES:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True, progressive=True)
        if out.tell() <= limits.PICTURE_BYTES_KEPT_MAX:
            break
    return out.getvalue()
