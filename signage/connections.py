"""Who speaks on which connection: controllers that carry several boards, and those who spoke before they were known.

Rules:

1. A controller has no birth document: the boards it carries name it in theirs (`caps.controller`), and its state is
   theirs. What it said last is kept, since its boards are born one after the other, in any order, before it or after.
   So is what boards said of themselves before their birth document came: at a connection everything comes at once.
2. A board has one connection: named by another controller, or by none, it leaves the one it had.
3. Whoever spoke and has no birth document is asked for it, at first after `NAMELESS_MS`, then each time twice as long:
   a birth may be lost on its way, and a controller whose boards are unknown is asked in vain.
4. Of somebody whose birth document cannot be read, the reason is kept until it can: there is no board to note it on.

Pure bookkeeping; what is kept is bounded by `EARLY_MAX`.
"""

from __future__ import annotations

from typing import Final

from fanout import limits
from signage.boards import Board
from signage.dialects import native
from signage.dialects.native import State

EARLY_MAX: Final = 4_096  # speakers without a birth document: a burst at connection, no more
NAMELESS_MS: Final = 10_000
NAMELESS_MS_MAX: Final = 3_600_000


class Connections:
    """See the module."""

    def __init__(self) -> None:
        self._carried: dict[str, dict[Board, None]] = {}
        self._controller_of: dict[Board, str] = {}
        self._said: dict[str, State] = {}
        self._early: dict[str, dict[str, bytes]] = {}
        self._unborn: dict[str, str] = {}
        self._asked: dict[str, tuple[int, int]] = {}  # when to ask next, and how long to wait after that

    def carry(self, board: Board) -> State | None:
        """A birth document was read: what the board's controller said last, when the board is new to it.

        `Refused("board_document_invalid")` when what it said cannot be read.
        """
        name = board.caps.controller
        before = self._controller_of.get(board, "")
        if name == board.id:
            name = ""
        if name == before:
            return None
        self.leave(board)
        if not name:
            return None
        self._controller_of[board] = name
        self._carried.setdefault(name, {})[board] = None
        self._asked.pop(name, None)
        early = self._early.pop(name, {}).get("state")
        if early is not None:
            self._said[name] = native.read_state(name, early)
        return self._said.get(name)

    def leave(self, board: Board) -> None:
        """The board is on no controller's connection any more."""
        name = self._controller_of.pop(board, "")
        boards = self._carried.get(name, {})
        boards.pop(board, None)
        if not boards:
            self._carried.pop(name, None)
            self._said.pop(name, None)

    def carried(self, controller: str) -> list[Board]:
        """The boards a speaker carries, besides itself."""
        return list(self._carried.get(controller, ()))

    def heard(self, controller: str, state: State) -> None:
        """What a controller said last."""
        if controller in self._carried:
            self._said[controller] = state

    def keep(self, heard: native.Heard, payload: bytes, now_ms: int) -> None:
        """Somebody spoke who is not known."""
        if heard.leaf in ("state", "reported") and (heard.board in self._early or len(self._early) < EARLY_MAX):
            enough = payload[: limits.BOARD_DOCUMENT_BYTES_MAX + 1]  # of one too long: it will be refused
            self._early.setdefault(heard.board, {})[heard.leaf] = enough
            self._asked.setdefault(heard.board, (now_ms + NAMELESS_MS, NAMELESS_MS))

    def misread(self, name: str, why: str) -> None:
        """What somebody who is not known said cannot be read."""
        if name in self._unborn or len(self._unborn) < EARLY_MAX:
            self._unborn[name] = why

    def why_unborn(self, name: str) -> str:
        """Why somebody is still not known; empty when nobody tried."""
        return self._unborn.get(name, "")

    def born(self, board_id: str) -> list[tuple[str, bytes]]:
        """Its birth document has come: what it said before, by leaf."""
        self._asked.pop(board_id, None)
        self._unborn.pop(board_id, None)
        return list(self._early.pop(board_id, {}).items())

    def to_ask(self, now_ms: int) -> list[str]:
        """Those to be asked for their birth document now."""
        due = [name for name, (at_ms, _) in self._asked.items() if at_ms <= now_ms]
        for name in due:
            wait_ms = min(NAMELESS_MS_MAX, 2 * self._asked[name][1])
            self._asked[name] = (now_ms + wait_ms, wait_ms)
        return due
