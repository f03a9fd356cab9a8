"""Header blocks: what `hpack` writes is read, one connection after the other; what nobody should write is refused."""

from __future__ import annotations

import hpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.simulators.http2.blocks import kernels as k
from fanout.simulators.http2.blocks import tables

NAMES = st.sampled_from([b":path", b":method", b"content-type", b"x-a", b"authorization", b"x" * 40])
VALUES = st.one_of(st.sampled_from([b"", b"POST", b"/3/device/00ff", b"a" * 300]), st.binary(max_size=200))
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=12)
BLOCKS = st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, 0, 70, 4_096])), min_size=1, max_size=30)


class Reader:
    """One connection's side that reads."""

    def __init__(self) -> None:
        self.table = k.new_table()
        self.text, self.fields = np.zeros(65_536, np.uint8), np.zeros((64, 3), np.int64)

    def read(self, block: bytes) -> list[tuple[bytes, bytes]] | None:
        """The block's fields, None if it is broken."""
        count = k.read_block(*self.table, np.frombuffer(block, np.uint8), 0, len(block), self.text, self.fields)
        spans = self.fields[: max(count, 0)].tolist()
        found = [(self.text[a:b].tobytes(), self.text[b:c].tobytes()) for a, b, c in spans]
        return found if count >= 0 else None


@given(BLOCKS)
@settings(deadline=None)
def test_what_hpack_writes_is_read(blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]]) -> None:
    reader, writer = Reader(), hpack.Encoder()
    for fields, huffman, size in blocks:
        if size is not None:
            writer.header_table_size = size
        marked = [hpack.NeverIndexedHeaderTuple(n, v) if secret else (n, v) for n, v, secret in fields]
        assert reader.read(writer.encode(marked, huffman=huffman)) == [(n, v) for n, v, _ in fields]


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_what_is_no_block_is_read_as_hpack_reads_it_or_refused(block: bytes) -> None:
    try:
        expected = [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(block, raw=True)]
    except hpack.HPACKError:
        return  # we may be more patient (a string padded with a byte too many, say); it must only come to an end
    found = Reader().read(block)
    assert found is None or found == expected


def test_the_table_is_filled_over_and_over() -> None:
    """Its bytes are moved together when their place is full."""
    reader, writer = Reader(), hpack.Encoder()
    for number in range(2_000):
        fields = [(b"x-%d" % (number % 50), b"%0*d" % (number % 97, number)), (b"x-%d" % ((number - 7) % 50), b"y")]
        assert reader.read(writer.encode(fields)) == fields


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbf",  # an entry that is not there
        b"\x00\x05ab",  # a string cut off
        b"\xff\xff\xff\xff\xff\x0f",  # an integer without an end
        b"\x3f\xff\xff\x0f",  # a table bigger than was offered
        b"\x82\x20",  # a size after a field
        b"\x00\x01a\x81\x00",  # Huffman: padded with zeros
        b"\x00\x01a\x84\xff\xff\xff\xff",  # Huffman: the end of string in the middle
        b"\x82" * 65,  # more fields than there is room for
    ],
)
def test_a_broken_block_is_refused(block: bytes) -> None:
    assert Reader().read(block) is None


def test_every_symbol_of_the_code() -> None:
    whole = bytes(range(256))
    assert Reader().read(hpack.Encoder().encode([(b"a", whole), (b"b", whole[::-1])], huffman=True)) == [
        (b"a", whole),
        (b"b", whole[::-1]),
    ]
    assert len(tables.STATIC) == k.STATIC_COUNT
