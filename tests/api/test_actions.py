"""Actions through the public API, on a real engine: started once, counted whole, closed, their results told."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import pytest

from fanout import wire
from fanout.client import Client
from fanout.demo.world import RECEIPT_SECRET
from fanout.errors import Refused
from fanout.inbound.receipts import sign
from tests.api.conftest import PEOPLE, Running

_numbers = count()


def request(**changes: object) -> wire.ActionRequest:
    fields: dict[str, object] = {
        "reference": f"case-{next(_numbers)}",
        "kind": "missing_child",
        "area": wire.Circle(lon=4.9, lat=52.37, radius_m=8_000),
        "texts": {"nl": "Vermist: meisje, 8 jaar, rode jas. Bel 0800-0011."},
        "end_ms": int(time.time() * 1000) + 600_000,
    }
    return wire.ActionRequest(**{**fields, **changes})  # type: ignore[arg-type]


def wait_until(engine: Client, action: int, done: Callable[[wire.ActionView], bool]) -> wire.ActionView:
    for view in engine.follow(action):
        assert_adds_up(view)
        if done(view):
            return view
    return engine.view(action)


def told(view: wire.ActionView) -> bool:
    return not any(tally.waiting for tally in view.tallies)


def assert_adds_up(view: wire.ActionView) -> None:
    for tally in view.tallies:
        parts = tally.waiting + tally.accepted + tally.failed + tally.expired + tally.cancelled + tally.unknown
        assert tally.selected == parts


def test_an_action_reaches_everyone_and_its_result_goes_to_those_who_got_it(engine: Client) -> None:
    accepted = engine.start(request())
    assert 0 < accepted.people < PEOPLE
    assert sum(channel.people for channel in accepted.channels) == accepted.people
    start = wait_until(engine, accepted.id, told).tallies[0]
    assert start.selected == accepted.people
    assert start.accepted > 0.9 * start.selected
    assert start.accepted + start.failed == start.selected
    assert start.first_ms is not None
    assert start.p90_ms is not None
    assert start.last_ms is not None
    assert 0 <= start.first_ms <= start.p90_ms <= start.last_ms

    end = wire.ResultRequest(reference="r", outcome="direct", texts={"nl": "Het meisje is gevonden. Dank u wel."})
    assert engine.result(accepted.id, end).state == "closed"
    view = wait_until(engine, accepted.id, told)
    assert [tally.phase for tally in view.tallies] == ["start", "result"]
    assert view.tallies[1].selected == start.accepted
    assert view.outcome == "direct"
    assert engine.result(accepted.id, end).state == "closed"
    assert len(engine.view(accepted.id).tallies) == 2, "the same result again told nobody twice"
    with pytest.raises(Refused, match="action_not_open"):
        engine.cancel(accepted.id, wire.ReasonRequest(reference="x"))


def test_the_same_reference_is_the_same_action_also_when_sent_at_once(running: Running) -> None:
    same = request()

    def start(_: int) -> wire.ActionAccepted:
        with Client(running.address, running.key) as engine:
            return engine.start(same)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(start, range(8)))
    assert len({answer.id for answer in answers}) == 1
    assert len({answer.people for answer in answers}) == 1
    assert [answer.repeated for answer in answers].count(False) == 1
    with Client(running.address, running.key) as engine, pytest.raises(Refused) as caught:
        engine.start(request(reference=same.reference, kind="fire"))
    assert caught.value.code == "reference_conflict"


def test_a_paused_action_waits_and_a_cancelled_one_ends(engine: Client) -> None:
    accepted = engine.start(request(area=wire.Everyone()))
    reason = wire.ReasonRequest(reference="p")
    assert engine.pause(accepted.id, reason).state == "paused"
    assert engine.pause(accepted.id, reason).state == "paused"
    assert engine.resume(accepted.id, reason).state == "open"
    assert engine.cancel(accepted.id, reason).state == "cancelled"
    assert engine.cancel(accepted.id, reason).state == "cancelled"
    view = wait_until(engine, accepted.id, told)
    assert view.tallies[0].selected == accepted.people


def test_an_action_ends_at_its_end(engine: Client) -> None:
    accepted = engine.start(request(end_ms=int(time.time() * 1000) + 4_000))
    view = wait_until(engine, accepted.id, lambda view: view.state == "expired")
    assert view.state == "expired"
    assert_adds_up(view)


def test_preview_has_no_effect_and_says_what_start_would_do(engine: Client) -> None:
    action = request()
    fields = {name: getattr(action, name) for name in ("kind", "area", "texts", "end_ms")}
    preview = engine.preview(wire.PreviewRequest(**fields))
    accepted = engine.start(action)
    assert preview.people == accepted.people
    assert preview.channels == accepted.channels
    assert {item.channel for item in preview.renderings} == {item.channel for item in preview.channels}
    sms = next(item.people for item in preview.channels if item.channel == "sms")
    assert preview.sms_parts >= sms


def test_a_polygon_selects_as_the_circle_around_it_does(engine: Client) -> None:
    ring = [(4.8, 52.3), (5.0, 52.3), (5.0, 52.45), (4.8, 52.45), (4.8, 52.3)]
    hole = [(4.85, 52.35), (4.95, 52.35), (4.95, 52.4), (4.85, 52.4), (4.85, 52.35)]
    whole = engine.start(request(area=wire.Polygon(coordinates=[ring]))).people
    ringed = engine.start(request(area=wire.Polygon(coordinates=[ring, hole]))).people
    inner = engine.start(request(area=wire.Polygon(coordinates=[hole]))).people
    assert whole > ringed > 0
    assert whole <= ringed + inner, "who has one place in the hole and one outside is in both"


def test_participants_come_and_go_at_once(engine: Client) -> None:
    here = wire.Circle(lon=-30.0, lat=60.0, radius_m=500)
    people = [
        wire.Participant(
            id=f"new-{number}",
            places=[wire.Place(lon=-30.0, lat=60.0)],
            addresses=[wire.Address(channel="sms", value=f"+3161234{number:04}")],
        )
        for number in range(3)
    ]
    engine.put_participants(people)
    assert engine.start(request(area=here)).people == 3
    assert engine.erase("new-1").erased == 1
    assert engine.start(request(area=here)).people == 2
    with pytest.raises(Refused, match="not_found"):
        engine.erase("new-1")
    away = wire.Participant(id="new-2", places=[wire.Place(lon=10.0, lat=10.0)], addresses=people[2].addresses)
    engine.put_participants([away])
    assert engine.start(request(area=here)).people == 1


def test_who_is_on_the_way_is_reached_beside_who_lives_there(engine: Client) -> None:
    home, away = (-31.0, 60.0), (-31.5, 60.0)
    people = [
        wire.Participant(
            id=f"live-{number}",
            places=[wire.Place(lon=home[0], lat=home[1])],
            addresses=[wire.Address(channel="sms", value=f"+3161235{number:04}")],
        )
        for number in range(4)
    ]
    engine.put_participants(people)
    now_ms = int(time.time() * 1000)
    seen = [wire.LivePosition(id=f"live-{n}", lon=away[0], lat=away[1], at_ms=now_ms - 60_000) for n in range(3)]
    assert engine.positions(seen).accepted == 3

    def reached(spot: tuple[float, float], **live: Any) -> int:
        fields = {"area": wire.Circle(lon=spot[0], lat=spot[1], radius_m=500), "live": wire.Live(**live)}
        asked = request(**fields)
        said = {name: getattr(asked, name) for name in ("kind", "area", "texts", "end_ms", "live")}
        preview = engine.preview(wire.PreviewRequest(**said))
        if preview.people:
            assert engine.start(asked).people == preview.people
        return preview.people

    assert (reached(home), reached(away)) == (4, 3)
    assert (reached(home, mode="instead"), reached(away, mode="instead")) == (1, 3)
    assert (reached(home, mode="ignore"), reached(away, mode="ignore")) == (4, 0)
    assert (reached(home, mode="instead", fresh_s=30), reached(away, fresh_s=30)) == (4, 0)
    for number in range(4):
        engine.erase(f"live-{number}")


def test_receipts_count_as_delivered_whoever_sends_them_how_often(running: Running, engine: Client) -> None:
    accepted = engine.start(request(area=wire.Everyone(), channels=["sms"]))
    wait_until(engine, accepted.id, told)
    reports = [{"reference": f"{accepted.id}-0-{row}", "status": {"code": 2}} for row in range(PEOPLE + 100)]
    content = wire.encode_json({"messages": {"msg": reports}})
    signed = {"X-Signature-256": sign(content, RECEIPT_SECRET)}
    for _ in range(2):
        answer = httpx.post(
            f"{running.address}/v1/receipts/sms", content=content, headers=signed, trust_env=False, timeout=60
        )
        assert answer.status_code == 200, answer.json()
    assert answer.json()["changed"] == 0, "the same receipts again change nothing"
    view = engine.view(accepted.id)
    tally = view.tallies[0]
    assert tally.delivered == tally.accepted == tally.selected, "a receipt also settles what seemed to have failed"
    wrong = httpx.post(
        f"{running.address}/v1/receipts/sms",
        content=content,
        headers={"X-Signature-256": "sha256=00"},
        trust_env=False,
        timeout=60,
    )
    assert wrong.json()["code"] == "key_invalid"


@pytest.mark.parametrize("channel", ["sms", "voice"])
def test_suppliers_bring_their_receipts(engine: Client, channel: wire.ActionChannel) -> None:
    """The simulators post them to the API, signed, some doubled and some late; all count, each once."""
    accepted = engine.start(request(area=wire.Everyone(), channels=[channel]))
    wait_until(engine, accepted.id, told)
    view = wait_until(engine, accepted.id, lambda view: view.tallies[0].delivered == view.tallies[0].accepted)
    tally = view.tallies[0]
    assert tally.delivered == tally.accepted > 0
    assert tally.selected == tally.accepted + tally.failed
