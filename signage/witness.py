"""What boards say of themselves and of their items, weighed: presence, the table's events, and proof.

Rules:

1. A will speaks for the boot id that left it, so one of another connection is passed over. Whatever a board says live
   (not retained) shows that it is there, so one that a will has wrongly called lost is back with its next word.
2. A report proves *shown* and *ended* (`proof`), never an acknowledgement: those tell what was received, what was
   rejected, and why something ended.
3. A rejection is of the version it names. Version 0 is the one just published: a board that could not read a document
   cannot know its version.
4. A board that has our document and does not show what must be on is *dark* for that action, with the reason it gives,
   in its report (`why`) or when it ended the item. Words of its own say more than one of the contract's, which comes in
   the report after them, and stay. It is told to ops, and forgotten when the item is on again or need not be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, get_args

from fanout import limits
from signage import shadow
from signage.arbitration import on_now
from signage.boards import Board, Boards
from signage.dialects.native import DIALECT, Ack, Reported, Why
from signage.dialects.native import State as Presence
from signage.outbox import Outbox
from signage.proof import Proof
from signage.shadow import Event, State
from signage.showing import Showing

SAME_ID_BOOTS: Final = 4  # so many boot ids within a minute: two boards share an id, or one cannot stay connected
EXPECTED_REASONS: Final = frozenset({"", "desired", "ended"})  # of an end that nobody needs to be told of
WORDS: Final = frozenset({"", *get_args(Why)})  # reasons that are the contract's
_AGREES, _DIFFERS, _CLEAR, _FORGETTING = Event.AGREES, Event.DIFFERS, State.CLEAR, State.FORGETTING


class Core(Protocol):
    """What is used of the reconciler."""

    boards: Boards
    outbox: Outbox
    showings: dict[int, Showing]
    proofs: dict[int, Proof]
    changed: Callable[[int], None]

    def step(self, board: Board, event: Event) -> None: ...

    def consider(self, board: Board) -> None: ...


class Witness:
    """See the module."""

    def __init__(self, core: Core, clock_ms: Callable[[], int]) -> None:
        self._core = core
        self._clock_ms = clock_ms

    def present(self, board: Board, state: Presence) -> None:
        if state.state == "lost" and board.boot and state.boot != board.boot:
            return  # the will of a connection that was over before this one began
        now_ms = self._clock_ms()
        if state.state != "lost" and state.boot != board.boot:
            board.boots_ms = [at for at in board.boots_ms if now_ms - at < 60_000] + [now_ms]
            if len(board.boots_ms) >= SAME_ID_BOOTS:
                board.note("it connected four times in a minute: two boards with this id, or one that cannot stay")
            board.boot = state.boot
        board.presence = state.state
        board.clock_offset_ms = state.clock_offset_ms
        board.heard_ms = now_ms
        if abs(state.clock_offset_ms) > limits.BOARD_CLOCK_OFFSET_MS_MAX:
            board.note(f"its clock is off by {state.clock_offset_ms / 1000:.0f} s")

    def acknowledged(self, board: Board, acks: list[Ack]) -> None:
        now_ms = self._clock_ms()
        self._alive(board, now_ms)
        received = False
        for ack in acks:
            current = ack.version == board.version
            if ack.what == "rejected":
                if current or ack.version == 0:
                    self._rejected(board, ack)
            elif ack.what == "ended":
                self._ended(board, ack, now_ms)
            elif current:
                received = True  # one that speaks of an item has the whole document
        if received:
            for action in board.showings:
                self._core.proofs[action].mark("received", board.id, now_ms)

    def _rejected(self, board: Board, ack: Ack) -> None:
        reason = ack.reason or "no reason given"
        which = f"version {ack.version}" if ack.version else "what was published last"
        board.note(f"it rejected {which}: {reason}")
        for action in board.showings:
            if ack.action in (0, action):
                self._core.proofs[action].say(board.id, f"rejected: {reason}")
        self._core.step(board, Event.REJECT)

    def _ended(self, board: Board, ack: Ack, now_ms: int) -> None:
        """Why it is not on any more; a message that must be on is dark from now."""
        if ack.action not in board.showings or ack.version > board.version:
            return
        self._core.proofs[ack.action].say(board.id, ack.reason)
        if ack.version < board.version or self._core.outbox.stale(board):
            return
        if any((item.action, item.stage) == (ack.action, ack.stage) for item in on_now(board.items, now_ms)):
            self._dark(board, ack.action, ack.reason, now_ms)

    def _dark(self, board: Board, action: int, why: str, now_ms: int) -> None:
        if self._core.proofs[action].mark("dark", board.id, now_ms):
            if why not in EXPECTED_REASONS:
                board.note(f"it does not show action {action}: {why}")
            self._core.changed(action)
        self._core.proofs[action].say(board.id, why, anew=bool(why))

    def _alive(self, board: Board, now_ms: int) -> None:
        board.heard_ms = now_ms
        board.unheard = False
        if board.presence in ("unknown", "lost"):
            board.presence = "ready"

    def reported(self, board: Board, report: Reported, retained: bool) -> None:
        core, now_ms = self._core, self._clock_ms()
        board.report = report
        if not retained:
            self._alive(board, now_ms)
        for error in report.errors:
            board.note(f"it reports: {error}")
        place = (report.lon, report.lat) if board.caps.mobile else (None, None)
        if place[0] is not None and place[1] is not None and core.boards.move(board, place[0], place[1]):
            core.consider(board)
        event = self.compare(board, now_ms)
        if event is None:
            return
        current = (event is _AGREES or event is _DIFFERS) and not core.outbox.stale(board)
        core.step(board, event)
        on_board = {entry.action for entry in report.shown if entry.stage != "result"}
        missed = current and event is _DIFFERS  # who agrees shows all that is expected
        expected = {item.action for item in on_now(board.items, now_ms)} if missed else set()
        other = missed and expected <= on_board  # all is said to be on, and the lines are others
        why = report.why if report.why != "desired" else ""
        for action in board.showings:
            record, proof = core.showings[action].record, core.proofs[action]
            if not record.live:
                if action not in on_board and current:
                    self._mark("ended", action, board, now_ms)
                    if why:
                        proof.say(board.id, why, anew=False)
            elif action in on_board and not missed:
                self._mark("shown", action, board, now_ms)
                if record.stage == "update" and current:
                    self._mark("updated", action, board, now_ms)
                proof.lit(board.id)
            elif current and action in expected and (other or action not in on_board):
                self._dark(board, action, why if proof.why.get(board.id, "") in WORDS else "", now_ms)
            elif current and action not in expected:
                proof.lit(board.id)

    def compare(self, board: Board, now_ms: int) -> Event | None:
        """What the board's last report means now; None: nothing."""
        report = board.report
        if report is None:
            return None
        if board.state is _CLEAR or board.state is _FORGETTING:
            return _DIFFERS if report.shown else None
        model = board.model if board.dialect == DIALECT else None
        return shadow.compare(board.version, board.items, report, now_ms, model)

    def _mark(self, column: str, action: int, board: Board, now_ms: int) -> None:
        if self._core.proofs[action].mark(column, board.id, now_ms):
            self._core.changed(action)
