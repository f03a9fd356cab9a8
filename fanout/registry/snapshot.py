"""The registry on disk: numbered snapshots, each a folder that is there whole or not at all.

    registry/
      lock                         held by the one process that writes
      snapshot-000000000042/       42 is the version; the highest is the one that counts
        people                     records, ids, hours of places, names            (array file)
        places                     the index of places                             (array file)
        contacts                   addresses by channel, mode 0600                 (array file)
        registered                 when each row was registered last               (array file)

Rules:

1. A snapshot is made in a folder of another name, synced, and renamed. A crash leaves the folder that was.
2. It holds everything up to an entry of the log (`sequence`); the log is trimmed only after the rename. Of the stream
   of dead addresses it holds how far that was taken in (`hygiene`), and what came of it.
3. Everything is mapped and checked at opening (`file_*`); contacts are read by checksum only, not into memory.
4. Older snapshots are removed after. Whoever has one mapped keeps it until they let go; whoever opens looks again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout.geo import arrayfile
from fanout.geo.index import PlaceIndex
from fanout.registry.columns import PERSON, Names
from fanout.registry.filed import Filed
from fanout.registry.hygiene import Hygiene, of_meta
from fanout.registry.packed import Overlay, Packed
from fanout.registry.view import Ids, Part, kinds_of

_FOLDER: Final = re.compile(r"snapshot-(\d{12})\Z")
_PEOPLE: Final = "registry people"
_CONTACTS: Final = "registry contacts"
_REGISTERED: Final = "registry registered"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot, mapped. `live_people`: participants there are, erased ones not counted."""

    folder: Path
    version: int
    sequence: int
    live_people: int
    names: Names
    part: Part
    contacts: dict[int, Packed]
    hygiene: Hygiene
    since: NDArray[np.int64]


def newest(folder: Path) -> int:
    """The version of the newest snapshot, 0 if there is none."""
    versions = [int(match[1]) for entry in folder.iterdir() if (match := _FOLDER.match(entry.name))]
    return max(versions, default=0)


def write(
    folder: Path,
    part: Part,
    names: Names,
    contacts: Mapping[int, Overlay],
    *,
    version: int,
    sequence: int,
    people: int,
    hygiene: Hygiene,
    since: NDArray[np.int64],
) -> None:
    """Make a snapshot durable under its version. `since` int64[rows]: epoch milliseconds, 0 where not known."""
    made = folder / f"snapshot-{version:012d}.partial"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(mode=0o700)
    meta = {"version": version, "sequence": sequence, "people": people, "single": part.single, "hygiene": hygiene}
    packed_ids = part.ids.packed
    sections: dict[str, Any] = {
        "people": part.people,
        "id_data": packed_ids.data,
        "id_offsets": packed_ids.offsets,
        "hours": part.hours,
        "names": np.frombuffer(msgspec.msgpack.encode(names), np.uint8),
    }
    arrayfile.write(made / "people", _PEOPLE, sections, meta=meta)
    part.index.save(made / "places")
    columns: dict[str, Any] = {}
    for channel, column in contacts.items():
        columns[f"offsets_{channel}"] = column.offsets
        columns[f"data_{channel}"] = arrayfile.Streamed("|u1", column.pieces())
    arrayfile.write(made / "contacts", _CONTACTS, columns, meta={"channels": list(contacts)}, mode=0o600)
    arrayfile.write(made / "registered", _REGISTERED, {"since": since.astype("<i8", copy=False)}, meta={})
    arrayfile.sync_folder(made)
    made.rename(folder / f"snapshot-{version:012d}")
    arrayfile.sync_folder(folder)


def remove_others(folder: Path, keep: int) -> None:
    """Remove every snapshot but one, and what a crash left half made."""
    for entry in folder.iterdir():
        match = _FOLDER.match(entry.name)
        if entry.name.endswith(".partial") or (match and int(match[1]) != keep):
            shutil.rmtree(entry, ignore_errors=True)


def load(folder: Path, version: int, *, verify: bool) -> Snapshot:
    """Map a snapshot. `verify` reads all of it once; without, only headers and sizes are checked.

    Raises `Refused("file_*")`; `FileNotFoundError` if it was replaced by a newer one meanwhile.
    """
    here = folder / f"snapshot-{version:012d}"
    people, names, meta = _people(here, verify=verify)
    wanted = {"id_data": "|u1", "id_offsets": "<i8", "hours": "<u2"}
    arrays, _ = arrayfile.read(here / "people", _PEOPLE, wanted, verify=verify)
    places = PlaceIndex.load(here / "places", verify=verify)
    ids = Ids(Packed(arrays["id_data"], arrays["id_offsets"]))
    kinds = kinds_of(people, places.rows, arrays["hours"])
    part = Part(None, people, ids, places, arrays["hours"], bool(meta["single"]), kinds)
    return Snapshot(
        here, int(meta["version"]), int(meta["sequence"]), int(meta["people"]), names, part,
        load_contacts(here, verify=verify), of_meta(meta.get("hygiene")), _since(here, verify=verify),
    )  # fmt: skip


def load_for_senders(folder: Path, version: int) -> tuple[NDArray[np.void], dict[int, Filed], int]:
    """Records, contacts and the log's sequence number: what a sender needs, and no more."""
    here = folder / f"snapshot-{version:012d}"
    people, _, meta = _people(here, verify=False)
    file = here / "contacts"
    _, found = arrayfile.read(file, _CONTACTS, {})
    offsets, _ = arrayfile.read(file, _CONTACTS, {f"offsets_{one}": "<i8" for one in found["channels"]}, verify=False)
    contacts = {
        one: Filed(arrayfile.section(file, _CONTACTS, f"data_{one}", "|u1"), offsets[f"offsets_{one}"])
        for one in found["channels"]
    }
    return people, contacts, int(meta["sequence"])


def load_contacts(here: Path, *, verify: bool) -> dict[int, Packed]:
    """Map the addresses of a snapshot, by channel number."""
    _, meta = arrayfile.read(here / "contacts", _CONTACTS, {})
    wanted: dict[str, str] = {}
    for channel in meta["channels"]:
        wanted |= {f"offsets_{channel}": "<i8", f"data_{channel}": "|u1"}
    arrays, _ = arrayfile.read(here / "contacts", _CONTACTS, wanted, verify=verify)
    return {channel: Packed(arrays[f"data_{channel}"], arrays[f"offsets_{channel}"]) for channel in meta["channels"]}


def _since(here: Path, *, verify: bool) -> NDArray[np.int64]:
    """The column of registrations; empty in a snapshot that is older than it."""
    if not (here / "registered").exists():
        return np.zeros(0, np.int64)
    arrays, _ = arrayfile.read(here / "registered", _REGISTERED, {"since": "<i8"}, verify=verify)
    return arrays["since"]


def _people(here: Path, *, verify: bool) -> tuple[NDArray[np.void], Names, dict[str, Any]]:
    arrays, meta = arrayfile.read(here / "people", _PEOPLE, {"people": PERSON, "names": "|u1"}, verify=verify)
    return arrays["people"], msgspec.msgpack.decode(arrays["names"].tobytes(), type=Names), meta
