"""The poster against a real ledger and simulated networks over real sockets: one post an account, whatever happens."""

from __future__ import annotations

import hashlib
import io
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from PIL import Image

from fanout import wire
from fanout.channels.protocol import Answer, Call
from fanout.dispatch.calls import Caller
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas, Shape, shape_of
from fanout.media.shelf import Shelf
from fanout.settings import Settings, load
from fanout.social.poster import Poster, open_poster
from fanout.store.protocol import ActionRecord, PhaseRecord
from fanout.store.sqlite_store import SqliteStore
from fanout.store.writer import open_writer
from signage.broker import free_port
from tests.dispatch.kit import HOUR_MS, clock_ms
from tests.simulators.kit import PATIENCE_S, Providers

ASSEN = wire.Circle(lon=6.56, lat=52.99, radius_m=2_000)
NETWORKS: dict[str, dict[str, Any]] = {
    "politie_x": {"network": "x", "credential": "ck cs tok ts"},
    "politie_m": {"network": "mastodon", "credential": "token"},
    "politie_t": {"network": "telegram", "credential": "1:a", "target": "@politie"},
}
WORDS = {"nl": "Vermist: meisje, 8 jaar. Bel 0800-0011.", "en": "Missing: girl, 8."}


class Room:
    """A ledger with one action in it, a poster, and the simulated networks."""

    def __init__(self, store: SqliteStore, poster: Poster, providers: Providers, shelf: Shelf) -> None:
        self.store, self.poster, self.providers, self.shelf = store, poster, providers, shelf
        self.action = 0

    def open(self, reference: str = "r", end_ms: int = 0) -> int:
        now_ms = clock_ms()
        record = ActionRecord(
            id=0, tenant="police", reference=reference, digest=b"", kind="missing_child", lane=0, state="open",
            created_ms=now_ms, end_ms=end_ms or now_ms + HOUR_MS, snapshot_version=1, body=b"",
        )  # fmt: skip
        phase = PhaseRecord(
            action=0, phase=0, name="start", created_ms=now_ms, end_ms=record.end_ms, texts=WORDS, titles={}
        )
        self.action = self.store.open_action(record, phase, [])[0].id
        return self.action

    async def start(self, *, photo: str | None = None, area: wire.Area = ASSEN, reference: str = "r") -> int:
        action = request(photo=photo, area=area)
        self.open(reference, action.end_ms)
        await self.poster.start(self.action, "police", action, shape(area), 0)
        return self.action

    async def close(self) -> None:
        """As the engine does it."""
        self.store.close(self.action, state="closing", now_ms=clock_ms(), outcome="none", result_body=b"x")
        await self.poster.tell(self.action, "result", 9, {"nl": "Gevonden."}, {}, clock_ms() + HOUR_MS)
        await self.poster.over(self.action, "closed", clock_ms())
        phase = PhaseRecord(
            action=self.action, phase=1, name="result", created_ms=0, end_ms=clock_ms() + HOUR_MS, texts={"nl": "G"},
            titles={},
        )  # fmt: skip
        assert self.store.add_phase(self.action, phase, [], state="closed", from_states=("closing",))

    async def cancel(self) -> None:
        self.store.close(self.action, state="cancelled", now_ms=clock_ms())
        await self.poster.over(self.action, "cancelled", clock_ms())

    def states(self) -> dict[str, str]:
        return {f"{view.account} {view.name}": view.state for view in self.poster.views(self.action)}

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  (the networks are another process)
                await trio.sleep(0.02)

    async def settled(self, names: set[str] = frozenset({"start"})) -> None:  # type: ignore[assignment]
        def done() -> bool:
            views = [view for view in self.poster.views(self.action) if view.name in names]
            return bool(views) and all(view.state not in ("pending", "intended", "again") for view in views)

        await self.until(done)


def request(*, photo: str | None = None, area: wire.Area = ASSEN, **changes: Any) -> wire.ActionRequest:
    fields: dict[str, Any] = {
        "reference": "r", "kind": "missing_child", "area": area, "texts": WORDS, "photo": photo,
        "end_ms": clock_ms() + HOUR_MS,
    }  # fmt: skip
    return wire.ActionRequest(**(fields | changes))


