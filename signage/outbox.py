"""What native boards are told next, and by which topic: their own, or one that an area of them shares.

Rules:

1. A document is composed when it is taken to the wire, so ten changes in a row are one document.
2. Boards that listen to an area topic are served by it when `areas` allows: one publish, one signature, for all. A
   board that lags, deviates or knows a higher version is spoken to alone, on its own topic.
3. Order: areas, boards that are there, the others, and last what the broker is to forget, so that no board is without a
   document at any moment.
4. A board has its document in one place. When an area serves it, its own topic is cleared, and the other way round:
   one that lost its memory reads both, and must find nothing that is over in either.
5. What the broker refuses is not tried again here, since it would be refused again at once: the board stays in flight
   until it lags.

The reconciler owes: `add` for every effect of the table that publishes, `sent`, `lost` or `refused` with the packets
given, `up` at each connection.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from fanout import limits
from signage.areas import LISTENERS_MIN, Area, Areas
from signage.boards import Board
from signage.compose import Composed, Composer
from signage.dialects import native
from signage.mqtt import Packet
from signage.shadow import Event, State
from signage.showing import Showing

_Wish: TypeAlias = tuple[int, int, native.Form, tuple[int, ...]]  # identity of the model, most items, form, actions
_TOGETHER: Final = frozenset({Event.DESIRE, Event.CUT})  # what may be answered for many boards at once
_GONE: Final = frozenset({State.CLEAR, State.FORGETTING})
_DUE, _FORGETTING, _TAKEN, _STORED = State.DUE, State.FORGETTING, Event.TAKEN, Event.STORED


class ToBoard(NamedTuple):
    """Token of a document on a board's own topic; empty when the broker is to forget it."""

    board: Board
    version: int


class ToArea(NamedTuple):
    """Token of a document on an area topic, or of the order to forget it (version 0)."""

    area: Area
    version: int


class ToNobody(NamedTuple):
    """Token of the order to forget the topic of a board that was retired."""

    topic: str


