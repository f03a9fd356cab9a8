r"""Structs of all that crosses a process border: the API's bodies, in msgpack or JSON from the same definition.

Rules:

1. Frozen, keyword only. What comes in forbids unknown fields, so a misspelt option is an error, not a silence.
2. Alternatives are tagged unions: an area says its `type`, as GeoJSON does, and GeoJSON geometries are areas as they
   are.
3. Coordinates are longitude, latitude, in degrees (WGS 84). Times ending in `_ms` are milliseconds since 1970, UTC.
4. No trio, no numpy, no clock: load tests and upstream systems import this module alone.
5. Patterns end in `$(?!\n)`: in Python `$` alone also stands before a last line break, in the schema's readers not.

Shape only is checked here (types, lengths, ranges of single fields). What needs knowledge (is the ring closed, does the
kind exist) is checked by the stage that has it, with an error of the catalogue.
"""

from __future__ import annotations

import re
import threading
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from fanout import limits
from fanout.errors import Refused
from fanout.wire_areas import (
    Area as Area,
)
from fanout.wire_areas import (
    Centre as Centre,
)
from fanout.wire_areas import (
    Circle as Circle,
)
from fanout.wire_areas import (
    Corridor as Corridor,
)
from fanout.wire_areas import (
    Difference as Difference,
)
from fanout.wire_areas import (
    Everyone as Everyone,
)
from fanout.wire_areas import (
    Intersection as Intersection,
)
from fanout.wire_areas import (
    LineString as LineString,
)
from fanout.wire_areas import (
    MultiPolygon as MultiPolygon,
)
from fanout.wire_areas import (
    Named as Named,
)
from fanout.wire_areas import (
    Nearest as Nearest,
)
from fanout.wire_areas import (
    Point as Point,
)
from fanout.wire_areas import (
    Polygon as Polygon,
)
from fanout.wire_areas import (
    Union as Union,
)
from fanout.wire_boards import (
    BoardCapability as BoardCapability,
)
from fanout.wire_boards import (
    BoardCounts as BoardCounts,
)
from fanout.wire_boards import (
    BoardItem as BoardItem,
)
from fanout.wire_boards import (
    BoardKey as BoardKey,
)
from fanout.wire_boards import (
    BoardList as BoardList,
)
from fanout.wire_boards import (
    BoardPlan as BoardPlan,
)
from fanout.wire_boards import (
    BoardProof as BoardProof,
)
from fanout.wire_boards import (
    BoardProofList as BoardProofList,
)
from fanout.wire_boards import (
    BoardStatus as BoardStatus,
)
from fanout.wire_boards import (
    BoardView as BoardView,
)
from fanout.wire_boards import (
    UnfitBoards as UnfitBoards,
)

# --- names ----------------------------------------------------------------------------------------------------------

CHANNELS: Final = ("fcm", "apns", "webpush", "sms", "voice", "email", "whatsapp")
"""Channels that reach one participant each. The index is the channel's number in columns and in the ledger."""

ChannelName: TypeAlias = Literal["fcm", "apns", "webpush", "sms", "voice", "email", "whatsapp"]
ActionChannel: TypeAlias = ChannelName | Literal["social"]
"""What an action may be told by: channels that reach one participant each, and posts of our accounts."""
Lane: TypeAlias = Literal["life", "search", "information"]
LANES: Final[tuple[Lane, ...]] = ("life", "search", "information")
"""Lanes of the scheduler, the most urgent first. The index is the lane's number in the ledger."""

Outcome: TypeAlias = Literal["direct", "indirect", "none"]

