"""One file format for arrays of our own: checked header, raw little-endian sections, mapped back without a copy.

    bytes 0-7      magic `FANOUT\\r\\n` (a transfer that translates line ends breaks it, and is found out)
    bytes 8-11     format version, uint32
    bytes 12-15    length of the header's JSON, uint32
    bytes 16-      JSON: {"what", "meta", "sections": [{"name", "dtype", "count", "offset", "crc"}]}, CRC-32 of it
    (uint32) bytes 4096-    sections, each beginning at a multiple of 64 bytes

Rules:

1. A file is written under another name, synced, and renamed: whoever sees the name sees a whole file.
2. Everything is checked before anything is used, each with its own error: magic, version, what it holds, dtype, count,
   sum.
3. A mapped array is read-only.

Why not `.npy` or Arrow: one file with several arrays, checksums, structured dtypes and 64-byte alignment for `mmap`;
and the sections may be streamed, so that contacts of a million people never stand in memory.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.errors import Refused

MAGIC: Final = b"FANOUT\r\n"
VERSION: Final = 1
HEADER_BYTES: Final = 4096
_ALIGN: Final = 64
_CHUNK_BYTES: Final = 1 << 22

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Streamed:
    """A section that is made while it is written: `count` items of `dtype` in all, in pieces."""

    dtype: str
    pieces: Iterable[Array]


def write(
    path: Path, what: str, sections: Mapping[str, Array | Streamed], *, meta: Mapping[str, Any], mode: int = 0o644
) -> None:
    """Write flat arrays to `path`, whole or not at all, synced to disk with the folder's entry."""
    partial = path.with_name(path.name + ".partial")
    entries: list[dict[str, Any]] = []
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.seek(HEADER_BYTES)
        for name, section in sections.items():
            offset = -(-file.tell() // _ALIGN) * _ALIGN
            file.seek(offset)
            crc = count = 0
            dtype = section.dtype if isinstance(section, Streamed) else _descriptor(section.dtype)
            for piece in _pieces(section):
                data = _octets(piece)
                crc = zlib.crc32(data, crc)
                count += piece.size
                _write_all(file.fileno(), data)
            entries.append({"name": name, "dtype": dtype, "count": count, "offset": offset, "crc": crc})
        text = json.dumps({"what": what, "meta": dict(meta), "sections": entries}).encode()
        assert len(text) <= HEADER_BYTES - 20, "the header has no room for so many sections"
        file.seek(0)
        head = MAGIC + np.array([VERSION, len(text)], "<u4").tobytes() + text
        _write_all(file.fileno(), memoryview(head + np.array([zlib.crc32(text)], "<u4").tobytes()))
        end = max([HEADER_BYTES] + [e["offset"] + np.dtype(_parsed(e["dtype"])).itemsize * e["count"] for e in entries])
        file.truncate(end)
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def read(
    path: Path, what: str, wanted: Mapping[str, str | np.dtype[Any]], *, verify: bool = True
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Map the sections named in `wanted` (name to dtype) and return them with the header's meta.

    Raises `Refused("file_magic" | "file_version" | "file_dtype" | "file_count" | "file_checksum")`.
    """
    header = _header(path, what)
    arrays: dict[str, Array] = {}
    for name, dtype in wanted.items():
        entry, end = _entry(path, header, name, dtype)
        if verify and _checksum(path, entry["offset"], end) != entry["crc"]:
            raise Refused("file_checksum", name, path=path.name)
        if entry["count"] == 0:
            arrays[name] = np.empty(0, dtype)
        else:
            arrays[name] = np.memmap(path, dtype, "r", entry["offset"], (entry["count"],)).view(np.ndarray)
        arrays[name].setflags(write=False)
    return arrays, header["meta"]


class Section(NamedTuple):
    """Where a section lies: an open file, which is its holder's to close, and the first byte."""

    descriptor: int
    offset: int


def section(path: Path, what: str, name: str, dtype: str | np.dtype[Any]) -> Section:
    """Find a section for somebody who reads parts of it, and maps nothing. Errors: as `read`, but for the checksum."""
    entry, _ = _entry(path, _header(path, what), name, dtype)
    return Section(os.open(path, os.O_RDONLY | os.O_CLOEXEC), entry["offset"])


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(path: Path, what: str) -> dict[str, Any]:
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if head[:8] != MAGIC:
        raise Refused("file_magic", path=path.name, what=what)
    if len(head) < 20:
        raise Refused("file_count", path=path.name, given=len(head), wanted=HEADER_BYTES)
    version, length = (int(value) for value in np.frombuffer(head[8:16], "<u4"))
    if version != VERSION:
        raise Refused("file_version", path=path.name, given=version, known=VERSION)
    if len(head) < HEADER_BYTES and len(head) < 20 + length:
        raise Refused("file_count", path=path.name, given=len(head), wanted=20 + length)
    text = head[16 : 16 + length]
    if length > HEADER_BYTES - 20 or zlib.crc32(text) != int.from_bytes(head[16 + length : 20 + length], "little"):
        raise Refused("file_checksum", path=path.name)
    header: dict[str, Any] = json.loads(text)
    if header["what"] != what:
        raise Refused("file_magic", path=path.name, what=what)
    return header


def _entry(path: Path, header: Mapping[str, Any], name: str, dtype: str | np.dtype[Any]) -> tuple[dict[str, Any], int]:
    """What the header says of a section, and where it ends; the file is long enough for it."""
    entry: dict[str, Any] | None = next((one for one in header["sections"] if one["name"] == name), None)
    if entry is None or _parsed(entry["dtype"]) != np.dtype(dtype):
        given = "nothing of that name" if entry is None else str(entry["dtype"])
        raise Refused("file_dtype", name, path=path.name, given=given, wanted=f"{name} as {np.dtype(dtype)}")
    end = entry["offset"] + np.dtype(dtype).itemsize * entry["count"]
    size = path.stat().st_size
    if end > size:
        raise Refused("file_count", name, path=path.name, given=size, wanted=end)
    return entry, end


def _pieces(section: Array | Streamed) -> Iterator[Array]:
    if isinstance(section, Streamed):
        yield from section.pieces
        return
    step = max(1, _CHUNK_BYTES // max(1, section.dtype.itemsize))
    for start in range(0, section.size, step):
        yield section[start : start + step]


def _octets(piece: Array) -> memoryview:
    return memoryview(np.ascontiguousarray(piece).view(np.uint8)) if piece.size else memoryview(b"")  # type: ignore[arg-type]


def _descriptor(dtype: np.dtype[Any]) -> Any:
    """A dtype as JSON can hold it."""
    if dtype.names is None:
        return dtype.str
    return {"names": list(dtype.names), "formats": [dtype[name].str for name in dtype.names], "size": dtype.itemsize,
            "offsets": [dtype.fields[name][1] for name in dtype.names] if dtype.fields else []}  # fmt: skip


def _parsed(given: Any) -> np.dtype[Any]:
    if isinstance(given, str):
        return np.dtype(given)
    return np.dtype({"names": given["names"], "formats": given["formats"], "offsets": given["offsets"],
                     "itemsize": given["size"]})  # fmt: skip


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _checksum(path: Path, offset: int, end: int) -> int:
    """CRC-32 of a stretch, read rather than mapped: so it stays in the page cache and out of this process."""
    crc = 0
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while offset < end:
            data = file.read(min(_CHUNK_BYTES, end - offset))
            if not data:
                break
            crc = zlib.crc32(data, crc)
            offset += len(data)
    return crc
