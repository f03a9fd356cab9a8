"""Character sets of boards, and what becomes of characters they lack.

Rules:

1. A text is taken as NFC, white space becomes single spaces, control characters are gone before it comes here.
2. A character the board lacks is written with those it has, by one table (€ → EUR, “ → ", ĳ → ij, ½ → 1/2) and else by
   its base letter without accents (ü → u). Nothing is dropped and nothing becomes a question mark: a character that
   has no such spelling (an emoji, another script) makes the text unfit for the model, with the character named.
3. A board that names a character set we do not know is taken to have ASCII: the least all have. Of several it names
   the richest we know counts, whatever their order.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

CODECS: Final = {
    "ascii": "ascii",
    "us-ascii": "ascii",
    "latin-1": "latin-1",
    "iso-8859-1": "latin-1",
    "latin-9": "iso8859-15",
    "iso-8859-15": "iso8859-15",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "cp437": "cp437",
    "cp850": "cp850",
    "utf-8": "utf-8",
}

SPELLINGS: Final = {
    "€": "EUR", "£": "GBP", "‘": "'", "’": "'", "‚": "'", "´": "'", "`": "'", "“": '"', "”": '"', "„": '"', "«": '"',
    "»": '"', "–": "-", "—": "-", "‐": "-", "‑": "-", "−": "-", "…": "...", "•": "-", "·": "-", "½": "1/2", "¼": "1/4",
    "¾": "3/4", "±": "+/-", "×": "x", "÷": "/", "°": "gr.", "²": "2", "³": "3", "µ": "u", "ĳ": "ij", "Ĳ": "IJ",
    "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ð": "d", "þ": "th",
    "ł": "l", "Ł": "L", "ı": "i", "™": "(TM)", "©": "(c)", "®": "(R)", "№": "nr.", "¿": "?", "¡": "!", "§": "par.",
    "→": "->", "←": "<-", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
}  # fmt: skip


RICHEST: Final = ("utf-8", "cp1252", "iso8859-15", "latin-1", "cp850", "cp437", "ascii")  # codecs, by what they have
_UNMARKED: Final = str.maketrans("", "", "-_ ")
_SPELT_OTHERWISE: Final = {name.translate(_UNMARKED): name for name in CODECS}


class Unspellable(ValueError):
    """A character that cannot be written with what the board has: the argument."""


def normalise(text: str) -> str:
    """NFC, with single spaces between words."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def richest(names: Sequence[str]) -> str:
    """The name of the character set that has most, of several; the first, as it stands, when we know none."""
    plain = [name.strip().lower() for name in names]
    known = [_SPELT_OTHERWISE[bare] for name in plain if (bare := name.translate(_UNMARKED)) in _SPELT_OTHERWISE]
    if not known:
        return plain[0] if plain else "ascii"
    return min(known, key=lambda name: RICHEST.index(CODECS[name]))


@lru_cache(maxsize=64)
def membership(charset: str) -> Callable[[str], bool]:
    """Whether a character is in a set, as a function; unknown sets are ASCII."""
    codec = CODECS.get(charset.strip().lower(), "ascii")

    @lru_cache(maxsize=1024)
    def has(character: str) -> bool:
        try:
            character.encode(codec)
        except UnicodeEncodeError:
            return False
        return character.isprintable()

    return has


def spell(text: str, has: Callable[[str], bool]) -> str:
    """The text with only characters that `has` knows; `Unspellable` with the first that has no spelling."""
    if all(map(has, text)):
        return text
    return normalise("".join(character if has(character) else _spelling(character, has) for character in text))


def _spelling(character: str, has: Callable[[str], bool]) -> str:
    given = SPELLINGS.get(character)
    if given is not None and all(map(has, given)):
        return given
    bare = "".join(part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part))
    bare = "".join(part if has(part) else SPELLINGS.get(part, part) for part in bare)
    if bare and all(map(has, bare)):
        return bare
    if unicodedata.combining(character):  # an accent that NFC could not join to its letter
        return ""
    raise Unspellable(character)
