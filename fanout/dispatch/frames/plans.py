"""What the rows of a template have in common, made ready for the kernels: header blocks and texts with holes.

Header compression (RFC 7541), and why it is done so:

1. Constant headers go into the peer's dynamic table with the first request that has them, and are one or two bytes in
   every request after it. A path with a hole and the content-length are literals that never enter the table, so rows
   leave it as it is, and one prepared block serves all of them.
2. So a template is encoded twice for each connection: `first` may add to the table and is sent once; `rest` refers to
   what then stands there. Whoever adds to the table makes every other prepared block stale; they are prepared again
   when they are next wanted, which costs one encoding and no bytes.
3. What the table cannot hold (a peer may allow it no byte) is sent as literals that do not enter it.

Nothing here knows of streams, windows or sockets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import hpack
import numpy as np
from numpy.typing import NDArray

from fanout.channels.protocol import Pieces, Requests, Template

TABLE_BYTES_MAX: Final = 4_096  # the protocol's default; about ten templates at once
PLANS_MAX: Final = 64  # prepared blocks kept per connection; a sender has a few messages at once

Bytes: TypeAlias = NDArray[np.uint8]
Holes: TypeAlias = NDArray[np.int64]
Header: TypeAlias = tuple[bytes, bytes]

_NOTHING: Final = np.empty((0, 3), np.int64)


class Text(NamedTuple):
    """A template's path and body for the kernels: pieces as in `kernels.py`, constants end to end in `consts`."""

    path: Holes
    body: Holes
    consts: Bytes
    with_length: bool
    key: tuple[str, Pieces, tuple[str, ...]]
    """Templates with equal keys have equal header blocks."""


class Blocks(NamedTuple):
    """Constant parts of a header block, before and after the path's literal."""

    head: Bytes
    tail: Bytes


class Columns(NamedTuple):
    """All columns of a batch end to end, read-only: `data` uint8, `offsets` int64[columns, n + 1]."""

    data: Bytes
    offsets: Holes


def origin_of(url: str) -> tuple[str, int, str]:
    """(host, port, authority) of an https address."""
    parts = urlsplit(url)
    assert parts.hostname, "settings have checked it"
    return parts.hostname, parts.port or 443, parts.netloc.rpartition("@")[2]


def columns_of(requests: Requests) -> Columns:
    """One column is used as it is; several are put together once a batch. None may be written to, whoever made it:
    kernels are compiled for one kind of array, and that before the first row."""
    columns = requests.columns
    if len(columns) == 1:
        return _sealed(columns[0].data, np.ascontiguousarray(columns[0].offsets[None, :]))
    if not columns:
        return _sealed(np.empty(0, np.uint8), np.zeros((0, len(requests.which) + 1), np.int64))
    starts = np.cumsum([0, *(len(column.data) for column in columns[:-1])])
    offsets = np.stack([column.offsets + start for column, start in zip(columns, starts.tolist(), strict=True)])
    return _sealed(np.concatenate([column.data for column in columns]), offsets)


def _sealed(data: Bytes, offsets: Holes) -> Columns:
    columns = Columns(data.view(), offsets.view())
    for array in columns:
        array.flags.writeable = False
    return columns


def text_of(template: Template, origin: str) -> Text:
    """Prepare a template whose address begins with `origin`."""
    path = _path(template.url, origin)
    consts = bytearray()
    body = _pieces(template.body, consts)
    with_hole = any(isinstance(piece, int) for piece in path)
    return Text(
        path=_pieces(path, consts) if with_hole else _NOTHING,
        body=body,
        consts=np.frombuffer(bytes(consts) or b"\0", np.uint8),
        with_length=template.method not in ("GET", "HEAD"),
        key=(template.method, path, template.headers),
    )


def _path(url: Pieces, origin: str) -> Pieces:
    first, *others = url
    assert isinstance(first, bytes), "the origin is the same for all rows of a lane"
    begin = origin.encode()
    assert first.startswith(begin), f"a lane has one origin, {origin}"
    path = first[len(begin) :]
    return (path or (b"" if others else b"/"), *others)


def _pieces(pieces: Pieces, consts: bytearray) -> Holes:
    rows = []
    for piece in pieces:
        if isinstance(piece, int):
            rows.append((piece, 0, 0))
        elif piece:
            rows.append((-1, len(consts), len(consts) + len(piece)))
            consts += piece
    return np.array(rows, np.int64).reshape(-1, 3)


class Encoder:
    """One connection's compression of what it sends."""

    def __init__(self, authority: str) -> None:
        self._authority = authority.encode()
        self._hpack = hpack.Encoder()
        self._changes = 0
        self._limits: list[int] = []  # told since the last block
        self._ready: dict[object, tuple[int, Blocks]] = {}

    def limit(self, table_bytes: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE; it holds from the next block on."""
        self._limits.append(min(table_bytes, TABLE_BYTES_MAX))
        self._ready.clear()

    def ready(self, text: Text) -> Blocks | None:
        """The blocks of a template, if they may be used as they are."""
        found = self._ready.get(text.key)
        return found[1] if found and found[0] == self._changes else None

    def prepare(self, text: Text) -> Blocks | None:
        """Make `ready` true. What is returned must be the very next block sent, once; None if nothing new is in it."""
        if len(self._ready) >= PLANS_MAX:
            self._ready.clear()
        if self._limits:  # of several, the least and the last are to be confirmed (RFC 7541, 4.2)
            for limit in dict.fromkeys((min(self._limits), self._limits[-1])):
                self._hpack.header_table_size = limit
            self._limits.clear()
        method, path, headers = text.key
        head: list[Header] = [(b":method", method.encode()), (b":scheme", b"https"), (b":authority", self._authority)]
        if not len(text.path):
            head.append((b":path", b"".join(piece for piece in path if isinstance(piece, bytes))))
        tail = [_header(line) for line in headers]
        first = self._encode(head), self._encode(tail)
        if all(map(_indexed, first)):
            self._ready[text.key] = self._changes, _blocks(first)
            return None
        self._changes += 1
        table = copy.deepcopy(self._hpack.header_table)
        rest = self._encode(head), self._encode(tail)
        if not all(map(_indexed, rest)):
            self._hpack.header_table = table  # as the peer has it: this attempt is not sent
            rest = self._encode(head, keep=False), self._encode(tail, keep=False)
        self._ready[text.key] = self._changes, _blocks(rest)
        return _blocks(first)

    def _encode(self, headers: Iterable[Header], *, keep: bool = True) -> bytes:
        return self._hpack.encode([(name, value, not keep) for name, value in headers])


def _blocks(parts: tuple[bytes, bytes]) -> Blocks:
    return Blocks(np.frombuffer(parts[0], np.uint8), np.frombuffer(parts[1], np.uint8))


def _header(line: str) -> Header:
    name, _, value = line.partition(":")
    return name.strip().lower().encode(), value.strip().encode()


def _indexed(block: bytes) -> bool:
    """Whether a block refers to the tables only, and so leaves them as they are."""
    at = 0
    while at < len(block):
        if not block[at] & 0x80:
            return False
        long = block[at] == 0xFF
        at += 1
        while long:
            long = bool(block[at] & 0x80)
            at += 1
    return True
