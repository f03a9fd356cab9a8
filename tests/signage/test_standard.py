"""What displays say of themselves: type, status, place; and how their answers are found."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signage.dialects import rtig_t047 as t047
from signage.dialects.native import Caps, Reported
from signage.dialects.rtig_t047 import Location, Status
from signage.displays import REQUESTS_OPEN_MAX, Placed
from signage.lists import Listed, read_list
from signage.simulators.models import PASSENGER_MODELS
from signage.simulators.passenger import PassengerDisplay
from signage.standard import Standard
from signage.views import page_of
from tests.signage.dialect_kit import HOUR_MS, settle
from tests.signage.worlds import START_MS, World, action, shown

PLACE = ("ASN", "station", "a1")


class Told:
    """A `Standard` with nothing around it; what it tells is kept."""

    def __init__(self) -> None:
        self.born: list[Caps] = []
        self.reports: list[Reported] = []
        self.states: list[tuple[str, Status]] = []
        self.troubles: list[str] = []
        self.standard = Standard(
            born=self.born.append,
            unable=lambda caps: None,
            reported=lambda board, report: self.reports.append(report),
            present=lambda board, alive: None,
            stated=lambda board, status: self.states.append((board, status)),
            trouble=lambda board, words: self.troubles.append(words),
            expected=lambda board: [],
            running=dict,
            over=lambda identifier: False,
            met=lambda board: None,
            moved=lambda board, position: None,
            grace_ms=60_000,
        )

    def hear(self, topic: str, body: Any, now_ms: int = START_MS) -> None:
        self.standard.received(topic, json.dumps(body).encode(), now_ms)

    def asked(self, what: str) -> list[tuple[str, str]]:
        """Topics of a kind of request since the last look, and request ids."""
        out = []
        while (packet := self.standard.take()) is not None:
            if f"/{what}/request/" in packet.topic:
                out.append((packet.topic.split("/")[0], json.loads(packet.payload)[f"{what}Request"]["requestId"]))
        return out


def ids(device: int) -> dict[str, str]:
    return {"vendorId": "v", "deviceId": f"d{device}"}


# --- the type ---------------------------------------------------------------------------------------------------------


def test_the_type_is_learnt_from_whatever_is_said_on_a_topic_of_its_own() -> None:
    told = Told()
    told.hear("CMS/informationMessage/request", {"informationMessageRequest": {**ids(0), "requestId": "r"}})
    kinds = told.asked("displayCapability")
    assert [kind for kind, _ in kinds] == [*t047.TYPES], "nobody knows which: every type is asked, by one request"
    assert len({request_id for _, request_id in kinds}) == 1
    told.hear("PID-LCD/heartbeat/service", {"heartbeat": ids(0)})
    assert [kind for kind, _ in told.asked("displayCapability")] == ["PID-LCD"]
    told.standard.tick(START_MS + 60_000)
    assert {kind for kind, _ in told.asked("displayCapability")} == {"PID-LCD"}


def test_lcd_displays_that_only_ask_for_content_and_beat_become_boards() -> None:
    displays = [PassengerDisplay("v", f"d{at}", PLACE, kind="PID-LCD", position=(6.5, 53.0)) for at in range(20)]
    world = World([], passengers=displays)
    world.pass_time(3)
    world.restart_engine(forgets=True)
    for display in displays:
        world._publish([display._ask_content(world.now_ms)])
    world.pass_time(40)
    world.sent.clear()
    world.pass_time(60)
    assert len(world.core.boards) == 20
    assert not [topic for topic, _ in world.sent if "displayCapability" in topic]
    assert {board.caps.colours for board in world.core.boards} == {"PID-LCD"}
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    assert world.core.counts(1).shown == 20


def test_a_listed_display_is_of_unknown_type_until_it_speaks() -> None:
    told = Told()
    told.standard.enlist("v", "d0", Placed((), "", None), "m")
    told.hear("PID-EPAPER/heartbeat/service", {"heartbeat": ids(0)})
    assert [kind for kind, _ in told.asked("displayCapability")] == ["PID-EPAPER"]


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_with_the_id_of_its_request_only_is_found_without_a_look_at_all() -> None:
    told = Told()
    count = 3_000
    for device in range(count):
        told.hear("PID-LED/heartbeat/service", {"heartbeat": ids(device)})
    requests = [request_id for _, request_id in told.asked("displayCapability")]
    assert len(requests) == count
    body = {"textDisplayConfig": {"charEncodings": ["UTF-8"], "lines": 3, "charsPerLine": 26}}
    begin = time.process_time()
    for request_id in requests:
        told.hear("PID-LED/displayCapability/response", {"requestId": request_id, **body})
    per_answer_ms = (time.process_time() - begin) * 1000 / count
    assert [caps.board for caps in told.born] == [f"v:d{device}" for device in range(count)]
    assert per_answer_ms < 1.0, "a look at every display took 2 ms"


def test_open_requests_are_bounded() -> None:
    told = Told()
    told.hear("PID-LED/heartbeat/service", {"heartbeat": ids(0)})
    for at in range(1, 50):
        told.standard.tick(START_MS + at * 30_000)
        told.hear("PID-LED/heartbeat/service", {"heartbeat": ids(0)}, START_MS + at * 30_000)
    asked = told.asked("displayCapability")
    assert len(asked) > 4 * REQUESTS_OPEN_MAX
    body = {"textDisplayConfig": {"lines": 3, "charsPerLine": 26}}
    for _, request_id in asked:
        told.hear("PID-LED/displayCapability/response", {"requestId": request_id, **body}, START_MS + 1_500_000)
    assert len(told.born) == REQUESTS_OPEN_MAX


# --- the status -------------------------------------------------------------------------------------------------------

REPORT = {"firmwareVersion": "1.2", "operatingSystem": "L", "upSince": "2026-01-01T00:00:00+00:00",
          "displayOverride": "OFF"}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        {"statusReport": {**ids(0), "requestId": "r", **REPORT}},
        {"statusResponse": {**ids(0), "requestId": "r", "statusReport": REPORT}},
        {"statusResponse": {**ids(0), "requestId": "r", **REPORT}},
        {"statusResponse": {"statusReport": {**ids(0), **REPORT}}},
        {**ids(0), "requestId": "r", "statusReport": REPORT},
        {**ids(0), **REPORT},
        {"statusResponse": {**ids(0), "statusReport": {**REPORT, "displayOverride": {"status": "OFF"}}}},
        {"statusResponse": {**ids(0), "displayOverride": "OFF", "statusReport": {**REPORT, "displayOverride": None}}},
    ],
)
def test_a_status_is_read_in_every_shape(body: dict[str, Any]) -> None:
    told = Told()
    told.hear("PID-LED/heartbeat/service", {"heartbeat": ids(0)})
    told.hear("PID-LED/status/response", body)
    assert told.states == [("v:d0", Status("1.2", "L", "2026-01-01T00:00:00+00:00", "OFF"))]
    assert told.troubles == ["its content is overridden on the spot: OFF"]
    told.hear("PID-LED/status/response", body)
    assert len(told.troubles) == 1, "said once"


@pytest.mark.parametrize("name", ["textDisplayConfig", "displayCapabilityResponse"])
def test_a_capability_keeps_the_ids_that_stand_in_its_report(name: str) -> None:
    told = Told()
    told.hear("PID-LED/heartbeat/service", {"heartbeat": ids(0)})
    ((_, request_id),) = told.asked("displayCapability")
    config = {"requestId": request_id, "lines": 3, "charsPerLine": 26}
    body = {name: config if name == "textDisplayConfig" else {"textDisplayConfig": config}}
    told.hear("PID-LED/displayCapability/response", body)
    assert [(caps.board, caps.lines) for caps in told.born] == [("v:d0", 3)]


def test_an_acknowledgement_wrapped_twice_is_read() -> None:
    heard = t047.read("PID-LED/discovery/acknowledge", b'{"discoveryAcknowledge": {"discoveryAcknowledge": '
                      b'{"vendorId": "V", "deviceId": "D", "responseId": "x"}}}')  # fmt: skip
    assert heard is not None
    assert (t047.identity(heard.body), t047.request_id(heard.body)) == (("V", "D"), "x")


def test_a_body_may_begin_with_a_byte_order_mark() -> None:
    heard = t047.read("PID-LED/heartbeat/service", b'\xef\xbb\xbf {"heartbeat": {"vendorId": "V", "deviceId": "D"}}')
    assert heard is not None
    assert t047.identity(heard.body) == ("V", "D")


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        (["a", None, 7], ["a", "7"]),
        ([{"text": "a"}, {"number": 2, "line": "b"}, {}], ["a", "b", ""]),
        ("a\nb", ["a", "b"]),
        ([], []),
        (None, None),
    ],
)
def test_lines_of_a_snapshot_in_any_form(lines: object, read: list[str] | None) -> None:
    assert t047.snapshot_lines({"lines": lines}) == read


def test_a_snapshot_without_lines_is_told_of() -> None:
    told = Told()
    told.hear("PID-LED/heartbeat/service", {"heartbeat": ids(0)})
    told.hear("PID-LED/textSnapshot/response", {"textSnapshotResponse": {**ids(0), "requestId": "r"}})
    assert told.troubles == ["its text snapshot has no lines"]


class Mute(PassengerDisplay):
    """It beats, and answers nothing it is asked until it is mended."""

    mended = False

    def hears(self, topic: str) -> bool:
        return self.mended and super().hears(topic)


def test_a_display_that_does_not_say_what_it_can_is_seen_and_told_of_once() -> None:
    display = Mute("v", "d0", PLACE, position=(6.5, 53.0))
    world = World([], passengers=[display])
    world.pass_time(20, 5)
    assert world.core.boards.get("v:d0") is None, "it has its time to answer"
    world.pass_time(100, 5)
    board = world.core.boards.get("v:d0")
    assert board is not None
    assert (board.presence, board.announced, board.model.lines) == ("ready", False, 0)
    assert len([each for each in board.problems if "displayCapability" in each]) == 1
    display.mended = True
    world.pass_time(60, 5)
    board = world.core.boards.get("v:d0")
    assert board is not None
    assert board.announced
    assert board.model.lines > 0


def test_a_list_may_say_what_a_mute_display_can(tmp_path: Path) -> None:
    world = World([], passengers=[Mute("v", "d0", PLACE, position=(6.5, 53.0))])
    path = tmp_path / "boards.csv"
    path.write_text(
        "vendor,device,localities,clusters,stops,lon,lat,lines,characters\nv,d0,ASN,station,a1,6.5,53,3,26\n"
    )
    world.core.enlist(read_list(path)[0])
    world.pass_time(100, 5)
    board = world.core.boards.get("v:d0")
    assert board is not None
    assert board.model.lines == 3
    assert any("displayCapability" in each for each in board.problems)


@pytest.mark.parametrize("body", [{"statusReport": 7}, {"statusReport": {}}, {"displayOverride": False}, {}])
def test_an_empty_status_says_nothing(body: dict[str, Any]) -> None:
    assert t047.status_of(body) == Status()


@pytest.mark.parametrize("legacy", [False, True])
def test_the_page_of_a_display_tells_its_status_and_an_override_explains_a_laggard(legacy: bool) -> None:
    display = PassengerDisplay("v", "d0", PLACE, position=(6.5, 53.0), legacy=legacy)
    world = World([], passengers=[display])
    world.pass_time(3)
    board = world.core.boards.get("v:d0")
    assert board is not None
    status = page_of(board, world.now_ms).status
    assert status is not None
    assert (status.firmware, status.system, status.up_since, status.override) == (
        "1.0", "Linux 6.1", t047.iso(START_MS), ""
    )  # fmt: skip
    display.override = "OFF"
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.pass_time(1_000, 10)
    status = page_of(board, world.now_ms).status
    assert status is not None
    assert status.override == "OFF"
    assert world.core.counts(1).laggards == ["v:d0"]
    assert "its content is overridden on the spot: OFF" in board.problems
    display.override = ""
    world.pass_time(1_000, 10)
    assert world.core.counts(1).shown == 1
    assert page_of(board, world.now_ms).status == status.__class__(
        firmware="1.0", system="Linux 6.1", up_since=t047.iso(START_MS)
    )


# --- the place --------------------------------------------------------------------------------------------------------


def test_a_display_without_a_position_joins_an_action_for_everyone() -> None:
    world = World([], passengers=[PassengerDisplay("v", "d0", PLACE, position=(6.5, 53.0))])
    world.pass_time(3)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    late = PassengerDisplay("v", "late", ("GRN", "hs", "c1"))
    late.power_on()
    world.displays.append(late)
    world.join(late)  # type: ignore[arg-type]
    settle(world)
    assert shown(late) == [(1, "start")]
    assert (world.core.counts(1).selected, world.core.counts(1).shown) == (2, 2)


@pytest.mark.parametrize("again", [False, True])
def test_a_list_that_does_not_say_where_a_display_stands_leaves_it_where_it_says(again: bool) -> None:
    display = PassengerDisplay("v", "d0", PLACE, position=(6.5, 53.0))
    world = World([], passengers=[display])
    caps = msgspec.structs.replace(PASSENGER_MODELS["pid-led-3x26"], board="v:d0")
    world.core.enlist([Listed("t047", caps, "v", "d0", (Location(),))])
    if again:
        display.power_off(world.now_ms)
        display.power_on()
        world.join(display)  # type: ignore[arg-type]
    world.pass_time(3)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert shown(display) == [(1, "start")]
    assert "DONE" in display.statuses or "NO_DATA" in display.statuses


def test_a_display_that_does_not_say_where_it_stands_stands_where_its_stop_is() -> None:
    world = World([], passengers=[PassengerDisplay("v", "d0", PLACE, position=(6.5, 53.0))])
    world.pass_time(3)
    here = PassengerDisplay("v", "here", PLACE)
    elsewhere = PassengerDisplay("v", "elsewhere", ("ASN", "station", "a2"))
    for display in (here, elsewhere):
        display.power_on()
        world.displays.append(display)
        world.join(display)  # type: ignore[arg-type]
    world.pass_time(3)
    places = {board.id: (board.lon, board.lat) for board in world.core.boards}
    assert places == {"v:d0": (6.5, 53.0), "v:here": (6.5, 53.0), "v:elsewhere": (None, None)}