class Outbox:
    """See the module. `step` advances a board by the table, `actions_of` names what it shall show, in order."""

    def __init__(
        self,
        composer: Composer,
        showings: Mapping[int, Showing],
        actions_of: Callable[[Board], tuple[int, ...]],
        step: Callable[[Board, Event], None],
    ) -> None:
        self._composer = composer
        self._showings = showings
        self._actions_of = actions_of
        self._step = step
        self._areas = Areas()
        self._first: OrderedDict[Board, None] = OrderedDict()  # a dict looks for its first entry among all that left it
        self._later: OrderedDict[Board, None] = OrderedDict()
        self._together: set[Board] = set()
        self._stale: set[Board] = set()
        self._shared: deque[Packet] = deque()
        self._clears: dict[Board | Area, None] = {}
        self._orphans: dict[str, None] = {}  # topics of boards that are no more

    @property
    def waiting(self) -> bool:
        return bool(self._first or self._later or self._shared or self._clears or self._orphans or self._areas.stirred)

    def stale(self, board: Board) -> bool:
        """Whether the board's items are to be made anew when its document is taken."""
        return board in self._stale

    def spoil(self, board: Board) -> None:
        self._stale.add(board)

    def refresh(self, board: Board, now_ms: int) -> bool:
        """Make the board's items anew if that is due; whether it was."""
        if board not in self._stale:
            return False
        self._stale.discard(board)
        self._composer.compose(board, self._actions_of(board), self._showings, now_ms)
        return True

    def listen(self, board: Board) -> list[str]:
        """A board's birth document is new; names of area topics that cannot be are returned."""
        return self._areas.listen(board)

    def add(self, board: Board, event: Event) -> None:
        """The board's document is to be published because of `event`, or to be forgotten."""
        self._drop(board)
        (self._first if board.presence == "ready" else self._later)[board] = None
        if event in _TOGETHER and board.state is _DUE and self._areas.of(board):
            self._together.add(board)
            self._areas.stir(board)

    def cleared(self, board: Board) -> None:
        """Nothing is wanted of the board any more and the broker keeps nothing for it."""
        board.via = None
        self._areas.stir(board)

    def retire(self, board: Board) -> None:
        """The board is no more: nothing is said to it, and the broker is to forget what it keeps for it."""
        self._drop(board)
        self._stale.discard(board)
        self._clears.pop(board, None)
        self._areas.leave(board)
        self._orphans[native.desired_topic(board.id)] = None

    def ask(self, board_id: str) -> None:
        """Somebody speaks of whom there is no birth document: an empty payload asks for it."""
        self._shared.append(Packet(native.desired_topic(board_id), b"", retain=False))

    def up(self) -> None:
        """A new connection: what was to be said is said anew, by what the boards are due."""
        self._shared.clear()
        self._areas.up()

    # --- to the wire --------------------------------------------------------------------------------------------------

    def take(self, now_ms: int) -> Packet | None:
        """The next packet, or None."""
        if self._areas.stirred:
            for area in self._areas.take_stirred():
                self._settle(area, now_ms)
        if self._shared:
            return self._shared.popleft()
        while self._first or self._later:
            board = next(iter(self._first or self._later))
            self._drop(board)
            if board.state is _DUE:
                return self._document(board, now_ms)
            if board.state is _FORGETTING:
                if board.own_held:
                    return self._forget(board)
                self._step(board, _STORED)
        while self._clears:
            one = next(iter(self._clears))
            del self._clears[one]
            if isinstance(one, Area):
                one.known, one.items = True, None
                return Packet(native.area_topic(one.name), b"", token=ToArea(one, 0))
            if one.own_held and one.via is not None:
                return self._forget(one)
        if self._orphans:
            topic = next(iter(self._orphans))
            del self._orphans[topic]
            return Packet(topic, b"", token=ToNobody(topic))
        return None

    def sent(self, packet: Packet) -> Sequence[Board]:
        """The broker has it; the boards whose document of this version it is."""
        boards = _addressed(packet.token)
        for board in boards:
            if packet.payload or board.state is _FORGETTING:
                self._step(board, _STORED)
        return boards if packet.payload else ()

    def refused(self, packet: Packet) -> Sequence[Board]:
        """The broker keeps nothing of it; the boards whose document of this version it is, which stay in flight."""
        token = packet.token
        boards = _addressed(token)
        if isinstance(token, ToArea):
            token.area.known = False
        elif isinstance(token, ToBoard):
            token.board.own_held = True  # what was there before
        return boards

    def lost(self, packet: Packet) -> None:
        """The connection ended before the broker had it."""
        token = packet.token
        if isinstance(token, ToArea):
            token.area.known = False
            for board in token.area.listeners:
                if board.via is token.area and board.version == token.version:
                    self._step(board, Event.CUT)
        elif isinstance(token, ToBoard):
            token.board.own_held = True
            self._step(token.board, Event.CUT)
            if token.board.via is not None:
                self._clears[token.board] = None
        elif isinstance(token, ToNobody):
            self._orphans[token.topic] = None

    # --- areas --------------------------------------------------------------------------------------------------------

    def _settle(self, area: Area, now_ms: int) -> None:
        """One area of which something changed: serve it, leave it, or have it forgotten."""
        listeners = area.listeners
        wishes: dict[_Wish, Board] = {}
        for board in listeners:
            key = (id(board.model), board.caps.items, board.caps.form, self._actions_of(board))
            wishes.setdefault(key, board)
        due = [board for board in listeners if board in self._together]
        if due and len(wishes) == 1 and len(listeners) >= LISTENERS_MIN:
            composed = self._wanted(due[0], now_ms)
            if 2 * len(due) > len(listeners):
                self._publish(area, due[0], composed, now_ms)
                return
            if area.known and area.items == composed[0]:
                for board in due:
                    if board.report is None or board.report.version <= area.version:
                        self._serve(board, area, composed, now_ms)
                return
        if area.clear or area in self._clears:
            return
        wanted = [self._wanted(board, now_ms)[0] for board in wishes.values()]
        if any(board.state not in _GONE for board in listeners) and area.fits(wanted):
            return
        self._retire(area)

    def _wanted(self, board: Board, now_ms: int) -> Composed:
        """What the board must show, shared with all that show the same."""
        return self._composer.items(board.model, board.caps.items, self._actions_of(board), self._showings, now_ms)

    def _publish(self, area: Area, one: Board, composed: Composed, now_ms: int) -> None:
        """One document for all who listen, and who want what this one wants."""
        listeners, items = area.listeners, composed[0]
        again = area.items == items and all(
            board.via is area and board.version == area.version for board in listeners if board not in self._stale
        )
        if not again or not self._stale.isdisjoint(listeners):
            reported = (board.report.version for board in listeners if board.report is not None)
            known = max(area.version, max(board.version for board in listeners), max(reported, default=0))
            area.version = max(now_ms, known + 1)
        area.items, area.known = items, True
        self._clears.pop(area, None)
        for board in list(listeners):
            self._serve(board, area, composed, now_ms)
        end_ms = max(board.last_end_ms for board in listeners)
        token = ToArea(area, area.version)
        self._shared.append(self._composer.shared(area.name, area.version, one, composed, end_ms, now_ms, token))

    def _serve(self, board: Board, area: Area, composed: Composed, now_ms: int) -> None:
        """This board has its document from the area now."""
        if board.state is not State.DUE:
            self._step(board, Event.DESIRE)
        self._drop(board)
        self._stale.discard(board)
        (board.items, board.item_bytes), board.version = composed, area.version
        board.via, board.sent_ms = area, now_ms
        self._step(board, _TAKEN)
        if board.own_held:
            self._clears[board] = None

    def _retire(self, area: Area) -> None:
        """The broker is to forget it, when those who relied on it have a document of their own."""
        self._clears[area] = None
        for board in list(area.listeners):
            if board.via is area:
                board.via = None
                if board.state not in _GONE:
                    self._step(board, Event.DESIRE)

    # --- one board ----------------------------------------------------------------------------------------------------

    def _document(self, board: Board, now_ms: int) -> Packet:
        self.refresh(board, now_ms)
        if not board.last_end_ms:  # something of ours is on it that we do not know: it may last as long as any
            board.last_end_ms = now_ms + limits.ACTION_HOURS_MAX * 3_600_000
        packet = self._composer.own(board, now_ms, ToBoard(board, board.version))
        board.own_held, board.via, board.sent_ms = True, None, now_ms
        self._clears.pop(board, None)
        self._orphans.pop(packet.topic, None)  # it was retired, and is back
        self._step(board, _TAKEN)
        return packet

    def _forget(self, board: Board) -> Packet:
        board.own_held = False
        return Packet(native.desired_topic(board.id), b"", token=ToBoard(board, board.version))

    def _drop(self, board: Board) -> None:
        self._first.pop(board, None)
        self._later.pop(board, None)
        self._together.discard(board)


def _addressed(token: object) -> list[Board]:
    """The boards that wait for this document and no newer one."""
    if isinstance(token, ToArea):
        return [one for one in token.area.listeners if one.via is token.area and one.version == token.version]
    if isinstance(token, ToBoard) and token.version == token.board.version:
        return [token.board]
    return []
