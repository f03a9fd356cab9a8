"""A simulated passenger display that follows RTIG T047 by its letter, and complains of everything that does not.

It was written from the standard's facts, not from the engine's side, and shares no code with it: what it takes for a
violation is in `violations`, which tests want empty. It discovers itself, acknowledges, answers capability, status and
text snapshot requests, beats every 30 s, asks for its content after a restart, and shows messages by priority, target
and behaviour.

`exact` subscribes at each level as listed in the standard, without the level of the message id; else with it.
`legacy` spells `charEncdings`, as the standard's own sample does, and puts its ids into the report, not around it.

A text snapshot is what stands there at that moment, line by line: a page of a full message; a page of an overline above
the bottom line; a stretch of the bottom line, running round and round, below the departures. Where the house has a
line for itself (`header`, with a clock), that stands on top of all. A status may say that somebody on the spot
overrides it all (`override`).

Moods break the rules as those of `display` do: a `mute` one answers no text snapshot, a `liar` stands still on what it
showed first and says otherwise, a `faulty` one sends garbage and faults, `clock` is hours off, `slow` takes seconds for
every message, `amnesia` restarts and asks for its content.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from signage.simulators.display import Mood, Out

_TIME: Final = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
_UUID: Final = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_FIELDS: Final = {
    "messageText", "earliestDisplayTime", "latestDisplayTime", "messagePriority", "messageActionPriority",
    "messageTargetArea", "messageBehaviour", "messageId", "messageAction",
}  # fmt: skip
BEAT_MS: Final = 30_000
ASK_MS: Final = 3_000  # a display that got no answer to its discovery asks again
RUN: Final = 7  # characters by which a running line moves from one snapshot to the next
GAP: Final = "     "  # between the end of a running text and its beginning
DEPARTURES: Final = ("12 Centraal     3 min", "4 Zernike      11 min")
CODECS: Final = {"UTF-8": "utf-8", "ASCII": "ascii", "ISO-8859-1": "latin-1"}


class Frame(NamedTuple):
    """From `at_ms` on the display showed these messages, by id, alternating; `texts` as sent."""

    at_ms: int
    why: str
    messages: tuple[str, ...]
    texts: tuple[str, ...]


class PassengerDisplay:
    """One display of the standard, with the face of `simulators.display.Display`."""

    def __init__(
        self,
        vendor: str,
        device: str,
        location: tuple[str, str, str],
        *,
        kind: str = "PID-LED",
        lines: int = 3,
        characters: int = 26,
        position: tuple[float, float] | None = None,
        exact: bool = True,
        legacy: bool = False,
        mood: Mood = "well",
        seed: int = 0,
        slow_ms: int = 3_000,
        localities: Sequence[str] = (),
        encodings: Sequence[str] = ("UTF-8",),
        header: str = "",
    ) -> None:
        self.vendor, self.device, self.kind = vendor, device, kind
        self.id = f"{vendor}:{device}"
        self.location = location
        self.localities = [*localities] or [location[0]]
        self.lines, self.characters = lines, characters
        self.position = position
        self.exact, self.legacy = exact, legacy
        self.encodings = [*encodings]
        self.header = header
        self.override = ""
        self.mood: Mood = mood
        self.connected = False
        self.film: list[Frame] = []
        self.on_frame: Callable[[Any, Any], None] | None = None
        self.violations: list[str] = []
        self.heard: list[str] = []
        self.statuses: list[str] = []
        self._messages: dict[str, dict[str, Any]] = {}
        self._order = 0
        self._beat_ms = self._up_ms = 0
        self._asked_ms: int | None = None
        self._moment = 0
        self._count = 0
        dice = random.Random(f"{seed}/{self.id}")
        self.clock_error_ms = dice.choice((-7_200_000, -600_000, 600_000, 7_200_000)) if mood == "clock" else 0
        self._slow_ms = slow_ms if mood == "slow" else 0
        self._waiting: list[tuple[int, str, bytes]] = []

    @property
    def controller(self) -> str:
        return ""

    def film_row(self, frame: Frame) -> dict[str, Any]:
        """One line of a film, for people and tests."""
        return {
            "at_ms": frame.at_ms,
            "board": self.id,
            "model": self.kind,
            "why": frame.why,
            "messages": list(frame.messages),
            "pages": [[text] for text in frame.texts],
        }

    @property
    def topics(self) -> list[str]:
        """Each level, as the standard lists them; and what is addressed to this display alone."""
        return [*_topics(self.kind, tuple(self.localities), self.location, self.vendor, self.device, self.exact)]

    def hears(self, topic: str) -> bool:
        topics = _topics(self.kind, tuple(self.localities), self.location, self.vendor, self.device, self.exact)
        return any(_matches(each, topic) for each in topics)

    # --- its life -----------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """A start: what it held is gone."""
        self._messages.clear()

    def power_off(self, now_ms: int) -> None:
        self.connected = False
        self._messages.clear()
        self._frame("power", now_ms)

    def will(self) -> None:
        """The standard has none."""

    def connect(self, now_ms: int) -> list[Out]:
        self.connected = True
        self._beat_ms = self._up_ms = now_ms
        if not self.film:
            self._frame("local", now_ms)
        out = [self._discover(now_ms)]
        if self.mood == "faulty":
            out.append(Out(f"{self.kind}/heartbeat/service", b"\xff\xfe not a heartbeat", False))
            out.append(Out(f"{self.kind}/textSnapshot/response", b"{" * 70_000, False))
            out.append(Out(f"{self.kind}/status/response", b'{"statusReport": 7}', False))
            out.append(self.fault("lamp 3 of line 2 is dead"))
        return out

    def _discover(self, now_ms: int) -> Out:
        self._asked_ms = now_ms
        body = {**self._ids(), "deviceModel": f"{self.kind}-{self.lines}x{self.characters}", "requestId": self._next()}
        return self._out(f"{self.kind}/discovery/request", "discoveryRequest", body)

    def cut(self, now_ms: int) -> None:
        self.connected = False

    def next_wake_ms(self, now_ms: int) -> int | None:
        local = now_ms + self.clock_error_ms
        ends: list[int] = [
            time - self.clock_error_ms
            for message in self._messages.values()
            for time in (message["from_ms"], message["until_ms"])
            if time > local
        ]
        ends += [at_ms for at_ms, _, _ in self._waiting]
        if not self.connected:
            return min(ends, default=None)
        if self._asked_ms is not None:
            ends.append(self._asked_ms + ASK_MS)
        return min([self._beat_ms + BEAT_MS, *ends])

    def wake(self, now_ms: int) -> list[Out]:
        out: list[Out] = []
        while self._waiting and self._waiting[0][0] <= now_ms:
            _, topic, payload = self._waiting.pop(0)
            out += self._take(topic, payload, now_ms)
        self._frame("desired", now_ms)
        if not self.connected:
            return []
        if self._asked_ms is not None and now_ms >= self._asked_ms + ASK_MS:
            return [*out, self._discover(now_ms)]
        if now_ms < self._beat_ms + BEAT_MS:
            return out
        self._beat_ms = now_ms
        body = {**self._ids(), "timestamp": _iso(now_ms)}
        return [*out, self._out(f"{self.kind}/heartbeat/service", "heartbeat", body)]

    def fault(self, text: str, message: str = "") -> Out:
        """What it says when something is wrong."""
        data = {"dataType": "TEXT", "errorText": text, "errorRef": message}
        return self._out(
            f"{self.kind}/sensorEvent/service/DATA", "sensorEvent", {**self._ids(), "type": "DATA", "data": data}
        )

    # --- what it is told ----------------------------------------------------------------------------------------------

    def receive(self, topic: str, payload: bytes, now_ms: int) -> list[Out]:
        if not self.hears(topic):
            return []
        self.heard.append(topic)
        if self._slow_ms:
            self._waiting.append((now_ms + self._slow_ms, topic, payload))
            return []
        return self._take(topic, payload, now_ms)

    def _take(self, topic: str, payload: bytes, now_ms: int) -> list[Out]:
        parts = topic.split("/")
        if "" in parts or " " in topic or topic.startswith("/"):
            self.violations.append(f"topic {topic!r}")
        if not payload:
            return []
        try:
            wrapped = json.loads(payload)
            ((name, body),) = wrapped.items()
        except (ValueError, AttributeError):
            self.violations.append(f"payload on {topic} is not an object wrapped in its name")
            return []
        match parts[1:3]:
            case ["informationMessage", "content"]:
                self._content(topic, name, body, now_ms)
                return []
            case ["informationMessage", "response"]:
                self.statuses.append(str(body.get("status")))
                if body.get("status") not in ("DONE", "NO_DATA") or not _TIME.match(str(body.get("timestamp"))):
                    self.violations.append(f"response {body}")
                return []
            case ["discovery", "response"]:
                return self._placed(body)
            case [what, "request"]:
                return self._answer(what, name, body, now_ms)
        self.violations.append(f"nobody sends {topic}")
        return []

    def _placed(self, body: dict[str, Any]) -> list[Out]:
        self._asked_ms = None
        config = body.get("locationConfig")
        if not isinstance(config, dict) or not body.get("responseId") or body.get("vendorId") != self.vendor:
            self.violations.append(f"discovery response {body}")
            return []
        out = [
            self._out(f"{self.kind}/discovery/acknowledge", "discoveryAcknowledge", {"responseId": body["responseId"]})
        ]
        return [*out, self._ask_content(self._beat_ms)]

    def _ask_content(self, now_ms: int) -> Out:
        ids = {**self._ids(), "requestId": self._next(), "timestamp": _iso(now_ms)}
        ask = {**ids, "locationConfig": self._config()}
        return self._out("CMS/informationMessage/request", "informationMessageRequest", ask)

    def _answer(self, what: str, name: str, body: dict[str, Any], now_ms: int) -> list[Out]:
        request_id = body.get("requestId")
        if name != f"{what}Request" or not request_id:
            self.violations.append(f"{what} request {name} {body}")
            return []
        about: dict[str, Any] = {**self._ids(), "requestId": request_id}
        match what:
            case "displayCapability":
                about = self._with_report(
                    about,
                    "textDisplayConfig",
                    {
                        ("charEncdings" if self.legacy else "charEncodings"): self.encodings,
                        "lines": self.lines,
                        "charsPerLine": self.characters,
                        "canScroll": True,
                        "canPage": True,
                        "maxScrollChar": 150,
                    },
                )
            case "status":
                report = {"firmwareVersion": "1.0", "operatingSystem": "Linux 6.1", "upSince": _iso(self._up_ms)}
                report |= {"displayOverride": self.override} if self.override else {}
                about = self._with_report(about, "statusReport", report)
            case "textSnapshot":
                if self.mood == "mute":
                    return []
                about["lines"] = self.standing(now_ms)
            case "reset":
                return self._reset(body, about, now_ms)
            case _:
                return []
        return [self._out(f"{self.kind}/{what}/response", f"{what}Response", about)]

    def _with_report(self, about: dict[str, Any], name: str, report: dict[str, Any]) -> dict[str, Any]:
        """A report beside the ids, as the standard has it; or around them."""
        return {name: {**about, **report}} if self.legacy else {**about, name: report}

    def _reset(self, body: dict[str, Any], about: dict[str, Any], now_ms: int) -> list[Out]:
        """Data is dropped and asked for again; a restart begins with discovery."""
        kind = body.get("resetType")
        if kind not in ("DATA", "RESTART", "FULL"):
            self.violations.append(f"resetType {kind!r}")
            return []
        self._messages.clear()
        self._frame("reset", now_ms)
        about["result"] = "DONE" if kind == "DATA" else "RESTARTING"
        done = self._out(f"{self.kind}/reset/response", "resetResponse", about)
        return [done, self._ask_content(now_ms) if kind == "DATA" else self._discover(now_ms)]

    def _content(self, topic: str, name: str, body: Any, now_ms: int) -> None:
        if name != "informationMessage" or not isinstance(body, dict):
            self.violations.append(f"{name} on {topic}")
            return
        wrong = _wrong(body) or self._unreadable(body)
        if wrong:
            self.violations.append(f"{wrong} in {body}")
            return
        identifier = body["messageId"]
        if body["messageAction"] == "DELETE":
            self._messages.pop(identifier, None)
        else:
            kept = self._messages.get(identifier)
            self._order += 1
            order = kept["order"] if kept is not None else self._order
            times = {"from_ms": _ms(body["earliestDisplayTime"]), "until_ms": _ms(body["latestDisplayTime"])}
            self._messages[identifier] = {**body, "order": order, **times}
        self._frame("desired", now_ms)

    # --- what it shows ------------------------------------------------------------------------------------------------

    def showing(self, now_ms: int) -> list[dict[str, Any]]:
        """Messages that are on, by the standard's rules."""
        local = now_ms + self.clock_error_ms
        live = [message for message in self._messages.values() if message["from_ms"] <= local < message["until_ms"]]
        live.sort(key=lambda message: (message["messageActionPriority"], message["order"]))
        urgent = [message for message in live if message["messagePriority"] == "EMERGENCY"]
        if urgent:
            return sorted(urgent, key=lambda message: int(message["order"]))
        area: dict[str, list[dict[str, Any]]] = {"FULL_SCREEN": [], "OVERLINE": [], "BOTTOM_LINE": []}
        for message in live:
            area[message["messageTargetArea"]].append(message)
        for name in ("FULL_SCREEN", "OVERLINE"):
            best = [
                each for each in area[name] if each["messageActionPriority"] == area[name][0]["messageActionPriority"]
            ]
            if best:
                return best if name == "FULL_SCREEN" else best + area["BOTTOM_LINE"]
        return area["BOTTOM_LINE"]

    def standing(self, now_ms: int) -> list[str]:
        """The lines at this moment; each call is a moment later."""
        self._moment += 1
        room = self.lines - bool(self.header)
        top = [self.header] if self.header else []
        if self.override == "OFF":
            return [""] * self.lines
        messages = self.showing(now_ms)
        full = [each for each in messages if each["messageTargetArea"] == "FULL_SCREEN"]
        over = [each for each in messages if each["messageTargetArea"] == "OVERLINE"]
        bottom = [each for each in messages if each["messageTargetArea"] == "BOTTOM_LINE"]
        if full:
            return top + self._page(full, room)
        above = self._page(over, room - 1) if over else self._departures(room - 1)
        return [*top, *above, self._bottom_line(bottom) if bottom else ""]

    def _departures(self, lines: int) -> list[str]:
        return [*DEPARTURES, *[""] * lines][:lines]

    def _page(self, messages: list[dict[str, Any]], lines: int) -> list[str]:
        """One page of one of the messages, which alternate."""
        pages = [page for message in messages for page in self._paged(message, lines)]
        return pages[self._moment % len(pages)]

    def _bottom_line(self, messages: list[dict[str, Any]]) -> str:
        """What is in sight of the messages that run along the bottom, or one of their pages."""
        if any(message["messageBehaviour"] != "SCROLL" for message in messages):
            return self._page(messages, 1)[0]
        running = "".join(text["text"] + GAP for message in messages for text in message["messageText"])
        start = self._moment * RUN % len(running)
        around = running * (2 + self.characters // len(running))
        return around[start : start + self.characters]

    def _paged(self, message: dict[str, Any], high: int) -> list[list[str]]:
        """Every language one after the other, words filled into lines; a long word is broken."""
        lines: list[str] = []
        for text in message["messageText"]:
            line = ""
            for word in text["text"].split():
                for piece in [word[at : at + self.characters] for at in range(0, len(word), self.characters)]:
                    if line and len(line) + 1 + len(piece) > self.characters:
                        lines.append(line)
                        line = piece
                    else:
                        line = f"{line} {piece}".strip()
            lines += [line] if line else []
            while len(lines) % high:
                lines.append("")
        return [lines[at : at + high] for at in range(0, len(lines), high)]

    def _unreadable(self, body: dict[str, Any]) -> str:
        """What of a text it has no characters for."""
        letters = {letter for text in body.get("messageText", ()) for letter in text["text"]}
        codecs = [CODECS[name] for name in self.encodings if name in CODECS] or ["ascii"]
        lacking = [letter for letter in sorted(letters) if not any(_has(codec, letter) for codec in codecs)]
        return f"characters {lacking}" if lacking else ""

    def _frame(self, why: str, now_ms: int) -> None:
        on = self.showing(now_ms)
        messages = tuple(message["messageId"] for message in on)
        if self.film and self.film[-1].messages == messages:
            return
        if self.mood == "liar" and self.film:
            return
        texts = tuple(text["text"] for message in on for text in message["messageText"])
        frame = Frame(now_ms, why, messages, texts)
        self.film.append(frame)
        if self.on_frame is not None:
            self.on_frame(self, frame)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _ids(self) -> dict[str, str]:
        return {"vendorId": self.vendor, "deviceId": self.device}

    def _config(self) -> dict[str, Any]:
        _, cluster, stop = self.location
        config: dict[str, Any] = {"localities": self.localities, "clusters": [cluster], "stops": [stop]}
        if self.position is not None:
            config["geographicCoordinates"] = {"longitude": self.position[0], "latitude": self.position[1]}
        return config

    def _next(self) -> str:
        self._count += 1
        return f"{self.id}-{self._count}"

    def _out(self, topic: str, name: str, body: dict[str, Any]) -> Out:
        return Out(topic, json.dumps({name: body}).encode(), False)


@lru_cache(maxsize=4096)
def _topics(
    kind: str, localities: tuple[str, ...], location: tuple[str, str, str], vendor: str, device: str, exact: bool
) -> tuple[str, ...]:
    content = []
    for locality in localities:
        levels = [locality, *location[1:], vendor, device]
        content += ["/".join(("CMS", "+", "+", *levels[:depth])) for depth in range(1, 6)]
        if not exact:
            content.append("/".join(("CMS", "+", "+", *levels, "+")))
    own = [f"{kind}/+/{what}/{vendor}/{device}" for what in ("request", "response")]
    return (*content, *own)


@lru_cache(maxsize=65_536)
def _matches(pattern: str, topic: str) -> bool:
    """MQTT's rule for `+`."""
    wanted, given = pattern.split("/"), topic.split("/")
    return len(wanted) == len(given) and all(a in ("+", b) for a, b in zip(wanted, given, strict=True))


def _has(codec: str, letter: str) -> bool:
    try:
        letter.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _wrong(body: dict[str, Any]) -> str:
    """What in a message is against the standard's letter; empty when nothing is."""
    if not _UUID.match(str(body.get("messageId"))):
        return "messageId"
    if body.get("messageAction") == "DELETE":
        return ""
    if set(body) - _FIELDS:
        return f"fields {set(body) - _FIELDS}"
    texts = body.get("messageText")
    if not texts or any(not re.match(r"^[A-Z]{2}$", text["lang"]) or not text["text"] for text in texts):
        return "messageText"
    if not _TIME.match(str(body.get("earliestDisplayTime"))) or not _TIME.match(str(body.get("latestDisplayTime"))):
        return "a time without offset"
    allowed = {
        "messagePriority": ("STANDARD", "EMERGENCY"),
        "messageTargetArea": ("BOTTOM_LINE", "FULL_SCREEN", "OVERLINE"),
        "messageBehaviour": ("SCROLL", "PAGED", "STATIC"),
        "messageAction": ("DELETE", "REPLACE"),
    }
    for field, values in allowed.items():
        if body.get(field) not in values:
            return field
    priority = body.get("messageActionPriority")
    return "" if isinstance(priority, int) and 1 <= priority <= 99 else "messageActionPriority"


def _ms(text: str) -> int:

    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _iso(at_ms: int) -> str:

    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
