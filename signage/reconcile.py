"""The heart of the boards' side: actions in, documents out, reports in. No trio, no socket, no store: driven by its
shell.

Rules:

1. What a board must show is composed from the actions that chose it, when its document is taken to the wire, never
   before: ten changes in a row are one document. Boards of one model with the same actions share their items, encoded
   once.
2. Versions of one board's document grow: the clock's milliseconds, and always above what we gave and what it reported.
3. Boards that are there go first; the retained documents of the others follow.
4. What a board says is checked before it counts. What is invalid is noted for ops on that board, and nothing else
   happens.
5. `remember` holds what the shell must make durable; `tick(now)` does all that time does. Every method is quick and
   returns.

The shell (`service`) owes: one caller at a time, a tick every second or so, what `remember` holds written before an
action is called accepted. It implements `mqtt.Source`, so a link can pull from it as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from fanout.errors import Refused
from fanout.geo import PlaceIndex, shapes
from fanout.settings import SignageSettings
from fanout.wire import BoardCounts
from signage import shadow
from signage.boards import Board, Boards, widened
from signage.compose import Composer, Sign
from signage.connections import Connections
from signage.dialects import native
from signage.dialects.native import Caps, Reported
from signage.layout import Pace
from signage.lists import Listed
from signage.mqtt import REFUSALS, Packet
from signage.outbox import Outbox
from signage.passengers import DIALECT, Passengers
from signage.proof import Proof
from signage.shadow import Effect, Event, State
from signage.showing import Record, Showing
from signage.witness import Witness

_log = logging.getLogger(__name__)

LAG_DOUBLINGS_MAX: Final = 4  # a board that never confirms is asked again after 16 times the lag, for ever
GRACE_EVERY_TICKS: Final = 10
LATE_PROOF_MS: Final = 86_400_000  # so long after its end an action waits for boards that were cut off to prove it gone
RETIRED_MAX: Final = 1_000  # boards that are gone, whose pages still say so
CAPS, DISPLAYS, ACTIONS, PROOF, COUNTS = SPACES = (
    "boards.caps", "boards.displays", "boards.actions", "boards.proof", "boards.counts"
)  # fmt: skip
_DESIRE, _CLEAR, _RAISE, _NOTE = Event.DESIRE, State.CLEAR, Effect.RAISE, Effect.NOTE


class Reconciler:
    """All boards and all actions on them. See the module."""

    def __init__(
        self,
        settings: SignageSettings,
        clock_ms: Callable[[], int],
        *,
        key: str = "",
        sign: Sign | None = None,
    ) -> None:
        self._settings = settings
        self._clock_ms = clock_ms
        self.pace = Pace(
            seconds_page_min=settings.page_seconds_min, characters_per_second=settings.characters_per_second
        )
        self.boards = Boards()
        self.remember: dict[tuple[str, str], bytes | None] = {}
        self.changed: Callable[[int], None] = lambda action: None
        self._kick: Callable[[], None] = lambda: None
        self.showings: dict[int, Showing] = {}
        self.proofs: dict[int, Proof] = {}
        self._shapes: dict[int, shapes.Shape] = {}
        self._outside: dict[int, set[str]] = {}
        self.past: dict[int, BoardCounts] = {}
        self._open: dict[Board, None] = {}
        self._held: dict[Board, None] = {}
        self._composer = Composer(settings, key, sign)
        self.outbox = Outbox(self._composer, self.showings, self._actions_of, self.step)
        self._connections = Connections()
        self._witness = Witness(self, clock_ms)
        self.retired: dict[str, Board] = {}
        self._passengers = Passengers(self, clock_ms, self._grace_ms)
        self._ticks = 0

    def on_work(self, kick: Callable[[], None]) -> None:
        """`kick` is called when documents are to be taken."""
        self._kick = kick

    # --- what is remembered -------------------------------------------------------------------------------------------

    def restore(
        self,
        caps: Iterable[tuple[str, bytes]],
        displays: Iterable[tuple[str, bytes]],
        actions: Iterable[tuple[str, bytes]],
        proofs: Iterable[tuple[str, bytes]],
        counts: Iterable[tuple[str, bytes]],
        shape_of: Callable[[Record], shapes.Shape | None],
    ) -> None:
        """Take up what was remembered, as (key, value) of the spaces in `SPACES`. Everything is due again."""
        for key, value in caps:
            native_board, _ = self.boards.put(native.read_caps(key, value))
            native_board.announced = True
            self.outbox.listen(native_board)
            self._connections.carry(native_board)
        for _, value in displays:
            kept = self._passengers.restore(value)
            if kept is not None:
                self.boards.put(kept, DIALECT)[0].announced = True
        for key, value in counts:
            self.past[int(key)] = msgspec.msgpack.decode(value, type=BoardCounts)
        known = {int(key): Proof.decode(value) for key, value in proofs}
        for key, value in actions:
            record = msgspec.msgpack.decode(value, type=Record)
            self.showings[record.action] = Showing(record, self.pace)
            self.proofs[record.action] = _proof_for(record, known.get(int(key)))
            shape = shape_of(record)
            if shape is not None:
                self._shapes[record.action] = shape
            if record.left:
                self._outside[record.action] = set(record.left)
            for name in record.boards:
                board = self.boards.get(name)
                if board is not None:
                    board.own_held = True  # the broker may keep what we said before
                    self._attach(board, record)

    def enlist(self, boards: Iterable[Listed]) -> None:
        """Take boards of an imported list; a board that announced itself keeps what it said."""
        for listed in boards:
            board = self.boards.get(listed.caps.board)
            if listed.dialect == DIALECT:
                if board is None or board.dialect == DIALECT:
                    self._passengers.enlist(listed)
            elif board is None or not board.announced:
                self.born(listed.caps, announced=False)
            if board is not None and board.lon is None and listed.caps.lon is not None and listed.caps.lat is not None:
                self.boards.move(board, listed.caps.lon, listed.caps.lat)
                self.consider(board)

    def drain(self) -> dict[str, list[tuple[str, bytes | None]]]:
        """What must be made durable since the last call, by space; columns of proof included."""
        for action, proof in self.proofs.items():
            if proof.dirty:
                proof.dirty = False
                self.remember[PROOF, str(action)] = proof.encode()
        spaces: dict[str, list[tuple[str, bytes | None]]] = {}
        for (space, key), value in self.remember.items():
            spaces.setdefault(space, []).append((key, value))
        self.remember.clear()
        return spaces

    # --- actions ------------------------------------------------------------------------------------------------------

    def has(self, action: int) -> bool:
        return action in self.showings or action in self.past

    def add(self, record: Record, shape: shapes.Shape) -> None:
        """Show an action on the boards of its record."""
        self.showings[record.action] = Showing(record, self.pace)
        self.proofs[record.action] = Proof(list(record.boards))
        self._shapes[record.action] = shape
        self._remember(record)
        for name in record.boards:
            board = self.boards.get(name)
            if board is not None:  # else it was retired since it was chosen
                self._attach(board, record)
        self._kick()

    def update(self, action: int, texts: dict[str, str], board_texts: dict[str, list[str]], now_ms: int) -> None:
        """Replace the texts of an action that is on, on the boards it has. Unknown or over: nothing."""
        showing = self.showings.get(action)
        if showing is None or not showing.record.live or showing.record.end_ms <= now_ms:
            return
        request = showing.record.request
        boards = msgspec.structs.replace(request.boards, texts=board_texts)
        showing.replace(stage="update", request=msgspec.structs.replace(request, texts=texts, boards=boards))
        self.proofs[action].renew()
        self._restage(showing)
        for name in showing.record.boards:
            board = self.boards.get(name)
            if board is not None:
                self._note_unfit(board, action)

    def move_end(self, action: int, end_ms: int) -> None:
        """Let an action that is on be over at another time. Again: nothing."""
        showing = self.showings.get(action)
        if showing is None or not showing.record.live or showing.record.end_ms == end_ms:
            return
        request = msgspec.structs.replace(showing.record.request, end_ms=end_ms)
        showing.replace(end_ms=end_ms, request=request)
        self._restage(showing)

    def end(self, action: int, texts: dict[str, str], now_ms: int, reason: str) -> None:
        """Take an action down, or put its result in its place for a while. Again: nothing."""
        showing = self.showings.get(action)
        if showing is None or not showing.record.live:
            return
        ended_ms = min(now_ms, showing.record.end_ms)
        if texts:
            until = now_ms + int(self._settings.result_show_s * 1000)
            showing.replace(stage="result", result_texts=texts, result_end_ms=until, ended_ms=ended_ms, reason=reason)
        else:
            showing.replace(stage="over", ended_ms=ended_ms, reason=reason)
        self._restage(showing)

    def showing(self) -> list[int]:
        """Actions that a board still has to show, or may still show."""
        return [
            action
            for action, showing in self.showings.items()
            if showing.record.stage != "over" or self.proofs[action].unended()
        ]

    def counts(self, action: int) -> BoardCounts:
        showing = self.showings.get(action)
        if showing is None:
            return self.past.get(action, BoardCounts())
        return self.proofs[action].counts(showing.record.start_ms, showing.record.ended_ms)

    def proof(self, action: int) -> Proof | None:
        """Board by board, while the action is remembered."""
        return self.proofs.get(action)

    # --- the link: `mqtt.Source` --------------------------------------------------------------------------------------

    def take(self) -> Packet | None:
        """The next document to the wire: composed, signed and encoded now. Displays of the standard come first."""
        now_ms = self._clock_ms()
        return self._passengers.take(now_ms) or self.outbox.take(now_ms)

    def sent(self, packet: Packet, heard: bool) -> None:
        now_ms = self._clock_ms()
        if packet.token is None:
            self._passengers.sent(packet)
        for board in self.outbox.sent(packet):
            self.published(board, now_ms)
            twice, board.unheard = board.unheard and not heard, not heard
            if twice and board.presence == "ready":  # once: the broker came back before it
                board.note("nobody listens on its desired topic: it does not subscribe, or the broker does not let it")

    def published(self, board: Board, now_ms: int) -> None:
        """What this board must show has left us."""
        for action in board.showings:
            self.proofs[action].mark("published", board.id, now_ms)

    def remember_display(self, board_id: str, value: bytes) -> None:
        self.remember[DISPLAYS, board_id] = value

    def lost(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            self.outbox.lost(packet)

    def refused(self, packet: Packet, reason: int) -> None:
        """The broker took it and keeps nothing: it is tried again when the board lags, not at once and for ever."""
        for board in self.outbox.refused(packet):
            board.note(f"the broker refuses its document: reason 0x{reason:02x} ({REFUSALS.get(reason, 'unknown')})")

    def up(self) -> None:
        """Connected: the broker may have lost everything, so everything held is due."""
        self._passengers.up()
        self.outbox.up()
        for board in list(self._held):
            self.step(board, Event.CUT)
        self._kick()

    def down(self, reason: str) -> None:
        _log.warning("no broker: %s", reason)

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message of a board. Whatever it holds, nothing but that board is touched."""
        heard = native.read_topic(topic)
        if heard is None:
            if payload:
                self._passengers.received(topic, payload, retained)
                if self._passengers.waiting:
                    self._kick()
            return
        board = self.boards.get(heard.board)
        if not payload:
            if heard.leaf == "caps" and board is not None and board.dialect == native.DIALECT:
                self.retire(board)
            return
        try:
            if heard.leaf == "caps":
                self.born(native.read_caps(heard.board, payload))
            elif heard.leaf == "state" and (carried := self._connections.carried(heard.board)):
                state = native.read_state(heard.board, payload)
                self._connections.heard(heard.board, state)
                for one in [board, *carried] if board is not None else carried:
                    self._witness.present(one, state)
            elif board is None:
                self._connections.keep(heard, payload, self._clock_ms())
            elif heard.leaf == "reported":
                self.reported(board, native.read_reported(heard.board, payload), retained)
            elif heard.leaf == "state":
                self._witness.present(board, native.read_state(heard.board, payload))
            elif heard.leaf == "ack":
                self._witness.acknowledged(board, native.read_acks(heard.board, payload))
        except Refused as refused:
            _log.warning("%s", refused.message)
            if board is not None:
                board.note(refused.message)
            else:
                self._connections.misread(heard.board, refused.message)

    def why_unknown(self, name: str) -> str:
        """Why somebody who speaks is no board: what cannot be read. Empty when it is one, or nobody tried."""
        return self._connections.why_unborn(name)

    # --- what boards say ----------------------------------------------------------------------------------------------

    def born(self, caps: Caps, dialect: str = native.DIALECT, *, announced: bool = True) -> None:
        known = self.boards.get(caps.board)
        if known is not None and known.dialect != dialect:
            known.note(f"somebody announced a board of this id by {dialect}; it was not taken")
            return
        stood = (known.lon, known.lat) if known is not None else None
        board, new = self.boards.put(caps, dialect)
        new = new or announced != board.announced
        board.announced = announced
        self.retired.pop(board.id, None)
        if new:
            if not announced:
                pass  # a list is read again at each start
            elif dialect == native.DIALECT:
                self.remember[CAPS, board.id] = native.encode(caps)
            else:
                self._passengers.remember(caps)
            for name in self.outbox.listen(board):
                board.note(f"{name!r} cannot be an area topic: it has to be one level, without / + #")
            for action in board.showings:
                self._note_unfit(board, action)
            if board.showings:
                self._desire(board)
            self.consider(board, moved=stood is not None and stood != (board.lon, board.lat))
        for words in self._passengers.early_notes(caps.board):
            board.note(words)
        try:
            state = self._connections.carry(board)
            if state is not None:
                self._witness.present(board, state)
        except Refused as refused:
            board.note(refused.message)
        for leaf, payload in self._connections.born(caps.board):
            self.received(native.board_topic(caps.board, leaf), payload, True)

    def retire(self, board: Board) -> None:
        """Its birth document was cleared: it is gone for good. What it still had to confirm, it never will."""
        _log.warning("board %s is retired: its birth document was cleared", board.id)
        board.note("it is retired: its birth document was cleared")
        board.presence = "retired"
        for action in board.showings:
            self._outside.get(action, set()).discard(board.id)
        self.boards.remove(board)
        self._connections.leave(board)
        self.outbox.retire(board)
        self._open.pop(board, None)
        self._held.pop(board, None)
        self.remember[CAPS, board.id] = None
        self.retired[board.id] = board
        if len(self.retired) > RETIRED_MAX:
            del self.retired[next(iter(self.retired))]
        for action in board.showings:
            self.changed(action)
        self._kick()

    def _note_unfit(self, board: Board, action: int) -> None:
        showing = self.showings[action]
        if self._composer.item(showing, board.model) is None and (why := showing.why_unfit(board.model)):
            board.note(f"action {action} does not fit model {board.model.name}: {why}")

    def reported(self, board: Board, report: Reported, retained: bool) -> None:
        """What a board shows, also a display of the standard."""
        self._witness.reported(board, report, retained)

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Ends, results that stood long enough, boards that lag, topics to be forgotten."""
        for showing in list(self.showings.values()):
            record = showing.record
            if record.live and record.end_ms <= now_ms:
                showing.replace(stage="over", ended_ms=record.end_ms, reason="its end has passed")
                self._restage(showing)
            elif record.stage == "result" and record.result_end_ms <= now_ms:
                showing.replace(stage="over")
                self._restage(showing)
            elif record.stage == "over" and showing.last_end_ms + self._grace_ms <= now_ms:
                self._release(showing, now_ms)
        self._passengers.tick(now_ms)
        told_ms = now_ms - int(self._settings.lag_s * 1000)  # who was told since then has its time yet: nearly all
        for board in [board for board in self._open if board.sent_ms <= told_ms]:
            self._chase(board, now_ms)
        for name in self._connections.to_ask(now_ms):
            self.outbox.ask(name)
        self._ticks += 1
        if self._ticks % GRACE_EVERY_TICKS == 0:
            for board in list(self._held):
                if not board.showings and 0 < board.last_end_ms + self._grace_ms <= now_ms:
                    self.step(board, Event.GRACE)
        if self.outbox.waiting or self._passengers.waiting:
            self._kick()

    @property
    def _grace_ms(self) -> int:
        return int(self._settings.grace_s * 1000)

    def _chase(self, board: Board, now_ms: int) -> None:
        """Ask a board again that is there and does not agree; it may agree by now, as time has changed what is
        expected. A document that no broker took is given to it again, whether or not the board is there.
        """
        if board.state in (State.DUE, State.CLEAR):
            return
        if board.presence not in ("ready", "unknown") and board.state is not State.FLIGHT:
            return
        wait_ms = self._settings.lag_s * 1000 * 2 ** min(board.tries, LAG_DOUBLINGS_MAX)
        if now_ms - board.sent_ms < wait_ms:
            return
        if board.state is State.DEVIANT and self._witness.compare(board, now_ms) is Event.AGREES:
            self.step(board, Event.AGREES)
            return
        board.tries += 1
        self.step(board, Event.LATE)

    def _release(self, showing: Showing, now_ms: int) -> None:
        """An action whose every document is over: boards that proved it gone are done with it. When all have, or those
        that have not were waited for long enough, its counts stay, and board by board it is forgotten.
        """
        action, proof = showing.record.action, self.proofs[showing.record.action]
        waits = showing.last_end_ms + LATE_PROOF_MS > now_ms and proof.unended() > 0
        if waits and self._ticks % GRACE_EVERY_TICKS:
            return
        for name in proof.ended() if waits else showing.record.boards:
            board = self.boards.get(name)
            if board is not None and action in board.showings:
                board.showings.remove(action)
        if waits:
            return
        self.past[action] = counts = self.counts(action)
        self.remember[COUNTS, str(action)] = msgspec.msgpack.encode(counts)
        self.remember[ACTIONS, str(action)] = None
        self.remember[PROOF, str(action)] = None
        del self.showings[action], self.proofs[action]
        self._shapes.pop(action, None)
        self._outside.pop(action, None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _attach(self, board: Board, record: Record) -> None:
        if record.action not in board.showings:
            board.showings.append(record.action)
        board.last_end_ms = max(board.last_end_ms, record.end_ms, record.result_end_ms)
        self._desire(board)

    def consider(self, board: Board, *, moved: bool = False) -> None:
        """A board that is new, or somewhere else: put it on the actions whose area it is in, take it off the others if
        it is on a vehicle or was `moved`. One that does not say where it stands is in the area of everyone.
        """
        placed = board.lon is not None and board.lat is not None
        here: PlaceIndex | None = None
        for action, shape in self._shapes.items():
            showing = self.showings[action]
            if not showing.record.live or isinstance(shape, shapes.Nearest):
                continue
            inside = isinstance(shape, shapes.Everyone)
            if not inside:
                if not placed:
                    continue
                here = here or PlaceIndex.build(np.array([board.lon]), np.array([board.lat]))
                inside = here.count(widened(shape, showing.record.request.boards.margin_m)) > 0
            member = action in board.showings
            if inside and not member and self._composer.item(showing, board.model) is not None:
                if board.id not in self.proofs[action].place:  # else it was retired since it was chosen
                    showing.record.boards.append(board.id)
                    self.proofs[action].add(board.id)
                    self._remember(showing.record)
                self._attach(board, showing.record)
            elif member and (board.caps.mobile or moved) and inside == self.has_left(board, action):
                self._outside.setdefault(action, set()).symmetric_difference_update({board.id})
                if board.dialect == DIALECT:  # it says where it is when it asks; others tell again and again
                    showing.record.left[:] = sorted(self._outside[action])
                    self._remember(showing.record)
                self._desire(board)
        self._kick()

    def _restage(self, showing: Showing) -> None:
        self._composer.clear()
        self._remember(showing.record)
        for name in showing.record.boards:
            board = self.boards.get(name)
            if board is not None:
                board.last_end_ms = max(board.last_end_ms, showing.last_end_ms)
                self._desire(board)
        self._kick()
        self.changed(showing.record.action)

    def _remember(self, record: Record) -> None:
        self.remember[ACTIONS, str(record.action)] = encode_record(record)

    def _desire(self, board: Board) -> None:
        board.tries = 0
        self.step(board, Event.DESIRE)

    def step(self, board: Board, event: Event) -> None:
        """Advance one board by the table and do what it says; one that was retired meanwhile, not at all."""
        if self.boards.get(board.id) is not board:
            return
        before = board.state
        board.state, effects = shadow.step(before, event)
        if event is _DESIRE:
            self.outbox.spoil(board)
        for effect in effects:
            if effect is _RAISE:
                self.outbox.spoil(board)
            if effect is _NOTE:
                continue
            if board.dialect == native.DIALECT:
                self.outbox.add(board, event)
            else:
                self._passengers.add(board)
        if board.state is before:
            return
        if board.state in shadow.OPEN:
            self._open[board] = None
        else:
            self._open.pop(board, None)
            board.tries = 0
        if before not in shadow.OPEN and board.state in shadow.OPEN:
            board.lag_since_ms = self._clock_ms()
        if board.state is _CLEAR:
            self._held.pop(board, None)
            board.items, board.last_end_ms = (), 0
            self.outbox.cleared(board)
        else:
            self._held[board] = None

    def _actions_of(self, board: Board) -> tuple[int, ...]:
        """The actions a board shall show; one on a vehicle is off those whose area it has left."""
        outside = self._outside
        if not outside:
            return tuple(board.showings)
        return tuple(action for action in board.showings if not self.has_left(board, action))

    def has_left(self, board: Board, action: int) -> bool:
        """Whether a board that this action chose is outside of its area now."""
        return board.id in self._outside.get(action, ())


def encode_record(record: Record) -> bytes:
    """A record as it is remembered in the space `ACTIONS`, under its action's id."""
    return msgspec.msgpack.encode(record)


def _proof_for(record: Record, stored: Proof | None) -> Proof:
    """The stored columns, grown to the boards of the record."""
    proof = stored or Proof([])
    for name in record.boards:
        if name not in proof.place:
            proof.add(name)
    return proof
