"""A small world for boards without sockets: a virtual clock, a broker that keeps and loses, displays, and an engine's
core.

Time stands still unless `pass_time` is called. Everything that can fail can be made to: contact of a board, the
engine's connection, the broker's memory, the engine's life, a display's memory; messages can come doubled.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from fanout import settings, wire
from fanout.geo.gate import shape_of
from signage.dialects import native, rtig_t047
from signage.reconcile import SPACES, Reconciler
from signage.showing import Record, priority_of, target_of
from signage.signing import Signer
from signage.simulators.display import Display, Mood, Out
from signage.simulators.matrix import Matrix
from signage.simulators.models import MODELS, caps_for
from signage.simulators.passenger import PassengerDisplay

START_MS = 1_900_000_000_000
SETTINGS = settings.load(None, {}).signage


class Documents:
    """The document part of a store, in memory."""

    def __init__(self) -> None:
        self.spaces: dict[str, dict[str, bytes]] = {}
        self.writes = 0

    def put(self, space: str, values: Any) -> None:
        self.writes += 1
        for key, value in values:
            if value is None:
                self.spaces.get(space, {}).pop(key, None)
            else:
                self.spaces.setdefault(space, {})[key] = value

    def scan(self, space: str) -> list[tuple[str, bytes]]:
        return sorted(self.spaces.get(space, {}).items())


def action(
    text: str = "Vermist: meisje (8), rode jas, Assen. Bel 112.",
    *,
    end_ms: int,
    kind: str = "missing_child",
    **more: Any,
) -> wire.Action:
    return wire.Action(kind=kind, area=wire.Everyone(), texts={"nl": text}, end_ms=end_ms, **more)


@dataclasses.dataclass
class Order:
    """What was asked of boards, kept apart from the engine: the oracle's memory. `boards` None: all."""

    priority: int
    received_ms: int
    end_ms: int
    boards: set[str] | None
    stage: str = "start"


