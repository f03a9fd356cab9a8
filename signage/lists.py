"""Imported lists of boards: where they stand, what they are called, and what they can, before they ever say so.

Rules:

1. CSV, JSON (an array of objects) or Parquet, by the file's ending. One row a board; columns named as fields of the
   birth document (`id`, `model`, `kind`, `lines` …), `lon`, `lat`, `place`, `areas`; displays of RTIG T047 have
   `vendor` and `device` instead of `id`, and `localities`, `clusters`, `stops`. Several names in one cell have `;`
   between.
2. A row that is wrong is one problem, with its number and the reason; the other rows are taken. So a line of CSV is a
   row, whatever it holds: a quotation mark that is never closed, or a letter that is not UTF-8, costs its own row only.
3. What a board says of itself wins over the list; the list fills in where it stands if it does not say.
4. A listed board that never announced itself is chosen for actions, and is a laggard by name until it shows them. One
   whose row says nothing of what it can is known, and can be shown nothing.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from fanout import limits
from fanout.errors import Refused
from signage.dialects import rtig_t047 as t047
from signage.dialects.native import Caps, Count, Short
from signage.dialects.rtig_t047 import LOCATIONS_MAX, Location

ALIASES: Final = {"locality": "localities", "cluster": "clusters", "stop": "stops", "name": "place"}
LISTS: Final = frozenset({"areas", "localities", "clusters", "stops", "fonts", "media", "languages"})
PROBLEMS_MAX: Final = 1_000  # named; a file of the wrong kind has one in every row

Names = Annotated[list[Short], Meta(max_length=8)]


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dialect: Literal["native", "t047", ""] = ""
    id: Short = ""
    vendor: Short = ""
    device: Short = ""
    lon: Annotated[float, Meta(ge=-180, le=180)] | None = None
    lat: Annotated[float, Meta(ge=-90, le=90)] | None = None
    place: Short = ""
    areas: Names = []
    localities: Names = []
    clusters: Names = []
    stops: Names = []
    model: Short = ""
    kind: Literal["characters", "pixels", "image"] = "characters"
    lines: Count = 0
    characters: Count = 0
    width_px: Count = 0
    height_px: Count = 0
    fonts: Names = []
    charset: Short = "ascii"
    scrolls: bool = False
    scroll_characters: Count = 0
    pages: Count = 4
    items: Annotated[int, Meta(ge=1, le=limits.BOARD_ITEMS_MAX)] = limits.BOARD_ITEMS_MAX
    colours: Short = "amber"
    media: Names = []
    languages: Names = []
    mobile: bool = False
    controller: Short = ""
    form: Literal["msgpack", "json"] = "msgpack"


class Listed(NamedTuple):
    """One board of a list: its dialect, what it is believed to be, and, for RTIG T047, vendor, device and topics."""

    dialect: str
    caps: Caps
    vendor: str
    device: str
    locations: tuple[Location, ...]

    @property
    def capable(self) -> bool:
        """The list says what it can show."""
        caps = self.caps
        return bool(caps.lines and caps.characters) or bool(caps.width_px and caps.height_px)


def read_list(path: Path) -> tuple[list[Listed], list[str]]:
    """The boards of a file, and its problems, one a row. Blocking. `Refused("import_unreadable")`: no such file, or not
    of its kind.
    """
    try:
        rows = _rows(path)
    except (OSError, ValueError, csv.Error) as error:
        kind = path.suffix.lstrip(".").upper() or "list"
        raise Refused("import_unreadable", str(path), format=kind, detail=str(error)[:300]) from None
    boards: list[Listed] = []
    problems: list[str] = []
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        try:
            board = _board(row)
            before = first.setdefault(board.caps.board, number)
            if before != number:
                raise ValueError(f"board {board.caps.board!r} stands in row {before} already")
            boards.append(board)
        except (ValueError, TypeError) as error:
            problems.append(f"row {number}: {error}")
    return boards, problems[:PROBLEMS_MAX]


def _rows(path: Path) -> list[Any]:
    match path.suffix.lower():
        case ".json":
            rows = json.loads(path.read_bytes())
            if not isinstance(rows, list):
                raise ValueError("it is no array of objects")
            return rows
        case ".parquet":
            import pyarrow.parquet as parquet

            return list(parquet.read_table(path).to_pylist())
        case _:
            return _csv_rows(path)


def _csv_rows(path: Path) -> list[Any]:
    """A mapping a line, or the error that it is, blank lines passed over. `ValueError`: the first names no columns."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = [line for line in file.read().split("\n") if line.strip()]
    if not lines:
        raise ValueError("it is empty")
    columns = [name.strip() for name in _cells(lines[0])]
    if len(columns) == 1 and (between := next((each for each in ";\t" if each in columns[0]), None)):
        raise ValueError(f"between its columns stands {between!r}; it has to be a comma")
    return [_csv_row(columns, line) for line in lines[1:]]


def _csv_row(columns: list[str], line: str) -> Any:
    try:
        cells = _cells(line)
    except ValueError as error:
        return error
    row: dict[str | None, Any] = dict(zip(columns, cells, strict=False))
    if len(cells) > len(columns):
        row[None] = cells[len(columns) :]
    return row


def _cells(line: str) -> list[str]:
    if not line.isascii() and any("\udc80" <= character <= "\udcff" for character in line):
        raise ValueError(f"it is not UTF-8: {line.encode('utf-8', 'surrogateescape')[:100]!r}")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ValueError(f"its quotation marks or its characters are wrong ({error}): {line[:100]!r}") from None


def _board(row: object) -> Listed:
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, Mapping):
        raise ValueError("it is no object")
    if None in row:
        raise ValueError("it has more cells than there are columns")
    cells = {ALIASES.get(str(name), str(name)): value for name, value in row.items() if value not in (None, "")}
    given = {name: _several(value) if name in LISTS else value for name, value in cells.items()}
    plain = msgspec.convert(given, _Row, strict=False)
    dialect = plain.dialect or ("t047" if plain.vendor or plain.device else "native")
    if (plain.lon is None) != (plain.lat is None):
        raise ValueError("it has only one of lon and lat")
    name = _id(plain, dialect)
    own = {field: getattr(plain, field) for field in Caps.__struct_fields__ if hasattr(plain, field)}
    caps = Caps(**{**own, "board": name, "model": plain.model or "not told"})
    if dialect == "native":
        return Listed(dialect, caps, "", "", ())
    levels = [
        [t047.level(each) for each in names] or ["null"] for names in (plain.localities, plain.clusters, plain.stops)
    ]
    locations = tuple(Location(*each) for each in itertools.product(*levels))
    if len(locations) > LOCATIONS_MAX:
        raise ValueError(f"its places make {len(locations)} topics; there may be {LOCATIONS_MAX}")
    return Listed(dialect, msgspec.structs.replace(caps, areas=[]), plain.vendor, plain.device, locations)


def _id(row: _Row, dialect: str) -> str:
    if dialect == "t047":
        if not row.vendor or not row.device:
            raise ValueError("a display of RTIG T047 needs vendor and device")
        name = t047.board_id(row.vendor, row.device)
    else:
        name = row.id
    if not 0 < len(name) <= limits.BOARD_ID_CHARS_MAX or not name.isprintable() or set(name) & set("/+#"):
        raise ValueError(
            f"{name!r} is no board id: 1 to {limits.BOARD_ID_CHARS_MAX} printable characters without / + #"
        )
    return name


def _several(value: object) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(";") if part.strip()]
    if isinstance(value, Iterable):
        return [str(part) for part in value]
    raise ValueError(f"{value!r} is no list of names")