def shape(area: wire.Area) -> Shape:
    return shape_of(area)


def settings_for(
    providers: Providers,
    accounts: dict[str, dict[str, Any]] | None = None,
    *,
    remove_after_h: float = 24.0,
    timeout_s: float = 20.0,
) -> Settings:
    way = {"url": providers.url, "ca": str(providers.ca), "rate_per_s": 100.0}
    wanted = NETWORKS if accounts is None else accounts
    return load(
        None,
        {},
        social={"accounts": {name: way | one for name, one in wanted.items()}, "remove_after_h": remove_after_h},
        dispatch={"pause_first_s": 0.05, "pause_most_s": 0.2, "request_timeout_s": timeout_s, "attempts_max": 4},
    )


@asynccontextmanager
async def opened(
    folder: Path,
    providers: Providers,
    settings: Settings | None = None,
    clock: Callable[[], int] = clock_ms,
    callers: Callable[[str], Caller] | None = None,
) -> AsyncIterator[Room]:
    store = SqliteStore.open(folder / "ledger.db")
    shelf = Shelf(folder / "media", link=lambda name: "")
    try:
        async with (
            open_writer(store) as writer,
            open_poster(
                settings or settings_for(providers),
                store,
                writer,
                NamedAreas.open(folder / "areas"),
                shelf.get,
                clock,
                callers=callers,
            ) as poster,
        ):
            yield Room(store, poster, providers, shelf)
    finally:
        store.close_store()


def posts(providers: Providers) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = providers.http.get("/_posts").json()
    return found


def photo() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((300, 200), 80).convert("RGB").save(out, "PNG")
    return out.getvalue()


async def test_a_post_with_its_photo_news_and_the_result_as_replies_and_their_end(
    tmp_path: Path, providers: Providers
) -> None:
    async with opened(tmp_path, providers) as room:
        taken = room.shelf.put(photo())
        await room.start(photo=taken.hash)
        await room.settled()
        await room.poster.tell(room.action, "update", 1, {"nl": "Zij draagt een rode jas."}, {}, clock_ms() + HOUR_MS)
        await room.settled({"start", "update"})
        await room.close()
        await room.settled({"result"})
        found = posts(providers)
        assert len(found) == 9, "three accounts, three posts each"
        for network in ("x", "mastodon", "telegram"):
            start, update, result = (one for one in found if one["network"] == network)
            assert (start["text"], update["text"], result["text"]) == (
                WORDS["nl"], "Zij draagt een rode jas.", "Gevonden.",
            )  # fmt: skip
            assert update["reply_to"] == result["reply_to"] == start["id"]
            assert start["photo"] == hashlib.sha256(room.shelf.get(taken.hash)).hexdigest()
            assert not update["photo"]
            assert not result["photo"]
        views = room.poster.views(room.action)
        assert all(view.url.startswith("https://") for view in views)
        assert [view.photo for view in views] == [True, False, False] * 3
        await room.poster.withdraw(room.action)
        await room.until(lambda: all(view.removal == "removed" for view in room.poster.views(room.action)))
        assert all(one["removed_ms"] for one in posts(providers))


