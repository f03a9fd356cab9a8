"""HPACK's constants as arrays, for `kernels.py`: the static table and the Huffman code (RFC 7541, appendices A and B).

They are read from the `hpack` library, so that nobody has to type them off again. The code is canonical: sorted by
length and, within one, by value. So a code of `SHORT_BITS` at most is one look-up, and a longer one is compared with
the first code of each length.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

SHORT_BITS: Final = 8
SYMBOLS: Final = 256  # the 257th ends a string and must not occur

STATIC: Final = HeaderTable.STATIC_TABLE
_TEXTS: Final = [part for entry in STATIC for part in entry]
STATIC_TEXT: Final = np.frombuffer(b"".join(_TEXTS), np.uint8)
_ENDS: Final = np.cumsum([0, *map(len, _TEXTS)]).astype(np.int64)
STATIC_SPANS: Final = np.stack((_ENDS[:-1:2], _ENDS[1::2], _ENDS[2::2]), axis=1)
"""int64[61, 3]: where a name begins, where it ends and its value begins, where that ends."""

_CODES: Final = np.array(REQUEST_CODES[:SYMBOLS], np.int64)
_BITS: Final = np.array(REQUEST_CODES_LENGTH[:SYMBOLS], np.int64)
BITS_MAX: Final = int(_BITS.max())

SORTED: Final = np.lexsort((_CODES, _BITS)).astype(np.int64)
"""int64[256]: symbols in the order of their codes."""

COUNTS: Final = np.bincount(_BITS, minlength=BITS_MAX + 1).astype(np.int64)
"""int64[BITS_MAX + 1]: how many symbols have a code of so many bits."""

PLACES: Final = np.concatenate((np.zeros(1, np.int64), np.cumsum(COUNTS)[:-1])).astype(np.int64)
"""int64[BITS_MAX + 1]: where in `SORTED` the symbols of so many bits begin."""

FIRSTS: Final = np.array([int(_CODES[bits == _BITS].min(initial=2**31)) for bits in range(BITS_MAX + 1)], np.int64)
"""int64[BITS_MAX + 1]: the least code of so many bits."""


def _short() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    made = np.zeros(1 << SHORT_BITS, np.int64)
    for symbol in range(SYMBOLS):
        if (spare := SHORT_BITS - int(_BITS[symbol])) >= 0:
            begin = int(_CODES[symbol]) << spare
            made[begin : begin + (1 << spare)] = symbol << 4 | int(_BITS[symbol])
    return made


SHORT: Final = _short()
"""int64[256]: what the next eight bits begin with, `symbol << 4 | bits`; 0 if a longer code."""
