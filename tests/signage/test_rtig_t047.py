"""RTIG T047: the kit of dialects, the letter of the standard, and the smallest exact sets of topics."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.errors import Refused
from signage.dialects import rtig_t047 as t047
from signage.shadow import OPEN
from signage.simulators.display import MOODS, WELL_BEHAVED, Mood
from signage.simulators.passenger import PassengerDisplay
from signage.views import view_of
from tests.signage import naive_arbitration
from tests.signage.dialect_kit import HOUR_MS, check_dialect, settle
from tests.signage.worlds import START_MS, World, action, shown

PLACES = [("ASN", "station", "a1"), ("ASN", "station", "a2"), ("ASN", "markt", "b1"), ("GRN", "hs", "c1")]


def displays(count: int, moods: Sequence[Mood] = (), **options: Any) -> list[PassengerDisplay]:
    return [
        PassengerDisplay(
            "maker", f"d{at}", PLACES[at % 4], position=(6.5, 53.0), mood=moods[at] if moods else "well", **options
        )
        for at in range(count)
    ]


def make(count: int) -> World:
    world = World([], passengers=displays(count))
    world.pass_time(2)
    return world


def make_with_ids(count: int) -> World:
    world = World([], passengers=displays(count, exact=False, legacy=True))
    world.pass_time(2)
    return world


def make_native(count: int) -> World:
    return World(["well"] * count)


@pytest.mark.parametrize("maker", [make, make_with_ids, make_native], ids=["t047", "t047 with ids", "native"])
def test_the_kit(maker) -> None:  # type: ignore[no-untyped-def]
    check_dialect(maker)


def test_no_display_finds_a_violation() -> None:
    world = make(6)
    for number, lane in enumerate((0, 1, 2, 0), start=1):
        texts = {"nl": "Vermist: jongen, 6 jaar.", "en": "Missing: boy, 6 years."}
        what = msgspec.structs.replace(action(end_ms=START_MS + HOUR_MS), texts=texts)
        world.show(number, what, lane=lane)
        settle(world)
    world.end(1, {"nl": "Gevonden."})
    world.end(2)
    world.pass_time(4_000, 10)
    assert [display.violations for display in world.displays] == [[]] * 6
    assert all("DONE" in display.statuses or "NO_DATA" in display.statuses for display in world.displays)


def test_discovery_makes_a_board_with_its_capability() -> None:
    world = make(2)
    view = view_of(world.core.boards.get("maker:d0"), world.now_ms)  # type: ignore[arg-type]
    assert (view.dialect, view.state, view.model) == ("t047", "ready", "PID-LED-3x26")
    board = world.core.boards.get("maker:d0")
    assert board is not None
    assert (board.caps.lines, board.caps.characters, board.caps.charset) == (3, 26, "utf-8")


def test_a_late_heartbeat_is_a_lost_display_and_life_brings_it_back() -> None:
    world = make(2)
    display = world.displays[0]
    world.leave(display)
    world.pass_time(120, 5)
    board = world.core.boards.get("maker:d0")
    assert board is not None
    assert board.presence == "lost"
    assert world.core.boards.get("maker:d1").presence == "ready"  # type: ignore[union-attr]
    world.join(display)
    assert board.presence == "ready"


def test_a_display_that_restarts_asks_and_gets_its_content() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    display = world.displays[0]
    display.power_off(world.now_ms)
    display.power_on()
    world.join(display)
    assert shown(display) == [(1, "start")]
    assert display.statuses[-1] == "DONE"


def test_a_display_that_only_beats_is_reset_and_then_says_where_it_stands() -> None:
    world = make(2)
    world.restart_engine(forgets=True)
    world.pass_time(150, 2)
    board = world.core.boards.get("maker:d0")
    assert board is not None
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    assert [shown(display) for display in world.displays] == [[(1, "start")]] * 2
    assert [display.violations for display in world.displays] == [[]] * 2


def test_a_new_display_drops_what_a_short_topic_told_its_neighbours() -> None:
    world = make(2)
    stranger = PassengerDisplay("maker", "new", PLACES[0], position=(6.5, 53.0))
    world.displays.append(stranger)
    stranger.power_on()
    stranger.connected = True  # it listens, and has not said a word yet
    world.show(1, action(end_ms=START_MS + HOUR_MS), boards={"maker:d0", "maker:d1"})
    assert shown(stranger) == [(1, "start")]
    world._publish(stranger.connect(world.now_ms))
    settle(world)
    assert shown(stranger) == []
    assert shown(world.displays[0]) == [(1, "start")]


def test_a_capability_that_makes_no_sense_is_told_of() -> None:
    world = make(1)
    body = b'{"vendorId": "maker", "deviceId": "d0", "textDisplayConfig": {"charsPerLine": 26, "lines": ' + b"9" * 400
    world.core.received("PID-LED/displayCapability/response", b'{"displayCapabilityResponse": ' + body + b"}}}", False)
    board = world.core.boards.get("maker:d0")
    assert board is not None
    assert "it can show nothing: it has 0 lines of 26 characters" in view_of(board, world.now_ms).problems


def test_faults_are_noted() -> None:
    world = make(1)
    world._publish([world.displays[0].fault("lamp dead", t047.message_id(1, "start"))])
    board = world.core.boards.get("maker:d0")
    assert board is not None
    assert any("lamp dead" in problem for problem in board.problems)


def test_one_publish_reaches_a_whole_locality() -> None:
    world = make(8)
    world.sent.clear()
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    content = [topic for topic, _ in world.sent if "/content/" in topic]
    assert content == ["CMS/informationMessage/content/ASN", "CMS/informationMessage/content/GRN"]
    settle(world)
    assert world.core.counts(1).shown == 8
    world.sent.clear()
    world.end(1)
    content = [topic for topic, _ in world.sent if "/content/" in topic]
    assert content == ["CMS/informationMessage/content/ASN", "CMS/informationMessage/content/GRN"]


def test_a_lying_or_stuck_display_is_not_counted_as_shown() -> None:
    world = make(2)
    stuck = world.displays[0]
    stuck.standing = lambda now_ms: ["9 Zernike  5 min", "", ""]
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.pass_time(120)
    counts = world.core.counts(1)
    assert (counts.shown, counts.laggards) == (1, ["maker:d0"])


def test_moods_are_counted_for_what_they_are() -> None:
    """Whatever a display does, it is a laggard by name or it shows it; and nobody else is held up."""
    world = World([], passengers=displays(len(MOODS), MOODS))
    world.pass_time(5)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.pass_time(60)
    by_mood = {display.mood: display for display in world.displays}
    laggards = world.core.counts(1).laggards
    assert laggards == [by_mood["mute"].id], "of those that announced themselves"
    assert all(shown(by_mood[mood]) == [(1, "start")] for mood in ("well", "slow", "flapping", "amnesia", "mute"))
    liar = by_mood["liar"]
    assert shown(liar) == [], "what it says and what it shows are two things: only a camera would tell"
    assert liar.id not in laggards
    faulty = world.core.boards.get(by_mood["faulty"].id)
    assert faulty is not None
    assert any("lamp 3" in problem for problem in faulty.problems)
    world.end(1)
    world.pass_time(60)
    assert all(
        shown(by_mood[mood]) == [] for mood in ("well", "slow", "flapping", "amnesia", "mute", "clock", "faulty")
    )
    assert world.core.counts(1).laggards == [by_mood["mute"].id]


@pytest.mark.parametrize("header", ["", "Halte Centraal       12:04"])
@pytest.mark.parametrize("target", ["over", "bottom line", "full"])
def test_a_part_beside_what_is_the_displays_own_is_proof(target: str, header: str) -> None:
    text = "Vermist: meisje (8), rode jas, blauwe rugzak, het laatst gezien bij Centraal. Gezien? Bel direct 112."
    world = World([], passengers=displays(4, header=header), overlay={"target_search": target})
    world.pass_time(3)
    world.show(1, action(text, end_ms=START_MS + HOUR_MS), lane=1)
    world.pass_time(60)
    assert world.core.counts(1).shown == 4
    assert world.core.counts(1).laggards == []
    world.update(1, text.replace("rode jas", "groene trui").replace("Centraal", "het zwembad"))
    world.pass_time(60)
    assert world.core.counts(1).updated == 4
    world.end(1)
    world.pass_time(60)
    assert world.core.counts(1).cleared == 4
    assert [display.violations for display in world.displays] == [[]] * 4


@pytest.mark.parametrize("size", [(1, 8), (1, 16), (2, 12), (3, 16), (4, 20)], ids=str)
@pytest.mark.parametrize("text", ["Vermist: meisje (8), rode jas. Gezien? Bel direct 112.", "Gevonden. Dank u wel."])
def test_small_displays_are_proven_piece_by_piece(size: tuple[int, int], text: str) -> None:
    for target in ("bottom line", "full") if size[0] == 1 else ("over", "bottom line", "full"):
        some = displays(2, lines=size[0], characters=size[1])
        world = World([], passengers=some, overlay={"target_search": target})
        world.pass_time(3)
        world.show(1, action(text, end_ms=START_MS + HOUR_MS), lane=1)
        world.pass_time(120)
        assert world.core.counts(1).shown == 2, target
        world.end(1)
        world.pass_time(30)
        assert world.core.counts(1).cleared == 2, target


@pytest.mark.parametrize("target", ["over", "bottom line", "full"])
def test_departures_alone_prove_nothing(target: str) -> None:
    """The display takes the message and shows it never; its departures name places that the text names."""
    world = World([], passengers=displays(1), overlay={"target_search": target})
    display = world.displays[0]
    display.standing = lambda now_ms: ["12 Centraal     3 min", "Zernike Noord", "Centraal"]
    world.pass_time(3)
    world.show(1, action("Vermist bij Centraal: meisje (8). Ook bij Zernike Noord.", end_ms=START_MS + HOUR_MS), lane=1)
    world.pass_time(300)
    assert (world.core.counts(1).shown, world.core.counts(1).laggards) == (0, ["maker:d0"])


def test_what_a_stuck_display_goes_on_showing_is_known_after_our_restart_too() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    stuck = world.displays[0]
    stuck.standing = lambda now_ms, lines=stuck.standing(world.now_ms): lines
    world.engine_cut()
    world.core.end(1, {}, world.now_ms, "closed")
    world.save()
    world.restart_engine()
    world.pass_time(120)
    assert (world.core.counts(1).cleared, world.core.counts(1).laggards) == (1, ["maker:d0"])


def test_a_display_that_comes_back_dark_is_told_of_and_told_again() -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    display = world.displays[0]
    board = world.core.boards.get("maker:d0")
    assert board is not None
    assert board.state not in OPEN
    real, display.standing = display.standing, lambda now_ms: ["12 Centraal     3 min", "", ""]
    world.leave(display)
    display.power_off(world.now_ms)
    display.power_on()
    world.join(display)
    world.pass_time(240)
    assert board.state in OPEN, "it had proven it before, and does not show it now"
    assert world.core.boards.get("maker:d1").state not in OPEN  # type: ignore[union-attr]
    display.standing = real
    world.pass_time(400)
    assert board.state not in OPEN


def test_of_two_taken_down_messages_the_one_not_in_sight_is_not_taken_for_gone() -> None:
    world = make(1)
    display = world.displays[0]
    for number, text in ((1, "Vermist: jongen, 6 jaar."), (2, "Vermist: meisje, 8 jaar.")):
        world.show(number, action(text, end_ms=START_MS + HOUR_MS))
    settle(world)
    display.standing = lambda now_ms: ["Vermist: jongen, 6 jaar." if now_ms // 1000 % 9 else "Vermist: meisje, 8 jaar."]
    world.end(1)
    world.end(2)
    world.pass_time(3)
    assert (world.core.counts(1).cleared, world.core.counts(2).cleared) == (0, 0)


def test_an_overline_and_a_bottom_line_share_the_display() -> None:
    overlay = {"target_search": "over", "target_information": "bottom line"}
    world = World([], passengers=displays(4), overlay=overlay)
    world.pass_time(3)
    text = "Vermist: meisje (8), rode jas, blauwe rugzak, het laatst gezien bij Centraal. Gezien? Bel direct 112."
    world.show(1, action(text, end_ms=START_MS + HOUR_MS), lane=1)
    world.show(
        2, action("De brug bij Zuidlaren is dicht tot 18 uur; rij om via de ring.", end_ms=START_MS + HOUR_MS), lane=2
    )
    world.pass_time(60)
    assert world.core.counts(1).shown == world.core.counts(2).shown == 4
    world.end(1)
    world.pass_time(60)
    assert world.core.counts(1).cleared == 4
    assert [shown(display) for display in world.displays] == [[(2, "start")]] * 4


def test_each_is_sent_the_characters_it_has_and_a_short_topic_only_what_all_below_it_have() -> None:
    rich, poor = displays(2), displays(4, encodings=["ASCII"])[2:]
    rich[0].location = rich[1].location = poor[0].location = ("ASN", "station", "a1")
    rich[0].localities = rich[1].localities = poor[0].localities = ["ASN"]
    poor[1].location, poor[1].localities = ("GRN", "hs", "c1"), ["GRN"]
    world = World([], passengers=[*rich, *poor])
    world.pass_time(3)
    world.sent.clear()
    world.show(1, action("Vermist: José, 6 jaar… € 500 beloning voor wie hem ziet", end_ms=START_MS + HOUR_MS))
    settle(world)
    assert [display.violations for display in world.displays] == [[]] * 4
    assert [display.film[-1].texts[0] for display in world.displays] == [
        "Vermist: José, 6 jaar… € 500 beloning voor wie hem ziet"] * 2 + [
        "Vermist: Jose, 6 jaar... EUR 500 beloning voor wie hem ziet"] * 2  # fmt: skip
    assert world.core.counts(1).shown == 4
    assert not [topic for topic, _ in world.sent if topic == "CMS/informationMessage/content/ASN"]
    world.end(1)
    settle(world)
    assert world.core.counts(1).cleared == 4


@pytest.mark.parametrize(
    ("encodings", "charset"),
    [
        (["ASCII", "UTF-8"], "utf-8"),
        (["UTF-8", "ASCII"], "utf-8"),
        (["us-ascii", "ISO_8859-1"], "iso-8859-1"),
        (["cp437", "Windows-1252", "latin1"], "windows-1252"),
        (["utf8"], "utf-8"),
        (["KOI8-R", "ASCII"], "ascii"),
        (["KOI8-R"], "koi8-r"),
        ([None, 7], "ascii"),
        ([], "utf-8"),
        ("ASCII", "ascii"),
    ],
)
def test_the_richest_character_set_counts(encodings: object, charset: str) -> None:
    body = {"textDisplayConfig": {"charEncodings": encodings, "lines": 3, "charsPerLine": 26}}
    assert t047.caps_of("v:d", "PID-LED", "m", body).charset == charset


def test_a_display_whose_clock_is_late_does_not_wait() -> None:
    world = World([], passengers=displays(1))
    world.displays[0].clock_error_ms = -7_200_000
    world.pass_time(3)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert shown(world.displays[0]) == [(1, "start")]


@pytest.mark.parametrize(
    "payload",
    [
        {
            "displayCapabilityResponse": {
                "textDisplayConfig": {"charEncdings": ["ISO-8859-1"], "lines": "2", "charsPerLine": 20}
            }
        },
        {"textDisplayConfig": {"charEncodings": "ISO-8859-1", "lines": 2, "charsPerLine": "20"}, "rtigVersion": 1},
    ],
)
def test_capability_is_read_leniently(payload: dict[str, object]) -> None:
    heard = t047.read("PID-LED/displayCapability/response", json.dumps(payload).encode())
    assert heard is not None
    caps = t047.caps_of("v:d", "PID-LED", "m", heard.body)
    assert (caps.lines, caps.characters, caps.charset) == (2, 20, "iso-8859-1")


@pytest.mark.parametrize(
    ("said", "pages", "scrolls"),
    [(True, 8, True), ("True", 8, True), (" TRUE", 8, True), (1, 8, True), ("1", 8, True), (None, 8, False),
     ("", 8, False), (False, 1, False), ("false", 1, False), (0, 1, False), ([], 1, False)],
)  # fmt: skip
def test_a_yes_or_no_is_read_however_it_is_spelt(said: object, pages: int, scrolls: bool) -> None:
    text = {"lines": 1, "charsPerLine": 20, "canPage": said, "canScroll": said}
    caps = t047.caps_of("v:d", "PID-LED", "m", {"textDisplayConfig": text})
    assert (caps.pages, caps.scrolls) == (pages, scrolls)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"\xff", b"7", b"{" * 70_000, b'{"heartbeat": 3}', b"{}"])
def test_garbage_changes_nothing(payload: bytes) -> None:
    world = make(2)
    for topic in ("PID-LED/heartbeat/service", "PID-LED/discovery/request", "PID-LED/textSnapshot/response",
                  "CMS/informationMessage/request", "PID-LED/sensorEvent/service/DATA"):  # fmt: skip
        world.core.received(topic, payload, False)
    assert len(world.core.boards) == 2


def test_a_page_that_two_messages_share_proves_neither() -> None:
    world = make(1)
    display = world.displays[0]
    text = "Vermist in Assen: {}, zes jaar oud, met een gele regenjas en blauwe laarzen aan. Gezien? Bel direct 112."
    world.show(1, action(text.format("jongen"), end_ms=START_MS + HOUR_MS))
    world.show(2, action(text.format("meisje"), end_ms=START_MS + HOUR_MS))
    real, display.standing = display.standing, lambda now_ms: ["en blauwe laarzen aan.", "Gezien? Bel direct 112."]
    world.pass_time(20)
    assert world.core.counts(1).shown == world.core.counts(2).shown == 0
    display.standing = real
    world.pass_time(60)
    assert world.core.counts(1).shown == world.core.counts(2).shown == 1


def test_not_of_this_standard() -> None:
    assert t047.read("signage/1/boards/b/caps", b"{}") is None
    with pytest.raises(Refused):
        t047.read("PID-LED/heartbeat/service", b"nonsense")


def story(seed: int, steps: int) -> World:
    """Faults and actions at random, then peace."""
    dice = random.Random(seed)
    moods: list[Mood] = [dice.choice(MOODS) for _ in range(dice.randint(0, 3))]
    moods += ["well"] * dice.randint(2, 5)
    header = "Halte Centraal  12:04" if seed % 5 == 0 else ""
    world = World([], passengers=displays(len(moods), moods, exact=bool(seed % 2), legacy=seed % 3 == 0, header=header))
    world.pass_time(20)
    running: list[int] = []
    ids = [board.id for board in world.core.boards]
    for number in range(1, steps + 1):
        display = dice.choice(world.displays)
        match dice.randrange(11):
            case 0 | 1 | 2:
                chosen = set(dice.sample(ids, dice.randint(1, len(ids)))) if dice.random() < 0.7 else set(ids)
                text = f"Bericht {number}: uitkijken naar een jongen met gele regenjas."
                end_ms = world.now_ms + dice.choice((20_000, 120_000, HOUR_MS))
                world.show(number, action(text, end_ms=end_ms), lane=dice.randrange(3), boards=chosen)
                running.append(number)
            case 3 if running:
                world.end(running.pop(dice.randrange(len(running))))
            case 4 if running:
                world.end(running.pop(dice.randrange(len(running))), {"nl": "Gevonden. Dank u wel voor het uitkijken."})
            case 5:
                world.leave(display)
            case 6:
                if not display.connected and dice.random() < 0.5:
                    display.power_off(world.now_ms)
                    display.power_on()
                world.join(display)
            case 7:
                world.engine_cut()
            case 8:
                world.engine_back(broker_forgot=dice.random() < 0.3)
            case 9:
                world.restart_engine()
            case 10 if running:
                world.update(dice.choice(running), f"Nieuw bericht {number}: zij draagt een groene jas.")
        world.pass_time(dice.choice((1, 5, 40)))
    world.engine_back()
    for display in world.displays:
        world.join(display)
    world.pass_time(190, 2)
    for _ in range(3):  # an end of some action may fall on this very moment
        good = {display.id for display in world.displays if display.mood in WELL_BEHAVED}
        if any(board.state in OPEN for board in world.core.boards if board.id in good):
            world.pass_time(30)
    return world


def check_peace(world: World) -> None:
    for display in world.displays:
        assert display.violations == []
        if display.mood not in WELL_BEHAVED:
            continue
        board = world.core.boards.get(display.id)
        assert board is not None
        expected = naive_arbitration.on(list(board.items), world.now_ms)
        assert sorted(number for number, _ in shown(display)) == sorted(expected), display.id
        assert sorted(expected) == sorted(world.truth(display.id))
        assert board.state not in OPEN, board
        wanted = {t047.message_id(item.action, item.stage) for item in board.items}
        kept = {
            topic.rpartition("/")[2]
            for topic, payload in world.retained.items()
            if topic.startswith("CMS/informationMessage/content/") and f"/{display.device}/" in topic
            if json.loads(payload)["informationMessage"]["messageAction"] == "REPLACE"
        }
        assert kept <= wanted, "what was taken down would come back"


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_after_any_faults_displays_show_what_they_must(seed: int) -> None:
    check_peace(story(seed, 20))


@pytest.mark.long
@pytest.mark.timeout(3_600)
@given(st.integers(0, 2**32))
@settings(max_examples=500)
def test_after_many_faults_displays_show_what_they_must(seed: int) -> None:
    check_peace(story(seed, 40))
