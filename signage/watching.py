"""What is known of one display by its text snapshots: which messages were seen on it, and which are gone for certain.

The standard has no "shown" and no "ended". `Watch` is told what the display must show and takes snapshots; a message is
*seen* when a snapshot proves it, and a *rival* is gone when enough snapshots in a row did not show it.

Rules:

1. A rival is a message that must be gone, or the text that another has replaced under the same id. While it may still
   be there, lines that it shares with a wanted message prove nothing of that one.
2. A rival is gone after `GONE_SNAPSHOTS` in a row without it; when other messages of ours are expected beside it, after
   as many more as it has pages, since they alternate. It is gone at once when a message is seen that it would not leave
   any room.
3. A page that may be of a wanted message is no sight of a rival.
4. A replaced text is gone when the one in its place is seen; it is never told as shown, since it has the same id.
5. What was seen before the display was away has to be seen again (`anew`).

Pure state, no clock: `look(lines, expected)` is one snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from signage.arbitration import on_now
from signage.dialects import evidence
from signage.dialects.evidence import Sight
from signage.dialects.native import Item, Shown

GONE_SNAPSHOTS: Final = 2

Texts = tuple[str, ...]


class Look(NamedTuple):
    """What a snapshot means. `strangers`: messages that must be gone and stand there; `doubtful`: those that may still
    stand there, strangers included; `clear`: whether all that must be gone is gone.
    """

    strangers: list[Shown]
    doubtful: list[Shown]
    clear: bool


class _Rival:
    __slots__ = ("item", "misses", "replaced_by", "shown", "texts")

    def __init__(self, texts: Texts, shown: Shown, item: Item | None, replaced_by: str) -> None:
        self.texts = texts
        self.shown = shown
        self.item = item
        self.replaced_by = replaced_by
        self.misses = 0


class Watch:
    """Of one display. See the module."""

    __slots__ = ("_clear_runs", "_items", "_places", "_rivals", "_wanted", "seen")

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._wanted: dict[str, Texts] = {}
        self._items: dict[str, Item] = {}
        self._places: dict[str, int] = {}
        self._rivals: dict[tuple[str, Texts], _Rival] = {}
        self._clear_runs = 0

    def __repr__(self) -> str:
        return f"<Watch: {len(self.seen)} of {len(self._wanted)} seen, {len(self._rivals)} to be gone>"

    def want(self, wanted: Mapping[str, tuple[Item, Mapping[str, str]]]) -> None:
        """It must show these messages, by id, and no others."""
        for identifier, before in self._wanted.items():
            texts = tuple(wanted[identifier][1].values()) if identifier in wanted else ()
            if texts == before:
                continue
            self.seen.discard(identifier)
            self._places.pop(identifier, None)
            replaced_by = identifier if identifier in wanted else ""
            item = self._items[identifier]
            shown = Shown(action=item.action, stage=item.stage)
            self._rivals[identifier, before] = _Rival(before, shown, item, replaced_by)
        self._items = {identifier: item for identifier, (item, _) in wanted.items()}
        self._wanted = {identifier: tuple(texts.values()) for identifier, (_, texts) in wanted.items()}
        for identifier, texts in self._wanted.items():
            self._rivals.pop((identifier, texts), None)
        self._clear_runs = 0

    def drop(self, identifier: str, shown: Shown, texts: Iterable[str]) -> None:
        """It may show a message of this id, and must not: nobody knows what it was told before."""
        if identifier not in self._wanted:
            for text in texts:
                self._rivals[identifier, (text,)] = _Rival((text,), shown, None, "")

    def anew(self) -> None:
        """It was away: what was seen on it proves nothing any more."""
        self.seen.clear()
        self._places.clear()
        self._clear_runs = 0

    def look(self, lines: Sequence[str], expected: Sequence[Item], now_ms: int) -> Look:
        """Take a snapshot. `expected`: what must be on now, of what is wanted."""
        shown = evidence.plain_lines(lines)
        ours = {each: evidence.sights(shown, texts) for each, texts in self._wanted.items()}
        theirs = {key: evidence.sights(shown, rival.texts) for key, rival in self._rivals.items()}
        self._prove(ours, theirs)
        present = {key for key, found in theirs.items() if self._stands(key, found, ours)}
        for key, rival in list(self._rivals.items()):
            rival.misses = 0 if key in present else rival.misses + 1
            alternates = len(rival.item.pages) if rival.item is not None else 1
            needed = GONE_SNAPSHOTS + (alternates if expected or rival.replaced_by else 0)
            if rival.misses >= needed or (key not in present and self._left_no_room(rival, ours, now_ms)):
                del self._rivals[key]
        self._clear_runs = 0 if present else self._clear_runs + 1
        strangers = [self._rivals[key].shown for key in present if not self._rivals[key].replaced_by]
        doubtful = [rival.shown for rival in self._rivals.values() if not rival.replaced_by]
        enough_runs = bool(expected) or self._clear_runs >= GONE_SNAPSHOTS
        return Look(strangers, doubtful, not doubtful and enough_runs)

    def _prove(self, ours: Mapping[str, list[Sight]], theirs: Mapping[tuple[str, Texts], list[Sight]]) -> None:
        """Count what the sights of each wanted message prove."""
        for identifier, found in ours.items():
            texts = self._wanted[identifier]
            others = [each for other, sights in ours.items() if self._wanted[other] != texts for each in sights]
            others += [each for sights in theirs.values() for each in sights]
            for sight in found:
                if not all(evidence.beats(sight, each) for each in others if evidence.overlap(sight, each)):
                    continue
                if evidence.counts(sight):
                    self._places[identifier] = self._places.get(identifier, 0) | sight.places
                if evidence.enough(sight) or evidence.complete(self._places.get(identifier, 0), texts):
                    self.seen.add(identifier)
        for key in [key for key, rival in self._rivals.items() if rival.replaced_by in self.seen]:
            del self._rivals[key]

    def _stands(self, key: tuple[str, Texts], found: list[Sight], ours: Mapping[str, list[Sight]]) -> bool:
        """Whether a rival is on the display, and it is not a wanted message that looks the same."""
        if key not in self._rivals:
            return False
        wanted = [each for sights in ours.values() for each in sights]
        return any(
            evidence.suspicious(sight, key[1])
            and all(evidence.beats(sight, each) for each in wanted if evidence.overlap(sight, each))
            for sight in found
        )

    def _left_no_room(self, rival: _Rival, ours: Mapping[str, list[Sight]], now_ms: int) -> bool:
        """Whether this snapshot proves a message that would not be on if the rival were."""
        if rival.item is None or rival.replaced_by or rival.item.end_ms <= now_ms:
            return False
        proven = (self._items[each] for each, found in ours.items() if each in self.seen and any(map(_sure, found)))
        return any(item not in on_now([rival.item, item], now_ms) for item in proven)


def _sure(sight: Sight) -> bool:
    return evidence.enough(sight)