class World:
    """One engine core, one broker, some displays. `lane` of an action: 0 is an emergency."""

    def __init__(
        self,
        moods: list[Mood],
        *,
        signer: Signer | None = None,
        overlay: dict[str, Any] | None = None,
        models: list[str] | None = None,
        passengers: list[PassengerDisplay] | None = None,
        areas: list[list[str]] | None = None,
    ) -> None:
        self.now_ms = START_MS
        self.settings = settings.load(None, {}, signage=overlay or {}).signage
        self.signer = signer
        self.memory = Documents()
        self.orders: dict[int, Order] = {}
        self.retained: dict[str, bytes] = {}
        self.link_up = True
        self.double = False
        self.sent: list[tuple[str, bytes]] = []
        keys = {signer.key_id: signer.public} if signer is not None else None
        models = models or list(MODELS)
        self.displays: list[Any] = [
            Matrix(
                caps_for(f"b{at}", models[at % len(models)], 5.0, 52.0, "here", areas=areas[at] if areas else ()),
                mood=mood,
                seed=at,
                keys=keys,
            )
            for at, mood in enumerate(moods)
        ]
        self.displays += passengers or []
        self.core = self._core()
        self.core.up()
        for display in self.displays:
            display.power_on()
            self.join(display)

    def _core(self) -> Reconciler:
        signer = self.signer
        core = Reconciler(
            self.settings,
            lambda: self.now_ms,
            key=signer.key_id if signer is not None else "",
            sign=signer.sign if signer is not None else None,
        )
        caps, displays, actions, proofs, counts = (self.memory.scan(space) for space in SPACES)
        core.restore(caps, displays, actions, proofs, counts, _shape)
        return core

    # --- the engine ---------------------------------------------------------------------------------------------------

    def show(
        self,
        number: int,
        what: wire.Action,
        lane: int = 0,
        boards: set[str] | None = None,
        photo: wire.Photo | None = None,
    ) -> None:
        if boards is not None:  # somewhere else, lest a board that appears later be in its area
            what = msgspec.structs.replace(what, area=wire.Circle(lon=170.0, lat=-40.0, radius_m=1.0))
        record = Record(
            action=number,
            request=what,
            priority=priority_of(lane, self.settings.rank_search, self.settings.rank_information),
            start_ms=self.now_ms,
            end_ms=what.end_ms,
            boards=[board.id for board in self.core.boards if boards is None or board.id in boards],
            photo=photo,
            target=target_of(lane, self.settings.target_search, self.settings.target_information),
        )
        self.core.add(record, shape_of(what.area))
        self.orders[number] = Order(record.priority, self.now_ms, what.end_ms, boards)
        self.save()
        self.pump()

    def update(self, number: int, text: str) -> None:
        self.core.update(number, {"nl": text}, {}, self.now_ms)
        order = self.orders[number]
        if self.now_ms < order.end_ms:
            order.stage = "update"
        self.save()
        self.pump()

    def end(self, number: int, texts: dict[str, str] | None = None) -> None:
        self.core.end(number, texts or {}, self.now_ms, "closed")
        order = self.orders[number]
        if self.now_ms < order.end_ms:
            order.stage, order.priority = "result", self.settings.rank_result
            order.end_ms = self.now_ms + int(self.settings.result_show_s * 1000) if texts else 0
        self.save()
        self.pump()

    def save(self) -> None:
        for space, values in self.core.drain().items():
            self.memory.put(space, values)

    def restart_engine(self, *, forgets: bool = False) -> None:
        """The process dies and comes back; what was not saved is gone, or everything."""
        if forgets:
            self.memory = Documents()
        self.core = self._core()
        self.link_up = True
        self._replay_to_engine()
        self.core.up()
        self.pump()

    def engine_cut(self) -> None:
        self.link_up = False
        self.core.down("cut")

    def engine_back(self, *, broker_forgot: bool = False) -> None:
        self.link_up = True
        if broker_forgot:
            self.retained.clear()
            for display in self.displays:
                if display.connected:
                    display.cut(self.now_ms)
                    self.join(display)
        self._replay_to_engine()
        self.core.up()
        self.pump()

    def candidates(self, board: str) -> set[tuple[int, str]]:
        """Actions and stages that a board may have to show at this moment."""
        return {
            (number, order.stage)
            for number, order in self.orders.items()
            if self.now_ms < order.end_ms and (order.boards is None or board in order.boards)
        }

    def truth(self, board: str) -> list[int]:
        """Actions a board must show now, told from what was asked for, by the rules of the contract's text."""
        on = [self.orders[number] for number, _ in self.candidates(board)]
        number_of = {id(order): number for number, order in self.orders.items()}
        best = min((order.priority for order in on), default=0)
        chosen = [order for order in on if order.priority == best]
        return [number_of[id(one)] for one in sorted(chosen, key=lambda one: (one.received_ms, number_of[id(one)]))]

    # --- boards -------------------------------------------------------------------------------------------------------

    def join(self, display: Display) -> None:
        """A display gets contact, and reads what the broker kept for it."""
        if display.mood == "off" or display.connected:
            return
        self._publish(display.connect(self.now_ms))
        for topic in sorted(self.retained):
            if display.hears(topic):
                self._publish(display.receive(topic, self.retained[topic], self.now_ms))
        self.pump()

    def leave(self, display: Display) -> None:
        if display.connected:
            will = display.will()
            display.cut(self.now_ms)
            self._publish([Out(*will, True)] if will is not None else [])

    # --- the wire -----------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Everything that waits is carried to where it goes."""
        while self.link_up and (packet := self.core.take()) is not None:
            self.sent.append((packet.topic, packet.payload))
            if packet.retain and packet.payload:
                self.retained[packet.topic] = packet.payload
            elif packet.retain:
                self.retained.pop(packet.topic, None)
            heard = False
            for _ in range(2 if self.double else 1):
                for display in self.displays:
                    if display.connected and display.hears(packet.topic):
                        heard = True
                        self._publish(display.receive(packet.topic, packet.payload, self.now_ms))
            self.core.sent(packet, heard)

    def _publish(self, out: list[Out]) -> None:
        for topic, payload, retain in out:
            if retain:
                self.retained[topic] = payload
            for _ in range(2 if self.double else 1):
                if self.link_up:
                    self.core.received(topic, payload, False)

    def _replay_to_engine(self) -> None:
        for topic, payload in sorted(self.retained.items()):
            if not topic.endswith("/desired"):
                self.core.received(topic, payload, True)

    def pass_time(self, seconds: float, step_s: float = 1.0) -> None:
        """Let time go by: displays wake when they must, the engine ticks."""
        until_ms = self.now_ms + int(seconds * 1000)
        while self.now_ms < until_ms:
            next_ms = min(until_ms, self.now_ms + int(step_s * 1000))
            self._wake_displays(next_ms)
            self.now_ms = next_ms
            self.core.tick(self.now_ms)
            self.save()
            self.pump()

    def _wake_displays(self, until_ms: int) -> None:
        """Every display wakes when it wants to, up to `until_ms`, in the order of time."""
        from_ms = dict.fromkeys(range(len(self.displays)), self.now_ms)
        while True:
            wanted = [(self.displays[at].next_wake_ms(from_ms[at]), at) for at in from_ms]
            due = [(at_ms, at) for at_ms, at in wanted if at_ms is not None and at_ms <= until_ms]
            if not due:
                return
            at_ms, at = min(due)
            self.now_ms = from_ms[at] = max(self.now_ms, at_ms)
            self._publish(self.displays[at].wake(self.now_ms))
            self.pump()


def _shape(record: Record) -> Any:
    return shape_of(record.request.area)


def shown(display: Any) -> list[tuple[int, str]]:
    """What a display shows by its film: action and stage."""
    if not display.film:
        return []
    if isinstance(display, PassengerDisplay):
        return [NAMES[identifier] for identifier in display.film[-1].messages]
    return [(item.action, item.stage) for item in display.film[-1].items]


NAMES = {rtig_t047.message_id(number, stage): (number, stage) for number in range(100) for stage in ("start", "result")}
"""Actions and stages by the message ids that stand for them."""


def kept_documents(world: World, display: Display) -> list[native.Document]:
    """What the broker keeps on the topics a board reads."""
    topics = [topic for topic in display.topics if topic in world.retained]
    return [native.read_envelope(display.id, world.retained[topic])[0] for topic in topics]


def document(world: World, display: Display) -> native.Document | None:
    """What a board reads that comes without memory: of the documents kept for it the one of the highest version."""
    own = [one for one in kept_documents(world, display) if one.board or one.model == display.caps.model]
    return max(own, key=lambda one: one.version, default=None)
