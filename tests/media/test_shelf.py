"""The shelf: files by what they are, whole or not there, and no other word becomes a path."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from fanout.errors import Refused
from fanout.media.shelf import Shelf
from fanout.settings import MediaSettings

OUTSIDE = MediaSettings(public_url="https://alert.example.org/", keep_h=1)
NOWHERE = MediaSettings(public_url="", keep_h=1)


def file(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(out, "PNG")
    return out.getvalue()


def test_a_picture_is_found_by_what_it_is(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, link=OUTSIDE.link)
    photo = shelf.put(file())
    data = shelf.get(photo.hash)
    assert photo.hash == hashlib.sha256(data).hexdigest()
    assert (photo.mime, photo.width, photo.height, photo.bytes) == ("image/jpeg", 60, 40, len(data))
    assert photo.url == f"https://alert.example.org/v1/media/{photo.hash}"
    assert shelf.get(photo.hash, thumbnail=True).startswith(b"\xff\xd8")
    assert shelf.photo(photo.hash) == photo == shelf.put(file())
    assert Shelf(tmp_path, link=NOWHERE.link).photo(photo.hash).url == ""


@pytest.mark.parametrize(
    "name", ["", "..", "../../ledger.db", "a" * 63, "A" * 64, "a" * 64 + "\n", "a" * 64, "/etc/passwd", "%2e%2e", "\0"]
)
def test_no_other_word_becomes_a_path(tmp_path: Path, name: str) -> None:
    shelf = Shelf(tmp_path / "media", link=NOWHERE.link)
    (tmp_path / "ledger.db").write_bytes(b"secret")
    for ask in (shelf.get, shelf.photo):
        with pytest.raises(Refused) as caught:
            ask(name)
        assert caught.value.code == "not_found"


def test_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    shelf = Shelf(tmp_path, link=NOWHERE.link)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Refused) as caught:
        shelf.put(file())
    assert (caught.value.code, caught.value.status) == ("media_unwritable", 507)
    assert not list(tmp_path.glob("??/*")), "half a picture is none"
    monkeypatch.undo()
    assert shelf.get(shelf.put(file()).hash)


def test_the_same_picture_from_many_sides(tmp_path: Path) -> None:
    shelf, found = Shelf(tmp_path, link=NOWHERE.link), set()
    threads = [threading.Thread(target=lambda: found.add(shelf.put(file()).hash)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert sorted(path.suffix for path in tmp_path.glob("??/*")) == [".jpg", ".small"]


def test_what_nobody_wants_any_more_goes(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, link=NOWHERE.link)
    old, named, fresh = (shelf.put(file(colour)).hash for colour in ("red", "green", "blue"))
    for name in (old, named):
        os.utime(tmp_path / name[:2] / f"{name}.jpg", (1, 1))
    assert shelf.sweep(keep={named}, older_than_s=3_600) == 1
    with pytest.raises(Refused):
        shelf.photo(old)
    assert shelf.get(named)
    assert shelf.get(fresh)
    assert not (tmp_path / old[:2] / f"{old}.small").exists()
