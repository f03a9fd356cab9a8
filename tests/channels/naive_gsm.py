"""Parts of an SMS, slowly: cut the text character by character and count the pieces."""

from __future__ import annotations

from fanout.channels.gsm import BASIC, EXTENDED


def parts(text: str) -> int:
    gsm = all(character in BASIC | EXTENDED for character in text)
    widths = [(2 if c in EXTENDED else 1) if gsm else len(c.encode("utf-16-be")) // 2 for c in text]
    if sum(widths) <= (160 if gsm else 70):
        return 1
    pieces: list[int] = []
    for width in widths:
        if pieces and pieces[-1] + width <= (153 if gsm else 67):
            pieces[-1] += width
        else:
            pieces.append(width)
    return len(pieces)
