"""Named areas: municipalities, regions, countries, imported once and then addressed by kind and name.

Rules:

1. Each kind is one file in the areas folder; importing a kind again replaces it, whole or not at all. A kind is a short
   name (`area_kind_invalid`), so that no two have one file and none is outside the folder.
2. A feature is found by its name, and by its `code`, `id`, `iso2` or `iso3` where it has one; case does not matter.
   Several features of one name are one area of several parts; one that stands there twice is there once. Names that
   differ in case only are found as they are written. Of a TopoJSON file with several objects the one asked for is
   taken, or those in which some feature has a name: world maps have a nameless `land` beside their countries.
3. A boundary from a map maker is judged as a caller's is, but for its number of vertices; what is invalid in the file
   (a ring that touches itself, a doubled edge) is read even-odd, which gives every point one answer, and counted.
4. Countries ship with the project (kind `country`: English name, ISO codes) and need no import.

This module is also the door through which requests come: `shape_of`, `from_geojson`.
"""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from fanout.errors import Refused
from fanout.geo import gate, shapes, topojson
from fanout.geo.arrayfile import sync_folder
from fanout.geo.gate import check_size, from_geojson, shape_of
from fanout.geo.shapes import Shape

__all__ = ["NamedAreas", "Shape", "check_size", "from_geojson", "shape_of"]

COUNTRY: Final = "country"
_CODES: Final = ("id", "code", "iso2", "iso3")
_VERSION: Final = 1
_KIND: Final = re.compile(r"[^\W_][\w -]{0,39}")

Polygons = list[list[list[tuple[float, float]]]]


class _File(msgspec.Struct, frozen=True):
    """One kind on disk: areas by name, and which name each alias (lower case) means."""

    version: int
    kind: str
    areas: dict[str, Polygons]
    aliases: dict[str, str]


class NamedAreas:
    """Areas by (kind, name). Calling it answers `gate.shape_of`'s question; shapes are made when first asked for."""

    def __init__(self, folder: Path, kinds: dict[str, _File], paths: dict[str, Path]) -> None:
        self._folder, self._kinds, self._paths = folder, kinds, paths
        self._shapes: dict[tuple[str, str], shapes.Shape] = {}

    @classmethod
    def open(cls, folder: Path) -> NamedAreas:
        """The areas imported into a folder (it need not exist), and the countries."""
        found, paths = {COUNTRY: _countries()}, {}
        for path in sorted(folder.glob("*.areas")) if folder.is_dir() else []:
            file = _read(path)
            found[file.kind], paths[file.kind] = file, path
        return cls(folder, found, paths)

    def __call__(self, kind: str, name: str) -> shapes.Shape | None:
        """The shape of an area, None if there is no such."""
        file = self._kinds.get(kind)
        if file is None:
            return None
        known = name if name in file.areas else file.aliases.get(_folded(name))
        if known is None:
            return None
        if (kind, known) not in self._shapes:
            self._shapes[kind, known] = gate.lenient(file.areas[known], f"{kind} {known}")
        return self._shapes[kind, known]

    def kinds(self) -> dict[str, int]:
        """How many areas there are of each kind."""
        return {kind: len(file.areas) for kind, file in self._kinds.items()}

    def names(self, kind: str) -> list[str]:
        """Names of a kind, sorted."""
        return sorted(self._kinds[kind].areas) if kind in self._kinds else []

    def import_file(self, path: Path, *, kind: str, name_field: str, of: str | None = None) -> int:
        """Take all features of a GeoJSON or TopoJSON file in as areas of a kind; returns how many areas there are.

        `of`: of a TopoJSON file this object only. Raises `Refused("areas_unreadable")` naming the file or the feature,
        `Refused("area_kind_invalid")`, or a refusal `area_*` for a feature whose coordinates make no sense; nothing is
        changed then.
        """
        if not _KIND.fullmatch(kind):
            raise Refused("area_kind_invalid", "kind", kind=kind)
        file = _imported(_document(path), kind, name_field, path.name, of)
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{_file_name(kind)}.partial"
        with partial.open("wb") as out:
            out.write(msgspec.msgpack.encode(file))
            out.flush()
            os.fsync(out.fileno())
        kept = self._folder / f"{_file_name(kind)}.areas"
        partial.replace(kept)
        if self._paths.setdefault(kind, kept) != kept:  # found under the name that it had in an earlier version
            self._paths.pop(kind).unlink(missing_ok=True)
        sync_folder(self._folder)
        self._kinds[kind] = file
        self._shapes = {key: shape for key, shape in self._shapes.items() if key[0] != kind}
        return len(file.areas)


