"""What is read of header blocks, against hpack, which reads all of them."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.dispatch.frames.heads import Head, head_of

TEXTS = st.binary(max_size=200)
NAMES = st.sampled_from((b":status", b"retry-after", b"date", b"server", b"x-request-id")) | TEXTS
VALUES = st.sampled_from((b"200", b"201", b"404", b"500", b"503", b"17", b"")) | TEXTS


@given(st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=30), st.booleans(), st.data())
def test_it_says_what_hpack_says(headers: list[tuple[bytes, bytes, bool]], huffman: bool, data: st.DataObject) -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = encoder.encode(headers, huffman=huffman)
    said = dict(reversed([(name, value) for name, value, _ in headers]))
    assert head_of(block) == Head(said.get(b":status", b""), said.get(b"retry-after", b""))
    cut = block[: data.draw(st.integers(0, len(block)))]
    try:
        head = head_of(cut)  # between two headers
    except ValueError:
        return
    assert all(ours in (b"", theirs) for ours, theirs in zip(head, head_of(block), strict=True))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(block: bytes) -> None:
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    try:
        said = dict(reversed([(name, value) for name, value in decoder.decode(block, raw=True)]))
    except (hpack.HPACKError, UnicodeDecodeError):
        return  # we may let pass what is wrong with a header that nobody reads
    assert head_of(block) == Head(said.get(b":status", b""), said.get(b"retry-after", b""))


@pytest.mark.parametrize(
    "block",
    [b"\x80", b"\xbe", b"\xff\xff\xff\xff\xff\xff", b"\x21", b"\x3f\x01", b"\x88\x20", b"\x08",
     b"\x08\x03\x32", b"\x08\x81\xff", b"\x7f\x80"],
    ids=["no index", "beyond the table", "no number", "a table", "a larger table", "a table too late", "no value",
         "half a value", "no code of Huffman's", "half a number"],
)  # fmt: skip
def test_what_is_no_block(block: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        head_of(block)


def test_letters_that_nobody_looks_at_are_stepped_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding them took 10 ms an answer, longer than the provider."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = encoder.encode(
        [(b":status", b"503"), *((b"x-%d" % n, b"v" * 200) for n in range(100)), (b"retry-after", b"7")]
    )
    decoded = 0
    plain = hpack.Decoder.decode

    def decode(self: hpack.Decoder, data: bytes, raw: bool = False) -> object:
        nonlocal decoded
        decoded += len(data)
        return plain(self, data, raw)

    monkeypatch.setattr(hpack.Decoder, "decode", decode)
    assert head_of(block) == Head(b"503", b"7")
    assert decoded <= 10
