"""What displays of RTIG T047 are told, and by which topics: short ones that reach many, and the full topic of one.

Rules:

1. Nothing goes out before `settle` has seen all that changed, so that one publish on a short topic can serve every
   display under it (`cover`). A display that has been told the very same may hear it again: it is neither chosen nor
   in the way. One that is lost counts with the others, since reaching it is what we want.
2. A shorter topic is not retained, since the next message there would replace it. A copy is retained at the full topic
   with the message's id for a display that is away or was told alone.
3. Whatever a display is told, its retained copy, if there is one, is made the same; so nothing that was taken down
   comes back to a display that subscribes again. What the broker keeps is heard from the broker (`copy`), at each
   connection: a copy from before our own start is made right or cleared, also one of an action that is long forgotten
   (on MQTT 3.1.1 nothing expires), and where there is none, none is made.
4. What must go is told to go by DELETE, also when we do not know whether it was told: an unknown id is no error. It is
   told again to a display that comes back until the message is over by itself (`end_ms`) and some grace; then it is
   forgotten, and the broker told so.
5. After each connection everything is told again: a packet may have been lost, and the broker its memory.
6. A display that is new to us, or stands elsewhere than we thought, may have heard what a short topic said to others:
   it is told to drop all that runs and is not for it. What the broker kept where it stood is cleared.

No I/O: packets are pulled by `take`. Clearing packets stay ours until `sent` says that the broker has them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from signage.dialects import rtig_t047 as t047
from signage.dialects.cover import Levels, cover
from signage.displays import ASK_AGAIN_MS, Display, Displays, Told
from signage.mqtt import Packet

ASK_FIRST_MS: Final = 500  # time for a display to take a message before it is asked what it shows


class Teller:
    """See the module. `running` tells the ids of all messages that any display may show, and when they are over;
    `over` whether an id is that of a message of ours which is over and forgotten.
    """

    def __init__(
        self,
        displays: Displays,
        running: Callable[[], Mapping[str, int]],
        over: Callable[[str], bool],
        grace_ms: int,
    ) -> None:
        self._displays = displays
        self._running = running
        self._over = over
        self._grace_ms = grace_ms
        self._out: deque[Packet] = deque()
        self._clearing: dict[str, None] = {}
        self._dirty: dict[Display, None] = {}
        self._direct: set[Display] = set()
        self._before: frozenset[str] | None = None  # ids that ran when we started: copies may be left of them

    @property
    def waiting(self) -> bool:
        return bool(self._out or self._dirty)

    def stir(self, display: Display, *, alone: bool = False) -> None:
        """Something about this display changed. `alone`: it is told everything once more, by itself."""
        self._dirty[display] = None
        if alone:
            self._direct.add(display)

    def drop(self, display: Display, identifier: str, end_ms: int, now_ms: int) -> bool:
        """It must not show this message, whatever it was told; whether that is news. Of one that is over for good only
        a copy can be left.
        """
        if identifier in display.told:
            return False
        if end_ms + self._grace_ms <= now_ms:
            self._clear(display, [identifier])
            return False
        display.told[identifier] = Told(b"", 0, True, end_ms)
        return True

    # --- to the wire --------------------------------------------------------------------------------------------------

    def put(self, topic: str, payload: bytes, *, retain: bool) -> None:
        expiry_s = t047.EXPIRY_S if payload else None
        self._out.append(Packet(topic, payload, retain, expiry_s, "application/json"))
        if retain and not payload:
            self._clearing[topic] = None
        elif retain:
            self._clearing.pop(topic, None)

    def take(self) -> Packet | None:
        return self._out.popleft() if self._out else None

    def copy(self, address: t047.Address, identifier: str, payload: bytes) -> None:
        """The broker keeps this message at this full topic. What is not of ours, or for a display that is not, is left
        alone: other engines may have a broker with us.
        """
        if identifier not in self._running() and not self._over(identifier):
            return
        display = self._displays.at(address)
        if display is None:
            if self._displays.get(t047.board_id(address.vendor, address.device)) is not None:
                self.put(t047.content_topic((*address, identifier)), b"", retain=True)  # it stood there once
            return
        if identifier in display.kept:
            return
        display.kept.add(identifier)
        told = display.told.get(identifier)
        if told is not None and told.payload == payload:
            return
        if told is not None and told.payload:
            self._keep(display, identifier, told.payload)
        self.stir(display)

    def sent(self, packet: Packet) -> None:
        """The broker has it."""
        if packet.retain and not packet.payload:
            self._clearing.pop(packet.topic, None)

    def up(self) -> None:
        """The broker may have lost everything, and we what was on its way: all is told again."""
        if self._before is None:
            self._before = frozenset(self._running())
        self._out.clear()
        for topic in self._clearing:
            self._out.append(Packet(topic, b"", True, None, "application/json"))
        for display in self._displays:
            if display.told:
                display.again = True
                self._dirty[display] = None

    def settle(self, now_ms: int) -> None:
        """Put out what changed since the last call, on the smallest sets of topics."""
        groups: dict[tuple[str, bytes], list[Display]] = {}
        made: dict[tuple[int, int], bytes] = {}
        for display in self._dirty:
            for identifier, told in self._changes(display, now_ms, made):
                display.told[identifier] = told
                groups.setdefault((identifier, told.payload), []).append(display)
        for (identifier, payload), displays in groups.items():
            self._publish(identifier, payload, displays)
        self._dirty.clear()
        self._direct.clear()

    def tell_alone(self, display: Display, now_ms: int) -> None:
        """Tell this display everything at once, by itself."""
        self._direct.add(display)
        for identifier, told in self._changes(display, now_ms, {}):
            display.told[identifier] = told
            self._tell(display, identifier, told.payload)
        self._direct.discard(display)
        self._dirty.pop(display, None)

    def _changes(self, display: Display, now_ms: int, made: dict[tuple[int, int], bytes]) -> list[tuple[str, Told]]:
        """Messages this display must be told: new ones, changed ones, and those it must drop. `made`: payloads by item
        and texts, which displays of one model share.
        """
        again = display.again or display in self._direct
        changes = []
        for identifier, (item, texts) in display.wanted.items():
            key = (id(item), id(texts))
            payload = made.get(key)
            if payload is None:
                payload = made[key] = t047.information_message(item, texts, item.received_ms)
            told = display.told.get(identifier)
            if told is None or told.payload != payload or again or now_ms - told.at_ms >= t047.REFRESH_MS:
                changes.append((identifier, Told(payload, now_ms, True, item.end_ms)))
        if display.strange:
            display.strange = False
            display.kept |= self._before or frozenset()
            for identifier, end_ms in self._running().items():
                self.drop(display, identifier, end_ms, now_ms)
        for identifier, told in display.told.items():
            if identifier not in display.wanted and (told.shows or again):
                changes.append((identifier, Told(t047.deletion(identifier), now_ms, False, told.end_ms)))
        self._clear(display, display.kept - display.told.keys() - display.wanted.keys())
        display.again = False
        display.tidy_ms = 0
        display.ask_at_ms, display.ask_ms = now_ms + ASK_FIRST_MS, ASK_AGAIN_MS
        return changes

    def _publish(self, identifier: str, payload: bytes, displays: list[Display]) -> None:
        """One message to several displays."""
        together = [one for one in displays if one not in self._direct and not one.lost]
        short = self._short_topics(identifier, payload, displays, together) if together else set()
        for levels in sorted(short):
            self.put(t047.content_topic(levels), payload, retain=False)
        for one in displays:
            if one in self._direct or short.isdisjoint(_above(one)):
                self._tell(one, identifier, payload)
            elif one.lost or identifier in one.kept:
                self._keep(one, identifier, payload)

    def _short_topics(
        self, identifier: str, payload: bytes, displays: list[Display], together: list[Display]
    ) -> set[Levels]:
        """The topics that serve many; those that would serve only displays that are told alone are left out."""
        others = [
            one.addresses
            for one in self._displays.near(displays)
            if (told := one.told.get(identifier)) is None or told.payload != payload
        ]
        found = {levels for levels in cover([one.addresses for one in displays], others) if len(levels) < 5}
        return {levels for one in together for levels in _above(one) if levels in found} if found else found

    def _tell(self, display: Display, identifier: str, payload: bytes) -> None:
        """One display: retained under the message's id, and once on the topic without it."""
        self._keep(display, identifier, payload)
        self.put(t047.content_topic(display.address), payload, retain=False)

    def _keep(self, display: Display, identifier: str, payload: bytes) -> None:
        display.kept.add(identifier)
        self.put(t047.content_topic((*display.address, identifier)), payload, retain=True)

    # --- what is over -------------------------------------------------------------------------------------------------

    def tidy(self, display: Display, now_ms: int) -> None:
        """Forget what is over for good; have told again what would expire."""
        next_ms = now_ms + t047.REFRESH_MS
        for identifier, told in list(display.told.items()):
            if told.shows:
                next_ms = min(next_ms, told.at_ms + t047.REFRESH_MS)
            elif told.end_ms + self._grace_ms <= now_ms:
                self._clear(display, [identifier])
                del display.told[identifier]
            else:
                next_ms = min(next_ms, told.end_ms + self._grace_ms)
        if next_ms <= now_ms:
            self._dirty[display] = None
        display.tidy_ms = max(next_ms, now_ms + 1)

    def forget(self, display: Display) -> None:
        """Everything this display was ever told is over: the broker drops what it keeps."""
        self._clear(display, {*display.kept})
        display.told.clear()
        display.wanted.clear()

    def leave(self, display: Display) -> None:
        """It stands elsewhere from now on (call this before it does): what is kept here is cleared, and told there."""
        self._clear(display, {*display.kept})
        display.strange = True
        if display.told:
            self.stir(display, alone=True)

    def _clear(self, display: Display, identifiers: Iterable[str]) -> None:
        for identifier in identifiers:
            if identifier in display.kept:
                display.kept.discard(identifier)
                self.put(t047.content_topic((*display.address, identifier)), b"", retain=True)


def _above(display: Display) -> set[Levels]:
    """Levels of every shorter topic it listens to."""
    return {tuple(address[:depth]) for address in display.addresses for depth in range(1, 5)}