Ident = Annotated[
    str, Meta(min_length=1, max_length=limits.PARTICIPANT_ID_CHARS_MAX, pattern=r"^[A-Za-z0-9._:@-]+$(?!\n)")
]
Reference = Annotated[str, Meta(min_length=1, max_length=limits.REFERENCE_CHARS_MAX)]
AgeGroup: TypeAlias = Literal["unknown", "youth", "adult", "senior"]
Millis = Annotated[int, Meta(ge=0, le=limits.NUMBER_MAX)]
"""Milliseconds since 1970, UTC."""
Language = Annotated[str, Meta(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})?$(?!\n)")]
Text = Annotated[str, Meta(min_length=1, max_length=limits.TEXT_CHARS_MAX)]
Texts = Annotated[dict[Language, Text], Meta(min_length=1, max_length=limits.LANGUAGES_MAX)]
PhotoHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller sends."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What we answer. Fields may be added; readers ignore those they do not know."""


# --- participants ---------------------------------------------------------------------------------------------------


class Window(Input, frozen=True, kw_only=True):
    """Hours of the week in which a place counts, in the participant's time zone.

    `days` are ISO weekdays (`"12345"` is Monday to Friday); `end` at or before `start` runs past midnight.
    """

    days: Annotated[str, Meta(pattern=r"^[1-7]{1,7}$(?!\n)")] = "1234567"
    start: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$(?!\n)")] = "00:00"
    end: Annotated[str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$(?!\n)")] = "24:00"


class Place(Input, frozen=True, kw_only=True):
    """A place of a participant: home, work, parents. No windows: always."""

    lon: Annotated[float, Meta(ge=-180, le=180)]
    lat: Annotated[float, Meta(ge=-90, le=90)]
    hours: Annotated[list[Window], Meta(max_length=14)] = []


class Address(Input, frozen=True, kw_only=True):
    """Where a channel reaches a participant: a device token, an E.164 number, a subscription as JSON."""

    channel: ChannelName
    value: Annotated[str, Meta(min_length=1, max_length=limits.ADDRESS_CHARS_MAX)]


class Participant(Input, frozen=True, kw_only=True):
    """One participant, whole: an upsert replaces all that was held of this id.

    `addresses` stand in the order of preference. `kinds` are the kinds of action wanted, `tenants` those who may
    address this participant; none given: all.
    """

    id: Ident
    places: Annotated[list[Place], Meta(min_length=1, max_length=limits.PLACES_PER_PARTICIPANT_MAX)]
    addresses: Annotated[list[Address], Meta(max_length=limits.ADDRESSES_PER_PARTICIPANT_MAX)]
    language: Language = "nl"
    timezone: Annotated[str, Meta(max_length=64)] = "Europe/Amsterdam"
    age_group: AgeGroup = "unknown"
    kinds: Annotated[list[str], Meta(max_length=limits.KINDS_MAX)] | None = None
    tenants: Annotated[list[str], Meta(max_length=limits.TENANTS_MAX)] | None = None


class ParticipantsRequest(Input, frozen=True, kw_only=True):
    """`PUT /v1/participants`: a batch of upserts, applied whole or not at all."""

    participants: Annotated[list[Participant], Meta(max_length=limits.PARTICIPANTS_PER_REQUEST_MAX)]


class ParticipantsAccepted(Output, frozen=True, kw_only=True):
    """Durable, and in force for every selection from now on."""

    upserted: int
    version: int


class LivePosition(Input, frozen=True, kw_only=True):
    """Where a participant is now. Held in memory only, until it expires."""

    id: Ident
    lon: Annotated[float, Meta(ge=-180, le=180)]
    lat: Annotated[float, Meta(ge=-90, le=90)]
    at_ms: Millis


class PositionsRequest(Input, frozen=True, kw_only=True):
    """`POST /v1/positions`."""

    positions: Annotated[list[LivePosition], Meta(max_length=limits.POSITIONS_PER_REQUEST_MAX)]


class PositionsAccepted(Output, frozen=True, kw_only=True):
    """`unknown`: ids that are not registered; they were left out."""

    accepted: int
    unknown: int


class Erased(Output, frozen=True, kw_only=True):
    """How many participants were erased; it is in force when this is read."""

    erased: int


class ReceiptsAccepted(Output, frozen=True, kw_only=True):
    """`reports` in the body, deliveries they `changed`, and those `ignored`: not ours, or settling nothing."""

    reports: int
    changed: int
    ignored: int


# --- actions --------------------------------------------------------------------------------------------------------


class BoardOptions(Input, frozen=True, kw_only=True):
    """Whether and how boards show the action. `texts` are short forms, the longest that fits a model is taken."""

    show: bool = True
    margin_m: Annotated[float, Meta(ge=0, le=100_000)] = 0.0
    texts: dict[Language, list[Text]] = {}


class Waves(Input, frozen=True, kw_only=True):
    """Tell people a few at a time: one wave of `people` for each operator that is `free`, nearest first.

    A wave counts as one busy operator for `answer_s`. `POST /v1/actions/{id}/operators` says how many are free later.
    """

    people: Annotated[int, Meta(ge=1, le=10_000)]
    free: Annotated[int, Meta(ge=0, le=10_000)]
    answer_s: Annotated[int, Meta(ge=1, le=3_600)] = 60


class Live(Input, frozen=True, kw_only=True):
    """How live positions count: whose phone was in the area within the last `fresh_s` seconds.

    `beside`: such a position is one more place of theirs, so those who live there and those who are there both hear of
    it. `instead`: who has a fresh position is where it is and nowhere else. `ignore`: registered places alone.
    """

    mode: Literal["beside", "instead", "ignore"] = "beside"
    fresh_s: Annotated[int, Meta(ge=1, le=limits.LIVE_FRESH_S_MAX)] = 300


class Action(Input, frozen=True, kw_only=True):
    """What an operator wants made known, where, to whom, and until when.

    Whom, beside those who want this kind from this tenant and can be reached: `languages` are ranges as RFC 4647 has
    them (`nl` is also `nl-BE`), `age_groups` as people gave them; None: all. `live`: see there. Nearest first counts
    from `centre`, a point or a line; None: from what the area suggests, a corridor's own line or the middle.

    `call_number` stands wherever a text, title or board text of the action, of its news or of its result says
    `{call_number}`. `operator`: whose action it is; kept with it, and sent to nobody.
    """

    kind: Annotated[str, Meta(min_length=1, max_length=40)]
    area: Area
    texts: Texts
    titles: dict[Language, Annotated[str, Meta(min_length=1, max_length=100)]] = {}
    end_ms: Millis
    lane: Lane | None = None
    channels: list[ActionChannel] | None = None
    languages: Annotated[list[Language], Meta(min_length=1, max_length=limits.LANGUAGES_MAX)] | None = None
    age_groups: Annotated[list[AgeGroup], Meta(min_length=1, max_length=4)] | None = None
    live: Live = Live()
    centre: Centre | None = None
    photo: PhotoHash | None = None
    operator: Annotated[str, Meta(max_length=64)] = ""
    call_number: Annotated[str, Meta(max_length=24, pattern=r"^[0-9 +().*#/-]*$(?!\n)")] = ""
    boards: BoardOptions = BoardOptions()
    waves: Waves | None = None


class ActionRequest(Action, frozen=True, kw_only=True):
    """`POST /v1/actions`. The same reference with the same body is the same action, however often it is sent."""

    reference: Reference


class PreviewRequest(Action, frozen=True, kw_only=True):
    """`POST /v1/preview`: an action without its reference, and without effect.

    `grid`: columns and rows of the density grid in the answer; 0: none.
    """

    end_ms: Millis = 0
    grid: Annotated[int, Meta(ge=0, le=256)] = 0


class ResultRequest(Input, frozen=True, kw_only=True):
    """`POST /v1/actions/{id}/result`: how it ended; goes to everyone who got, or may have got, the action.

    `board_texts`: what boards show for a while in its place; none: they are cleared at once.
    """

    reference: Reference
    outcome: Outcome
    texts: Texts
    board_texts: dict[Language, Text] = {}


class UpdateRequest(Input, frozen=True, kw_only=True):
    """`POST /v1/actions/{id}/update`: news for everyone who got, or is about to get, the action; it goes on.

    The text shall make sense alone: it takes the place of the first one where a channel replaces. `board_texts`: short
    forms, as in `BoardOptions`. `end_ms`: the action ends then, later or sooner than it would have; without `texts`
    nobody is told of that, and nothing else changes.
    """

    reference: Reference
    texts: Annotated[dict[Language, Text], Meta(max_length=limits.LANGUAGES_MAX)] = {}
    board_texts: dict[Language, list[Text]] = {}
    end_ms: Millis | None = None


class OperatorsRequest(Input, frozen=True, kw_only=True):
    """`POST /v1/actions/{id}/operators`: how many operators are free now. A level: send it whenever it changes."""

    free: Annotated[int, Meta(ge=0, le=10_000)]


class ReasonRequest(Input, frozen=True, kw_only=True):
    """`POST /v1/actions/{id}/pause`, `resume`, `cancel`."""

    reference: Reference
    reason: Annotated[str, Meta(max_length=200)] = ""


class Photo(Output, frozen=True, kw_only=True):
    """A picture that was taken in: name it by its `hash`. `url` is where it is fetched, without a key; empty: nowhere.

    `width`, `height`: pixels. `bytes`: of the file.
    """

    hash: str
    mime: str
    width: int
    height: int
    bytes: int
    url: str = ""


class PostPlan(Output, frozen=True, kw_only=True):
    """What one of our accounts at a social network will post."""

    account: str
    network: str
    language: str
    text: str


class PostView(Output, frozen=True, kw_only=True):
    """One post: of which account, what it says of the action (start, update, result), and what became of it.

    `state` as of deliveries; `removal`: "" (it stays), "due", "removed", or "refused" (the network keeps it).
    `photo`: whether the picture went with it; `photo_reason`: why it did not, in the words of `reason`.
    """

    account: str
    network: str
    name: str
    state: str
    reason: str = ""
    url: str = ""
    at_ms: int | None = None
    photo: bool = False
    photo_reason: str = ""
    removal: str = ""


class ChannelCount(Output, frozen=True, kw_only=True):
    """People of one channel, and the seconds its provider's quota takes for them."""

    channel: str
    people: int
    seconds: float


class ActionAccepted(Output, frozen=True, kw_only=True):
    """The action is durable and under way."""

    id: int
    people: int
    channels: list[ChannelCount]
    boards: BoardPlan
    seconds_to_all: float
    snapshot_version: int
    repeated: bool = False
    posts: int = 0


class Rendering(Output, frozen=True, kw_only=True):
    """What one channel will carry, as its user sees it. `parts`: SMS parts."""

    channel: str
    language: str
    text: str
    parts: int = 1


class Density(Output, frozen=True, kw_only=True):
    """People in the cells of a grid over a box in degrees; rows from south to north, cells from west to east."""

    west: float
    south: float
    east: float
    north: float
    people: list[list[int]]


class Preview(Output, frozen=True, kw_only=True):
    """What an action would do.

    Seconds are those of the providers' quotas, to 50 %, 90 % and all. `districts`: people by municipality, when these
    are loaded, most first; those in none under the empty name. `sms_cost`: as `providers.sms.price_per_part` is.
    """

    people: int
    channels: list[ChannelCount]
    boards: BoardPlan
    seconds_to_half: float
    seconds_to_most: float
    seconds_to_all: float
    renderings: list[Rendering]
    sms_parts: int
    sms_cost: float
    districts: dict[str, int]
    density: Density | None
    snapshot_version: int
    posts: list[PostPlan] = []


class Tally(Output, frozen=True, kw_only=True):
    """Rows of one phase: `selected` is the sum of the six below it. `delivered` is part of `accepted`."""

    phase: str
    selected: int = 0
    waiting: int = 0
    accepted: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    unknown: int = 0
    delivered: int = 0
    reasons: dict[str, int] = {}
    channels: dict[str, int] = {}
    channels_accepted: dict[str, int] = {}
    first_ms: int | None = None
    p90_ms: int | None = None
    last_ms: int | None = None


class WaveCounts(Output, frozen=True, kw_only=True):
    """Waves of one action: `let_go` of `of`, each of `people`; `free` operators as last reported."""

    people: int
    let_go: int
    of: int
    free: int


class Forecast(Output, frozen=True, kw_only=True):
    """Seconds after the start until half, nine tenths and all of an action's people are handed over.

    What is past is measured, to the grain of a batch. What is to come is told from what each channel did in the last
    minute, never faster than its quota; None while a channel that is needed for it stands still.
    """

    half_s: float | None
    most_s: float | None
    all_s: float | None


class ActionView(Output, frozen=True, kw_only=True):
    """`GET /v1/actions/{id}`: state and counts. Milliseconds of tallies count from `created_ms`."""

    id: int
    reference: str
    kind: str
    lane: str
    state: str
    created_ms: int
    end_ms: int
    outcome: str | None
    tallies: list[Tally]
    boards: BoardCounts
    forecast: Forecast | None = None
    waves: WaveCounts | None = None
    posts: list[PostView] = []


class ErrorBody(Output, frozen=True, kw_only=True):
    """Every error: a stable code, a sentence, and the place in the caller's input."""

    code: str
    message: str
    where: str = ""


# --- coding ---------------------------------------------------------------------------------------------------------

_MSGPACK: Final = msgspec.msgpack.Encoder()
_JSON: Final = msgspec.json.Encoder()

encode_msgpack = _MSGPACK.encode
encode_json = _JSON.encode


_DECODERS: Final[dict[type[Any], tuple[msgspec.msgpack.Decoder[Any], msgspec.json.Decoder[Any]]]] = {}
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `([^`]*)`")
_FIRST: Final = threading.Lock()
"""msgspec works out what a struct looks like when it is first decoded, and a second thread that decodes it meanwhile
crashes the interpreter: so one at a time does."""


def _decoders(kind: type[Any]) -> tuple[msgspec.msgpack.Decoder[Any], msgspec.json.Decoder[Any]]:
    found = _DECODERS.get(kind)
    if found is None:
        with _FIRST:
            found = _DECODERS[kind] = msgspec.msgpack.Decoder(kind), msgspec.json.Decoder(kind)
    return found


def decode_msgpack(body: bytes, kind: type[Any]) -> Any:
    """Decode and validate; `Refused("body_malformed" | "field_invalid")` with the place, as `$.area.lon`."""
    try:
        return _decoders(kind)[0].decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error, "msgpack") from None


def decode_json(body: bytes, kind: type[Any]) -> Any:
    """As `decode_msgpack`, for JSON."""
    try:
        return _decoders(kind)[1].decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error, "JSON") from None


def readable(sentence: str) -> str:
    """What msgspec says, with patterns as everybody knows them: that none takes a line break at its end goes unsaid."""
    return sentence.replace(r"$(?!\\n)", "$")


def _refusal(error: Exception, form: str) -> Refused:
    if not isinstance(error, msgspec.ValidationError):
        return Refused("body_malformed", "body", format=form, detail=str(error).rstrip("."))
    sentence, _, place = str(error).partition(" - at `")
    sentence = readable(sentence)
    where = place.replace("`", "").replace("key in $", "$").removeprefix("$")
    if (field := _FIELD.fullmatch(sentence)) is not None:
        where += f".{field[1]}"
    return Refused("field_invalid", where.removeprefix(".") or "body", detail=sentence + ".")
