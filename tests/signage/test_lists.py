"""Imported lists: every wrong row is named once, the others are taken; what a board says of itself wins."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import trio
from typer.testing import CliRunner

from fanout.errors import Refused
from fanout.geo import EVERYONE, circle
from signage.cli import app
from signage.lists import Listed, read_list
from signage.simulators.display import Display
from signage.simulators.models import caps_for
from signage.simulators.passenger import PassengerDisplay
from signage.views import view_of
from tests.signage.test_service import KINDS, clock_ms, free_port, hour, running, until
from tests.signage.worlds import START_MS, Documents, World, action, shown

HOUR_MS = 3_600_000
ROWS = [
    {"id": "a1", "lon": 6.5, "lat": 53.0, "place": "Assen, A1", "model": "led", "lines": 3, "characters": 26,
     "areas": ["led.all", "led.north"], "languages": ["nl"]},
    {"id": "a2", "lon": 6.6, "lat": 53.1, "model": "tft", "kind": "image", "width_px": 1920, "height_px": 1080},
    {"vendor": "maker", "device": "d0", "localities": ["ASN", "DRE"], "clusters": ["station"], "stops": ["a1"],
     "lon": 6.5, "lat": 53.0, "model": "PID", "lines": 3, "characters": 26, "charset": "utf-8"},
]  # fmt: skip


def as_file(folder: Path, kind: str, rows: list[dict[str, object]]) -> Path:
    file = folder / f"boards.{kind}"
    match kind:
        case "json":
            file.write_text(json.dumps(rows))
        case "parquet":
            columns = {name: None for row in rows for name in row}
            parquet.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), file)
        case _:
            columns = {name: None for row in rows for name in row}
            cells = [
                ";".join(value) if isinstance(value := row.get(name, ""), list) else str(value)
                for row in rows
                for name in columns
            ]
            width = len(columns)
            lines = [",".join(f'"{cell}"' for cell in cells[at : at + width]) for at in range(0, len(cells), width)]
            file.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return file


def listed(tmp_path: Path, rows: list[dict[str, object]] = ROWS) -> list[Listed]:
    boards, problems = read_list(as_file(tmp_path, "json", rows))
    assert problems == []
    return boards


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_a_list_is_read(kind: str, tmp_path: Path) -> None:
    boards, problems = read_list(as_file(tmp_path, kind, ROWS))
    assert problems == []
    led, tft, passenger = boards
    assert (led.caps.board, led.caps.lines, led.caps.areas) == ("a1", 3, ["led.all", "led.north"])
    assert (tft.caps.kind, tft.caps.width_px, tft.capable) == ("image", 1920, True)
    assert (passenger.dialect, passenger.caps.board) == ("t047", "maker:d0")
    assert [tuple(each) for each in passenger.locations] == [("ASN", "station", "a1"), ("DRE", "station", "a1")]


BAD = [
    ({"id": "b", "lon": "east", "lat": 53.0}, "lon"),
    ({"id": "b", "lon": 6.0}, "only one of lon and lat"),
    ({"id": "b", "lon": 600.0, "lat": 53.0}, "lon"),
    ({"id": "a/b"}, "no board id"),
    ({"lon": 6.0, "lat": 53.0}, "no board id"),
    ({"vendor": "v"}, "needs vendor and device"),
    ({"id": "b", "colour": "red"}, "colour"),
    ({"id": "b", "kind": "hologram"}, "kind"),
    ({"id": "b", "lines": -3}, "lines"),
    ({"id": "a1"}, "stands in row 1 already"),
    ({"vendor": "v", "device": "d", "localities": list("abcde"), "stops": list("abcde")}, "make 25 topics"),
]


@pytest.mark.parametrize(("row", "why"), BAD)
def test_a_wrong_row_is_named_and_the_others_are_taken(row: dict[str, object], why: str, tmp_path: Path) -> None:
    boards, problems = read_list(as_file(tmp_path, "json", [ROWS[0], row, ROWS[1]]))
    assert [board.caps.board for board in boards] == ["a1", "a2"]
    (problem,) = problems
    assert problem.startswith("row 2: ")
    assert why in problem


DAMAGED = [
    (b'b,6.0,53.0,"Square', "quotation marks"),
    (b'b,6.0,53.0,"Square"s"', "quotation marks"),
    (b"b,6.0,53.0,Caf\xe9", "not UTF-8"),
    (b"b,6.0,53.0,Square,3", "more cells"),
]


@pytest.mark.parametrize(("row", "why"), DAMAGED)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_damaged_line_costs_itself_only(row: bytes, why: str, end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "boards.csv"
    path.write_bytes(
        end.join([b"id,lon,lat,place", b'a1,6.0,53.0,"Caf\xc3\xa9, left"', row, b"", b"a2,6.1,53.1,", b""])
    )
    boards, problems = read_list(path)
    assert [(board.caps.board, board.caps.place) for board in boards] == [("a1", "Café, left"), ("a2", "")]
    (problem,) = problems
    assert problem.startswith("row 2: ")
    assert why in problem


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", b"{}"),
        ("x.json", b"nonsense"),
        ("x.csv", b"\xff\xfei\x00d\x00\n\x00"),
        ("x.csv", b""),
        ("x.csv", b"id;lon;lat\na;5,1;52,1\n"),
        ("x.parquet", b"PAR0"),
        ("none.csv", None),
    ],
)
def test_a_file_that_is_no_list(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused) as caught:
        read_list(tmp_path / name)
    assert caught.value.code == "import_unreadable"


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["check", str(as_file(tmp_path, "json", [*ROWS, {"id": ""}, {"id": "blind"}]))])
    assert run.exit_code == 1
    assert "row 4: '' is no board id" in run.output
    assert "4 boards: 3 native, 1 of RTIG T047; 3 with a position; 1 of which" in run.output
    assert CliRunner().invoke(app, ["check", str(as_file(tmp_path, "csv", ROWS))]).exit_code == 0


def test_a_listed_board_that_never_came_is_a_laggard_and_finds_its_document_when_it_does(tmp_path: Path) -> None:
    world = World(["well"])
    world.core.enlist(listed(tmp_path))
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.pass_time(5)
    assert world.core.counts(1).laggards == ["a1", "a2", "maker:d0"]
    states = {board.id: board.presence for board in world.core.boards}
    assert states == {"b0": "ready", "a1": "unknown", "a2": "unknown", "maker:d0": "unknown"}
    late = Display(caps_for("a1", "led-2x20", None, None, ""))
    passenger = PassengerDisplay("maker", "d0", ("ASN", "station", "a1"), localities=["ASN", "DRE"])
    for display in (late, passenger):
        display.power_on()
        world.displays.append(display)
        world.join(display)
    world.pass_time(30)
    assert [shown(display) for display in world.displays] == [[(1, "start")]] * 3
    assert world.core.counts(1).laggards == ["a2"]
    board = world.core.boards.get("a1")
    assert board is not None
    assert (board.model.name, board.lon, board.lat) == ("led-2x20", 6.5, 53.0), "its own word, and the list's place"
    world.core.enlist(listed(tmp_path))
    assert board.model.name == "led-2x20", "the list again does not win"
    assert passenger.violations == []


def test_listed_boards_are_in_areas_and_their_blind_rows_can_show_nothing(tmp_path: Path) -> None:
    world = World([])
    world.core.enlist(listed(tmp_path, [*ROWS, {"id": "blind", "lon": 6.5, "lat": 53.0}]))
    names = [board.id for board in world.core.boards.within(circle(6.5, 53.0, 500.0))]
    assert names == ["a1", "maker:d0", "blind"]
    board = world.core.boards.get("blind")
    assert board is not None
    assert view_of(board, world.now_ms).state == "unknown"


async def test_the_lists_of_the_settings_are_read_and_read_again(tmp_path: Path) -> None:
    file = as_file(tmp_path, "json", [*ROWS, {"id": "#"}])
    broker = f"mqtt://127.0.0.1:{free_port()}"
    async with running(tmp_path, Documents(), broker, lists=[str(file), str(tmp_path / "none.csv")]) as signage:
        assert sorted(view.id for view in signage.views()) == ["a1", "a2", "maker:d0"]
        plan = await signage.plan(action(end_ms=hour()), EVERYONE, KINDS["missing_child"])
        assert (plan.boards, plan.unfit) == (3, [])
        await signage.show(1, action(end_ms=hour()), EVERYONE, 0, clock_ms())
        assert signage.counts(1).laggards == ["a1", "a2", "maker:d0"]
        more = msgspec.json.encode([*ROWS, {"id": "new", "model": "m"}])
        await trio.Path(file).write_bytes(more)
        await signage.read_lists()
        await until(lambda: signage.view("new") is not None, "the new row")
        plan = await signage.plan(action(end_ms=hour()), EVERYONE, KINDS["missing_child"])
        assert [(each.model, each.boards) for each in plan.unfit] == [("m", 1)]


def test_a_display_in_two_localities_is_reached_by_either_and_not_for_its_neighbours() -> None:
    both = PassengerDisplay("v", "both", ("L", "c", "s"), localities=["L", "M"], position=(6.5, 53.0))
    left = PassengerDisplay("v", "left", ("L", "c", "s"), position=(6.5, 53.0))
    right = PassengerDisplay("v", "right", ("M", "c", "s"), position=(6.5, 53.0))
    world = World([], passengers=[both, left, right])
    world.pass_time(3)
    world.sent.clear()
    world.show(1, action(end_ms=START_MS + HOUR_MS), boards={"v:both", "v:left"})
    topics = [topic for topic, payload in world.sent if "/content/" in topic and payload]
    assert topics == ["CMS/informationMessage/content/L"]
    world.show(2, action("Een ander bericht.", end_ms=START_MS + HOUR_MS), boards={"v:left"})
    world.pass_time(30)
    assert shown(both) == [(1, "start")]
    assert sorted(shown(left)) == [(1, "start"), (2, "start")]
    assert shown(right) == []
    assert [display.violations for display in world.displays] == [[]] * 3
