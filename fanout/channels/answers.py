"""What a provider's answer is read with: tolerant, since an answer is whatever somebody else chose to send.

Rules:

1. No body raises. Garbage, half a body, wrong types, letters that are no UTF-8 and brackets opened sixty thousand deep
   (which end a JSON reader's recursion, not its patience) are all one thing: an answer that makes no sense, `None`.
2. Of a list with one line for each recipient every line is read by itself (`each`), so that one that makes no sense
   takes nothing from its neighbours.
3. Letters are letters however they are written: after the mark that some libraries put before UTF-8, or in Latin-1.
4. So are names: who writes `Messages` where the reference says `messages` means the same (`in_camel_case`).
5. A number is a number however it is spelt (`number_of`): suppliers send `2` and `"2"` for the same status.

Why not one `try` in every channel: each listed other errors, and the one that was missing everywhere ended processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

DIGITS_MAX: Final = 18  # of a number in words: what fits 64 bits

_MARK: Final = b"\xef\xbb\xbf"

T = TypeVar("T")


def decoded(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T | None:
    """The body, None where it makes no sense. `decoder` must not run code of ours (`dec_hook`)."""
    if isinstance(body, bytes):
        body = _in_utf8(body)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):  # `ValueError`: what is no UTF-8
        return None


def _in_utf8(body: bytes) -> bytes:
    """A whole body without a mark, and in the one spelling of letters that a reader of JSON takes."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1").encode()
    return body.removeprefix(_MARK)


def in_camel_case(body: bytes) -> bytes:
    """The body with every name's first letter small; as it is where it makes no sense. For an answer in which nothing
    was found that must be there: it costs a hundred times what reading by a struct does."""
    try:
        return msgspec.json.encode(_camel(msgspec.json.decode(_in_utf8(body))))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return body


def _camel(value: object) -> object:
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: _camel(one) for name, one in value.items()}
    return [_camel(one) for one in value] if isinstance(value, list) else value


def each(decoder: msgspec.json.Decoder[T], lines: Sequence[msgspec.Raw]) -> tuple[list[T], int]:
    """The lines that make sense, in their order, and how many do not."""
    found = [one for line in lines if (one := decoded(decoder, line)) is not None]
    return found, len(lines) - len(found)


def number_of(value: int | str | None) -> int | None:
    """A whole number, however it is spelt; None for what is none."""
    if isinstance(value, str):
        sound = value.isascii() and value.isdigit() and len(value) <= DIGITS_MAX
        return int(value) if sound else None
    return value
