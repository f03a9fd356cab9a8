"""What an answer's header block says that matters to us: its status and its Retry-After. The rest is stepped over.

A block of twenty kilobytes took hpack 10 ms, nearly all of it for letters in Huffman's code that nobody looks at; some
answers with such headers kept a lane from everything else. Names are compared as they stand on the wire, since
Huffman's code writes a text in one way only, and just the two values wanted are decoded.

Our table has no byte (SETTINGS_HEADER_TABLE_SIZE = 0), so a block is read by itself: an index beyond the static table,
or a table that is to be larger, is an error (RFC 7541, 2.3.3 and 4.2).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import hpack

_STATIC: Final = 61  # entries of the static table (RFC 7541, appendix A)
_VALUES: Final = {8: b"200", 9: b"204", 10: b"206", 11: b"304", 12: b"400", 13: b"404", 14: b"500", 53: b""}
_NAMES: Final = {index: b"retry-after" if index == 53 else b":status" for index in _VALUES}
_WANTED: Final = (b":status", b"retry-after")
_ON_THE_WIRE: Final = {bytes((len(name),)) + name: name for name in _WANTED} | {
    bytes((0x80 | len(code),)) + code: name
    for name in _WANTED
    for code in (hpack.Encoder().huffman_coder.encode(name),)
}
_VALUE: Final = b"\x08"  # a literal by the name of a status, so that hpack reads the text that follows
_INTEGER_MAX: Final = 2**31


class Head(NamedTuple):
    """`status` as it stands there, empty if it does not; `retry_after` likewise. Of several the first counts."""

    status: bytes
    retry_after: bytes


def head_of(block: bytes) -> Head:
    """Read a whole header block. Errors: `ValueError` if it is none."""
    try:
        return _read(block)
    except (IndexError, hpack.HPACKError) as error:
        raise ValueError("ends in the middle, or is no header block") from error


def _read(block: bytes) -> Head:
    found: dict[bytes, bytes] = {}
    at, begun = 0, False
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _index(block, at, 0x7F)
            if index in _NAMES:
                found.setdefault(_NAMES[index], _VALUES[index])
            elif not index:
                raise ValueError("a header of no table")
        elif first & 0xE0 == 0x20:
            size, at = _integer(block, at, 0x1F)
            if size or begun:
                raise ValueError("a table of another size")
            continue
        else:
            index, name_at = _index(block, at, 0x3F if first & 0x40 else 0x0F)
            value_at = name_at if index else _text_end(block, name_at)
            name = _NAMES.get(index) if index else _ON_THE_WIRE.get(block[name_at:value_at])
            at = _text_end(block, value_at)
            if name is not None and name not in found:
                ((_, value),) = hpack.Decoder().decode(_VALUE + block[value_at:at], raw=True)
                found[name] = bytes(value)
        begun = True
    return Head(found.get(b":status", b""), found.get(b"retry-after", b""))


def _index(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """An index of the static table, or 0, and where it ends."""
    index, at = _integer(block, at, mask)
    if index > _STATIC:
        raise ValueError("a header of a table that we do not keep")
    return index, at


def _text_end(block: bytes, at: int) -> int:
    """Where the text at `at` ends."""
    size, at = _integer(block, at, 0x7F)
    if at + size > len(block):
        raise ValueError("a text that ends in the middle")
    return at + size


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """(the number at `at`, where it ends)."""
    number = block[at] & mask
    at += 1
    if number < mask:
        return number, at
    shift = 0
    while True:
        number += (block[at] & 0x7F) << shift
        if number > _INTEGER_MAX:
            raise ValueError("a number that is none")
        at += 1
        if not block[at - 1] & 0x80:
            return number, at
        shift += 7
