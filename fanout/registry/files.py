"""Files of participants to Arrow tables: Parquet, CSV and Arrow (IPC), told apart by their name's ending.

CSV is read as text throughout, so that one bad number among a million is a bad row with a number, and not a column of
another type. Lines with too few or too many fields are bad rows too. Encoding is UTF-8, the separator a comma.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from fanout.errors import Refused


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """How rows of a table are called. `malformed`: numbers (from 1) of rows that are not in it, with what is wrong."""

    malformed: tuple[tuple[int, str], ...] = ()

    def __call__(self, row: int) -> int:
        """The number, from 1, of a row of the table, from 0."""
        number = row + 1
        for other, _ in self.malformed:
            if other <= number:
                number += 1
        return number


COUNTED: Final = RowNumbers()
_NO_COMMAS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What else separates columns: spreadsheets write semicolons wherever a comma is what a number has."""


def read(path: Path) -> tuple[pa.Table, RowNumbers]:
    """The table in a file. Raises `Refused("import_unreadable")`."""
    reader, name = _READERS.get(path.suffix.lower(), (None, ""))
    if reader is None:
        raise Refused("import_unreadable", path.name, format="Parquet, CSV or Arrow",
                      detail=f"its name ends in {path.suffix!r}, not in {', '.join(_READERS)}")  # fmt: skip
    try:
        return reader(path)
    except (pa.ArrowException, csv.Error, OSError, UnicodeDecodeError) as error:
        raise Refused("import_unreadable", path.name, format=name, detail=str(error).splitlines()[0]) from None


def _parquet(path: Path) -> tuple[pa.Table, RowNumbers]:
    return pyarrow.parquet.read_table(path, memory_map=False, use_threads=True), COUNTED


def _arrow(path: Path) -> tuple[pa.Table, RowNumbers]:
    with pa.memory_map(str(path)) as source:
        return pyarrow.ipc.open_file(source).read_all(), COUNTED


def _csv(path: Path) -> tuple[pa.Table, RowNumbers]:
    malformed: list[tuple[int, str]] = []

    def leave_out(row: Any) -> str:
        malformed.append((row.number - 1, f"{row.actual_columns} fields, not {row.expected_columns}"))
        return "skip"

    with path.open("rb") as file:
        lines = (line.decode("utf-8-sig") for piece in file for line in piece.splitlines(keepends=True))
        names = next((row for row in csv.reader(lines) if row), [""])
    for other, name in _NO_COMMAS.items():
        if len(names) == 1 and other in names[0]:
            raise Refused("import_unreadable", path.name, format="CSV",
                          detail=f"its columns are separated by {name}, not by commas")  # fmt: skip
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(use_threads=False, encoding="utf8"),
        parse_options=pyarrow.csv.ParseOptions(delimiter=",", newlines_in_values=True, invalid_row_handler=leave_out),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    return table, RowNumbers(tuple(malformed))


_READERS: Final[dict[str, tuple[Callable[[Path], tuple[pa.Table, RowNumbers]], str]]] = {
    ".parquet": (_parquet, "Parquet"),
    ".csv": (_csv, "CSV"),
    ".arrow": (_arrow, "Arrow"),
    ".feather": (_arrow, "Arrow"),
}
