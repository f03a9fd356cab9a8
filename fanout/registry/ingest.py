"""What comes in becomes columns: Arrow tables (Parquet, CSV, Arrow files) and requests. Pure: no file is opened here.

The import format is one flat row a participant, so that a spreadsheet can make it. Columns, by name, in any order:

    id                      text, required: pseudonymous, unique, 1-64 of A-Z a-z 0-9 . _ : @ -
    lon, lat                degrees, required; hours: text as `12345 08:00-18:00;67 10:00-12:00`, empty: always
    lon_2, lat_2, hours_2   a second place, and so on to _8; empty: there is none
    fcm apns webpush sms voice email whatsapp     the address on that channel, empty: none
    preference              channels, the most wanted first, as `sms,fcm`; empty: in the order of the columns above
    language timezone age_group                   empty: nl, Europe/Amsterdam, unknown
    kinds, tenants          names, separated by commas; empty: all

A column of another name is an error: a misspelt `hours2` must not be a silence. Every bad row is found in one pass,
with its number (1 is the first row of data), its column and what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fanout import limits, wire
from fanout.errors import Refused
from fanout.geo.fixed import to_fixed
from fanout.registry import addresses, hours, kernels, packed
from fanout.registry.columns import AGE_GROUPS, ALL, PERSON, Columns, Numbering, choices_of, preference_of
from fanout.registry.files import RowNumbers

_ID: Final = r"^[A-Za-z0-9._:@-]{1,64}$"
_NUMBER: Final = r"^\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*$"
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?\Z")
_REASONS_MAX: Final = 20  # bad rows described one by one; the rest is counted

_SUFFIXES: Final = ("", *(f"_{n}" for n in range(2, limits.PLACES_PER_PARTICIPANT_MAX + 1)))
_KNOWN: Final = frozenset(
    ["id", "preference", "language", "timezone", "age_group", "kinds", "tenants", *wire.CHANNELS]
    + [name + suffix for suffix in _SUFFIXES for name in ("lon", "lat", "hours")]
)

_WORDS: Final = ("preference", "kinds", "tenants", "timezone", "channels", "language", "age_group")

Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Found:
    """Bad rows so far: `bad` bool[n], and what is wrong with the first of them (row from 0, sentence)."""

    bad: Bools
    reasons: list[tuple[int, str]] = field(default_factory=list)

    def add(self, wrong: Bools, sentence: str, values: Any = None) -> None:
        """Record rows; `values` (Arrow) gives what stood there."""
        rows = np.flatnonzero(wrong)
        self.bad |= wrong
        for row in rows[:_REASONS_MAX].tolist():
            given = "" if values is None else f", not {str(values[row].as_py())[:40]!r}"
            self.reasons.append((row, sentence + given))


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: rows of the file, people imported, rows left out and why (the first), the version."""

    rows: int
    imported: int
    left_out: int
    problems: tuple[str, ...]
    new: int = 0
    version: int = 0

    def at(self, version: int, new: int) -> Imported:
        """The same, once it is done."""
        return replace(self, version=version, new=new)


def columns_of(
    table: pa.Table, numbering: Numbering, on_bad: Literal["refuse", "skip"], row_numbers: RowNumbers
) -> tuple[Columns, Imported]:
    """Columns of an Arrow table, and what became of its rows.

    Raises `Refused("import_column_missing" | "import_column_type")`, and `Refused("import_rows_bad")` if any row is bad
    and bad rows are not to be skipped.
    """
    checked, found = check(table, numbering)
    malformed = row_numbers.malformed
    rows = table.num_rows + len(malformed)
    bad = int(found.bad.sum()) + len(malformed)
    told = [(row_numbers(row), why) for row, why in sorted(found.reasons)[:_REASONS_MAX]] + list(malformed)
    reasons = tuple(f"row {number}, {why}" for number, why in sorted(told)[:_REASONS_MAX])
    if bad and on_bad == "refuse":
        raise Refused("import_rows_bad", reasons[0], bad=bad, rows=rows, first=reasons[0])
    if found.bad.any():
        checked = checked.filter(pa.array(~found.bad))
    return of_table(checked, numbering), Imported(rows, rows - bad, bad, reasons)


