"""Header blocks of answers: nothing is indexed but a usual status, so that no table has to be kept (RFC 7541)."""

from __future__ import annotations

from typing import Final

from fanout.simulators.replies import Headers

_INDEXED: Final = {200: 0x88, 204: 0x89, 206: 0x8A, 304: 0x8B, 400: 0x8C, 404: 0x8D, 500: 0x8E}


def block_of(status: int, headers: Headers, body_bytes: int) -> bytes:
    """The header block of an answer; `body_bytes` is told as its length, 0 is none."""
    first = bytes((_INDEXED[status],)) if status in _INDEXED else b"\x08\x03%d" % status
    whole = [*headers, ("content-length", str(body_bytes))] if body_bytes else headers
    return first + b"".join(b"\x00" + _text(name) + _text(value) for name, value in whole)


def _text(text: str) -> bytes:
    raw = text.encode("latin-1", "replace")
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    rest, length = len(raw) - 127, bytearray((127,))
    while rest >= 128:
        length.append(128 | rest & 127)
        rest >>= 7
    length.append(rest)
    return bytes(length) + raw
