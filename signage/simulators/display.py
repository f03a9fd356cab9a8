"""A simulated board of the native contract: what it takes, what it shows, what it says; and moods that break the rules.

Rules of a well-behaved one are those of `CONTRACT.md`, written down a second time on purpose: the engine's own
`arbitration` is not used here, so that tests compare two readings of one contract.

It is a machine without I/O: `connect`, `receive`, `wake`, `cut` return messages to send; time is an argument (true
time; the board adds its own clock's error). `film` tells what it really showed, whatever it says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from fanout.errors import Refused
from signage import signing
from signage.dialects import native
from signage.dialects.native import Ack, Caps, Document, Item, Reported, Shown, State, Why

Mood: TypeAlias = Literal["well", "off", "flapping", "slow", "clock", "mute", "liar", "faulty", "amnesia"]
MOODS: Final[tuple[Mood, ...]] = ("well", "off", "flapping", "slow", "clock", "mute", "liar", "faulty", "amnesia")
WELL_BEHAVED: Final = frozenset({"well", "flapping", "slow", "amnesia"})
"""Moods in which a board, once it is back and has had its time, shows what it must."""


class Out(NamedTuple):
    """A message to be sent."""

    topic: str
    payload: bytes
    retain: bool


class Frame(NamedTuple):
    """From `at_ms` on (true time) the board showed these items, paging through their pages, because of `why`."""

    at_ms: int
    why: Why
    items: tuple[Item, ...]


class Display:
    """One board."""

    def __init__(
        self,
        caps: Caps,
        *,
        mood: Mood = "well",
        seed: int = 0,
        keys: dict[str, bytes] | None = None,
        slow_ms: int = 3_000,
    ) -> None:
        self.caps = caps
        self.id = caps.board
        self.mood: Mood = mood
        self.keys = keys
        self.film: list[Frame] = []
        self.on_frame: Callable[[Any, Any], None] | None = None
        self.connected = False
        self._random = random.Random(f"{seed}/{caps.board}")
        self._slow_ms = slow_ms if mood == "slow" else 0
        self.clock_error_ms = self._random.choice((-7_200_000, -600_000, 600_000, 7_200_000)) if mood == "clock" else 0
        self._boots = 0
        self._document: Document | None = None
        self._unsure = False  # it was away for too long: what it holds may be over, until a document has come
        self._version = 0
        self._waiting: list[tuple[int, str, bytes]] = []
        self._cut_ms: int | None = None
        self._shown: tuple[Item, ...] = ()
        self._why: Why = "local"
        self._since_ms: dict[tuple[int, str], int] = {}
        self._errors: list[str] = []

    def __repr__(self) -> str:
        return f"<Display {self.id} {self.mood} {[(item.action, item.stage) for item in self._shown]} {self._why}>"

    @property
    def controller(self) -> str:
        return self.caps.controller

    def film_row(self, frame: Frame) -> dict[str, Any]:
        """One line of a film, for people and tests."""
        return {
            "at_ms": frame.at_ms,
            "board": self.id,
            "model": self.caps.model,
            "why": frame.why,
            "shown": [[item.action, item.stage] for item in frame.items],
            "pages": [page.lines for item in frame.items for page in item.pages],
            "pictures": [picture.sha256 for item in frame.items for picture in item.media],
        }

    @property
    def boot(self) -> str:
        return f"{self.id}-{self._boots}"

    @property
    def topics(self) -> list[str]:
        """What it subscribes to."""
        own = native.desired_topic(self.id)
        return [own, *(native.area_topic(area) for area in self.caps.areas)]

    def hears(self, topic: str) -> bool:
        return topic in self.topics

    @property
    def shown(self) -> tuple[Item, ...]:
        return self._shown

    # --- its life -----------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """A start: a new boot id; documents and versions are in flash, unless it forgets."""
        self._boots += 1
        if self.mood == "amnesia":
            self._document, self._version = None, 0
        self._unsure = self._document is not None and self._document.on_comm_loss == "blank"

    def power_off(self, now_ms: int) -> None:
        self.connected = False
        self._frame((), "power", now_ms)

    def will(self) -> tuple[str, bytes]:
        lost = State(state="lost", boot=self.boot)
        return native.board_topic(self.id, "state"), native.encode(lost, self.caps.form)

    def connect(self, now_ms: int) -> list[Out]:
        """It has contact: what it says first."""
        self.connected = True
        self._unsure = self._unsure or self._silent(now_ms)
        self._cut_ms = None
        out: list[Out] = []
        if self.mood == "faulty":
            out.append(Out(native.board_topic(self.id, "caps"), b"\xff\xfe not a birth document", True))
            out.append(Out(native.board_topic(self.id, "reported"), b"{" * 70_000, False))
            self._errors = ["lamp 3 of line 2 is dead", "temperature 61 C"]
        self._settle(now_ms)
        return out + self._hello(now_ms)

    def _hello(self, now_ms: int) -> list[Out]:
        """Who it is, that it is there, and what it shows."""
        ready = State(state="ready", boot=self.boot, clock_offset_ms=self.clock_error_ms)
        return [self._out("caps", self.caps, True), self._out("state", ready, True), *self._report(now_ms)]

    def cut(self, now_ms: int) -> None:
        """It lost contact."""
        self.connected = False
        self._cut_ms = now_ms

    def receive(self, topic: str, payload: bytes, now_ms: int) -> list[Out]:
        """A message of one of its topics."""
        if self._slow_ms:
            self._waiting.append((now_ms + self._slow_ms, topic, payload))
            return []
        return self._take(topic, payload, now_ms)

    def wake(self, now_ms: int) -> list[Out]:
        """Time has passed: starts, ends, slow work, and silence from the broker."""
        out: list[Out] = []
        while self._waiting and self._waiting[0][0] <= now_ms:
            _, topic, payload = self._waiting.pop(0)
            out += self._take(topic, payload, now_ms)
        if self._settle(now_ms):
            out += self._report(now_ms)
        return out if self.connected else []

    def next_wake_ms(self, now_ms: int) -> int | None:
        """When `wake` has something to do, in true time; None: not until something is received."""
        local = now_ms + self.clock_error_ms
        times = [at for at, _, _ in self._waiting] if self._waiting else []
        for item in self._document.items if self._document is not None else ():
            if item.start_ms > local:
                times.append(item.start_ms - self.clock_error_ms)
            if item.end_ms > local:
                times.append(item.end_ms - self.clock_error_ms)
        if self._cut_ms is not None and self._document is not None:
            limit = self._document.comm_loss_s * 1000 + self._cut_ms
            if limit > now_ms:
                times.append(limit)
        return min(times, default=None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _take(self, topic: str, payload: bytes, now_ms: int) -> list[Out]:
        if not payload:
            return self._hello(now_ms) if topic == native.desired_topic(self.id) and self.connected else []
        try:
            document, envelope = native.read_envelope(self.id, payload)
        except Refused as refused:
            return self._ack([Ack(version=0, what="rejected", reason=refused.message[:200], at_ms=now_ms)])
        if self.keys is not None:
            public = self.keys.get(envelope.key)
            if public is None or not signing.verify(public, envelope.body, envelope.signature):
                reason = "the signature is wrong" if public is not None else f"key {envelope.key!r} is not known here"
                return self._ack([Ack(version=document.version, what="rejected", reason=reason, at_ms=now_ms)])
        own = topic == native.desired_topic(self.id)
        if not own and document.model != self.caps.model:
            return []  # for other boards that listen there
        if document.board != (self.id if own else ""):
            reason = "it is addressed to another board"
            return self._ack([Ack(version=document.version, what="rejected", reason=reason, at_ms=now_ms)])
        if document.version >= self._version:
            self._unsure = False
        if document.version <= self._version:
            self._settle(now_ms)
            return self._report(now_ms)
        self._version, self._document = document.version, document
        before = self._shown
        self._settle(now_ms)
        return self._ack(self._acks(document, before, now_ms)) + self._report(now_ms)

    def _acks(self, document: Document, before: Sequence[Item], now_ms: int) -> list[Ack]:
        local = now_ms + self.clock_error_ms
        acks = [
            Ack(version=document.version, what="received", action=item.action, stage=item.stage, at_ms=local)
            for item in document.items
        ]
        if not before and not self._shown:
            return acks or [Ack(version=document.version, what="received", at_ms=local)]
        had = {(item.action, item.stage) for item in before}
        has = {(item.action, item.stage) for item in self._shown}
        acks += [
            Ack(version=document.version, what="shown", action=action, stage=stage, at_ms=local)
            for action, stage in sorted(has - had)
        ]
        acks += [
            Ack(version=document.version, what="ended", action=action, stage=stage, at_ms=local, reason="desired")
            for action, stage in sorted(had - has)
        ]
        return acks or [Ack(version=document.version, what="received", at_ms=local)]

    def _settle(self, now_ms: int) -> bool:
        """Show what must be shown now; whether that changed."""
        items, why = self._must_show(now_ms)
        if self.mood == "liar":
            self._shown, self._why = items, why  # what it will say; it is stuck on whatever it showed first
            if not self.film:
                self._film((), "local", now_ms)
            return True
        return self._frame(items, why, now_ms)

    def _must_show(self, now_ms: int) -> tuple[tuple[Item, ...], Why]:
        document = self._document
        if document is None:
            return (), "local"
        if self._unsure or self._silent(now_ms):
            return (), "comm_loss"
        local = now_ms + self.clock_error_ms
        live = [item for item in document.items if item.start_ms <= local and local < item.end_ms]
        if len(live) < 2:  # nothing to choose from
            return tuple(live), "desired" if live else "local"
        live.sort(key=lambda item: (item.priority, item.received_ms, item.action))
        emergencies = [item for item in live if item.priority == native.EMERGENCY]
        full = [item for item in live if item.target == "full"]
        over = [item for item in live if item.target == "over"]
        if emergencies:
            chosen = emergencies
        elif full:
            chosen = [item for item in full if item.priority == full[0].priority]
        else:
            chosen = [item for item in over if item.priority == over[0].priority]
            chosen += [item for item in live if item.target == "bottom line"]
        return tuple(chosen), "desired" if chosen else "local"

    def _silent(self, now_ms: int) -> bool:
        """Without contact for so long that it shows nothing of the engine's."""
        document = self._document
        if document is None or self._cut_ms is None or document.on_comm_loss != "blank":
            return False
        return now_ms >= self._cut_ms + document.comm_loss_s * 1000

    def _frame(self, items: tuple[Item, ...], why: Why, now_ms: int) -> bool:
        changed = items != self._shown or (why != self._why and bool(items or self._shown))
        self._shown, self._why = items, why
        if changed or not self.film:
            self._film(items, why, now_ms)
        return changed

    def _film(self, items: tuple[Item, ...], why: Why, now_ms: int) -> None:
        frame = Frame(now_ms, why, items)
        self.film.append(frame)
        if self.on_frame is not None:
            self.on_frame(self, frame)

    def _report(self, now_ms: int) -> list[Out]:
        if self.mood == "mute":
            return []
        local = now_ms + self.clock_error_ms
        page = self._shown[0].pages[0].lines if self._shown and self._shown[0].pages else []
        report = Reported(
            board=self.id,
            version=self._version,
            why=self._why,
            shown=[Shown(action=item.action, stage=item.stage, since_ms=local) for item in self._shown],
            lines=[line[:200] for line in page],
            errors=self._errors,
            at_ms=local,
        )
        return [self._out("reported", report, True)]

    def _ack(self, acks: list[Ack]) -> list[Out]:
        if self.mood == "mute":
            return []
        return [Out(native.board_topic(self.id, "ack"), native.encode(acks, self.caps.form), False)]

    def _out(self, leaf: str, message: native.Message, retain: bool) -> Out:
        return Out(native.board_topic(self.id, leaf), native.encode(message, self.caps.form), retain)