def check(table: pa.Table, numbering: Numbering) -> tuple[pa.Table, Found]:
    """A table with every column in its type, and its bad rows.

    Raises `Refused("import_column_missing" | "import_column_type")`: with those no row can be judged.
    """
    present = table.column_names
    for name in ("id", "lon", "lat"):
        if name not in present:
            raise Refused("import_column_missing", column=name, present=", ".join(present))
    for name in present:
        if name not in _KNOWN or present.count(name) > 1:
            raise Refused("import_column_type", f"column {name!r}", column=name, given="no meaning here",
                          wanted="a column of the import format, once,")  # fmt: skip
    found = Found(np.zeros(table.num_rows, np.bool_))
    columns: dict[str, Any] = {}
    for name in present:
        column = table.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        is_place = name.split("_")[0] in ("lon", "lat")
        columns[name] = _floats(name, column, found) if is_place else _strings(name, column)
    _check_ids(columns["id"], found)
    _check_places(columns, found)
    for name in wire.CHANNELS:
        if name in columns:
            good = addresses.good_column(name, columns[name])
            found.add(_false(good), f"column {name}: {addresses.wanted(name)} is needed", columns[name])
    for name, judge in _judges(numbering).items():
        if name in columns:
            distinct = columns[name].dictionary_encode()
            fine = np.array([judge(value) for value in distinct.dictionary.to_pylist()] + [True], np.bool_)
            codes = distinct.indices.fill_null(len(fine) - 1).to_numpy(zero_copy_only=False)
            found.add(~fine[codes], f"column {name}: unknown or malformed", columns[name])
    return pa.table(columns), found


def of_table(table: pa.Table, numbering: Numbering) -> Columns:
    """Columns of a table that `check` found good."""
    n = table.num_rows
    column = {name: table.column(name).combine_chunks() for name in table.column_names}
    column = {
        name: value if not isinstance(value, pa.ChunkedArray) else pa.concat_arrays(value.chunks)
        for name, value in column.items()
    }
    people = np.zeros(n, PERSON)
    contacts = {channel: packed.of_arrow(column[name]) for channel, name in enumerate(wire.CHANNELS) if name in column}
    for channel, values in contacts.items():
        people["channels"] |= ((values.lengths > 0).astype(np.uint8) << channel).astype(np.uint8)
    people["language"] = _coded(column, "language", n, lambda name: numbering.number("languages", name, ""), "nl")
    people["timezone"] = _coded(
        column, "timezone", n, lambda name: numbering.number("timezones", name, ""), "Europe/Amsterdam"
    )
    people["age_group"] = _coded(column, "age_group", n, AGE_GROUPS.index, "unknown")
    for name in ("kinds", "tenants"):
        people[name] = _coded(column, name, n, partial(_bits_of, numbering, name), "")
    order = _coded(column, "preference", n, lambda text: preference_of(_order(text) or []), "")
    people["preference"] = _preferences(order, people["channels"])
    places = [_place(column, suffix, n, numbering) for suffix in _SUFFIXES if "lon" + suffix in column]
    person = np.concatenate([place[0] for place in places])
    by_person = np.argsort(person, kind="stable")
    return Columns(
        people,
        packed.of_arrow(column["id"]),
        person[by_person],
        np.concatenate([place[1] for place in places])[by_person],
        np.concatenate([place[2] for place in places])[by_person],
        np.concatenate([place[3] for place in places])[by_person],
        contacts,
    )


