"""Displays of RTIG T047 among the boards: what they must show, said to `standard`, and what they say, told back.

A display has no document, versions or states of its own on the wire. Here its shadow is kept as if it had: a document
is taken and stored the moment `standard` has been told of it, and a text snapshot is its report.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from fanout.errors import Refused
from fanout.wire import BoardCounts
from signage.arbitration import on_now
from signage.boards import PROBLEMS_MAX, Board, Boards
from signage.dialects import rtig_t047
from signage.dialects.native import Caps, Item, Reported, Shown
from signage.displays import Placed
from signage.lists import Listed
from signage.mqtt import Packet
from signage.outbox import Outbox
from signage.shadow import Event, State
from signage.showing import Showing
from signage.standard import Gone, Standard

_log = logging.getLogger(__name__)

DIALECT: Final = "t047"
EARLY_MAX: Final = 4_096  # displays of which a fault came before their capability


class Core(Protocol):
    """What is used of the reconciler."""

    boards: Boards
    outbox: Outbox
    showings: dict[int, Showing]
    past: dict[int, BoardCounts]

    def born(self, caps: Caps, dialect: str, *, announced: bool = True) -> None: ...

    def step(self, board: Board, event: Event) -> None: ...

    def reported(self, board: Board, report: Reported, retained: bool) -> None: ...

    def published(self, board: Board, now_ms: int) -> None: ...

    def remember_display(self, board_id: str, value: bytes) -> None: ...

    def has_left(self, board: Board, action: int) -> bool: ...


class Passengers:
    """See the module. Driven by the reconciler alone."""

    def __init__(self, core: Core, clock_ms: Callable[[], int], grace_ms: int) -> None:
        self._core = core
        self._clock_ms = clock_ms
        self._queued: dict[Board, None] = {}
        self._past_ids: dict[str, None] = {}
        self._early: dict[str, list[str]] = {}
        self._standard = Standard(
            born=lambda caps: core.born(caps, DIALECT),
            unable=self._unable,
            reported=self._snapshot,
            present=self._heartbeat,
            stated=self._stated,
            trouble=self._trouble,
            expected=self._expected,
            running=self._running,
            over=self._over,
            met=self._met,
            moved=self._moved,
            grace_ms=grace_ms,
        )

    @property
    def waiting(self) -> bool:
        return bool(self._queued) or self._standard.waiting

    def add(self, board: Board) -> None:
        """What this display must show is to be said, or to be forgotten."""
        self._queued[board] = None

    def take(self, now_ms: int) -> Packet | None:
        """The next packet for a display, or None."""
        if not self.waiting:
            return None
        for board in self._queued:
            self._want(board, now_ms)
        self._queued.clear()
        self._standard.settle(now_ms)
        return self._standard.take()

    def sent(self, packet: Packet) -> None:
        """The broker has it."""
        self._standard.sent(packet)

    def up(self) -> None:
        self._standard.up()

    def tick(self, now_ms: int) -> None:
        self._standard.tick(now_ms)

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message that is not of the native contract. Of content, only what the broker keeps is news to us."""
        if rtig_t047.kept_copy(topic) is not None:
            if retained:
                self._standard.copy(topic, payload)
            return
        try:
            self._standard.received(topic, payload, self._clock_ms())
        except Refused as refused:
            _log.warning("%s", refused.message)

    def enlist(self, listed: Listed) -> None:
        """A display of an imported list."""
        caps = listed.caps
        position = (caps.lon, caps.lat) if caps.lon is not None and caps.lat is not None else None
        place = Placed(listed.locations, caps.place, position)
        self._standard.enlist(listed.vendor, listed.device, place, caps.model)
        board = self._core.boards.get(caps.board)
        if board is None or not board.announced:
            self._core.born(caps, DIALECT, announced=False)

    def restore(self, value: bytes) -> Caps | None:
        return self._standard.restore(value)

    def remember(self, caps: Caps) -> None:
        """Its capability is new."""
        self._core.remember_display(caps.board, self._standard.encode(caps.board, caps))

    def early_notes(self, board_id: str) -> list[str]:
        """What was said of a display before it was known."""
        return self._early.pop(board_id, [])

    # --- what they must show ------------------------------------------------------------------------------------------

    def _want(self, board: Board, now_ms: int) -> None:
        core = self._core
        if board.state is State.FORGETTING:
            self._standard.forget(board.id)
            core.step(board, Event.STORED)
            return
        core.outbox.refresh(board, now_ms)
        board.sent_ms = now_ms
        wanted = {
            rtig_t047.message_id(item.action, item.stage): (item, core.showings[item.action].texts(board.model))
            for item in board.items
        }
        gone = {
            rtig_t047.message_id(action, stage): Gone(
                Shown(action=action, stage=stage), core.showings[action].every_text(stage, board.model), end_ms
            )
            for action in board.showings
            if (end_ms := core.showings[action].last_end_ms)
            for stage in core.showings[action].stages_gone(left=core.has_left(board, action))
        }
        self._standard.want(board.id, board.version, wanted, gone, board.tries > 0, now_ms)
        core.step(board, Event.TAKEN)
        core.step(board, Event.STORED)
        core.published(board, now_ms)

    def _expected(self, board_id: str) -> list[Item]:
        board = self._core.boards.get(board_id)
        return on_now(board.items, self._clock_ms()) if board is not None else []

    def _running(self) -> dict[str, int]:
        """Ids of all messages that any display may be showing, and when they are over."""
        return {
            rtig_t047.message_id(action, stage): showing.last_end_ms
            for action, showing in self._core.showings.items()
            for stage in ("start", "result")
            if stage == "start" or showing.record.result_texts
        }

    def _over(self, identifier: str) -> bool:
        """Whether this is a message of an action that is over and forgotten, but for its counts. Asked for what brokers
        keep and nobody needs, so the ids are made when one is met that is not known, and those of new counts added.
        """
        past = self._core.past
        if len(self._past_ids) < 2 * len(past):
            for action in itertools.islice(past, len(self._past_ids) // 2, None):
                self._past_ids.update((rtig_t047.message_id(action, stage), None) for stage in ("start", "result"))
        return identifier in self._past_ids

    # --- what they say ------------------------------------------------------------------------------------------------

    def _met(self, board_id: str) -> None:
        board = self._core.boards.get(board_id)
        caps = board.caps if board is not None else None
        self._core.remember_display(board_id, self._standard.encode(board_id, caps))

    def _moved(self, board_id: str, position: tuple[float, float]) -> None:
        """It says that it is elsewhere. What it may show there is known before it is told anything."""
        board = self._core.boards.get(board_id)
        if board is None:
            return
        caps = msgspec.structs.replace(board.caps, lon=position[0], lat=position[1])
        self._core.born(caps, DIALECT, announced=board.announced)
        if board in self._queued:
            del self._queued[board]
            self._want(board, self._clock_ms())

    def _snapshot(self, board_id: str, report: Reported) -> None:
        board = self._core.boards.get(board_id)
        if board is not None:
            self._core.reported(board, report, False)

    def _heartbeat(self, board_id: str, alive: bool) -> None:
        board = self._core.boards.get(board_id)
        if board is not None and (alive or board.presence != "unknown"):
            board.presence = "ready" if alive else "lost"
            board.heard_ms = self._clock_ms() if alive else board.heard_ms

    def _unable(self, caps: Caps) -> None:
        """It is there and does not say what it can show; a list may have said it."""
        if self._core.boards.get(caps.board) is None:
            self._core.born(caps, DIALECT, announced=False)
            self._heartbeat(caps.board, True)
        self._trouble(caps.board, "it does not say what it can show: it answers no displayCapability")

    def _stated(self, board_id: str, status: rtig_t047.Status) -> None:
        board = self._core.boards.get(board_id)
        if board is not None:
            board.status = status

    def _trouble(self, board_id: str, words: str) -> None:
        _log.warning("display %s: %s", board_id, words)
        board = self._core.boards.get(board_id)
        if board is not None:
            board.note(words)
        elif board_id in self._early or len(self._early) < EARLY_MAX:
            notes = self._early.setdefault(board_id, [])
            notes.append(words)
            del notes[:-PROBLEMS_MAX]
