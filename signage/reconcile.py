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

from fanout import limits
from fanout.errors import Refused
from fanout.geo import PlaceIndex, shapes
from fanout.settings import SignageSettings
from fanout.wire import BoardCounts
from signage import shadow
from signage.boards import Board, Boards, widened
from signage.compose import Composer, Sign
from signage.dialects import native
from signage.dialects.native import Caps, Reported
from signage.layout import Pace
from signage.lists import Listed
from signage.mqtt import Packet
from signage.outbox import Outbox
from signage.passengers import DIALECT, Passengers
from signage.proof import Proof
from signage.shadow import Effect, Event, State
from signage.showing import Record, Showing

_log = logging.getLogger(__name__)

LAG_DOUBLINGS_MAX: Final = 4  # a board that never confirms is asked again after 16 times the lag, for ever
EARLY_MAX: Final = 4_096  # boards of which a report came before the birth document: a burst at connection, no more
GRACE_EVERY_TICKS: Final = 10
LATE_PROOF_MS: Final = 86_400_000  # so long after its end an action waits for boards that were cut off to prove it gone
NAMELESS_MS: Final = 10_000  # a birth document may be lost on its way; a controller has none, and is asked in vain
SAME_ID_BOOTS: Final = 4  # so many new boot ids within a minute: two boards share an id, or one is in a boot loop
NATIVE = "native"
CAPS, DISPLAYS, ACTIONS, PROOF, COUNTS = SPACES = (
    "boards.caps", "boards.displays", "boards.actions", "boards.proof", "boards.counts"
)  # fmt: skip


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
        self._proofs: dict[int, Proof] = {}
        self._shapes: dict[int, shapes.Shape] = {}
        self._outside: dict[int, set[str]] = {}
        self._past: dict[int, BoardCounts] = {}
        self._open: dict[Board, None] = {}
        self._held: dict[Board, None] = {}
        self._composer = Composer(settings, key, sign)
        self.outbox = Outbox(self._composer, self.showings, self._actions_of, self.step)
        self._controllers: dict[str, dict[Board, None]] = {}
        self._early: dict[str, dict[str, bytes]] = {}
        self._nameless: dict[str, int] = {}  # when those whose birth document is missing are asked for it
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
        for _, value in displays:
            kept = self._passengers.restore(value)
            if kept is not None:
                self.boards.put(kept, DIALECT)[0].announced = True
        for key, value in counts:
            self._past[int(key)] = msgspec.msgpack.decode(value, type=BoardCounts)
        known = {int(key): Proof.decode(value) for key, value in proofs}
        for key, value in actions:
            record = msgspec.msgpack.decode(value, type=Record)
            self.showings[record.action] = Showing(record, self.pace)
            self._proofs[record.action] = _proof_for(record, known.get(int(key)))
            shape = shape_of(record)
            if shape is not None:
                self._shapes[record.action] = shape
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
                self._consider(board)

    def drain(self) -> dict[str, list[tuple[str, bytes | None]]]:
        """What must be made durable since the last call, by space; columns of proof included."""
        for action, proof in self._proofs.items():
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
        return action in self.showings or action in self._past

    def add(self, record: Record, shape: shapes.Shape) -> None:
        """Show an action on the boards of its record."""
        self.showings[record.action] = Showing(record, self.pace)
        self._proofs[record.action] = Proof(list(record.boards))
        self._shapes[record.action] = shape
        self._remember(record)
        for name in record.boards:
            board = self.boards.get(name)
            assert board is not None, "an action is put on boards that are known"
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
        self._proofs[action].renew()
        self._restage(showing)
        for name in showing.record.boards:
            board = self.boards.get(name)
            if board is not None:
                self._note_unfit(board, action)

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
            if showing.record.stage != "over" or self._proofs[action].unended()
        ]

    def counts(self, action: int) -> BoardCounts:
        showing = self.showings.get(action)
        if showing is None:
            return self._past.get(action, BoardCounts())
        return self._proofs[action].counts(showing.record.start_ms, showing.record.ended_ms)

    def proof(self, action: int) -> Proof | None:
        """Board by board, while the action is remembered."""
        return self._proofs.get(action)

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

    def published(self, board: Board, now_ms: int) -> None:
        """What this board must show has left us."""
        for action in board.showings:
            self._proofs[action].mark("published", board.id, now_ms)

    def remember_display(self, board_id: str, value: bytes) -> None:
        self.remember[DISPLAYS, board_id] = value

    def lost(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            self.outbox.lost(packet)

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
        if heard is None or not payload:
            if payload:
                self._passengers.received(topic, payload)
                if self._passengers.waiting:
                    self._kick()
            return
        board = self.boards.get(heard.board)
        try:
            if heard.leaf == "caps":
                self.born(native.read_caps(heard.board, payload))
            elif board is None and heard.leaf == "state" and heard.board in self._controllers:
                for one in self._controllers[heard.board]:
                    self._present(one, native.read_state(heard.board, payload))
            elif board is None:
                self._keep_early(heard, payload)
            elif heard.leaf == "reported":
                self.reported(board, native.read_reported(heard.board, payload), retained)
            elif heard.leaf == "state":
                self._present(board, native.read_state(heard.board, payload))
            elif heard.leaf == "ack":
                self._acknowledged(board, native.read_acks(heard.board, payload))
        except Refused as refused:
            _log.warning("%s", refused.message)
            if board is not None:
                board.note(refused.message)

    # --- what boards say ----------------------------------------------------------------------------------------------

    def born(self, caps: Caps, dialect: str = NATIVE, *, announced: bool = True) -> None:
        known = self.boards.get(caps.board)
        if known is not None and known.dialect != dialect:
            known.note(f"somebody announced a board of this id by {dialect}; it was not taken")
            return
        board, new = self.boards.put(caps, dialect)
        new = new or announced != board.announced
        board.announced = announced
        if caps.controller and caps.controller != board.id:
            self._controllers.setdefault(caps.controller, {})[board] = None
        if new:
            if not announced:
                pass  # a list is read again at each start
            elif dialect == NATIVE:
                self.remember[CAPS, board.id] = native.encode(caps)
            else:
                self._passengers.remember(caps)
            for name in self.outbox.listen(board):
                board.note(f"{name!r} cannot be an area topic: it has to be one level, without / + #")
            for action in board.showings:
                self._note_unfit(board, action)
            if board.showings:
                self._desire(board)
            self._consider(board)
        for words in self._passengers.early_notes(caps.board):
            board.note(words)
        self._nameless.pop(caps.board, None)
        for leaf, payload in self._early.pop(caps.board, {}).items():
            self.received(native.board_topic(caps.board, leaf), payload, True)

    def _note_unfit(self, board: Board, action: int) -> None:
        showing = self.showings[action]
        if self._composer.item(showing, board.model) is None and (why := showing.why_unfit(board.model)):
            board.note(f"action {action} does not fit model {board.model.name}: {why}")

    def _keep_early(self, heard: native.Heard, payload: bytes) -> None:
        if heard.leaf in ("state", "reported") and len(self._early) < EARLY_MAX:
            self._early.setdefault(heard.board, {})[heard.leaf] = payload
            self._nameless.setdefault(heard.board, self._clock_ms() + NAMELESS_MS)

    def _present(self, board: Board, state: native.State) -> None:
        if state.state == "lost" and board.boot and state.boot != board.boot:
            return  # the will of a session that was over before this one began
        now_ms = self._clock_ms()
        if state.state != "lost" and state.boot != board.boot:
            board.boots_ms = [at for at in board.boots_ms if now_ms - at < 60_000] + [now_ms]
            if len(board.boots_ms) >= SAME_ID_BOOTS:
                board.note("it started four times in a minute: two boards with this id, or one that cannot stay up")
            board.boot = state.boot
        board.presence = state.state
        board.clock_offset_ms = state.clock_offset_ms
        board.heard_ms = now_ms
        if abs(state.clock_offset_ms) > limits.BOARD_CLOCK_OFFSET_MS_MAX:
            board.note(f"its clock is off by {state.clock_offset_ms / 1000:.0f} s")

    def _acknowledged(self, board: Board, acks: list[native.Ack]) -> None:
        now_ms = self._clock_ms()
        for ack in acks:
            if ack.what == "rejected" and ack.version == board.version:
                board.note(f"it rejected version {ack.version}: {ack.reason or 'no reason given'}")
                self.step(board, Event.REJECT)
            elif ack.what in ("received", "shown") and ack.version == board.version:
                for action in board.showings:
                    self._proofs[action].mark("received", board.id, now_ms)

    def reported(self, board: Board, report: Reported, retained: bool) -> None:
        now_ms = self._clock_ms()
        board.report = report
        board.heard_ms = now_ms
        if not retained and board.presence in ("unknown", "lost"):
            board.presence = "ready"
        for error in report.errors:
            board.note(f"it reports: {error}")
        if board.caps.mobile and report.lon is not None and report.lat is not None:
            moved = self.boards.move(board, report.lon, report.lat)
            if moved:
                self._consider(board)
        event = self._compare(board, now_ms)
        if event is None:
            return
        current = event in (Event.AGREES, Event.DIFFERS) and not self.outbox.stale(board)
        self.step(board, event)
        on_board = {entry.action for entry in report.shown if entry.stage != "result"}
        for action in board.showings:
            record = self.showings[action].record
            if record.live and action in on_board and not (current and event is Event.DIFFERS):
                self._mark("shown", action, board, now_ms)
                if record.stage == "update" and current:
                    self._mark("updated", action, board, now_ms)
            elif not record.live and action not in on_board and current:
                self._mark("ended", action, board, now_ms)

    def _compare(self, board: Board, now_ms: int) -> Event | None:
        """What the board's last report means now; None: nothing."""
        report = board.report
        if report is None:
            return None
        if board.state in (State.CLEAR, State.FORGETTING):
            return Event.DIFFERS if report.shown else None
        return shadow.compare(
            board.version, board.items, report, now_ms, board.model if board.dialect == NATIVE else None
        )

    def _mark(self, column: str, action: int, board: Board, now_ms: int) -> None:
        if self._proofs[action].mark(column, board.id, now_ms):
            self.changed(action)

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
        for board in list(self._open):
            self._chase(board, now_ms)
        for name, at_ms in list(self._nameless.items()):
            if at_ms <= now_ms and name not in self._controllers:
                self._nameless[name] = now_ms + NAMELESS_MS
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
        expected.
        """
        if board.state in (State.DUE, State.CLEAR) or board.presence not in ("ready", "unknown"):
            return
        wait_ms = self._settings.lag_s * 1000 * 2 ** min(board.tries, LAG_DOUBLINGS_MAX)
        if now_ms - board.sent_ms < wait_ms:
            return
        if board.state is State.DEVIANT and self._compare(board, now_ms) is Event.AGREES:
            self.step(board, Event.AGREES)
            return
        board.tries += 1
        self.step(board, Event.LATE)

    def _release(self, showing: Showing, now_ms: int) -> None:
        """An action whose every document is over: boards that proved it gone are done with it. When all have, or those
        that have not were waited for long enough, its counts stay, and board by board it is forgotten.
        """
        action, proof = showing.record.action, self._proofs[showing.record.action]
        waits = showing.last_end_ms + LATE_PROOF_MS > now_ms and proof.unended() > 0
        if waits and self._ticks % GRACE_EVERY_TICKS:
            return
        for name in proof.ended() if waits else showing.record.boards:
            board = self.boards.get(name)
            if board is not None and action in board.showings:
                board.showings.remove(action)
        if waits:
            return
        self._past[action] = counts = self.counts(action)
        self.remember[COUNTS, str(action)] = msgspec.msgpack.encode(counts)
        self.remember[ACTIONS, str(action)] = None
        self.remember[PROOF, str(action)] = None
        del self.showings[action], self._proofs[action]
        self._shapes.pop(action, None)
        self._outside.pop(action, None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _attach(self, board: Board, record: Record) -> None:
        if record.action not in board.showings:
            board.showings.append(record.action)
        board.last_end_ms = max(board.last_end_ms, record.end_ms, record.result_end_ms)
        self._desire(board)

    def _consider(self, board: Board) -> None:
        """A board that is new, or somewhere else: put it on the actions whose area it is in, take it off the others.
        One that does not say where it stands is in the area of everyone.
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
                showing.record.boards.append(board.id)
                self._proofs[action].add(board.id)
                self._remember(showing.record)
                self._attach(board, showing.record)
            elif member and board.caps.mobile and inside == (board.id in self._outside.get(action, ())):
                outside = self._outside.setdefault(action, set())
                outside.symmetric_difference_update({board.id})
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
        """Advance one board by the table and do what it says."""
        before = board.state
        board.state, effects = shadow.step(before, event)
        if event is Event.DESIRE:
            self.outbox.spoil(board)
        for effect in effects:
            if effect is Effect.RAISE:
                self.outbox.spoil(board)
            if effect is Effect.NOTE:
                continue
            if board.dialect == NATIVE:
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
        if board.state is State.CLEAR:
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
        return tuple(action for action in board.showings if board.id not in outside.get(action, ()))


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
