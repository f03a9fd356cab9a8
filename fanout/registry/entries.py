"""Changes of the registry as the log holds them: one entry a call, so that a call is durable whole or not at all.

An entry carries the rows that were given out, so that replaying it gives the same registry and a sender needs no ids.
Addresses are in it, positions of phones never are. Fields may be added; readers ignore those they do not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout import wire
from fanout.store.protocol import Log

STREAM: Final = "registry"
_READ_MOST: Final = 64  # entries read at once: each may hold 20,000 people


class Upserted(msgspec.Struct, frozen=True, tag="upserted"):
    """People who are now as given. `rows` uint32[n], `generations` uint16[n], as bytes, in their order."""

    version: int
    rows: bytes
    generations: bytes
    participants: list[wire.Participant]


class Erased(msgspec.Struct, frozen=True, tag="erased"):
    """People who are no more. `rows` uint32[n] as bytes."""

    version: int
    rows: bytes


Entry: TypeAlias = Upserted | Erased

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """An entry as the log holds it."""
    return _ENCODER.encode(entry)


def after(log: Log, sequence: int) -> Iterator[tuple[int, Entry]]:
    """Entries after a number, in order, as far as there are."""
    while True:
        found = log.read(STREAM, after=sequence, most=_READ_MOST)
        for sequence, data in found:
            yield sequence, _DECODER.decode(data)
        if len(found) < _READ_MOST:
            return


def rows_of(entry: Entry) -> NDArray[np.uint32]:
    """uint32[n]: the rows an entry is about."""
    return np.frombuffer(entry.rows, "<u4")


def generations_of(entry: Upserted) -> NDArray[np.uint16]:
    """uint16[n]: their generations."""
    return np.frombuffer(entry.generations, "<u2")
