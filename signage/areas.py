"""Area topics: which boards listen to which, and whether one publish can serve them all.

Rules:

1. A board lists in its birth document the area topics it listens to (`caps.areas`): names, one level of a topic each.
2. One document serves an area only when *every* board known to listen there must show exactly the same, laid out for
   the same model in the same form: never one board more, and nothing for a board to sort out. It carries a version
   above all that any of them knows, so a board keeps one register: the highest version of all its topics counts.
3. What the broker keeps on an area topic must be fit for every listener at any time, as a board that lost its memory
   reads all its topics: nothing in it may be over, or not theirs. Else it is cleared, after the boards that relied on
   it have a document of their own.
4. After a (re)connection nobody knows what the broker keeps: every area is either published again or cleared.

Pure bookkeeping: `outbox` decides when to look, composes and publishes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from signage.boards import Board
from signage.dialects.native import Item

LISTENERS_MIN: Final = 2  # with fewer, the board's own topic serves as well
_NAME: Final = re.compile(r"[^/+#\x00-\x1f\x7f]{1,64}")


class Area:
    """One area topic. `items` is what the broker keeps by our doing; `known` is False when it may keep anything."""

    __slots__ = ("items", "known", "listeners", "name", "version")

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: dict[Board, None] = {}
        self.items: Sequence[Item] | None = None
        self.known = False
        self.version = 0

    def __repr__(self) -> str:
        holds = "unknown" if not self.known else "nothing" if self.items is None else f"{len(self.items)} items"
        return f"<Area {self.name}: {len(self.listeners)} listeners, {holds} v{self.version}>"

    @property
    def clear(self) -> bool:
        """The broker keeps nothing here."""
        return self.known and self.items is None

    def fits(self, wishes: Iterable[Sequence[Item]]) -> bool:
        """Whether what is kept here may be read by boards with these wishes: nothing in it that one does not want."""
        if not self.known or self.items is None:
            return self.known
        return all(item in wish for wish in wishes for item in self.items)


class Areas:
    """All area topics by name, and those of each board. `stirred` are the ones to be looked at."""

    def __init__(self) -> None:
        self._by_name: dict[str, Area] = {}
        self._of: dict[Board, list[Area]] = {}
        self._stirred: dict[Area, None] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def stirred(self) -> bool:
        return bool(self._stirred)

    def of(self, board: Board) -> Sequence[Area]:
        return self._of.get(board, ())

    def listen(self, board: Board) -> list[str]:
        """Take the names of a board's birth document; those that cannot be a level of a topic are returned."""
        if not board.caps.areas and board not in self._of:
            return []
        names = dict.fromkeys(board.caps.areas)
        wrong = [name for name in names if not _NAME.fullmatch(name)]
        wanted = [name for name in names if name not in wrong]
        before = self._of.get(board, [])
        if [area.name for area in before] == wanted:
            return wrong
        for area in before:
            if area.name not in wanted:
                del area.listeners[board]
            self._stirred[area] = None
        areas = [self._by_name.setdefault(name, Area(name)) for name in wanted]
        for area in areas:
            area.listeners[board] = None
            self._stirred[area] = None
        if areas:
            self._of[board] = areas
        else:
            self._of.pop(board, None)
        return wrong

    def leave(self, board: Board) -> None:
        """The board is no more."""
        for area in self._of.pop(board, ()):
            del area.listeners[board]
            self._stirred[area] = None

    def stir(self, board: Board) -> None:
        """What this board must show has changed."""
        for area in self._of.get(board, ()):
            self._stirred[area] = None

    def up(self) -> None:
        """A new connection: the broker may keep anything."""
        for area in self._by_name.values():
            area.known = False
            self._stirred[area] = None

    def take_stirred(self) -> list[Area]:
        """The areas to be looked at, the largest first: the fewest publishes."""
        stirred = sorted(self._stirred, key=lambda area: (-len(area.listeners), area.name))
        self._stirred.clear()
        return stirred
