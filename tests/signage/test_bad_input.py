"""Everything a board can do wrong, by name: a clear entry for ops, no crash, and the board beside it untouched."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from signage.boards import Board
from signage.dialects import native
from signage.dialects.native import Caps, Reported, Shown, State
from signage.layout import Pace as LayoutPace
from signage.layout import Unfit, lay_out, model_of
from signage.simulators.display import Display
from signage.simulators.models import MODELS, caps_for
from signage.views import view_of
from tests.signage.worlds import START_MS, World, action, shown

HOUR_MS = 3_600_000
CAPS = caps_for("b0", "led-3x26", 5.0, 52.0, "here")

# what it is, on which topic, the payload, and words of the entry
CASES: list[tuple[str, str, bytes, str]] = [
    ("garbage", "caps", b"\xc1\xc1\xc1", "invalid birth document"),
    ("truncated", "reported", native.encode(Reported(board="b0", version=1))[:-2], "invalid report"),
    ("huge", "reported", b"\x81\xa1x\xc6" + b"\0" * 70_000, "has 70004 bytes"),
    ("deeply nested", "ack", b"[" * 50_000, "invalid acknowledgement"),
    ("wrong protocol version", "caps", native.encode(msgspec.structs.replace(CAPS, protocol=2)), "protocol version 2"),
    ("another board's birth", "caps", native.encode(msgspec.structs.replace(CAPS, board="b1")), "it is board 'b1'"),
    ("another board's report", "reported", native.encode(Reported(board="b1", version=9)), "it is board 'b1'"),
    ("invalid UTF-8 in JSON", "caps", b'{"board": "b0", "model": "\xff\xfe"}', "invalid birth document"),
    ("invalid UTF-8 in MessagePack", "caps", b"\x82\xa5board\xa2b0\xa5model\xa2\xff\xfe", "invalid birth document"),
    ("a negative version", "reported", b'{"board": "b0", "version": -1}', "invalid report"),
    ("a version beyond 64 bits", "reported", b'{"board": "b0", "version": 1e300}', "invalid report"),
    ("a place off the earth", "caps", b'{"board": "b0", "model": "m", "lon": 999, "lat": 0}', "invalid birth document"),
    ("no number at all", "reported", b'{"board": "b0", "lon": NaN}', "invalid report"),
    ("an unknown state", "state", b'{"state": "exploded"}', "invalid state"),
    ("a list for an object", "state", b"[1, 2]", "invalid state"),
    ("a number of 400 digits", "reported", b'{"board": "b0", "at_ms": ' + b"9" * 400 + b"}", "invalid report"),
    ("a clock of 400 digits", "state", b'{"state": "ready", "clock_offset_ms": ' + b"9" * 400 + b"}", "invalid state"),
    ("a place of 400 digits", "caps", b'{"board": "b0", "model": "m", "lon": ' + b"9" * 400 + b"}", "invalid birth"),
    ("blanks and nothing", "reported", b" \n ", "invalid report"),
    ("half a mark of byte order", "state", b"\xef\xbb", "invalid state"),
    ("a clock in the future", "state", native.encode(State(state="ready", clock_offset_ms=10**12)), "clock is off by"),
    ("a clock in the past", "state", native.encode(State(state="ready", clock_offset_ms=-(10**12))), "clock is off by"),
]


@pytest.mark.parametrize(("leaf", "payload", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_invalid_document(leaf: str, payload: bytes, words: str) -> None:
    world = World(["well", "well"], models=["led-3x26"])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.core.received(f"signage/1/boards/b0/{leaf}", payload, False)
    bad, good = (world.core.boards.get(name) for name in ("b0", "b1"))
    assert bad is not None
    assert good is not None
    assert any(words in problem for problem in bad.problems), bad.problems
    assert good.problems == []
    world.end(1)
    world.pass_time(40)
    assert [shown(display) for display in world.displays] == [[], []]
    assert world.core.counts(1).cleared == 2


MEANT: list[tuple[str, bytes]] = [
    ("blanks before", b' \r\n\t{"board": "b0", "model": "m", "lines": 3}'),
    ("a byte order mark", b'\xef\xbb\xbf{"board": "b0", "model": "m", "lines": 3}'),
    ("a null for a list", b'{"board": "b0", "model": "m", "lines": 3, "fonts": null, "lon": null}'),
    ("a whole number as a float", b'{"board": "b0", "model": "m", "lines": 3.0, "lon": 5.0, "lat": 52}'),
    ("both, in MessagePack", msgspec.msgpack.encode({"board": "b0", "model": "m", "lines": 3.0, "areas": None})),
]


@pytest.mark.parametrize("payload", [case[1] for case in MEANT], ids=[case[0] for case in MEANT])
def test_what_is_meant_is_read(payload: bytes) -> None:
    assert native.read_caps("b0", payload).lines == 3


def test_acknowledgements_may_have_blanks_before_them() -> None:
    one = b' {"version": 7.0, "what": "received", "reason": null}'
    assert [ack.version for ack in native.read_acks("b0", one)] == [7]


@pytest.mark.parametrize("leaf", ["caps", "state", "reported", "ack"])
def test_a_stranger_who_talks_nonsense_becomes_no_board(leaf: str) -> None:
    world = World(["well"])
    world.core.received(f"signage/1/boards/stranger/{leaf}", b"\xc1", False)
    world.pass_time(30)
    assert [board.id for board in world.core.boards] == ["b0"]


@pytest.mark.parametrize("seconds", [-100_000_000, 100_000_000])
def test_times_in_a_report_are_not_believed(seconds: int) -> None:
    world = World(["well"], models=["led-3x26"])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    version = world.displays[0]._version
    at_ms = world.now_ms + seconds * 1000
    told = Reported(board="b0", version=version, shown=[Shown(action=1, since_ms=at_ms)], at_ms=at_ms)
    world.core.received("signage/1/boards/b0/reported", native.encode(told), False)
    assert world.core.counts(1).last_ms == 0


def broken(**changes: object) -> Caps:
    return msgspec.structs.replace(CAPS, **changes)


@pytest.mark.parametrize(
    "caps",
    [
        broken(lines=0),
        broken(characters=0),
        broken(kind="pixels", width_px=0, height_px=0),
        broken(kind="pixels", width_px=200, height_px=2),
        broken(kind="image", width_px=1_000_000, height_px=0),
        broken(kind="pixels", width_px=200, height_px=50, fonts=["no such font"]),
        broken(lines=1, characters=1),
    ],
)
def test_a_board_of_no_size_is_refused_by_name_and_others_show_it(caps: Caps) -> None:
    world = World(["well", "well"], models=["led-3x26"])
    display = world.displays[0]
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    display.caps = msgspec.structs.replace(caps, model="broken")
    display.cut(world.now_ms)
    world.join(display)
    assert shown(display) == []
    board = world.core.boards.get("b0")
    assert board is not None
    assert any("does not fit model broken" in problem for problem in board.problems)
    useless = ["it can show nothing" in problem for problem in view_of(board, world.now_ms).problems]
    assert any(useless) == (caps.characters != 1)
    with pytest.raises(Unfit):
        lay_out([(("nl", "Vermist: meisje (8)."),)], model_of(display.caps), LayoutPace())
    assert shown(world.displays[1]) == [(1, "start")]
    display.caps = CAPS
    display.cut(world.now_ms)
    world.join(display)
    assert shown(display) == [(1, "start")], "and repaired it shows it"
    assert not any("it can show nothing" in problem for problem in view_of(board, world.now_ms).problems)


def test_a_text_with_characters_no_board_knows_names_them() -> None:
    for model in MODELS.values():
        if model.charset != "utf-8" or model.kind != "characters":
            with pytest.raises(Unfit, match="no character for"):
                lay_out([(("nl", "Vermist 👧 in 東京"),)], model_of(model), LayoutPace())


def one_id(first: str, second: str) -> tuple[World, Board]:
    """Two boards of one id, which throw each other out of the broker for a while."""
    world = World(["well", "well"], models=[first])
    twin = Display(caps_for("b0", second, 5.0, 52.0, "elsewhere"), seed=7)
    twin._boots = 1_000
    world.displays.append(twin)
    for one, other in [(twin, world.displays[0]), (world.displays[0], twin)] * 3:
        world.leave(other)
        one.power_on()
        world.join(one)
    board = world.core.boards.get("b0")
    assert board is not None
    return world, board


@pytest.mark.parametrize("second", ["led-3x26", "ticker-1x24"])
def test_two_boards_with_one_id_are_told_to_ops(second: str) -> None:
    world, board = one_id("led-3x26", second)
    assert any("two boards with this id" in problem for problem in board.problems)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert shown(world.displays[1]) == [(1, "start")], "the board beside them"


def test_a_will_of_an_old_boot_after_a_new_birth_is_passed_over() -> None:
    world = World(["well"])
    display = world.displays[0]
    topic, old = display.will()
    display.cut(world.now_ms)
    display.power_on()
    world.join(display)
    world.core.received(topic, old, False)
    board = world.core.boards.get("b0")
    assert board is not None
    assert board.presence == "ready"
    topic, new = display.will()
    world.core.received(topic, new, False)
    assert board.presence == "lost"


def test_a_birth_that_was_lost_is_asked_for() -> None:
    world = World([])
    display = Display(CAPS)
    display.power_on()
    world.displays.append(display)
    real, lost = world._publish, []

    def lossy(out: list[object]) -> None:
        lost.extend(one for one in out if one.topic.endswith("caps"))  # type: ignore[attr-defined]
        real([one for one in out if not one.topic.endswith("caps")])  # type: ignore[attr-defined,misc]

    world._publish = lossy  # type: ignore[method-assign,assignment]
    world.join(display)
    assert lost
    assert len(world.core.boards) == 0
    world._publish = real  # type: ignore[method-assign]
    world.pass_time(15)
    assert [board.presence for board in world.core.boards] == ["ready"]
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    assert world.core.counts(1).shown == 1


def rebirth(change: Callable[[Caps], Caps]) -> list[list[str]]:
    """The lines a board shows after its capability has changed while a message is on."""
    world = World(["well"], models=["led-3x26"])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    display = world.displays[0]
    display.caps = change(display.caps)
    display.cut(world.now_ms)
    world.join(display)
    assert world.core.counts(1).shown == 1
    return [page.lines for item in display.shown for page in item.pages]


def test_a_capability_that_changes_while_a_message_is_shown() -> None:
    assert rebirth(lambda caps: msgspec.structs.replace(caps, lines=1, characters=40)) == [
        ["Vermist: meisje (8), rode jas, Assen."],
        ["Bel 112."],
    ]
