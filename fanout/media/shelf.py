"""Where pictures are kept: one file each, named by the SHA-256 of its bytes.

Rules:

1. A file is whole or not there: written beside its place, flushed to the disk, then renamed. It never changes, so
   whoever has it may keep it for ever, and the same picture twice is one file.
2. A name is 64 hexadecimal digits or it is nobody's: no other word ever becomes a path.
3. A picture is evidence of nothing and a photo of a child: what no action that is still going on names, and nobody
   touched for `media.keep_h`, is removed.

Blocking; callers use a thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import Image

from fanout import wire
from fanout.errors import Refused
from fanout.geo.arrayfile import sync_folder
from fanout.media.pictures import Picture, normalised

MIME: Final = "image/jpeg"
_NAME: Final = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """The pictures in a folder; `link` says where one is fetched from outside, empty: nowhere."""

    def __init__(self, folder: Path, *, link: Callable[[str], str]) -> None:
        self._folder = folder
        self._link = link

    def put(self, file: bytes) -> wire.Photo:
        """Take a stranger's file in. Errors: those of `normalised`; `Refused("media_unwritable")`."""
        picture = normalised(file)
        name = hashlib.sha256(picture.data).hexdigest()
        try:
            self._write(name, picture)
        except OSError as error:
            raise Refused("media_unwritable", detail=error.strerror or str(error)) from None
        return self._photo(name, picture.width, picture.height, len(picture.data))

    def get(self, name: str, *, thumbnail: bool = False) -> bytes:
        """A picture's file. Errors: `Refused("not_found")`."""
        try:
            return self._path(name, thumbnail=thumbnail).read_bytes()
        except OSError:
            raise Refused("not_found", "hash", what="picture") from None

    def photo(self, name: str, where: str = "photo") -> wire.Photo:
        """What is known of a picture. Errors: `Refused("not_found")`."""
        path = self._path(name)
        try:
            os.utime(path)  # it is asked for, so it is wanted
            width, height, size = _measured(path)
        except OSError:
            raise Refused("not_found", where, what="picture") from None
        return self._photo(name, width, height, size)

    def sweep(self, *, keep: Collection[str], older_than_s: float) -> int:
        """Remove what is older and not to be kept; returns how many pictures went."""
        removed = 0
        before_s = time.time() - older_than_s
        for path in self._folder.glob("??/*.jpg"):
            if path.stem in keep or path.stat().st_mtime > before_s:
                continue
            path.unlink(missing_ok=True)
            path.with_suffix(".small").unlink(missing_ok=True)
            removed += 1
        return removed

    def _photo(self, name: str, width: int, height: int, size: int) -> wire.Photo:
        return wire.Photo(hash=name, mime=MIME, width=width, height=height, bytes=size, url=self._link(name))

    def _path(self, name: str, *, thumbnail: bool = False) -> Path:
        if not _NAME.fullmatch(name):
            raise Refused("not_found", "hash", what="picture")
        return self._folder / name[:2] / f"{name}.{'small' if thumbnail else 'jpg'}"

    def _write(self, name: str, picture: Picture) -> None:
        path = self._path(name)
        if path.exists():
            os.utime(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        for place, data in ((path.with_suffix(".small"), picture.thumbnail), (path, picture.data)):
            partial = place.with_name(f".{place.name}.{threading.get_ident()}.partial")
            try:
                with partial.open("wb") as out:
                    out.write(data)
                    out.flush()
                    os.fsync(out.fileno())
                partial.replace(place)
            finally:
                partial.unlink(missing_ok=True)
        sync_folder(path.parent)
        sync_folder(self._folder)


@lru_cache(maxsize=256)
def _measured(path: Path) -> tuple[int, int, int]:
    with Image.open(path, formats=("JPEG",)) as opened:
        return opened.width, opened.height, path.stat().st_size
