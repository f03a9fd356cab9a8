"""An action from the engine to the networks: started with a photo, updated, closed, cancelled, recovered."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from PIL import Image

from fanout import wire
from fanout.engine import Engine
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas
from fanout.media.shelf import Shelf
from fanout.registry.registry import Registry
from fanout.settings import load
from fanout.social.poster import Poster, open_poster
from fanout.store.sqlite_store import SqliteStore
from fanout.store.writer import open_writer
from tests.dispatch.kit import HOUR_MS, clock_ms
from tests.simulators.kit import PATIENCE_S, Providers
from tests.social.test_poster import NETWORKS, posts
from tests.test_engine import RecordedBoards, person

HERE = wire.Circle(lon=5.0, lat=52.0, radius_m=1_000)


class Life:
    """An engine with its poster."""

    def __init__(self, engine: Engine, poster: Poster, shelf: Shelf, store: SqliteStore) -> None:
        self.engine, self.poster, self.shelf, self.store = engine, poster, shelf, store

    async def start(self, **changes: Any) -> wire.ActionAccepted:
        fields: dict[str, Any] = {
            "reference": "case", "kind": "missing_child", "area": HERE, "texts": {"nl": "Vermist."},
            "end_ms": clock_ms() + HOUR_MS,
        }  # fmt: skip
        return await self.engine.start("police", wire.ActionRequest(**(fields | changes)))

    async def posted(self, action: int, *states: str) -> list[wire.PostView]:
        with trio.fail_after(PATIENCE_S):
            while True:
                found = (await self.engine.view("police", action)).posts
                if [view.state for view in found] == list(states):
                    return found
                await trio.sleep(0.02)


@asynccontextmanager
async def life(folder: Path, providers: Providers, *, posting: bool = True) -> AsyncIterator[Life]:
    way = {"url": providers.url, "ca": str(providers.ca), "rate_per_s": 100.0}
    settings = load(
        None,
        {},
        engine={"data": str(folder)},
        social={"accounts": {"m": way | NETWORKS["politie_m"]} if posting else {}},
        media={"public_url": "https://alert.example.org"},
    )
    store = SqliteStore.open(folder / "ledger.db")
    registry = Registry.open(folder / "registry", store, kinds=tuple(settings.kinds), tenants=tuple(settings.tenants))
    areas, shelf = NamedAreas.open(folder / "areas"), Shelf(folder / "media", link=settings.media.link)
    try:
        async with (
            open_writer(store) as writer,
            open_poster(settings, store, writer, areas, shelf.get, clock_ms) as poster,
        ):
            engine = Engine(settings, store, writer, registry, RecordedBoards(), areas, clock_ms, poster, shelf)
            await engine.recover()
            yield Life(engine, poster, shelf, store)
    finally:
        registry.close()
        store.close_store()


async def all_removed(providers: Providers) -> None:
    with trio.fail_after(PATIENCE_S):
        while not all(one["removed_ms"] for one in posts(providers)):  # noqa: ASYNC110  (the networks are elsewhere)
            await trio.sleep(0.02)


def photo() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(out, "PNG")
    return out.getvalue()


async def test_from_start_to_result(tmp_path: Path, providers: Providers) -> None:
    async with life(tmp_path, providers) as room:
        taken = room.shelf.put(photo())
        accepted = await room.start(photo=taken.hash)
        assert (accepted.people, accepted.posts) == (0, 1), "an account is nobody's phone"
        again = await room.start(photo=taken.hash, end_ms=room.store.action(accepted.id).end_ms)  # type: ignore[union-attr]
        assert (again.repeated, again.posts) == (True, 1)
        await room.posted(accepted.id, "accepted")
        update = wire.UpdateRequest(reference="u", texts={"nl": "Rode jas."})
        for _ in range(2):
            await room.engine.update("police", accepted.id, update)
        await room.posted(accepted.id, "accepted", "accepted")
        await room.engine.result(
            "police", accepted.id, wire.ResultRequest(reference="r", outcome="direct", texts={"nl": "Gevonden."})
        )
        views = await room.posted(accepted.id, "accepted", "accepted", "accepted")
        assert [view.name for view in views] == ["start", "update", "result"]
        view = await room.engine.view("police", accepted.id)
        assert all(tally.selected == 0 for tally in view.tallies), "posts are in no count of people"
        await room.engine.withdraw_posts("police", accepted.id)
        await room.posted(accepted.id, "accepted", "accepted", "accepted")
        await all_removed(providers)


async def test_a_cancelled_action_leaves_nothing(tmp_path: Path, providers: Providers) -> None:
    async with life(tmp_path, providers) as room:
        accepted = await room.start()
        await room.posted(accepted.id, "accepted")
        await room.engine.cancel("police", accepted.id)
        await all_removed(providers)


async def test_refusals(tmp_path: Path, providers: Providers) -> None:
    async with life(tmp_path, providers) as room:
        with pytest.raises(Refused) as caught:
            await room.start(photo="0" * 64)
        assert (caught.value.code, caught.value.where) == ("not_found", "photo")
        with pytest.raises(Refused) as caught:
            await room.start(texts={"nl": "x" * 501}, channels=["social"])
        assert (caught.value.code, "mastodon (m)" in caught.value.message) == ("text_too_long", True)
        with pytest.raises(Refused) as caught:
            await room.start(channels=["voice"])
        assert caught.value.code == "text_unfit"
        with pytest.raises(Refused) as caught:
            await room.start(titles={"nl": "Vermist\r\nBcc: x"})
        assert (caught.value.code, caught.value.where) == ("text_control_character", "titles.nl")
        preview = await room.engine.preview(
            "police", wire.PreviewRequest(kind="missing_child", area=HERE, texts={"nl": "Vermist."})
        )
        assert [(plan.account, plan.text) for plan in preview.posts] == [("m", "Vermist.")]
        assert room.store.actions() == []


async def test_an_action_for_accounts_alone(tmp_path: Path, providers: Providers) -> None:
    async with life(tmp_path, providers) as room:
        registry: Registry = room.engine._registry
        await trio.to_thread.run_sync(registry.upsert, [person(n) for n in range(5)])
        accepted = await room.start(channels=["social"])
        assert (accepted.people, accepted.posts) == (0, 1)
        await room.posted(accepted.id, "accepted")
        everybody = await room.start(reference="other", channels=["sms"])
        assert (everybody.people, everybody.posts) == (5, 0)


async def test_who_dies_between_the_ledger_and_the_poster_posts_it_later(tmp_path: Path, providers: Providers) -> None:
    async with life(tmp_path, providers, posting=False) as room:  # the ledger has it, the poster never heard of it
        await trio.to_thread.run_sync(room.engine._registry.upsert, [person(1)])
        accepted = await room.start()
        await room.engine.update("police", accepted.id, wire.UpdateRequest(reference="u", texts={"nl": "Rode jas."}))
    async with life(tmp_path, providers) as second:
        await second.posted(accepted.id, "accepted", "accepted")
        assert [one["text"] for one in posts(providers)] == ["Vermist.", "Rode jas."]
    async with life(tmp_path, providers) as third:
        await third.engine.cancel("police", accepted.id)
        assert len(posts(providers)) == 2
