"""The engine's side of RTIG T047: discovery, presence, what displays say of themselves, and proof by text snapshots. No
I/O; `passengers` drives it. What displays are told is `telling`, what is known of each `displays`, what snapshots prove
`watching`.

Rules:

1. `want` says what a display must show; `settle` puts it out. What a display says is answered at once.
2. The standard has no "shown". We ask for a text snapshot and look for our text; an alternating or paging display
   shows a part, so we ask again until every message has been seen, and what must be gone was not. Of one that was away
   what was seen before counts no more. When `DARK_SNAPSHOTS` have not proven it, and twice as many as there are pages,
   it is told that the display does not show what it must.
3. A heartbeat that is late by three is a lost display; the next sign of life brings it back, and its content with it.
4. A display that never told its capability is asked for ever, and the first time that it did not answer it is `unable`:
   somebody has to see that it is there. One whose place nobody knows is reset (DATA) once, since asking for its content
   again it says where it stands.
5. Its type is learnt from any topic it speaks on; when that is news, it is asked again on the right one.
6. Its status is asked when it comes and every `STATUS_ASK_MS`: an override on the spot explains what no snapshot can.

Times are arguments; request ids are counted, so a run can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from signage.dialects import rtig_t047 as t047
from signage.dialects.native import Caps, Item, Reported, Shown
from signage.dialects.rtig_t047 import Location, Status
from signage.displays import Display, Displays, Placed, Wanted
from signage.mqtt import Packet
from signage.telling import Teller

ASK_AGAIN_MS_MAX: Final = 10_000
CAPABLE_ASK_MS: Final = 30_000
STATUS_ASK_MS: Final = 900_000
RESET_AFTER_MS: Final = 60_000
DARK_SNAPSHOTS: Final = 12
LATE_MS: Final = t047.HEARTBEAT_S * 1000 * t047.LATE_HEARTBEATS


class Gone(NamedTuple):
    """A message that must not be shown: which, every text it may have had on this display, and when it is over by
    itself.
    """

    shown: Shown
    texts: tuple[str, ...]
    end_ms: int


class Standard:
    """All displays of the standard. `born`, `reported`, `present`, `stated` and `trouble` tell what they say, `unable`
    that one does not say what it can show, `met` that what is to be remembered of one has changed; `expected` asks what
    must be on, `running` for the ids of all messages that any display may show, and when they are over, `over` whether
    a message is over and forgotten.
    """

    def __init__(
        self,
        *,
        born: Callable[[Caps], None],
        unable: Callable[[Caps], None],
        reported: Callable[[str, Reported], None],
        present: Callable[[str, bool], None],
        stated: Callable[[str, Status], None],
        trouble: Callable[[str, str], None],
        expected: Callable[[str], Sequence[Item]],
        running: Callable[[], Mapping[str, int]],
        over: Callable[[str], bool],
        met: Callable[[str], None],
        moved: Callable[[str, tuple[float, float]], None],
        grace_ms: int,
    ) -> None:
        self._places: dict[str, Placed] = {}
        self._born = born
        self._unable = unable
        self._reported = reported
        self._present = present
        self._stated = stated
        self._trouble = trouble
        self._expected = expected
        self._met = met
        self._moved = moved
        self._displays = Displays()
        self._teller = Teller(self._displays, running, over, grace_ms)
        self._counted = 0

    def __len__(self) -> int:
        return len(self._displays)

    # --- what is remembered -------------------------------------------------------------------------------------------

    def encode(self, board: str, caps: Caps | None) -> bytes:
        return self._displays.encode(board, caps)

    def restore(self, value: bytes) -> Caps | None:
        return self._displays.restore(value)

    def enlist(self, vendor: str, device: str, place: Placed, model: str) -> None:
        """A display of an imported list. What it says of itself wins; where it stands is for the list to say, if the
        list does.
        """
        identifier = t047.board_id(vendor, device)
        place = place._replace(locations=tuple(each for each in place.locations if each != Location()))
        self._places[identifier] = place
        display = self._displays.get(identifier)
        if display is not None:
            if place.locations:
                self._stand(display, vendor, device, place.locations)
            self._displays.spot(display, place.position)
            display.name = place.name
            return
        display = Display("", vendor, device, place.locations, model, place.name, place.position)
        display.lost, display.strange = True, False  # its messages are retained for it, until it shows a sign of life
        self._displays.add(display)

    # --- what they must show ------------------------------------------------------------------------------------------

    def want(
        self,
        board: str,
        version: int,
        items: Mapping[str, Wanted],
        gone: Mapping[str, Gone],
        again: bool,
        now_ms: int,
    ) -> None:
        """A display must show these messages, by id, and no more those of `gone`. `again`: tell it all once more."""
        display = self._displays.get(board)
        if display is None:
            return
        display.version = version
        display.wanted = dict(items)
        display.watch.want(items)
        for identifier, message in gone.items():
            if self._teller.drop(display, identifier, message.end_ms, now_ms):
                display.watch.drop(identifier, message.shown, message.texts)
        display.proven, display.unproven = False, 0
        self._teller.stir(display, alone=again)

    def settle(self, now_ms: int) -> None:
        """Put out what changed since the last call."""
        self._teller.settle(now_ms)

    def take(self) -> Packet | None:
        return self._teller.take()

    def sent(self, packet: Packet) -> None:
        self._teller.sent(packet)

    @property
    def waiting(self) -> bool:
        return self._teller.waiting

    def up(self) -> None:
        """A new connection to the broker."""
        self._teller.up()

    def forget(self, board: str) -> None:
        """Everything this display was ever told is over: the broker drops what it retained."""
        display = self._displays.get(board)
        if display is not None:
            self._teller.forget(display)

    def copy(self, topic: str, payload: bytes) -> bool:
        """A message that the broker keeps; whether it was a copy of content."""
        kept = t047.kept_copy(topic)
        if kept is not None:
            self._teller.copy(*kept, payload)
        return kept is not None

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
                display = self._display_of(heard, now_ms)
                if display is not None:
                    self._learn_kind(display, heard.kind, now_ms)
                    self._alive(display, now_ms)
                    self._said(display, heard, now_ms)
        return True

    def _said(self, display: Display, heard: t047.Heard, now_ms: int) -> None:
        match heard.what:
            case "discovery/acknowledge":
                self._ask(display, "displayCapability", now_ms)
            case "displayCapability/response":
                display.capable = True
                self._born(self._caps_of(display, heard.body))
                if display.status is not None:
                    self._stated(display.id, display.status)
            case "status/response":
                self._state(display, t047.status_of(heard.body))
            case "textSnapshot/response":
                lines = t047.snapshot_lines(heard.body)
                if lines is None:
                    self._trouble(display.id, "its text snapshot has no lines")
                else:
                    self._snapshot(display, lines, now_ms)
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

    def _caps_of(self, display: Display, body: Mapping[str, object]) -> Caps:
        caps = t047.caps_of(display.id, display.kind, display.model, body)
        lon, lat = self._displays.position(display) or (None, None)
        return msgspec.structs.replace(caps, place=display.name, lon=lon, lat=lat)

    def _state(self, display: Display, status: Status) -> None:
        before, display.status = display.status, status
        self._stated(display.id, status)
        if status.override and (before is None or before.override != status.override):
            self._trouble(display.id, f"its content is overridden on the spot: {status.override}")

    def _display_of(self, heard: t047.Heard, now_ms: int) -> Display | None:
        pair = t047.identity(heard.body)
        if pair is None:
            return self._displays.asked(t047.request_id(heard.body))
        display = self._displays.get(t047.board_id(*pair))
        if display is None:
            display = self._know(heard.kind, *pair, "", (), None)
            self._ask(display, "displayCapability", now_ms)
        return display

    def _learn_kind(self, display: Display, kind: str, now_ms: int) -> None:
        """It spoke on a topic of this type."""
        if kind in t047.TYPES and kind != display.kind:
            display.kind = kind
            self._met(display.id)
            self._ask(display, "displayCapability", now_ms)

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
            locations, position, name = place.locations or locations, place.position or position, place.name
        else:
            name = ""
        display = self._displays.get(identifier)
        if display is None:
            display = Display(kind, vendor, device, locations, model or vendor, name, position)
            self._displays.add(display)
            self._met(identifier)
            return display
        before = self._displays.position(display)
        if locations:
            self._stand(display, vendor, device, locations)
            self._met(identifier)
        self._displays.spot(display, position)
        display.model = model or display.model
        after = self._displays.position(display)
        if after is not None and after != before:
            self._moved(identifier, after)
        return display

    def _stand(self, display: Display, vendor: str, device: str, locations: Sequence[Location]) -> None:
        """It stands at these places."""
        if display.locations != list(locations):
            self._teller.leave(display)
            self._displays.stand(display, vendor, device, locations)

    def _discovered(self, heard: t047.Heard, now_ms: int) -> None:
        pair = t047.identity(heard.body)
        if pair is None:
            return
        model = str(heard.body.get("deviceModel") or "")[:100]
        locations, position = t047.locations_of(heard.body.get("locationConfig"))
        display = self._know(heard.kind, *pair, model, locations, position)
        self._learn_kind(display, heard.kind, now_ms)
        response_id = self._next_id(display, "discovery")
        asked = t047.request_id(heard.body)
        topic, payload = t047.discovery_response(
            heard.kind, *pair, asked, response_id, display.locations, display.name, self._displays.position(display)
        )
        self._teller.put(topic, payload, retain=False)
        display.lost = True  # whatever it held may be gone: its first sign of life brings all of it again
        self._alive(display, now_ms)

    def _content_asked(self, heard: t047.Heard, now_ms: int) -> None:
        pair = t047.identity(heard.body)
        if pair is None:
            return
        locations, position = t047.locations_of(heard.body.get("locationConfig"))
        known = self._displays.get(t047.board_id(*pair))
        before = self._displays.position(known) if known is not None else None
        display = self._know("", *pair, "", locations, position)
        if known is None or self._displays.position(display) != before:  # its birth document names its place
            self._ask(display, "displayCapability", now_ms)
        self._alive(display, now_ms)
        self._prove_anew(display)
        self._teller.tell_alone(display, now_ms)
        topic, payload = t047.content_response(
            display.address, t047.request_id(heard.body), bool(display.wanted), now_ms
        )
        self._teller.put(topic, payload, retain=False)

    def _alive(self, display: Display, now_ms: int) -> None:
        display.heard_ms = now_ms
        display.met_ms = display.met_ms or now_ms
        if display.lost:
            display.lost = False
            display.status_ask_ms = 0
            self._teller.stir(display, alone=True)
            self._prove_anew(display)
        self._present(display.id, True)

    def _prove_anew(self, display: Display) -> None:
        """It was away, or has forgotten what it had."""
        display.watch.anew()
        display.proven, display.unproven = False, 0

    def _snapshot(self, display: Display, lines: Sequence[str], now_ms: int) -> None:
        """What stands on the display at this moment, as evidence."""
        expected = list(self._expected(display.id))
        look = display.watch.look(lines, expected, now_ms)
        by_id = {t047.message_id(item.action, item.stage): item for item in expected}
        seen = display.watch.seen
        display.proven = look.clear and seen >= by_id.keys()
        display.unproven = 0 if display.proven else display.unproven + 1
        patience = DARK_SNAPSHOTS + 2 * sum(len(item.pages) for item in expected)
        if not display.proven and not look.strangers and display.unproven < patience:
            return  # not yet known: it pages, or has not taken it; it is asked again
        shown = [Shown(action=item.action, stage=item.stage) for each, item in by_id.items() if each in seen]
        shown += look.doubtful
        self._reported(
            display.id,
            Reported(board=display.id, version=display.version, shown=shown, lines=list(lines), at_ms=now_ms),
        )

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Heartbeats that are late, questions to be asked, messages that are over or would expire at the broker."""
        for display in self._displays:
            display.heard_ms = display.heard_ms or now_ms  # remembered from before: it has its time to say a word
            if not display.lost and now_ms - display.heard_ms > LATE_MS:
                display.lost = True
                self._present(display.id, False)
            if display.told and now_ms >= display.tidy_ms:
                self._teller.tidy(display, now_ms)
            if not display.lost:
                self._inquire(display, now_ms)

    def _inquire(self, display: Display, now_ms: int) -> None:
        """Ask a display that is there what is not known of it."""
        if not display.capable and now_ms >= display.capable_ask_ms:
            if display.capable_ask_ms and not display.unable:
                display.unable = True
                self._unable(self._caps_of(display, {}))
            display.capable_ask_ms = now_ms + CAPABLE_ASK_MS
            self._ask(display, "displayCapability", now_ms)
        if display.capable and now_ms >= display.status_ask_ms:
            display.status_ask_ms = now_ms + STATUS_ASK_MS
            self._ask(display, "status", now_ms)
        if display.address[:3] == Location() and not display.reset and now_ms >= display.met_ms + RESET_AFTER_MS:
            display.reset = True
            self._ask(display, "reset", now_ms)
        if not display.proven and now_ms >= display.ask_at_ms and display.version:
            self._ask(display, "textSnapshot", now_ms)
            display.ask_at_ms = now_ms + display.ask_ms
            display.ask_ms = min(display.ask_ms * 3 // 2, ASK_AGAIN_MS_MAX)

    def _ask(self, display: Display, what: str, now_ms: int) -> None:
        """Ask on the topic of its type; of every type while that is not known, by one request."""
        request_id = self._next_id(display, what)
        more = {"resetType": "DATA"} if what == "reset" else {}
        for kind in display.kinds:
            topic, payload = t047.request(
                kind, what, display.address.vendor, display.address.device, request_id, **more
            )
            self._teller.put(topic, payload, retain=False)

    def _next_id(self, display: Display, what: str) -> str:
        """An id for a request, kept so that its answer is known by it."""
        self._counted += 1
        identifier = t047.message_id(self._counted, f"{display.id}/{what}/{display.heard_ms}")
        self._displays.ask(display, identifier)
        return identifier
