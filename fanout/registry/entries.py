"""Changes of the registry as the log holds them: one entry a call, so that a call is durable whole or not at all.

An entry carries the rows that were given out, so that replaying it gives the same registry and a sender needs no ids.
Addresses are in it, positions of phones never are. Fields may be added; readers ignore those they do not know.

A second stream comes the other way: what senders learnt of addresses (`DeadAddresses`). It decides nothing by itself.
The registry compares it with what is registered by now, and what it then drops is an entry of its own (`Dropped`), so
that replicas, snapshots and a restart have no judgement to repeat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout import wire
from fanout.store.protocol import Log

STREAM: Final = "registry"
DEAD_STREAM: Final = "dead-addresses"
READ_MOST: Final = 64  # entries read at once: each may hold 20,000 people


class Upserted(msgspec.Struct, frozen=True, tag="upserted"):
    """People who are now as given. `rows` uint32[n], `generations` uint16[n], as bytes, in their order.

    `at_ms`: when they were registered, 0 in an entry that is older than this field.
    """

    version: int
    rows: bytes
    generations: bytes
    participants: list[wire.Participant]
    at_ms: int = 0


class Erased(msgspec.Struct, frozen=True, tag="erased"):
    """People who are no more. `rows` uint32[n] as bytes."""

    version: int
    rows: bytes


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    """Addresses that are no more, the people stay. `channels` uint8[n], `rows` uint32[n], `at_ms` int64[n], as bytes.

    `reason`: as the catalogue of `store.states.Reason` names it; `at_ms`: when a provider said so. `upto`: the entry of
    `DEAD_STREAM` up to which all was taken in with this one, so that nothing is taken in twice.
    """

    version: int
    upto: int
    reason: str
    channels: bytes
    rows: bytes
    at_ms: bytes


Entry: TypeAlias = Upserted | Erased | Dropped


class DeadAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses that a provider declared dead or wrong: one entry of `DEAD_STREAM`, in msgpack, written by a sender.

    `at_ms`: when they were read to be tried; `since_ms`: since when they are dead, where the provider says so (as long
    as `rows`, or empty); `reason`: as the catalogue of `store.states.Reason` names it. `digests`: of the addresses that
    were tried, in the order of `rows`, so that another one registered since is told apart.
    """

    channel: int
    at_ms: int
    rows: list[int]
    generations: list[int]
    digests: list[bytes]
    since_ms: list[int] = []
    reason: str = "token_dead"


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Entry)
_DEAD_DECODER: Final = msgspec.msgpack.Decoder(DeadAddresses)


def encode(entry: Entry) -> bytes:
    """An entry as the log holds it."""
    return _ENCODER.encode(entry)


def encode_dead(dead: DeadAddresses) -> bytes:
    """An entry of `DEAD_STREAM`."""
    return _ENCODER.encode(dead)


def decode_dead(data: bytes) -> DeadAddresses | None:
    """An entry of `DEAD_STREAM`, None if it is of a form that is not known here: then nobody is dropped for it."""
    try:
        return _DEAD_DECODER.decode(data)
    except msgspec.DecodeError:
        return None


def digest_of(address: bytes) -> bytes:
    """What stands for an address where the address itself need not be: 8 bytes, told apart by channel and row beside.

    Two tokens of one person on one channel have the same once in 10^19.
    """
    return hashlib.blake2b(address, digest_size=8).digest()


def after(log: Log, sequence: int) -> Iterator[tuple[int, Entry]]:
    """Entries after a number, in order, as far as there are."""
    while True:
        found = log.read(STREAM, after=sequence, most=READ_MOST)
        for sequence, data in found:
            yield sequence, _DECODER.decode(data)
        if len(found) < READ_MOST:
            return


def rows_of(entry: Entry) -> NDArray[np.uint32]:
    """uint32[n]: the rows an entry is about."""
    return np.frombuffer(entry.rows, "<u4")


def generations_of(entry: Upserted) -> NDArray[np.uint16]:
    """uint16[n]: their generations."""
    return np.frombuffer(entry.generations, "<u2")


def channels_of(entry: Dropped) -> NDArray[np.uint8]:
    """uint8[n]: the channel of each dropped address."""
    return np.frombuffer(entry.channels, np.uint8)