def _file_name(kind: str) -> str:
    return kind.replace(" ", "+")


def _folded(name: str) -> str:
    """A name however it is typed: in either case, its accents as letters of their own or not."""
    return unicodedata.normalize("NFC", name).casefold()


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Refused("areas_unreadable", path.name, detail=str(error)) from None


def _read(path: Path) -> _File:
    try:
        file = msgspec.msgpack.decode(path.read_bytes(), type=_File)
    except msgspec.DecodeError:
        raise Refused("file_magic", path=path.name, what="named areas") from None
    if file.version != _VERSION:
        raise Refused("file_version", path=path.name, given=file.version, known=_VERSION)
    return file


def _imported(document: Any, kind: str, name_field: str, where: str, of: str | None) -> _File:
    areas: dict[str, Polygons] = {}
    aliases: dict[str, str] = {}
    features = list(topojson.features_of(document, where))
    objects = {feature.of for feature in features}
    if of is not None and of not in objects:
        has = ", ".join(sorted(objects))
        raise Refused("areas_unreadable", where, detail=f"it has no object {of!r} with polygons; it has {has}")
    named = {feature.of for feature in features if feature.properties.get(name_field)}
    taken = {of} if of is not None else named or objects
    for number, feature in enumerate(features):
        if feature.of not in taken:
            continue
        name = feature.properties.get(name_field)
        if name is None or not str(name):
            properties = ", ".join(map(str, feature.properties))
            raise Refused("areas_unreadable", f"{where}, feature {number}",
                          detail=f"it has no property {name_field!r}; it has {properties}")  # fmt: skip
        parts = areas.setdefault(str(name), [])
        parts += [polygon for polygon in feature.polygons if polygon not in parts]  # even-odd, twice would be nothing
        gate.lenient(feature.polygons, f"{where}, {name}")
        for code in _CODES:
            if feature.properties.get(code):
                aliases.setdefault(_folded(str(feature.properties[code])), str(name))
    aliases |= {_folded(name): name for name in areas}
    if not areas:
        raise Refused("areas_unreadable", where, detail="it has no polygon")
    return _File(_VERSION, kind, areas, aliases)


@lru_cache(maxsize=1)
def _countries() -> _File:
    """The countries that ship: found by English name, ISO 3166 alpha-2, alpha-3 or number."""
    data = resources.files("fanout.geo") / "data"
    document = json.loads((data / "countries-50m.json").read_bytes())
    areas: dict[str, Polygons] = {}
    aliases: dict[str, str] = {}
    numbers: dict[str, str] = {}
    for feature in topojson.features_of(document, "countries"):
        if feature.polygons and feature.properties.get("name") and "id" in feature.properties:
            name = str(feature.properties["name"])
            areas.setdefault(name, []).extend(feature.polygons)
            numbers[str(feature.properties["id"])] = name
    with (data / "landen_e164.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["iso_num"] in numbers:
                known = numbers[row["iso_num"]]
                aliases |= {row[column].casefold(): known for column in ("iso2", "iso3", "iso_num", "naam")}
    aliases |= {name.casefold(): name for name in areas}
    return _File(_VERSION, COUNTRY, areas, aliases)
