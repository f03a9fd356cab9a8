"""RTIG T047 on the wire: topics and JSON of the open standard for passenger displays (September 2025), both ways, pure.

Rules:

1. Strict in what we send: every field by the standard's letter, languages in upper case, times with an offset, objects
   wrapped in the message's name. Lenient in what we read: wrapped, twice or bare, `charEncodings` or `charEncdings`,
   numbers as strings, a report beside the ids or around them, identifiers in the body or found by the request's id.
2. An unknown level of a topic is the word `null`; no level is ever empty or holds a blank, `/`, `+` or `#`.
3. A display may stand in several localities, clusters and stops; it listens at each. `cover` finds the topics for many.
4. The full topic of a message ends in its id, so that several can be retained for one display. A display that
   subscribes, as the standard lists it, without that level would not hear it: a message to one display is therefore
   published on the topic without the id too, unretained. It is the same message id with REPLACE, so hearing both is
   hearing one.
5. Message ids are derived from action and stage: after a restart the same message has the same id.
6. No pictures. An `informationMessage` has no place for one: the standard shows a picture (`multimediaRef`) as a part
   of a template, and templates are set all at once (`setAllTemplates`), so one more picture would wipe out the screens
   that the display's owner laid out. Its reference also asks for the MD5 of a file, and a photo is known here by its
   SHA-256. The text is shown in full; native boards show the photo too.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from fanout import limits
from fanout.errors import Refused
from signage import charsets
from signage.dialects.native import Caps, Item

TYPES: Final = ("PID-LED", "PID-LCD", "PID-TFT", "PID-EPAPER")
SUBSCRIPTIONS: Final = [
    "+/discovery/request",
    "+/discovery/acknowledge",
    "+/heartbeat/service",
    "+/displayCapability/response",
    "+/status/response",
    "+/textSnapshot/response",
    "+/reset/response",
    "+/sensorEvent/service/DATA",
    "CMS/informationMessage/request",
    "CMS/informationMessage/content/+/+/+/+/+/+",  # our own: what the broker keeps for single displays
]
HEARTBEAT_S: Final = 30
LOCATIONS_MAX: Final = 16  # topics of one display: localities times clusters times stops
LATE_HEARTBEATS: Final = 3  # so many missed: the display is lost
EXPIRY_S: Final = 3_600
REFRESH_MS: Final = 1_800_000  # what is retained is published again before it expires

EARLY_MS: Final = (
    86_400_000  # what is to be shown at once begins a day ago: a display whose clock is late must not wait
)

_NAMESPACE: Final = uuid.UUID("6f7e1c1e-58a8-4f43-9a40-7d1c54a1b047")
_TARGETS: Final = {"full": "FULL_SCREEN", "over": "OVERLINE", "bottom line": "BOTTOM_LINE"}
_BEHAVIOURS: Final = {"static": "STATIC", "paged": "PAGED", "scroll": "SCROLL"}
_REPORTS: Final = ("statusReport", "textDisplayConfig", "graphicalDisplayConfig")
_LEVEL: Final = re.compile(r"[\s/+#]+")


class Location(NamedTuple):
    """Where a display stands in the hierarchy of topics."""

    locality: str = "null"
    cluster: str = "null"
    stop: str = "null"


class Address(NamedTuple):
    """A display's full place in the hierarchy: five levels."""

    locality: str
    cluster: str
    stop: str
    vendor: str
    device: str


class Status(NamedTuple):
    """What a display says of itself. `override`: what somebody has it show instead of its content, empty: nothing."""

    firmware: str = ""
    system: str = ""
    up_since: str = ""
    override: str = ""


class Heard(NamedTuple):
    """A message from a display: its type, what it is about (`discovery/request`, `textSnapshot/response`), the body."""

    kind: str
    what: str
    body: dict[str, Any]


def board_id(vendor: str, device: str) -> str:
    """The engine's id of a display: `vendor:device`."""
    return f"{vendor}:{device}"


def level(name: object) -> str:
    """A name as a level of a topic; `null` when there is none."""
    return _LEVEL.sub("_", str(name).strip()) if name not in (None, "") else "null"


@lru_cache(maxsize=16_384)
def message_id(action: int, stage: str) -> str:
    """An updated text has the id of the first: REPLACE by the same id leaves no moment without, and none with both."""
    stage = "start" if stage == "update" else stage
    return str(uuid.uuid5(_NAMESPACE, f"{action}/{stage}"))


