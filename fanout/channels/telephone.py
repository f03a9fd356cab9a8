"""Telephone numbers as columns, and the references that calls and messages to them carry.

A number is kept as E.164 with its plus. What a provider wants before the digits (`00`, `+`, nothing) is its channel's
business, so here the plus is taken off and the digits are checked. A reference names a delivery: action, phase and the
registry's row; receipts bring it back, so that no look-up by number is needed.
"""

from __future__ import annotations

import numpy as np

from fanout.channels.protocol import Column, alphabet

DIGITS = alphabet(b"0123456789")
DIGITS_MIN, DIGITS_MAX = 7, 15  # E.164 has at most 15; the shortest national numbers in use with a country code have 7


def reference(action: int, phase: int) -> str:
    """The reference of one delivery without its row, which follows it."""
    return f"{action}-{phase}-"


def subscribers(addresses: Column) -> Column:
    """The numbers without their plus; one that has none, or nothing, becomes empty and so unusable."""
    data, begin, end = addresses.data, addresses.offsets[:-1], addresses.offsets[1:]
    first = data[np.minimum(begin, max(0, len(data) - 1))] if len(data) else np.zeros(len(begin), np.uint8)
    plus = (end > begin) & (first == ord("+"))
    keep = np.repeat(plus, end - begin)
    keep[begin[plus]] = False
    offsets = np.zeros(len(begin) + 1, np.int64)
    np.cumsum(np.where(plus, end - begin - 1, 0), out=offsets[1:])
    return Column(data[: end[-1] if len(end) else 0][keep], offsets)
