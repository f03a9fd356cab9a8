"""How much room a text takes as an SMS: GSM 03.38 septets where every character allows it, else UCS-2.

One character outside the GSM alphabet puts the whole text into UCS-2 and halves the room, so the count is exact:

* GSM-7: 160 septets in one message, else 153 a part; a character of the extension table (`€ [ ] { } ~ ^ \\ |`) takes
  two septets and is never split over two parts.
* UCS-2: 70 code units in one message, else 67 a part; a surrogate pair (emoji) is never split.

Source: 3GPP TS 23.038 section 6.2.1 and TS 23.040 (the six bytes of header that make 160 into 153 and 70 into 67).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED: Final = frozenset("^{}\\[~]|€\f")

_ALONE: Final = {"gsm7": 160, "ucs2": 70}
_JOINED: Final = {"gsm7": 153, "ucs2": 67}


class Size(NamedTuple):
    """Encoding (`gsm7` or `ucs2`), units it counts in (septets or UTF-16 code units), and parts."""

    encoding: str
    units: int
    parts: int


def size(text: str) -> Size:
    """The room `text` takes."""
    if all(character in BASIC or character in EXTENDED for character in text):
        encoding, widths = "gsm7", [2 if character in EXTENDED else 1 for character in text]
    else:
        encoding, widths = "ucs2", [2 if ord(character) > 0xFFFF else 1 for character in text]
    units = sum(widths)
    if units <= _ALONE[encoding]:
        return Size(encoding, units, 1)
    return Size(encoding, units, _parts(widths, _JOINED[encoding]))


def foreign(text: str) -> list[str]:
    """Characters outside the GSM alphabet, each once, in the order of the text: what made it UCS-2."""
    return list(dict.fromkeys(character for character in text if character not in BASIC and character not in EXTENDED))


def _parts(widths: Iterable[int], room: int) -> int:
    parts, used = 1, 0
    for width in widths:
        if used + width > room:
            parts, used = parts + 1, 0
        used += width
    return parts
