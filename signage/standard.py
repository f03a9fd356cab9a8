"""The engine's side of RTIG T047: discovery, presence, content, and proof by text snapshots. No I/O; `reconcile`
drives it.

Rules:

1. `want` says what a display must show; nothing goes out before `settle` has seen all that changed, so that one
   publish on a short topic can serve every display under it (`rtig_t047.cover`).
2. What a display was told is remembered per display, by message id. What must go is told to go by DELETE, also after a
   restart when we do not know whether it was told: an unknown id is no error.
3. Retained copies stand at the full topic with the message's id only; a shorter topic is not retained, since the next
   message there would replace it, and displays that are away or late are told directly.
4. The standard has no "shown". We ask for a text snapshot and look for our text; an alternating or paging display
   shows a part, so we ask again until every message has been seen. Gone is proven by `GONE_SNAPSHOTS` in a row without
   it.
5. A heartbeat that is late by three is a lost display; the next sign of life brings it back, and its content with it.
6. A display that is new to us, or stands elsewhere than we thought, may have heard what a short topic said to others:
   it is told to drop all that runs and is not for it. One that never told its capability is asked for ever; one whose
   place nobody knows is reset (DATA) once, since asking for its content again it says where it stands.

Times are arguments; request ids are counted, so a run can be replayed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from signage.dialects import rtig_t047 as t047
from signage.dialects.cover import cover
from signage.dialects.native import Caps, Item, Reported, Shown
from signage.dialects.rtig_t047 import Address, Location
from signage.mqtt import Packet

GONE_SNAPSHOTS: Final = 2
ASK_FIRST_MS: Final = 500  # time for a display to take a message before it is asked what it shows
ASK_AGAIN_MS: Final = 2_000
ASK_AGAIN_MS_MAX: Final = 10_000
REQUESTS_OPEN_MAX: Final = 4
CAPABLE_ASK_MS: Final = 30_000
RESET_AFTER_MS: Final = 60_000


class Placed(NamedTuple):
    """Where an imported list says a display stands."""

    locations: tuple[Location, ...]
    name: str
    position: tuple[float, float] | None


class _Told(NamedTuple):
    """A message a display was told: its payload, when, and whether it was to show it (else DELETE)."""

    payload: bytes
    at_ms: int
    shows: bool
    texts: Mapping[str, str]
    item: Item | None


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A display as it is remembered."""

    kind: str
    id: str = ""
    address: list[str]
    locations: list[list[str]] = []
    model: str
    name: str
    position: tuple[float, float] | None
    caps: Caps | None


class Display:
    """One display of the standard."""

    __slots__ = (
        "address",
        "addresses",
        "ask_at_ms",
        "ask_ms",
        "asked",
        "capable",
        "capable_ask_ms",
        "clear_runs",
        "heard_ms",
        "id",
        "kind",
        "lost",
        "met_ms",
        "model",
        "name",
        "position",
        "proven",
        "requests",
        "reset",
        "seen",
        "strange",
        "told",
        "version",
        "wanted",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        vendor: str,
        device: str,
        locations: Sequence[Location],
        model: str,
        name: str,
        position: tuple[float, float] | None,
    ) -> None:
        self.id = t047.board_id(vendor, device)
        self.kind = kind
        self.stand(vendor, device, locations)
        self.model = model
        self.name = name
        self.position = position
        self.heard_ms = 0
        self.lost = False
        self.version = 0
        self.wanted: dict[str, tuple[Item, Mapping[str, str]]] = {}
        self.told: dict[str, _Told] = {}
        self.seen: set[str] = set()
        self.clear_runs = 0
        self.proven = True
        self.requests: dict[str, str] = {}
        self.ask_at_ms = 0
        self.ask_ms = ASK_AGAIN_MS
        self.asked = 0
        self.met_ms = 0
        self.capable = False
        self.capable_ask_ms = 0
        self.strange = True
        self.reset = False

    def stand(self, vendor: str, device: str, locations: Sequence[Location]) -> bool:
        """It stands at these places; whether that is news. At the first it is spoken to alone."""
        before = getattr(self, "addresses", ())
        places = locations or (Location(),)
        self.addresses = tuple(Address(*place, t047.level(vendor), t047.level(device)) for place in places)
        self.address = self.addresses[0]
        return self.addresses != before

    @property
    def locations(self) -> list[Location]:
        return [Location(*address[:3]) for address in self.addresses]