def iso(at_ms: int) -> str:
    """ISO 8601 with offset, to the second."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat()


# --- what we send -----------------------------------------------------------------------------------------------------


def content_topic(levels: Sequence[str]) -> str:
    """`CMS/informationMessage/content/…` for one to five levels, from the locality down."""
    return "/".join(("CMS", "informationMessage", "content", *levels))


def kept_copy(topic: str) -> tuple[Address, str] | None:
    """The display and message id of a topic at which a copy is retained for one display; None for any other topic."""
    parts = topic.split("/")
    if len(parts) != 9 or parts[:3] != ["CMS", "informationMessage", "content"]:
        return None
    return Address(*parts[3:8]), parts[8]


def information_message(item: Item, texts: Mapping[str, str], now_ms: int) -> bytes:
    """An item as an `informationMessage` with REPLACE."""
    body = {
        "messageText": [{"lang": name.partition("-")[0].upper(), "text": text} for name, text in texts.items()],
        "earliestDisplayTime": iso(item.start_ms or (item.received_ms or now_ms) - EARLY_MS),
        "latestDisplayTime": iso(item.end_ms),
        "messagePriority": "EMERGENCY" if item.priority == 0 else "STANDARD",
        "messageActionPriority": max(1, item.priority),
        "messageTargetArea": _TARGETS[item.target],
        "messageBehaviour": _BEHAVIOURS[item.behaviour],
        "messageId": message_id(item.action, item.stage),
        "messageAction": "REPLACE",
    }
    return msgspec.json.encode({"informationMessage": body})


def deletion(identifier: str) -> bytes:
    """DELETE needs the id only; an unknown id is no error."""
    return msgspec.json.encode({"informationMessage": {"messageId": identifier, "messageAction": "DELETE"}})


def request(kind: str, what: str, vendor: str, device: str, request_id: str, **more: str) -> tuple[str, bytes]:
    """Topic and payload of a request: `displayCapability`, `status`, `textSnapshot`, `reset` (with its `resetType`)."""
    topic = "/".join((kind, what, "request", level(vendor), level(device)))
    return topic, msgspec.json.encode({f"{what}Request": {"requestId": request_id, **more}})


def discovery_response(
    kind: str,
    vendor: str,
    device: str,
    request_id: str,
    response_id: str,
    locations: Sequence[Location],
    name: str,
    position: tuple[float, float] | None,
) -> tuple[str, bytes]:
    """Where the display stands: the answer to its discovery."""
    config: dict[str, Any] = {
        "localities": list(dict.fromkeys(each.locality for each in locations)),
        "clusters": list(dict.fromkeys(each.cluster for each in locations)),
        "stops": list(dict.fromkeys(each.stop for each in locations)),
        "locationName": [{"lang": "NL", "text": name}] if name else [],
    }
    if position is not None:
        config["geographicCoordinates"] = {"longitude": position[0], "latitude": position[1]}
    body = {
        "vendorId": vendor,
        "deviceId": device,
        "requestId": request_id,
        "responseId": response_id,
        "locationConfig": config,
        "vendorConfig": {},
    }
    topic = "/".join((kind, "discovery", "response", level(vendor), level(device)))
    return topic, msgspec.json.encode({"discoveryResponse": body})


def content_response(address: Address, request_id: str, done: bool, now_ms: int) -> tuple[str, bytes]:
    """After the content a display asked for: DONE, or NO_DATA."""
    body = {"requestId": request_id, "status": "DONE" if done else "NO_DATA", "timestamp": iso(now_ms)}
    topic = "/".join(("CMS", "informationMessage", "response", *address))
    return topic, msgspec.json.encode({"informationMessageResponse": body})


# --- what we read -----------------------------------------------------------------------------------------------------


_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read(topic: str, payload: bytes) -> Heard | None:
    """A message of a display; None when the topic is not of this standard. `Refused("board_document_invalid")`."""
    parts = topic.split("/")
    if topic == "CMS/informationMessage/request":
        kind, what = "CMS", "content/request"
    elif len(parts) in (3, 4) and parts[1] in ("discovery", "heartbeat", "sensorEvent"):
        kind, what = parts[0], "/".join(parts[1:3])
    elif len(parts) == 3 and parts[2] == "response":
        kind, what = parts[0], "/".join(parts[1:])
    else:
        return None
    if len(payload) > limits.BOARD_DOCUMENT_BYTES_MAX:
        raise Refused("board_document_invalid", board=kind, what=what, detail=f"it has {len(payload)} bytes")
    try:
        body = msgspec.json.decode(payload.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("board_document_invalid", board=kind, what=what, detail=str(error)) from None
    if not isinstance(body, dict):
        raise Refused("board_document_invalid", board=kind, what=what, detail="it is not an object")
    while len(body) == 1:  # wrapped in its name, or twice, as the standard's own sample of an acknowledgement
        ((name, inner),) = body.items()
        if not isinstance(inner, dict) or name in _REPORTS:
            break
        body = inner
    return Heard(kind, what, body)


def identity(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """Vendor and device of a body that names them, or of the report within it."""
    for each in _with_reports(body):
        vendor, device = each.get("vendorId"), each.get("deviceId")
        if isinstance(vendor, str | int) and isinstance(device, str | int):
            break
    else:
        return None
    pair = str(vendor).strip(), str(device).strip()
    if not all(pair) or len(board_id(*pair)) > limits.BOARD_ID_CHARS_MAX or not board_id(*pair).isprintable():
        return None
    return pair


def request_id(body: Mapping[str, Any]) -> str:
    """The id of the request, or of our response, that a body answers; empty when it has none."""
    ids = (each.get(name) for each in _with_reports(body) for name in ("requestId", "responseId"))
    return next((str(one) for one in ids if isinstance(one, str | int) and one != ""), "").strip()


def _with_reports(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A body, and the report within it, which some displays put the ids into."""
    return [body, *(each for name in _REPORTS if isinstance(each := body.get(name), dict))]


