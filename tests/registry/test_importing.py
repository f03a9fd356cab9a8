"""Files of participants: Parquet, CSV and Arrow give the same people; what is wrong is named."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fanout.errors import Refused
from fanout.geo import EVERYONE, circle
from fanout.registry.columns import choices_of
from fanout.registry.importing import import_file
from fanout.registry.registry import Registry
from fanout.registry.replica import Replica
from fanout.selection import Query, choose
from fanout.simulators import nation
from tests.registry.naive_registry import MemoryLog, person

COLUMNS = ["id", "lon", "lat", "hours", "lon_2", "lat_2", "fcm", "sms", "preference", "language", "timezone", "kinds"]
TOKEN = "abcdefghijklmnop:APA91b"
ROWS = [
    ["a", "4.9", "52.3", "", "", "", TOKEN + "1", "+31612345678", "sms,fcm", "nl", "", ""],
    ["b", "5.1", "52.1", "12345 08:00-18:00", "6.5", "53.2", "", "+31612345679", "", "en", "America/Curacao", "search"],
    ["c", "-68.9", "12.1", "", "", "", TOKEN + "3", "", "", "", "", "search,fire"],
]


def written(folder: Path, rows: list[list[str]], kind: str, columns: list[str] = COLUMNS) -> Path:
    path = folder / f"people.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        return path
    values = {name: [row[at] or None for row in rows] for at, name in enumerate(columns)}
    table = pa.table(
        {
            name: pa.array([None if v is None else float(v) for v in column], pa.float64())
            if name.startswith(("lon", "lat"))
            else pa.array(column, pa.string())
            for name, column in values.items()
        }
    )
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_every_format_gives_the_same_people(tmp_path: Path, kind: str) -> None:
    log = MemoryLog()
    registry = Registry.open(tmp_path / "registry", log)
    report = import_file(registry, written(tmp_path, ROWS, kind))
    assert (report.rows, report.imported, report.left_out, report.new, report.problems) == (3, 3, 0, 3, ())
    view = registry.view()
    rows = view.row_of(["a", "b", "c"]).astype(np.uint32)
    assert [choices_of(word) for word in view.take("preference", rows).tolist()] == [[3, 0], [3], [0]]
    assert [view.languages[at] for at in view.take("language", rows)] == ["nl", "en", "nl"]
    assert [view.names.timezones[at] for at in view.take("timezone", rows)] == [
        "Europe/Amsterdam", "America/Curacao", "Europe/Amsterdam",
    ]  # fmt: skip
    kinds = view.take("kinds", rows).tolist()
    assert kinds[0] == 0xFFFFFFFF
    assert kinds[1] & kinds[2] == kinds[1]
    assert kinds[1] != kinds[2]
    assert choose(view, Query(shape=circle(6.5, 53.2, 10))).rows.tolist() == [rows[1]]
    addresses = Replica.open(tmp_path / "registry", log).addresses(3, rows, np.zeros(3, np.uint16)).texts()
    assert addresses == ["+31612345678", "+31612345679", ""]
    registry.close()


def bad(row: int, column: str, value: str) -> list[list[str]]:
    rows = [list(given) for given in ROWS]
    rows[row][COLUMNS.index(column)] = value
    return rows


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (bad(1, "id", ""), "row 2, column id"),
        (bad(1, "id", "a"), "row 2, column id: the id stands in an earlier row too"),
        (bad(2, "id", "no spaces"), "row 3, column id"),
        (bad(0, "lon", "190"), "row 1, column lon: -180 to 180"),
        (bad(0, "lat", ""), "row 1, columns lon, lat"),
        (bad(0, "lon_2", "5"), "row 1, columns lon_2, lat_2"),
        (bad(1, "sms", "0612345679"), "row 2, column sms"),
        (bad(1, "fcm", "short"), "row 2, column fcm"),
        (bad(1, "hours", "8-18"), "row 2, column hours"),
        (bad(1, "preference", "pigeon"), "row 2, column preference"),
        (bad(1, "language", "Dutch"), "row 2, column language"),
        (bad(1, "timezone", "Mars/Base"), "row 2, column timezone"),
        (bad(1, "kinds", "picnic"), "row 2, column kinds"),
    ],
)
def test_a_bad_row_is_named_and_nothing_or_the_rest_is_kept(
    tmp_path: Path, kind: str, rows: list[list[str]], told: str
) -> None:
    registry = Registry.open(tmp_path / "registry", MemoryLog(), kinds=["search", "fire"])
    path = written(tmp_path, rows, kind)
    with pytest.raises(Refused, match="import_rows_bad") as refusal:
        import_file(registry, path)
    assert refusal.value.where.startswith(told)
    assert registry.view().version == registry.view().people == 0
    report = import_file(registry, path, on_bad="skip")
    assert (report.rows, report.imported, report.left_out) == (3, 2, 1)
    assert report.problems[0].startswith(told)
    assert registry.view().people == 2
    registry.close()


def test_a_csv_line_of_the_wrong_length_and_a_word_for_a_number(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id,lon,lat\na,5,52\nb,5\nc,five,52\nd,5,52,7\ne,5,52\n")
    registry = Registry.open(tmp_path / "registry", MemoryLog())
    report = import_file(registry, path, on_bad="skip")
    assert (report.rows, report.imported, report.left_out) == (5, 2, 3)
    assert [problem.split(",")[0] for problem in report.problems] == ["row 2", "row 3", "row 4"]
    assert "five" in report.problems[1]
    registry.close()


def test_a_quoted_value_of_many_lines_is_one_bad_row_wherever_it_stands(tmp_path: Path) -> None:
    path, long = tmp_path / "people.csv", "y\n" * 1_000  # some of it at every border between blocks
    rows = [[f"p{at}", "5.1", "52.1", long if at % 2 else TOKEN] for at in range(3_000)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "lon", "lat", "fcm"], *rows])
    registry = Registry.open(tmp_path / "registry", MemoryLog())
    report = import_file(registry, path, on_bad="skip")
    assert (report.rows, report.imported, report.left_out) == (3_000, 1_500, 1_500)
    assert [problem.split(",")[0] for problem in report.problems[:3]] == ["row 2", "row 4", "row 6"]
    registry.close()


@pytest.mark.parametrize("written_as", ["\n\n{}", "\ufeff{}", '\r\n"id",{}', "{}"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_columns_are_found_however_the_file_was_saved(tmp_path: Path, written_as: str, end: str) -> None:
    text = "lon,lat,sms\n" if '"id"' in written_as else "id,lon,lat,sms\n"
    text = written_as.format(text) + "p1,5.1,52.1,+31612345678\n"
    (tmp_path / "people.csv").write_bytes(text.replace("\r\n", "\n").replace("\n", end).encode())
    registry = Registry.open(tmp_path / "registry", MemoryLog())
    assert import_file(registry, tmp_path / "people.csv").imported == 1
    registry.close()


@pytest.mark.parametrize(("separator", "named"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_what_a_spreadsheet_separates_columns_by_is_named(tmp_path: Path, separator: str, named: str) -> None:
    registry = Registry.open(tmp_path / "registry", MemoryLog())
    file = tmp_path / "people.csv"
    file.write_text("id,lon,lat\np1,5.1,52.1\n".replace(",", separator))
    with pytest.raises(Refused, match=f"its columns are separated by {named}, not by commas"):
        import_file(registry, file)
    registry.close()


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "registry", MemoryLog())
    good = written(tmp_path, ROWS, "parquet").read_bytes()
    cases = {
        "cut.parquet": good[: len(good) // 2],
        "noise.parquet": b"PAR1" + bytes(range(256)) * 4,
        "empty.csv": b"",
        "noise.csv": b"id,lon,lat\n\xff\xfe,5,52\n",
        "people.xlsx": b"PK",
        "noise.arrow": b"ARROW1" + bytes(64),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(Refused, match="import_unreadable") as refusal:
            import_file(registry, tmp_path / name)
        assert refusal.value.where == name
    with pytest.raises(Refused, match="import_unreadable"):
        import_file(registry, tmp_path / "absent.parquet")
    registry.close()


def test_a_wrong_column_says_which(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "registry", MemoryLog())
    for columns, code, column in (
        (["name", *COLUMNS[1:]], "import_column_missing", "'id'"),
        ([*COLUMNS[:4], "lon2", *COLUMNS[5:]], "import_column_type", "'lon2'"),
        ([*COLUMNS[:5], "hours_2", *COLUMNS[6:]], "import_column_missing", "'lat_2'"),
    ):
        with pytest.raises(Refused, match=code) as refusal:
            import_file(registry, written(tmp_path, [row[:-1] for row in ROWS], "csv", columns[:-1]))
        assert column in refusal.value.message
    pq.write_table(pa.table({"id": [1, 2], "lon": [5.0, 5.0], "lat": [52.0, 52.0]}), tmp_path / "numbers.parquet")
    with pytest.raises(Refused, match="import_column_type"):
        import_file(registry, tmp_path / "numbers.parquet")
    registry.close()


def test_an_import_over_people_who_are_there(tmp_path: Path) -> None:
    log = MemoryLog()
    registry = Registry.open(tmp_path / "registry", log)
    registry.upsert([person("a", 1), person("x", 2), person("y", 3)])
    registry.erase(["y"])
    row = registry.view().row_of(["a"])
    report = import_file(registry, written(tmp_path, ROWS, "csv"))
    assert (report.imported, report.new) == (3, 2)
    view = registry.view()
    assert view.people == 4
    assert view.row_of(["a"]) == row
    everyone = view.row_of(["a", "b", "c", "x"]).astype(np.uint32)
    sms = Replica.open(tmp_path / "registry", log).addresses(3, everyone, view.take("generation", everyone)).texts()
    assert sms == ["+31612345678", "+31612345679", "", "+31610000002"]
    registry.close()
    registry = Registry.open(tmp_path / "registry", log)
    assert sorted(choose(registry.view(), Query(shape=EVERYONE)).rows.tolist()) == sorted(everyone.tolist())
    registry.close()


def test_a_made_up_nation_is_imported_whole(tmp_path: Path) -> None:
    table = nation.spread(5_000, 3, every_channel=True)
    registry = Registry.open(tmp_path / "registry", MemoryLog())
    report = registry.import_table(table)
    assert (report.imported, report.problems) == (5_000, ())
    assert len(choose(registry.view(), Query(shape=EVERYONE))) == 5_000
    registry.close()
