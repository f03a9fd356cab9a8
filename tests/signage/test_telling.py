"""What displays are told and what the broker keeps for them: nothing that was taken down comes back, nobody is told
twice, and nothing is kept for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from signage.dialects import rtig_t047 as t047
from signage.dialects.rtig_t047 import Location
from signage.displays import Display, Displays
from signage.lists import Listed
from signage.reconcile import LATE_PROOF_MS
from signage.simulators.models import PASSENGER_MODELS
from signage.simulators.passenger import PassengerDisplay
from signage.telling import Teller
from tests.signage.dialect_kit import HOUR_MS, settle
from tests.signage.worlds import START_MS, World, action, shown

CONTENT = "CMS/informationMessage/content/"


def make(count: int, *, exact: bool = False, stop: str = "a1") -> World:
    """Displays at one stop. Not `exact`: they hear their retained copies."""
    place = ("ASN", "station", stop)
    world = World(
        [],
        passengers=[PassengerDisplay("v", f"d{at}", place, position=(6.5, 53.0), exact=exact) for at in range(count)],
    )
    world.pass_time(2)
    return world


def restart(world: World, display: PassengerDisplay) -> None:
    world.leave(display)  # type: ignore[arg-type]
    display.power_off(world.now_ms)
    display.power_on()
    world.join(display)  # type: ignore[arg-type]


def resubscribe(world: World, display: PassengerDisplay) -> None:
    """A display that has what it has, and is given what the broker keeps for it, while the engine is away."""
    world.engine_cut()
    for topic, payload in sorted(world.retained.items()):
        if display.hears(topic):
            display.receive(topic, payload, world.now_ms)


def copies(world: World) -> Iterator[tuple[str, str, str]]:
    """What the broker keeps: address, message id, action."""
    for topic, payload in world.retained.items():
        if topic.startswith(CONTENT):
            address, _, identifier = topic.removeprefix(CONTENT).rpartition("/")
            yield address, identifier, json.loads(payload)["informationMessage"]["messageAction"]


def sent(world: World) -> list[str]:
    return [topic.removeprefix(CONTENT) for topic, payload in world.sent if topic.startswith(CONTENT) and payload]


def test_what_was_taken_down_does_not_come_back_to_a_display_that_had_restarted() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    restart(world, world.displays[0])
    settle(world)
    assert [each[2] for each in copies(world)] == ["REPLACE"], "told alone, and kept for it"
    world.end(1)
    assert {each[2] for each in copies(world)} == {"DELETE"}
    settle(world)
    assert world.core.counts(1).cleared == 2
    for display in world.displays:
        resubscribe(world, display)
        assert shown(display) == []


def test_a_copy_has_the_text_of_now() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    restart(world, world.displays[0])
    world.update(1, "Nieuw signalement: blauwe jas en zwarte pet.")
    assert {json.loads(payload)["informationMessage"]["messageText"][0]["text"]
            for topic, payload in world.retained.items() if topic.startswith(CONTENT)} == {
        "Nieuw signalement: blauwe jas en zwarte pet."}  # fmt: skip


def test_copies_from_before_our_own_restart_are_taken_down_too() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    restart(world, world.displays[0])
    settle(world)
    world.restart_engine()
    settle(world)
    world.end(1)
    assert {each[2] for each in copies(world)} <= {"DELETE"}


def test_copies_of_what_was_over_when_we_started_again_are_cleared() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + 60_000))
    restart(world, world.displays[0])
    settle(world)
    assert list(copies(world)) != []
    world.engine_cut()
    world.now_ms += int(60_000 + world.settings.grace_s * 1000)
    world.restart_engine()
    settle(world)
    assert list(copies(world)) == []
    world.sent.clear()
    world.engine_cut()
    world.engine_back()
    assert not [topic for topic, payload in world.sent if topic.startswith(CONTENT)], "once"


def test_what_is_kept_where_a_display_stood_is_cleared_when_it_moves() -> None:
    world = make(2)
    display = world.displays[0]
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    restart(world, display)
    before = {each[0] for each in copies(world)}
    assert "ASN/station/a1/v/d0" in before
    display.location, display.localities = ("GRN", "hs", "c9"), ["GRN"]
    restart(world, display)
    settle(world)
    assert "ASN/station/a1/v/d0" not in {each[0] for each in copies(world)}
    assert shown(display) == [(1, "start")]
    world.end(1)
    assert shown(display) == []
    assert {each[2] for each in copies(world)} <= {"DELETE"}


def enlist(world: World, place: Location, device: str) -> None:
    caps = msgspec.structs.replace(PASSENGER_MODELS["pid-led-3x26"], board=f"v:{device}")
    world.core.enlist([Listed("t047", caps, "v", device, (place,))])


def test_a_listed_display_that_never_came_does_not_stand_in_the_way_of_a_short_topic() -> None:
    world = make(20, exact=True)
    settle(world)
    enlist(world, Location("ASN", "station", "a1"), "never")
    world.sent.clear()
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    identifier = t047.message_id(1, "start")
    assert sent(world) == ["ASN", f"ASN/station/a1/v/never/{identifier}"], (
        "one for all, and its own copy for when it comes"
    )
    assert all(shown(display) == [(1, "start")] for display in world.displays)


def test_one_that_must_not_show_it_stands_in_the_way_though_it_is_away() -> None:
    world = make(3, exact=True)
    settle(world)
    enlist(world, Location("ASN", "station", "a1"), "never")
    world.sent.clear()
    world.show(1, action(end_ms=START_MS + HOUR_MS), boards={"v:d0", "v:d1", "v:d2"})
    assert all("/v/d" in topic for topic in sent(world))


def test_who_was_told_the_same_already_does_not_stand_in_the_way() -> None:
    displays = Displays()
    teller = Teller(displays, dict, set().__contains__, 60_000)
    place = [Location("ASN", "station", "a1")]
    ours = [Display("PID-LED", "v", str(at), place, "m", "", None) for at in range(3)]
    for display in ours:
        display.strange = False
        displays.add(display)
    teller.drop(ours[0], "x", START_MS + HOUR_MS, START_MS)
    teller.stir(ours[0])
    teller.settle(START_MS)
    assert topics(teller) == [f"{CONTENT}ASN/station/a1/v/0/x", f"{CONTENT}ASN/station/a1/v/0"]
    for display in ours[1:]:
        teller.drop(display, "x", START_MS + HOUR_MS, START_MS)
        teller.stir(display)
    teller.settle(START_MS)
    assert topics(teller) == [f"{CONTENT}ASN"]


def topics(teller: Teller) -> list[str]:
    out = []
    while (packet := teller.take()) is not None:
        teller.sent(packet)
        out.append(packet.topic)
    return out


def test_a_packet_lost_on_its_way_is_told_again_with_the_connection_not_after_the_lag() -> None:
    world = make(3, exact=True)
    settle(world)
    world.link_up = False
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    while world.core.take() is not None:
        pass  # all of it left us, and the broker never had it
    world.engine_cut()
    world.show(2, action("Vermist: jongen, 6 jaar.", end_ms=START_MS + HOUR_MS))
    world.engine_back()
    assert [shown(display) for display in world.displays] == [[(1, "start"), (2, "start")]] * 3
    assert world.now_ms < START_MS + 60_000


def test_a_take_down_lost_on_its_way_is_told_again_too() -> None:
    world = make(3, exact=True)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    world.link_up = False
    world.end(1)
    while world.core.take() is not None:
        pass
    world.engine_cut()
    world.show(2, action("Vermist: jongen, 6 jaar.", end_ms=START_MS + HOUR_MS))
    world.engine_back()
    assert [shown(display) for display in world.displays] == [[(2, "start")]] * 3


def test_all_is_told_again_by_the_short_topics() -> None:
    world = make(20, exact=True)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    world.engine_cut()
    world.sent.clear()
    world.engine_back()
    assert sent(world) == ["ASN"]


def test_a_busy_display_forgets_what_is_over_and_so_does_the_broker() -> None:
    world = make(2)
    world.show(1, action("Bericht een.", end_ms=START_MS + 10 * HOUR_MS))
    for number in range(2, 6):
        world.show(number, action(f"Bericht {number} van deze dag.", end_ms=world.now_ms + 120_000))
        restart(world, world.displays[0])
        settle(world)
        world.end(number)
        settle(world)
    assert len({each[1] for each in copies(world)}) > 1
    world.pass_time(120 + world.settings.grace_s + 5, 5)
    assert {each[1] for each in copies(world)} == {t047.message_id(1, "start")}
    world.sent.clear()
    restart(world, world.displays[0])
    told = [json.loads(payload)["informationMessage"]["messageId"]
            for topic, payload in world.sent if topic.startswith(CONTENT) and payload]  # fmt: skip
    assert set(told) == {t047.message_id(1, "start")}, "nothing of what is over is told to one that comes back"


def test_a_lost_order_to_forget_is_given_again() -> None:
    displays = Displays()
    teller = Teller(displays, dict, set().__contains__, 1_000)
    display = Display("PID-LED", "v", "d", [Location("L", "c", "s")], "m", "", None)
    display.strange = False
    displays.add(display)
    teller.drop(display, "x", START_MS, START_MS)
    teller.stir(display)
    teller.settle(START_MS)
    assert len(topics(teller)) == 2
    teller.tidy(display, START_MS + 1_000)
    packet = teller.take()
    assert packet is not None
    assert (packet.topic, packet.payload, packet.retain) == (f"{CONTENT}L/c/s/v/d/x", b"", True)
    teller.up()
    again = teller.take()
    assert again == packet
    teller.sent(packet)
    teller.up()
    assert teller.take() is None
    assert display.told == {}


def test_copies_of_an_action_that_is_long_forgotten_are_cleared_when_they_are_heard_of() -> None:
    """On MQTT 3.1.1 a copy has no expiry: the engine was away when its action ended, and for more than a day after."""
    world = make(2)
    world.show(1, action(end_ms=START_MS + 60_000))
    restart(world, world.displays[0])
    settle(world)
    kept = {topic: payload for topic, payload in world.retained.items() if topic.startswith(CONTENT)}
    assert kept
    world.link_up = False
    world.now_ms += LATE_PROOF_MS + HOUR_MS
    world.core = world._core()
    world.pass_time(2)
    world.save()
    assert world.core.showings == {}, "forgotten before there was a broker"
    assert list(copies(world)) != []
    world.restart_engine()
    assert list(copies(world)) == []


def test_copies_of_others_are_left_alone() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    other = f"{CONTENT}ASN/station/a1/v/d0/6f7e1c1e-58a8-4f43-9a40-7d1c54a1b04f"
    world.retained[other] = t047.deletion("6f7e1c1e-58a8-4f43-9a40-7d1c54a1b04f")
    world.restart_engine()
    settle(world)
    assert other in world.retained


def test_after_our_restart_only_copies_that_are_there_are_made_again() -> None:
    world = make(20, exact=True)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    restart(world, world.displays[3])
    settle(world)
    assert [each[0] for each in copies(world)] == ["ASN/station/a1/v/d3"]
    world.sent.clear()
    world.restart_engine()
    settle(world)
    assert sent(world) == ["ASN", f"ASN/station/a1/v/d3/{t047.message_id(1, 'start')}"]


def test_a_copy_that_is_wrong_is_made_right_as_soon_as_it_is_heard_of() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    restart(world, world.displays[0])
    settle(world)
    topic, old = next((topic, payload) for topic, payload in world.retained.items() if topic.startswith(CONTENT))
    world.end(1)
    world.restart_engine()
    settle(world)
    world.retained[topic] = old  # it was on its way when the broker died
    world.core._passengers._standard._displays.get("v:d0").kept.clear()  # type: ignore[union-attr]
    world.core.received(topic, old, True)
    world.pump()
    assert {each[2] for each in copies(world)} <= {"DELETE"}