def of_participants(participants: Sequence[wire.Participant], numbering: Numbering) -> Columns:
    """Columns of a request's participants, or a refusal that names the first that is wrong.

    Raises `Refused("field_invalid" | "kind_unknown")`, `where` as `participants[12].addresses[0].value`.
    """
    n = len(participants)
    people = np.zeros(n, PERSON)
    words: dict[str, list[int]] = {name: [] for name in _WORDS}
    person: list[int] = []
    lon: list[float] = []
    lat: list[float] = []
    forms: list[int] = []
    given: dict[int, list[bytes]] = {channel: [b""] * n for channel in range(len(wire.CHANNELS))}
    seen: dict[str, int] = {}
    for at, one in enumerate(participants):
        where = f"participants[{at}]"
        if seen.setdefault(one.id, at) != at:
            raise Refused("field_invalid", f"{where}.id", detail=f"{one.id!r} is also participants[{seen[one.id]}].")
        if not hours.known_timezone(one.timezone):
            raise Refused("field_invalid", f"{where}.timezone", detail=f"No time zone is called {one.timezone!r}.")
        choices: list[int] = []
        for number, address in enumerate(one.addresses):
            channel = wire.CHANNELS.index(address.channel)
            if channel in choices:
                raise Refused("field_invalid", f"{where}.addresses[{number}]",
                              detail=f"A participant has one address on {address.channel}.")  # fmt: skip
            if not addresses.good(address.channel, address.value):
                raise Refused("field_invalid", f"{where}.addresses[{number}].value",
                              detail=f"This is not {addresses.wanted(address.channel)}.")  # fmt: skip
            choices.append(channel)
            given[channel][at] = address.value.encode()
        words["preference"].append(preference_of(choices))
        words["channels"].append(sum(1 << channel for channel in choices))
        words["kinds"].append(numbering.bits("kinds", one.kinds, f"{where}.kinds"))
        words["tenants"].append(numbering.bits("tenants", one.tenants, f"{where}.tenants"))
        words["timezone"].append(numbering.number("timezones", one.timezone, f"{where}.timezone"))
        words["language"].append(numbering.number("languages", one.language, f"{where}.language"))
        words["age_group"].append(AGE_GROUPS.index(one.age_group))
        for place in one.places:
            person.append(at)
            lon.append(place.lon)
            lat.append(place.lat)
            forms.append(numbering.number("hours", hours.of_windows(place.hours), f"{where}.places"))
    for name, values in words.items():
        people[name] = values
    lons, lats = to_fixed(np.array(lon, np.float64), np.array(lat, np.float64))
    contacts = {channel: packed.of_bytes(values) for channel, values in given.items() if any(values)}
    return Columns(
        people, packed.of_texts([one.id for one in participants]), np.array(person, np.uint32), lons, lats,
        np.array(forms, np.uint16), contacts,
    )  # fmt: skip


# --- columns of a table -----------------------------------------------------------------------------------------------


def _floats(name: str, column: Any, found: Found) -> Any:
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return column.cast(pa.float64(), safe=False)
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.float64())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise Refused("import_column_type", column=name, given=column.type, wanted="a number")
    column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    fine = pc.match_substring_regex(column, _NUMBER)
    found.add(_false(fine), f"column {name}: a number is needed", column)
    return pc.utf8_trim_whitespace(pc.if_else(fine, column, None)).cast(pa.float64())


