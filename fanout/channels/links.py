"""Where a link begins and ends in a text, as X and Mastodon see it: each counts it as 23 characters, all else whole.

Both networks publish their rules (twitter-text, and Mastodon's changes to it in `twitter_regex.rb`). In short:

1. A link begins with `http://` or `https://`, not right after a letter, a digit or one of `@ # $`.
2. Its name is labels with dots between: any letters of any script, hyphens inside, underscores inside all but the last
   two. It ends with a top-level domain, so a sentence that goes on in Chinese right behind `politie.nl` is not in it.
3. A path takes what paths are made of, and brackets if they are closed again; a full stop, a comma, a quote or a
   bracket at its end is the sentence's. X takes Latin and Cyrillic letters in a path, Mastodon any script's.
4. A query, behind `?`, likewise.

We keep no list of the thousand top-level domains. Two letters are a country and a few names are known; where it is not
certain that the network makes a link of something, or where it ends, it counts as what is more, for a text that turns
out too long is not posted at all.

A text is scanned once; every pattern gives up characters one by one at most, so that no text takes long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

LINK_CHARS: Final = 23  # what a link counts, however long it is, on X and on Mastodon

_GENERIC: Final = {
    "com", "org", "net", "info", "biz", "edu", "gov", "mil", "int", "eu", "app", "dev", "online", "site", "website",
    "news", "blog", "shop", "xyz", "page", "link", "live", "politie", "amsterdam", "frl", "vlaanderen", "brussels",
    "gent", "berlin", "hamburg", "koeln", "cologne", "bayern", "wien", "paris", "london", "cat",
}  # fmt: skip
_BEGIN: Final = re.compile(r"(?<![A-Za-z0-9@＠$#＃])https?://", re.IGNORECASE)
_PUNCTUATION: Final = re.escape("!\"'#%&()*+,-./:;<=>?@[\\]^_`{|}~$")
_LETTER: Final = rf"[^\s{_PUNCTUATION}\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
_LABEL: Final = rf"{_LETTER}(?:(?:{_LETTER}|[_-])*{_LETTER})?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_TOP: Final = re.compile(r"(?:xn--[a-z0-9-]*[a-z0-9]|[a-z]{2,24})(?![a-z0-9@_])", re.IGNORECASE)
_PORT: Final = re.compile(r":[0-9]+")
_BARE: Final = re.compile(
    r"(?<![A-Za-z0-9@＠$#＃._/-])(?:[a-z0-9\u00c0-\u024f](?:[a-z0-9\u00c0-\u024f-]*[a-z0-9\u00c0-\u024f])?\.)+"
    r"[a-z]{2,24}(?![a-z0-9@])",
    re.IGNORECASE,
)


class Rules(NamedTuple):
    """What a network takes behind a name: a `path`, which begins with `/`, and a `query`, which begins with `?`."""

    path: re.Pattern[str]
    query: re.Pattern[str]


class Link(NamedTuple):
    """A link is `text[begin:end]`; unless it is `certain`, the network may see none here."""

    begin: int
    end: int
    certain: bool


def _path(middle: str, last: str) -> re.Pattern[str]:
    closed = rf"\((?:{middle}+|{middle}*\({middle}+\){middle}*)\)"
    return re.compile(rf"/(?:(?:{middle}|{closed})*(?:{last}|{closed}))?", re.IGNORECASE)


_WORD: Final = "a-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0300-\u036f\u0400-\u04ff\u1e00-\u1eff"
X: Final = Rules(
    _path(rf"[{_WORD}!*';:=+,.$/%#\[\]\-\u2013_~@|&]", rf"[{_WORD}=_#/+\-]"),
    re.compile(r"\?[a-z0-9!?*'@();:&=+$/%#\[\]\-_.,~|]*[a-z0-9\-_&=#/]", re.IGNORECASE),
)
MASTODON: Final = Rules(
    _path(r"[^\s<>()?]", r"[^\s()?!*\"'「」<>;:=,.$%\[\]~&|@]"),
    re.compile(
        r"\?[a-z0-9!?*'();:&=+$/%#\[\]\-_.,~|@^\u00a0-\U0010ffff]*[a-z0-9_&=#/\-\u00a0-\U0010ffff]", re.IGNORECASE
    ),
)


def length(text: str, rules: Rules, measure: Callable[[str], int] = len) -> int:
    """The length of a text in which each link counts `LINK_CHARS`; `measure` counts all else."""
    total = after = 0
    for link in links(text, rules):
        total += measure(text[after : link.begin])
        total += LINK_CHARS if link.certain else max(LINK_CHARS, measure(text[link.begin : link.end]))
        after = link.end
    return total + measure(text[after:])


def links(text: str, rules: Rules) -> Iterator[Link]:
    """The links of a text that say themselves that they are some, in their order."""
    at = 0
    while (begin := _BEGIN.search(text, at)) is not None:
        at = begin.end()
        if (found := _name(text, at)) is not None:
            at, certain = found
            at = _behind(text, at, rules)
            yield Link(begin.start(), at, certain)


def bare(text: str, rules: Rules) -> Iterator[Link]:
    """Names that look like links although nothing says so: X makes links of most of them."""
    at = 0
    while (found := _BARE.search(text, at)) is not None:
        at = _behind(text, found.end(), rules)
        yield Link(found.start(), at, False)


def _name(text: str, begin: int) -> tuple[int, bool] | None:
    """Where the name at `begin` ends, and whether that is certain; None if it is no name."""
    whole = _NAME.match(text, begin)
    if whole is None:
        return None
    labels, at = whole[0].split("."), begin
    sure = maybe = None
    for number, label in enumerate(labels):
        top = _TOP.match(text, at, at + len(label)) if number and "_" not in labels[number - 1] else None
        if top is not None and not (number + 1 == len(labels) and text[top.end() : top.end() + 1] == "@"):
            word = top[0].lower()
            if (len(word) == 2 or word in _GENERIC) and text[top.end() : top.end() + 1] not in ("-", "+"):
                sure = top.end()
            else:
                maybe = top.end()
        elif number and number + 1 == len(labels) and not label.isascii():
            maybe = at + len(label)  # a top-level domain in another script
        at += len(label) + 1
    if sure is not None:
        return sure, True
    return None if maybe is None else (maybe, False)


def _behind(text: str, at: int, rules: Rules) -> int:
    """Where a link ends whose name ends at `at`."""
    for pattern in (_PORT, rules.path, rules.query):
        if (found := pattern.match(text, at)) is not None:
            at = found.end()
    return at
