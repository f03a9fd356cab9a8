"""What is known of one action on each of its boards: when it was published, received, shown, ended. Columns, and
counts.

Rules:

1. Times are the engine's, at the moment it learnt of it: boards have wrong clocks.
2. *Shown* is read back from a report that shows the action's own message, line by line where the board gives lines.
   *Ended* is a report of a board that has the document which takes the message down, and shows it no more; a result in
   its place counts as ended, since the message itself is gone.
3. The first time counts; what comes again later changes nothing. *Updated* is of the latest text: `renew` begins it
   anew.
4. *Dark* is since when a board says that it does not show the message although it must; 0 again when it does (`lit`).
   It changes no count: shown was shown. `why` has what a board said last about not showing it: why it is dark, why it
   ended, why it was rejected.
5. Columns are int64 milliseconds, 0 for never, one place a board in the order of `boards`. They are written one place
   at a time, ten thousand times in a second, and counted seldom: so they are arrays of the standard library, of which a
   place costs a third of what it does in numpy's, and numpy's views of them are what is counted.
"""

from __future__ import annotations

from array import array
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout.wire import BoardCounts, BoardProof

LAGGARDS_NAMED_MAX: Final = 50  # names in an answer; the number tells the rest
COLUMNS: Final = ("published", "received", "shown", "updated", "dark", "ended")


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    boards: list[str]
    renewed: bool = False
    published: bytes
    received: bytes
    shown: bytes
    updated: bytes = b""  # absent in what was stored before actions could be updated
    dark: bytes = b""  # as `why`: absent in what was stored before boards were asked
    ended: bytes
    why: dict[str, str] = {}


class Proof:
    """Columns of one action. `place` tells the place of a board."""

    def __init__(self, boards: list[str]) -> None:
        self.boards = boards
        self.place = {board: at for at, board in enumerate(boards)}
        self.columns = {name: array("q", bytes(8 * len(boards))) for name in COLUMNS}
        self.why: dict[str, str] = {}
        self.dirty = False
        self.renewed = False

    def add(self, board: str) -> None:
        """One board more: it appeared, or drove into the area."""
        self.place[board] = len(self.boards)
        self.boards.append(board)
        for column in self.columns.values():
            column.append(0)

    def mark(self, column: str, board: str, now_ms: int) -> bool:
        """Record the first time; whether it was the first."""
        at = self.place.get(board)
        if at is None:
            return False
        times_ms = self.columns[column]
        if times_ms[at]:
            return False
        times_ms[at] = now_ms
        self.dirty = True
        return True

    def say(self, board: str, why: str, *, anew: bool = True) -> None:
        """What the board said of not showing it; not `anew`: only if it said nothing yet."""
        if board not in self.place or (self.why.get(board) and not anew) or self.why.get(board, "") == why:
            return
        self.why[board] = why
        self.dirty = True

    def lit(self, board: str) -> None:
        """It shows it, or need not: whatever it said of not showing it is past."""
        at = self.place.get(board)
        if at is not None and (self.columns["dark"][at] or self.why.get(board)):
            self.columns["dark"][at] = 0
            self.why.pop(board, None)
            self.dirty = True

    def renew(self) -> None:
        """The texts were replaced: every board is to be seen with the new one."""
        self.renewed = True
        self.columns["updated"] = array("q", bytes(8 * len(self.boards)))
        self.dirty = True

    def unended(self) -> int:
        return self.columns["ended"].count(0)

    def ended(self) -> list[str]:
        """Boards that proved it gone."""
        return [self.boards[at] for at in np.flatnonzero(self._view("ended")).tolist()]

    def rows(self) -> list[BoardProof]:
        """Everything known, board by board."""
        return [
            BoardProof(
                board=board,
                published_ms=self.columns["published"][at] or None,
                received_ms=self.columns["received"][at] or None,
                shown_ms=self.columns["shown"][at] or None,
                updated_ms=self.columns["updated"][at] or None,
                dark_ms=self.columns["dark"][at] or None,
                ended_ms=self.columns["ended"][at] or None,
                why=self.why.get(board, ""),
            )
            for at, board in enumerate(self.boards)
        ]

    def counts(self, start_ms: int, ended_ms: int | None) -> BoardCounts:
        """How many of how many. `ended_ms`: when it was over, None while it is on. Laggards: to show it, or to clear
        it.
        """
        shown, ended = self._view("shown"), self._view("ended")
        current = self._view("updated") if self.renewed else shown
        late = np.flatnonzero((current if ended_ms is None else ended) == 0)[:LAGGARDS_NAMED_MAX]
        return BoardCounts(
            selected=len(self.boards),
            shown=int((shown > 0).sum()),
            updated=int((current > 0).sum()) if self.renewed else None,
            cleared=int((ended > 0).sum()),
            last_ms=int(shown.max()) - start_ms if shown.any() else None,
            cleared_last_ms=int(ended.max()) - ended_ms if ended_ms is not None and ended.any() else None,
            laggards=[self.boards[at] for at in late.tolist()],
        )

    def _view(self, column: str) -> NDArray[np.int64]:
        """A column to count in; it must not be kept, as a column that is looked at cannot grow."""
        return np.frombuffer(self.columns[column], np.int64)

    def encode(self) -> bytes:
        columns = {name: self._view(name).astype("<i8").tobytes() for name in COLUMNS}
        return msgspec.msgpack.encode(_Stored(boards=self.boards, renewed=self.renewed, why=self.why, **columns))

    @classmethod
    def decode(cls, data: bytes) -> Proof:
        stored = msgspec.msgpack.decode(data, type=_Stored)
        proof = cls(stored.boards)
        for name in COLUMNS:
            kept = np.frombuffer(getattr(stored, name), "<i8").astype(np.int64)
            proof.columns[name][: len(kept)] = array("q", kept.tobytes())
        proof.renewed, proof.why = stored.renewed, stored.why
        return proof