def _strings(name: str, column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.large_string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise Refused("import_column_type", column=name, given=column.type, wanted="text")
    return pc.if_else(pc.equal(column, ""), None, column).cast(pa.large_string())


def _check_ids(ids: Any, found: Found) -> None:
    found.add(_true(ids.is_null()), "column id: an id is needed")
    found.add(_false(pc.match_substring_regex(ids, _ID)), "column id: 1 to 64 of A-Z a-z 0-9 . _ : @ - are needed", ids)
    values = packed.of_arrow(ids)
    twice = np.empty(values.rows, np.int64)
    kernels.insert_ids(values.data, values.offsets, new_table(values.rows), twice)
    found.add(twice >= 0, "column id: the id stands in an earlier row too", ids)


def new_table(rows: int) -> NDArray[np.uint32]:
    """An empty table of ids for so many rows, at most half full."""
    return np.zeros(1 << max(4, (2 * rows - 1).bit_length()), np.uint32)


def _check_places(columns: dict[str, Any], found: Found) -> None:
    for suffix in _SUFFIXES:
        if "lon" + suffix not in columns and "lat" + suffix not in columns:
            if "hours" + suffix in columns:
                raise Refused("import_column_missing", column="lon" + suffix, present=", ".join(columns))
            continue
        for name in ("lon" + suffix, "lat" + suffix):
            if name not in columns:
                raise Refused("import_column_missing", column=name, present=", ".join(columns))
        lon, lat = (columns[name + suffix].to_numpy(zero_copy_only=False) for name in ("lon", "lat"))
        missing = _true(columns["lon" + suffix].is_null()) | _true(columns["lat" + suffix].is_null())
        absent = _true(columns["lon" + suffix].is_null()) & _true(columns["lat" + suffix].is_null())
        wrong = missing if suffix == "" else missing & ~absent
        found.add(wrong & ~found.bad, f"columns lon{suffix}, lat{suffix}: both are needed")
        with np.errstate(invalid="ignore"):
            found.add(
                ~missing & ~(np.abs(lon) <= 180), f"column lon{suffix}: -180 to 180 is needed", columns["lon" + suffix]
            )
            found.add(
                ~missing & ~(np.abs(lat) <= 90), f"column lat{suffix}: -90 to 90 is needed", columns["lat" + suffix]
            )


def _judges(numbering: Numbering) -> dict[str, Callable[[str], bool]]:
    """For each column of few distinct values: whether a value makes sense."""
    judges: dict[str, Callable[[str], bool]] = {
        "language": lambda text: _LANGUAGE.match(text) is not None,
        "timezone": hours.known_timezone,
        "age_group": AGE_GROUPS.__contains__,
        "preference": lambda text: _order(text) is not None,
    }
    for what in numbering.closed:
        judges[what] = partial(_all_known, frozenset(getattr(numbering.names, what)))
    for suffix in _SUFFIXES:
        judges["hours" + suffix] = lambda text: hours.of_text(text) is not None
    return judges


def _all_known(known: frozenset[str], text: str) -> bool:
    return set(_names_of(text)) <= known


def _names_of(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]


def _order(text: str) -> list[int] | None:
    """Channel numbers of a preference, None if it makes no sense."""
    names = _names_of(text)
    if len(set(names)) != len(names) or not set(names) <= set(wire.CHANNELS):
        return None
    return [wire.CHANNELS.index(name) for name in names]


def _bits_of(numbering: Numbering, what: str, text: str) -> int:
    names = _names_of(text)
    return numbering.bits(what, names, f"column {what}") if names else ALL


def _coded(columns: dict[str, Any], name: str, n: int, code: Callable[[str], int], absent: str) -> NDArray[np.uint32]:
    """uint32[n]: the number of every value, made once for each distinct one."""
    if name not in columns:
        return np.full(n, code(absent), np.uint32)
    distinct = columns[name].dictionary_encode()
    values = distinct.dictionary.to_pylist()
    if distinct.null_count:
        values.append(absent)
    codes = np.array([code(value) for value in values], np.uint32)
    if not values:
        return np.zeros(n, np.uint32)
    by_row: NDArray[np.uint32] = codes[distinct.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)]
    return by_row


def _preferences(order: NDArray[np.uint32], channels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Preferences that name exactly the channels there are: those named first, then the others in their order."""
    pairs, inverse = np.unique(order.astype(np.uint64) << np.uint64(8) | channels, return_inverse=True)
    words = np.empty(pairs.size, np.uint32)
    for at, pair in enumerate(pairs.tolist()):
        there = [channel for channel in range(len(wire.CHANNELS)) if pair >> channel & 1]
        named = [channel for channel in choices_of(pair >> 8) if channel in there]
        words[at] = preference_of(named + [channel for channel in there if channel not in named])
    return words[inverse].astype(np.uint32, copy=False)


def _place(
    columns: dict[str, Any], suffix: str, n: int, numbering: Numbering
) -> tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int32], NDArray[np.uint16]]:
    there = ~_true(columns["lon" + suffix].is_null())
    lon, lat = (columns[name + suffix].to_numpy(zero_copy_only=False)[there] for name in ("lon", "lat"))
    lons, lats = to_fixed(lon, lat)
    forms = _coded(
        columns, "hours" + suffix, n, lambda text: numbering.number("hours", hours.of_text(text) or "", "hours"), ""
    )
    return np.flatnonzero(there).astype(np.uint32), lons, lats, forms[there].astype(np.uint16)


def _true(flags: Any) -> Bools:
    values: Bools = flags.fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return values


def _false(flags: Any) -> Bools:
    values: Bools = ~flags.fill_null(True).to_numpy(zero_copy_only=False).astype(np.bool_)
    return values
