"""Pictures through the API: bytes in with a key, the same bytes out for everybody who knows the name."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from PIL import Image

from fanout import limits, wire
from fanout.api.auth import Keys, create_key
from fanout.api.handlers import Handlers
from fanout.api.routes import build
from fanout.client import Client
from fanout.errors import Refused
from fanout.media.shelf import Shelf
from fanout.store.sqlite_store import SqliteStore
from tests.api.conftest import Running
from tests.api.test_actions import request


def picture(side: int = 64) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).convert("RGB").save(out, "PNG")
    return out.getvalue()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    store = SqliteStore.open(tmp_path / "ledger.db")
    key = create_key(store, "police", "room", ("actions",), 0)
    shelf = Shelf(tmp_path / "media", link=lambda name: f"https://a.example/v1/media/{name}")
    handlers: Handlers = cast(Any, Handlers)(*[None] * 7, shelf)
    application = build(handlers.rows(), [], Keys(store, lambda: 0.0), in_flight_max=9)
    headers = {"authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://a", headers=headers) as client:
        yield client
    store.close_store()


async def test_in_and_out(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/media", content=picture())
    assert answer.status_code == 201
    photo = wire.decode_json(answer.content, wire.Photo)
    assert (photo.width, photo.height, photo.url) == (64, 64, f"https://a.example/v1/media/{photo.hash}")
    del api.headers["authorization"]
    shown = await api.get(f"/v1/media/{photo.hash}")
    assert shown.status_code == 200
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert len(shown.content) == photo.bytes
    small = await api.get(f"/v1/media/{photo.hash}/thumbnail")
    assert small.content.startswith(b"\xff\xd8")
    assert small.headers["etag"] != shown.headers["etag"]
    known = await api.get(f"/v1/media/{photo.hash}", headers={"if-none-match": shown.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.parametrize("name", ["a" * 64, "..", "%2e%2e%2fledger.db", "A" * 64, "x", "a" * 64 + "%00"])
async def test_other_names_are_nobodys(api: httpx.AsyncClient, name: str) -> None:
    assert (await api.get(f"/v1/media/{name}")).status_code == 404


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"", "picture_unreadable", 422),
        (b"GIF89a", "picture_unreadable", 422),
        (bytes(limits.PICTURE_BYTES_MAX + 1), "picture_too_large", 413),
    ],
    ids=["nothing", "gif", "large"],
)
async def test_what_is_no_picture_is_refused(api: httpx.AsyncClient, body: bytes, code: str, status: int) -> None:
    answer = await api.post("/v1/media", content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_real_engine_takes_a_photo_and_an_action_with_it(engine: Client, running: Running) -> None:
    photo = engine.put_photo(picture(200))
    shown = httpx.get(f"{running.address}/v1/media/{photo.hash}", trust_env=False, timeout=60)
    assert (shown.status_code, len(shown.content)) == (200, photo.bytes)
    accepted = engine.start(request(photo=photo.hash))
    assert engine.view(accepted.id).posts == []
    assert engine.withdraw_posts(accepted.id).id == accepted.id
    with pytest.raises(Refused) as caught:
        engine.start(request(photo="0" * 64))
    assert (caught.value.code, caught.value.where) == ("not_found", "photo")
    with pytest.raises(Refused) as caught:
        engine.put_photo(b"no picture")
    assert caught.value.code == "picture_unreadable"


async def test_a_key_is_needed_to_put_one(api: httpx.AsyncClient) -> None:
    del api.headers["authorization"]
    assert (await api.post("/v1/media", content=picture())).status_code == 401