class Standard:
    """All displays of the standard. `born`, `reported`, `present` and `trouble` tell what they say, `met` that what is
    to be remembered of one has changed; `expected` and `running` ask what must be shown.
    """

    def __init__(
        self,
        *,
        born: Callable[[Caps], None],
        reported: Callable[[str, Reported], None],
        present: Callable[[str, bool], None],
        trouble: Callable[[str, str], None],
        expected: Callable[[str], Sequence[Item]],
        running: Callable[[], Sequence[str]],
        met: Callable[[str], None],
    ) -> None:
        self._places: dict[str, Placed] = {}
        self._born = born
        self._reported = reported
        self._present = present
        self._trouble = trouble
        self._expected = expected
        self._running = running
        self._met = met
        self._displays: dict[str, Display] = {}
        self._out: deque[Packet] = deque()
        self._dirty: dict[Display, None] = {}
        self._direct: set[Display] = set()
        self._counted = 0

    def __len__(self) -> int:
        return len(self._displays)

    # --- what is remembered -------------------------------------------------------------------------------------------

    def encode(self, board: str, caps: Caps | None) -> bytes:
        """A display and its capability, if it told, as `restore` takes them up."""
        display = self._displays[board]
        kept = _Kept(
            id=board,
            kind=display.kind,
            address=list(display.address),
            locations=[list(each) for each in display.locations],
            model=display.model,
            name=display.name,
            position=display.position,
            caps=caps,
        )
        return msgspec.msgpack.encode(kept)

    def restore(self, value: bytes) -> Caps | None:
        """A display as it was known before the restart; what it was told is not."""
        kept = msgspec.msgpack.decode(value, type=_Kept)
        locations = [Location(*each) for each in kept.locations or [kept.address[:3]]]
        vendor, device = kept.address[3:]
        display = Display(kept.kind, vendor, device, locations, kept.model, kept.name, kept.position)
        display.id = kept.id or display.id
        display.strange, display.capable = False, kept.caps is not None
        self._displays[display.id] = display
        return kept.caps

    def enlist(self, vendor: str, device: str, place: Placed, model: str) -> None:
        """A display of an imported list. What it says of itself wins; where it stands is for the list to say."""
        identifier = t047.board_id(vendor, device)
        self._places[identifier] = place
        display = self._displays.get(identifier)
        if display is not None:
            display.strange = display.stand(vendor, device, place.locations) or display.strange
            display.position, display.name = place.position or display.position, place.name
            return
        display = Display(t047.TYPES[0], vendor, device, place.locations, model, place.name, place.position)
        display.lost, display.strange = True, False  # told directly, and retained, until it shows a sign of life
        self._displays[identifier] = display

    # --- what they must show ------------------------------------------------------------------------------------------

    def want(
        self,
        board: str,
        version: int,
        items: Mapping[str, tuple[Item, Mapping[str, str]]],
        gone: Sequence[str],
        again: bool,
    ) -> None:
        """A display must show these messages, by id, and no more those of `gone`. `again`: tell it all once more."""
        display = self._displays.get(board)
        if display is None:
            return
        display.version = version
        before, display.wanted = display.wanted, dict(items)
        display.seen = {
            each for each in display.seen & items.keys() & before.keys() if items[each][1] == before[each][1]
        }
        for identifier in gone:
            if identifier not in display.told:
                display.told[identifier] = _Told(b"", 0, True, {}, None)  # not known: it is told to drop it
        if again:
            self._direct.add(display)
        display.clear_runs = 0
        display.proven = False
        self._dirty[display] = None

    def settle(self, now_ms: int) -> None:
        """Put out what changed since the last call, on the smallest sets of topics."""
        groups: dict[tuple[str, bytes], list[Display]] = {}
        for display in self._dirty:
            for identifier, payload, told in self._changes(display, now_ms):
                display.told[identifier] = told
                groups.setdefault((identifier, payload), []).append(display)
            display.ask_at_ms, display.ask_ms = now_ms + ASK_FIRST_MS, ASK_AGAIN_MS
        everyone = [display.addresses for display in self._displays.values()]
        for (identifier, payload), displays in groups.items():
            alone = [one for one in displays if one in self._direct or one.lost]
            together = [one for one in displays if one not in self._direct and not one.lost]
            for one in alone:
                self._tell(one.address, identifier, payload)
            if together:
                chosen = {one.addresses for one in together}
                for levels in cover(chosen, everyone):
                    if len(levels) == 5:
                        self._tell(Address(*levels), identifier, payload)
                    else:
                        self._put(t047.content_topic(levels), payload, retain=False)
        self._dirty.clear()
        self._direct.clear()

    def _changes(self, display: Display, now_ms: int) -> list[tuple[str, bytes, _Told]]:
        """Messages this display must be told: new ones, changed ones, and those it must drop."""
        again = display in self._direct
        changes = []
        for identifier, (item, texts) in display.wanted.items():
            payload = t047.information_message(item, texts, item.received_ms)
            told = display.told.get(identifier)
            if told is None or told.payload != payload or again or now_ms - told.at_ms >= t047.REFRESH_MS:
                changes.append((identifier, payload, _Told(payload, now_ms, True, texts, item)))
        if display.strange:
            display.strange = False
            for identifier in self._running():
                display.told.setdefault(identifier, _Told(b"", 0, True, {}, None))
        for identifier, told in list(display.told.items()):
            if identifier not in display.wanted and (told.shows or again):
                payload = t047.deletion(identifier)
                changes.append((identifier, payload, told._replace(payload=payload, at_ms=now_ms, shows=False)))
        return changes

    def _tell(self, address: Address, identifier: str, payload: bytes) -> None:
        """One display: retained under the message's id, and once on the topic without it."""
        self._put(t047.content_topic((*address, identifier)), payload, retain=True)
        self._put(t047.content_topic(address), payload, retain=False)

    def _put(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self._out.append(Packet(topic, payload, retain, t047.EXPIRY_S if payload else None, "application/json"))

    def take(self) -> Packet | None:
        return self._out.popleft() if self._out else None

    @property
    def waiting(self) -> bool:
        return bool(self._out or self._dirty)

    def up(self) -> None:
        """The broker may have lost everything: what was queued is dropped, it is wanted anew."""
        self._out.clear()

    def forget(self, board: str) -> None:
        """Everything this display was ever told is over: the broker drops what it retained."""
        display = self._displays.get(board)
        if display is None:
            return
        for identifier in display.told:
            self._put(t047.content_topic((*display.address, identifier)), b"", retain=True)
        display.told.clear()
        display.wanted.clear()

    # --- what they say ------------------------------------------------------------------------------------------------

    def received(self, topic: str, payload: bytes, now_ms: int) -> bool:
        """A message; whether it was one of this standard. Raises `Refused("board_document_invalid")`."""
        heard = t047.read(topic, payload)
        if heard is None:
            return False
        match heard.what:
            case "discovery/request":
                self._discovered(heard, now_ms)
            case "content/request":
                self._content_asked(heard, now_ms)
            case _:
                display = self._display_of(heard)
                if display is not None:
                    self._alive(display, now_ms)
                    self._said(display, heard, now_ms)
        return True

    def _said(self, display: Display, heard: t047.Heard, now_ms: int) -> None:
        match heard.what:
            case "discovery/acknowledge":
                self._ask(display, "displayCapability", now_ms)
                self._ask(display, "status", now_ms)
            case "displayCapability/response":
                display.capable = True
                caps = t047.caps_of(display.id, display.kind, display.model, heard.body)
                lon, lat = display.position or (None, None)
                self._born(_placed(caps, display.name, lon, lat))
            case "status/response":
                override = heard.body.get("displayOverride")
                if override:
                    self._trouble(display.id, f"its content is overridden on the spot: {str(override)[:100]}")
            case "textSnapshot/response":
                self._snapshot(display, t047.snapshot_lines(heard.body), now_ms)
            case "reset/response" if heard.body.get("result") == "ERROR":
                self._trouble(display.id, "it could not be reset: nobody knows where it stands")
            case "sensorEvent/service":
                data = heard.body.get("data")
                data = data if isinstance(data, dict) else {}
                reference = str(data.get("errorRef") or "")
                about = f" (message {reference})" if reference else ""
                self._trouble(display.id, f"it reports: {str(data.get('errorText') or data)[:150]}{about}")
            case _:
                pass

    def _display_of(self, heard: t047.Heard) -> Display | None:
        pair = t047.identity(heard.body)
        if pair is not None:
            display = self._displays.get(t047.board_id(*pair))
            if display is None:
                display = self._know(heard.kind, *pair, "", (), None)
                self._ask(display, "displayCapability", 0)
            return display
        request_id = str(heard.body.get("requestId") or heard.body.get("responseId") or "")
        return next((one for one in self._displays.values() if request_id and request_id in one.requests), None)

    def _know(
        self,
        kind: str,
        vendor: str,
        device: str,
        model: str,
        locations: Sequence[Location],
        position: tuple[float, float] | None,
    ) -> Display:
        """The display of a vendor and device, made or brought up to date."""
        identifier = t047.board_id(vendor, device)
        place = self._places.get(identifier)
        if place is not None:
            locations, position, name = place.locations, place.position or position, place.name
        else:
            name = ""
        display = self._displays.get(identifier)
        if display is None:
            display = Display(kind, vendor, device, locations, model or vendor, name, position)
            self._displays[identifier] = display
            self._met(identifier)
            return display
        if locations:
            display.strange = display.stand(vendor, device, locations) or display.strange
            self._met(identifier)
        display.position = position or display.position
        display.model = model or display.model
        display.kind = kind if kind in t047.TYPES else display.kind
        return display

    def _discovered(self, heard: t047.Heard, now_ms: int) -> None:
        pair = t047.identity(heard.body)
        if pair is None:
            return
        model = str(heard.body.get("deviceModel") or "")[:100]
        locations, position = t047.locations_of(heard.body.get("locationConfig"))
        display = self._know(heard.kind, *pair, model, locations, position)
        response_id = self._next_id(display, "discovery")
        asked = str(heard.body.get("requestId") or "")
        topic, payload = t047.discovery_response(
            heard.kind, *pair, asked, response_id, display.locations, display.name, display.position
        )
        self._put(topic, payload, retain=False)
        display.lost = True  # whatever it held may be gone: its first sign of life brings all of it again
        self._alive(display, now_ms)

    def _content_asked(self, heard: t047.Heard, now_ms: int) -> None:
        pair = t047.identity(heard.body)
        if pair is None:
            return
        locations, position = t047.locations_of(heard.body.get("locationConfig"))
        known = self._displays.get(t047.board_id(*pair))
        moved = known is None or (position is not None and position != known.position)
        display = self._know("", *pair, "", locations, position)
        if moved:  # its birth document names its place, so it is made anew
            self._ask(display, "displayCapability", now_ms)
        self._alive(display, now_ms)
        self._direct.add(display)
        self._dirty[display] = None
        done = bool(display.wanted)
        self.settle(now_ms)
        topic, payload = t047.content_response(display.address, str(heard.body.get("requestId") or ""), done, now_ms)
        self._put(topic, payload, retain=False)

    def _alive(self, display: Display, now_ms: int) -> None:
        display.heard_ms = now_ms
        display.met_ms = display.met_ms or now_ms
        if display.lost:
            display.lost = False
            self._direct.add(display)
            self._dirty[display] = None
        self._present(display.id, True)

    def _snapshot(self, display: Display, lines: Sequence[str], now_ms: int) -> None:
        """What stands on the display at this moment, as evidence."""
        ours = {identifier for identifier, (_, texts) in display.wanted.items() if t047.seen_in(lines, texts)}
        strangers: set[str] = set()
        if not ours:  # a page that can be of a message that is wanted is no proof of one that is not
            strangers = {
                identifier
                for identifier, told in display.told.items()
                if identifier not in display.wanted and told.texts and t047.seen_in(lines, told.texts)
            }
        display.seen |= _proven_by(lines, {each: display.wanted[each][1] for each in ours})
        display.clear_runs = 0 if strangers else display.clear_runs + 1
        expected = list(self._expected(display.id))
        by_id = {t047.message_id(item.action, item.stage): item for item in expected}
        nothing = not expected and display.clear_runs < GONE_SNAPSHOTS
        display.proven = not strangers and not nothing and display.seen >= by_id.keys()
        if not display.proven and not strangers:
            return  # not yet known: it pages, or has not taken it; it is asked again
        shown = [Shown(action=by_id[each].action, stage=by_id[each].stage) for each in by_id if each in display.seen]
        for identifier in strangers:
            item = display.told[identifier].item
            if item is not None:
                shown.append(Shown(action=item.action, stage=item.stage))
        self._reported(
            display.id,
            Reported(board=display.id, version=display.version, shown=shown, lines=list(lines), at_ms=now_ms),
        )

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Heartbeats that are late, snapshots to be asked for, retained messages that would expire."""
        for display in self._displays.values():
            late_ms = now_ms - display.heard_ms
            if not display.lost and late_ms > LATE_MS:
                display.lost = True
                self._present(display.id, False)
            if display.lost:
                continue
            if not display.capable and now_ms >= display.capable_ask_ms:
                display.capable_ask_ms = now_ms + CAPABLE_ASK_MS
                self._ask(display, "displayCapability", now_ms)
            if display.address[:3] == Location() and not display.reset and now_ms >= display.met_ms + RESET_AFTER_MS:
                display.reset = True
                self._ask(display, "reset", now_ms)
            if not display.proven and now_ms >= display.ask_at_ms and display.version:
                self._ask(display, "textSnapshot", now_ms)
                display.ask_at_ms = now_ms + display.ask_ms
                display.ask_ms = min(display.ask_ms * 3 // 2, ASK_AGAIN_MS_MAX)
            if any(told.shows and now_ms - told.at_ms >= t047.REFRESH_MS for told in display.told.values()):
                self._dirty[display] = None
        if self._dirty:
            self.settle(now_ms)

    def doubt(self, board: str) -> None:
        """Ask this display again what it shows: time has changed what it must."""
        display = self._displays.get(board)
        if display is not None:
            display.proven, display.clear_runs, display.ask_ms = False, 0, ASK_AGAIN_MS

    def _ask(self, display: Display, what: str, now_ms: int) -> None:
        topic, payload = t047.request(
            display.kind if display.kind in t047.TYPES else t047.TYPES[0],
            what,
            display.address.vendor,
            display.address.device,
            self._next_id(display, what),
            **({"resetType": "DATA"} if what == "reset" else {}),
        )
        display.asked += 1
        self._put(topic, payload, retain=False)

    def _next_id(self, display: Display, what: str) -> str:
        """An id for a request, kept so that its answer is known by it."""
        self._counted += 1
        identifier = t047.message_id(self._counted, f"{display.id}/{what}/{display.heard_ms}")
        display.requests[identifier] = what
        while len(display.requests) > REQUESTS_OPEN_MAX:
            del display.requests[next(iter(display.requests))]
        return identifier


LATE_MS: Final = t047.HEARTBEAT_S * 1000 * t047.LATE_HEARTBEATS


def _proven_by(lines: Sequence[str], candidates: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Which of the messages that the lines can be of they are proof of: texts of several actions may share a page.

    A message that stands there whole, the longest if there are several; else the only one; else none: another page
    will tell.
    """
    if len(candidates) <= 1:
        return set(candidates)
    whole = {each: t047.length_within(lines, texts) for each, texts in candidates.items()}
    longest = max(whole.values())
    return {each for each, length in whole.items() if length == longest} if longest else set()


def _placed(caps: Caps, name: str, lon: float | None, lat: float | None) -> Caps:
    return msgspec.structs.replace(caps, place=name, lon=lon, lat=lat)