async def test_a_network_that_closes_what_is_idle_gets_the_next_post_all_the_same(
    tmp_path: Path, providers: Providers
) -> None:
    """It would speak HTTP/2 as well; each connection ends after its answer, without a word of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(providers.ca.parent / "cert.pem", providers.ca.parent / "key.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    answer = b'{"ok":true,"result":{"message_id":7}}'

    async def network(raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        request = b""
        while b"}" not in request and (more := await stream.receive_some()):
            request += more
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, network, listeners)
        port = listeners[0].socket.getsockname()[1]
        account = NETWORKS["politie_t"] | {"url": f"https://127.0.0.1:{port}"}
        async with opened(tmp_path, providers, settings_for(providers, {"politie_t": account})) as room:
            for reference in ("one", "two", "three"):
                await room.start(reference=reference)
                await room.settled()
                assert room.states() == {"politie_t start": "accepted"}
        nursery.cancel_scope.cancel()


async def test_a_cancelled_action_is_taken_back(tmp_path: Path, providers: Providers) -> None:
    async with opened(tmp_path, providers) as room:
        await room.start()
        await room.settled()
        await room.cancel()
        await room.until(lambda: all(view.removal == "removed" for view in room.poster.views(room.action)))
        assert [one["removed_ms"] is not None for one in posts(providers)] == [True] * 3
        await room.until(lambda: not room.store.scan("posts"))
        assert len(room.poster.views(room.action)) == 3, "what is done is still told"


async def test_posts_go_some_time_after_the_end(tmp_path: Path, providers: Providers) -> None:
    late = [0]
    settings = settings_for(providers, {"m": NETWORKS["politie_m"]}, remove_after_h=1.0)
    async with opened(tmp_path, providers, settings, lambda: clock_ms() + late[0]) as room:
        await room.start()
        await room.settled()
        await room.close()
        await room.settled({"result"})
        assert all(one["removed_ms"] is None for one in posts(providers))
        late[0] = HOUR_MS + 1_000
        await room.until(lambda: all(one["removed_ms"] for one in posts(providers)))


@pytest.mark.parametrize(
    ("mood", "network"),
    [({"hang": 1.0}, "x"), ({"hang": 1.0}, "telegram"), ({"garbage": 1.0}, "x"), ({"broken": 1.0}, "telegram")],
)
async def test_what_may_be_there_is_never_posted_again(
    tmp_path: Path, providers: Providers, mood: dict[str, float], network: str
) -> None:
    providers.moods(**{network: mood})
    account = {name: one for name, one in NETWORKS.items() if one["network"] == network}
    timeout_s = 2.0 if "hang" in mood else 20.0
    async with opened(tmp_path, providers, settings_for(providers, account, timeout_s=timeout_s)) as room:
        await room.start()
        await room.settled()
        assert list(room.states().values()) == ["unknown"]
        providers.moods()
        await room.close()
        await room.settled({"result"})
        found = posts(providers)
        assert [one["text"] for one in found] == ([] if "broken" in mood else [WORDS["nl"]]) + ["Gevonden."]
        assert found[-1]["reply_to"] == "", "who may have seen it hears how it ended"


@pytest.mark.parametrize("mood", [{"hang": 1.0}, {"garbage": 1.0}])
async def test_a_network_that_knows_our_key_is_asked_again(
    tmp_path: Path, providers: Providers, mood: dict[str, float]
) -> None:
    providers.moods(mastodon=mood)
    settings = settings_for(providers, {"m": NETWORKS["politie_m"]}, timeout_s=2.0 if "hang" in mood else 20.0)
    async with opened(tmp_path, providers, settings) as room:
        await room.start()
        await room.until(lambda: room.states().get("m start") == "again")
        providers.moods()
        await room.settled()
        assert room.states() == {"m start": "accepted"}
        (one,) = posts(providers)
        assert one["again"] >= 1


@pytest.mark.parametrize("mood", [{"storm": 0.5}, {"quota_per_s": 1.0}])
async def test_what_was_certainly_not_taken_is_tried_again(
    tmp_path: Path, providers: Providers, mood: dict[str, float]
) -> None:
    providers.moods(**dict.fromkeys(("x", "mastodon", "telegram"), mood))
    async with opened(tmp_path, providers) as room:
        await room.start()
        await room.settled()
        assert set(room.states().values()) == {"accepted"}
        assert len(posts(providers)) == 3


async def test_a_refusal_is_told_and_hurts_nobody_else(tmp_path: Path, providers: Providers) -> None:
    providers.moods(x={"refuse": 1.0})
    async with opened(tmp_path, providers) as room:
        await room.start()
        await room.settled()
        assert room.states() == {
            "politie_m start": "accepted", "politie_t start": "accepted", "politie_x start": "failed",
        }  # fmt: skip
        providers.moods()
        await room.close()
        await room.settled({"result"})
        assert room.states()["politie_x result"] == "cancelled", "where nothing was seen nothing needs an end"


async def test_a_picture_the_network_refuses_is_left_out(tmp_path: Path, providers: Providers) -> None:
    async with opened(tmp_path, providers, settings_for(providers, {"m": NETWORKS["politie_m"]})) as room:
        await room.start(photo="0" * 64)
        await room.settled()
        (view,) = room.poster.views(room.action)
        assert (view.state, view.photo, view.photo_reason) == ("accepted", False, "payload")


@pytest.mark.parametrize("ending", ["cancel", "close", "expire"])
async def test_nothing_is_posted_after_the_close(tmp_path: Path, providers: Providers, ending: str) -> None:
    late = [0]
    settings = settings_for(providers)
    async with opened(tmp_path, providers, settings, lambda: clock_ms() + late[0]) as room:
        room.open()
        room.store.set_paused(room.action, True)
        await room.poster.start(room.action, "police", request(), shape(ASSEN), 0)
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert set(room.states().values()) == {"pending"}
        if ending == "expire":
            late[0] = 2 * HOUR_MS
        else:
            await (room.cancel() if ending == "cancel" else room.close())
        await room.settled({"start", "result"})
        assert set(room.states().values()) == {"expired" if ending == "expire" else "cancelled"}
        assert posts(providers) == []


async def test_a_paused_action_goes_on_later_and_holds_up_nobody(tmp_path: Path, providers: Providers) -> None:
    async with opened(tmp_path, providers, settings_for(providers, {"m": NETWORKS["politie_m"]})) as room:
        paused = room.open("paused")
        room.store.set_paused(paused, True)
        await room.poster.start(paused, "police", request(), shape(ASSEN), 0)
        await room.start(reference="other")
        await room.settled()
        assert len(posts(providers)) == 1
        room.store.set_paused(paused, False)
        await room.until(lambda: len(posts(providers)) == 2)


async def test_who_tells_what(tmp_path: Path, providers: Providers) -> None:
    accounts: dict[str, dict[str, Any]] = {
        "everywhere": {"network": "mastodon", "credential": "a"},
        "belgium": {"network": "mastodon", "credential": "b", "area_kind": "country", "area_name": "BEL"},
        "netherlands": {"network": "mastodon", "credential": "c", "area_kind": "country", "area_name": "NLD"},
        "fires": {"network": "mastodon", "credential": "d", "kinds": ["fire"]},
        "village": {"network": "mastodon", "credential": "e", "tenants": ["village"]},
        "english": {"network": "mastodon", "credential": "f", "language": "en-GB"},
        "frisian": {"network": "mastodon", "credential": "g", "language": "fy"},
    }
    async with opened(tmp_path, providers, settings_for(providers, accounts)) as room:
        plans = await room.poster.plan("police", request(), shape(ASSEN))
        told = {plan.account: plan.language for plan in plans}
        assert told == {"everywhere": "nl", "netherlands": "nl", "english": "en", "frisian": "en"}
        border = wire.Circle(lon=4.78, lat=51.47, radius_m=5_000)
        assert "belgium" in {
            plan.account for plan in await room.poster.plan("police", request(area=border), shape(border))
        }
        assert await room.poster.plan("police", request(channels=["sms"]), shape(ASSEN)) == []
        assert await room.poster.plan("police", request(channels=["social"]), shape(ASSEN))


async def test_a_text_that_does_not_fit_is_refused_with_the_accounts_name(tmp_path: Path, providers: Providers) -> None:
    async with opened(tmp_path, providers) as room:
        for length, account in ((281, "x (politie_x)"), (501, "x (politie_x)")):
            with pytest.raises(Refused) as caught:
                await room.poster.plan("police", request(texts={"nl": "x" * length}), shape(ASSEN))
            assert account in caught.value.message
        await room.start()
        with pytest.raises(Refused):
            await room.poster.check(room.action, {"nl": "x" * 300}, {})
        await room.poster.check(room.action + 1, {"nl": "x" * 300}, {})


@pytest.mark.parametrize(
    "account",
    [
        {"network": "telegram", "credential": "1:a"},
        {"network": "x", "credential": "two words"},
        {"network": "mastodon", "credential": "a", "area_kind": "municipality", "area_name": "Nergens"},
    ],
)
async def test_an_account_that_cannot_be_is_refused_at_the_start(
    tmp_path: Path, providers: Providers, account: dict[str, Any]
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with opened(tmp_path, providers, settings_for(providers, {"one": account})):
            pass
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, Refused)
    assert error.where == "social.accounts.one"


async def test_a_network_that_is_not_there(tmp_path: Path, providers: Providers) -> None:
    gone = {"m": NETWORKS["politie_m"] | {"url": f"https://127.0.0.1:{free_port()}"}}
    async with opened(tmp_path, providers, settings_for(providers, gone)) as room:
        await room.start()
        await room.settled()
        (view,) = room.poster.views(room.action)
        assert (view.state, view.reason) == ("failed", "network")


class Dying(Exception):
    """The process ends here."""


@pytest.mark.parametrize("account", list(NETWORKS))
async def test_a_death_between_intent_and_result(tmp_path: Path, providers: Providers, account: str) -> None:
    """The first process dies with the post on the wire; the second asks again only where the key is known."""
    one = {account: NETWORKS[account]}
    settings = settings_for(providers, one)
    store = SqliteStore.open(tmp_path / "ledger.db")
    arrived: list[str] = []

    class Wire:
        """Lets the seen call arrive, and dies before its answer."""

        async def call(self, call: Call) -> Answer:
            answer = providers.http.request(call.method, call.url, headers=dict(call.headers), content=call.body)
            arrived.append(answer.text)
            raise Dying

        async def aclose(self) -> None: ...

    room: Room

    async def first_life() -> None:
        nonlocal room
        areas = NamedAreas.open(tmp_path / "areas")
        async with (
            open_writer(store) as writer,
            open_poster(
                settings, store, writer, areas, lambda name: b"", clock_ms, callers=lambda ca: Wire()
            ) as poster,
        ):
            room = Room(store, poster, providers, Shelf(tmp_path, link=lambda name: ""))
            await room.start()
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup):
        await first_life()
    store.close_store()
    assert len(arrived) == 1
    action = room.action
    async with opened(tmp_path, providers, settings) as second:
        second.action = action
        await second.settled()
        assert list(second.states().values()) == ["accepted" if account == "politie_m" else "unknown"]
        assert len(posts(providers)) == 1, "never twice"
        await second.cancel()
        if account == "politie_m":
            await second.until(lambda: posts(providers)[0]["removed_ms"] is not None)


async def test_what_the_disk_does_not_take_is_not_posted(tmp_path: Path, providers: Providers) -> None:
    settings = settings_for(providers, {"x": NETWORKS["politie_x"]})
    async with opened(tmp_path, providers, settings) as room:
        room.open()
        room.store.set_paused(room.action, True)
        await room.poster.start(room.action, "police", request(), shape(ASSEN), 0)
        full = [True]
        put = room.store.put

        def refusing(space: str, values: Any) -> None:
            if full[0]:
                raise Refused("store_unavailable", detail="disk full")
            put(space, values)

        room.store.put = refusing  # type: ignore[method-assign]
        room.store.set_paused(room.action, False)
        with trio.move_on_after(2.5):
            await trio.sleep_forever()
        assert posts(providers) == []
        with pytest.raises(Refused):
            await room.poster.tell(room.action, "update", 1, {"nl": "Nieuws."}, {}, clock_ms() + HOUR_MS)
        full[0] = False
        await room.settled()
        assert [one["text"] for one in posts(providers)] == [WORDS["nl"]]


async def test_everything_may_be_asked_twice(tmp_path: Path, providers: Providers) -> None:
    async with opened(tmp_path, providers) as room:
        action = request()
        room.open()
        for _ in range(3):
            await room.poster.start(room.action, "police", action, shape(ASSEN), 0)
        await room.settled()
        for _ in range(3):
            await room.poster.tell(room.action, "update", 1, {"nl": "Nieuws."}, {}, action.end_ms)
        await room.settled({"update"})
        for _ in range(2):
            await room.cancel()
            await room.poster.withdraw(room.action)
        await room.until(lambda: all(view.removal == "removed" for view in room.poster.views(room.action)))
        assert len(posts(providers)) == 6
        raw = room.store.get("posted", str(room.action))
        assert raw is None or len(msgspec.msgpack.decode(raw)) == 3