def locations_of(config: object) -> tuple[tuple[Location, ...], tuple[float, float] | None]:
    """Locations and position of a `locationConfig`, as far as it says. Several names at a level: every combination."""
    if not isinstance(config, dict):
        return (), None
    levels = [_names(config.get(name)) for name in ("localities", "clusters", "stops")]
    locations: tuple[Location, ...] = ()
    if any(levels):
        each = itertools.product(*(names or ["null"] for names in levels))
        locations = tuple(Location(*names) for names in itertools.islice(each, LOCATIONS_MAX))
    spot = config.get("geographicCoordinates")
    position = None
    if isinstance(spot, dict):
        lon, lat = _number(spot.get("longitude")), _number(spot.get("latitude"))
        if lon is not None and lat is not None and -180 <= lon <= 180 and -90 <= lat <= 90:
            position = (lon, lat)
    return locations, position


def _names(value: object) -> list[str]:
    """Names of a level, each once; a display that names many is heard by its first."""
    several = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(level(each) for each in several[:LOCATIONS_MAX] if each not in (None, "")))


def caps_of(board: str, kind: str, model: str, body: Mapping[str, Any]) -> Caps:
    """What a capability response means for the layout. Missing numbers are zero: such a display can show nothing."""
    text = _find(body, "textDisplayConfig")
    screen = _find(_find(body, "graphicalDisplayConfig"), "screenDimensions")
    encodings = text.get("charEncodings") or text.get("charEncdings") or "UTF-8"  # the default, says the standard
    encodings = encodings if isinstance(encodings, list) else [encodings]
    name = charsets.richest([each[:100] for each in encodings if isinstance(each, str)])
    lines, characters = _count(text.get("lines")), _count(text.get("charsPerLine"))
    graphic = not lines and bool(screen)
    pages = 8 if _flag(text.get("canPage"), True) else 1
    scrolls = _flag(text.get("canScroll"), False)
    return Caps(
        board=board,
        model=model,
        kind="image" if graphic else "characters",
        lines=lines,
        characters=characters,
        width_px=_count(screen.get("x")),
        height_px=_count(screen.get("y")),
        charset="utf-8" if graphic else name,
        scrolls=scrolls,
        scroll_characters=_count(text.get("maxScrollChar")),
        pages=pages,
        colours=kind,
    )


def _flag(value: object, default: bool) -> bool:
    """A yes or no, which may be a word in any case, or a number."""
    return default if value in (None, "") else str(value).strip().casefold() in ("true", "1")


def snapshot_lines(body: Mapping[str, Any]) -> list[str] | None:
    """What a display shows at this moment, line by line; each may be an object with its text, and all may be one text.
    None when there are no lines in the answer.
    """
    lines = body.get("lines")
    if isinstance(lines, str):
        lines = lines.splitlines()
    if not isinstance(lines, list):
        return None
    texts = [_text_in(line) if isinstance(line, dict) else line for line in lines[:256]]
    return [str(text)[:200] for text in texts if text is not None]


def _text_in(line: Mapping[str, Any]) -> str:
    return next((each for each in (line.get("text"), *line.values()) if isinstance(each, str)), "")


def status_of(body: Mapping[str, Any]) -> Status:
    """What a status response says, wherever in it the report stands."""
    report = _find(body, "statusReport") or body
    override = report.get("displayOverride") or body.get("displayOverride")
    if isinstance(override, dict):
        override = override.get("status") or ", ".join(f"{name} {value}" for name, value in override.items())
    return Status(
        firmware=_words(report.get("firmwareVersion")),
        system=_words(report.get("operatingSystem")),
        up_since=_words(report.get("upSince")),
        override="yes" if override is True else _words(override),
    )


def _words(value: object) -> str:
    return str(value)[:100] if isinstance(value, str | int | float) and value not in (False, "") else ""


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def _count(value: object) -> int:
    number = _number(value)
    return int(number) if number is not None and 0 <= number <= 1_000_000 else 0


def _find(body: object, key: str) -> dict[str, Any]:
    """The object under a key, however deep (three levels) it was wrapped; empty when there is none."""
    layer = [body]
    for _ in range(3):
        for each in layer:
            if isinstance(each, dict) and isinstance(each.get(key), dict):
                found: dict[str, Any] = each[key]
                return found
        layer = [value for each in layer if isinstance(each, dict) for value in each.values()]
    return {}
