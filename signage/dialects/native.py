"""The native contract on the wire: topics and payloads, a pair of pure functions each way. `signage/CONTRACT.md` is
its text.

Rules:

1. A desired document is *whole*: everything the board must show from now on. It travels in an envelope whose `body` is
   the encoded document itself, so that checksum and signature are taken over bytes and nobody has to canonicalise
   anything.
2. What we send is exact; what we read is lenient: unknown fields are ignored, missing ones and nulls have defaults, a
   whole number may be written 3.0, MessagePack and JSON are told apart by their first byte (blanks and a byte order
   mark before JSON do no harm). What is invalid raises `Refused("board_document_invalid")` and touches nothing.
3. Payloads are MessagePack unless a board's caps ask for JSON.
4. Everything that counts stands in the document (version, end), so the contract holds on MQTT 3.1.1 unchanged; on MQTT
   5 the broker additionally forgets a document at its last end (message expiry) and names its content type. A document
   that takes something down lives as long as what it takes down could: after that, each board's own clock has.

`Item.priority` 0 is an emergency, 1 the highest ordinary rank, 99 the lowest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from fanout import limits
from fanout.errors import Refused

DIALECT: Final = "native"
ROOT: Final = "signage/1"
_BOARDS: Final = f"{ROOT}/boards/"
SUBSCRIPTIONS: Final = [f"{ROOT}/boards/+/{leaf}" for leaf in ("caps", "state", "reported", "ack")]
"""What the engine listens to."""

EMERGENCY: Final = 0
Stage: TypeAlias = Literal["start", "update", "result"]
Target: TypeAlias = Literal["full", "over", "bottom line"]
Behaviour: TypeAlias = Literal["static", "paged", "scroll"]
Why: TypeAlias = Literal["desired", "local", "schedule", "comm_loss", "power", "reset", "ended"]
Form: TypeAlias = Literal["msgpack", "json"]
CONTENT_TYPE: Final[dict[Form, str]] = {"msgpack": "application/msgpack", "json": "application/json"}

Short = Annotated[str, Meta(max_length=200)]
Line = Annotated[str, Meta(max_length=1_000)]  # the smallest letters on the widest screen are 400 in a line
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Number = Annotated[int, Meta(ge=-(2**62), le=2**62)]  # JSON has integers of any length; sums with these need 64 bits
Version = Annotated[int, Meta(ge=0, le=2**62)]  # milliseconds since 1970 are 2**41


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Any payload. Fields may be added; readers ignore those they do not know. There are no cycles in values, so the
    collector need not walk those of a hundred thousand boards.
    """


# --- what a board says ------------------------------------------------------------------------------------------------


class Caps(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Birth document: what the board is. `lines` × `characters`, or pixels; TFTs have pixels and the kind `image`.

    `controller`: the id whose state speaks for the connection, where one connection carries several boards.
    """

    protocol: int = 1
    board: Short
    model: Short
    kind: Literal["characters", "pixels", "image"] = "characters"
    lines: Count = 0
    characters: Count = 0
    width_px: Count = 0
    height_px: Count = 0
    fonts: Annotated[list[Short], Meta(max_length=32)] = []
    charset: Short = "ascii"
    scrolls: bool = False
    scroll_characters: Count = 0
    pages: Count = 4
    items: Annotated[int, Meta(ge=1, le=limits.BOARD_ITEMS_MAX)] = limits.BOARD_ITEMS_MAX
    colours: Short = "amber"
    media: Annotated[list[Short], Meta(max_length=16)] = []
    languages: Annotated[list[Short], Meta(max_length=limits.LANGUAGES_MAX)] = []
    lon: Annotated[float, Meta(ge=-180, le=180)] | None = None
    lat: Annotated[float, Meta(ge=-90, le=90)] | None = None
    place: Short = ""
    areas: Annotated[list[Short], Meta(max_length=8)] = []
    mobile: bool = False
    controller: Short = ""
    form: Form = "msgpack"
    key: Short = ""


class State(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the board is there. The will is `lost` with the boot id of the session that left it."""

    state: Literal["ready", "sleeping", "lost"]
    boot: Short = ""
    clock_offset_ms: Number = 0


class Shown(Message, frozen=True, kw_only=True, omit_defaults=True):
    """One item that is on the board now: which, in which stage, and since when by the board's clock."""

    action: Number
    stage: Stage = "start"
    since_ms: Number = 0


class Reported(Message, frozen=True, kw_only=True, omit_defaults=True):
    """What the board really shows, read back. `version`: of the last document it took, from any topic, 0 for none;
    `lines`: all that stands on it, its own content too.
    """

    board: Short
    version: Version = 0
    why: Why = "desired"
    shown: Annotated[list[Shown], Meta(max_length=64)] = []
    lines: Annotated[list[Line], Meta(max_length=256)] = []
    errors: Annotated[list[Short], Meta(max_length=32)] = []
    brightness: float | None = None
    lon: Annotated[float, Meta(ge=-180, le=180)] | None = None
    lat: Annotated[float, Meta(ge=-90, le=90)] | None = None
    at_ms: Number = 0


class Ack(Message, frozen=True, kw_only=True, omit_defaults=True):
    """What happened to one item of one version; `action` 0 speaks of the whole document."""

    version: Version
    what: Literal["received", "rejected", "shown", "ended"]
    action: Number = 0
    stage: Stage = "start"
    at_ms: Number = 0
    reason: Short = ""


# --- what the engine says ---------------------------------------------------------------------------------------------


class Page(Message, frozen=True, kw_only=True, omit_defaults=False):
    """Lines as they stand on the board, and for how long."""

    lines: list[str]
    seconds: float
    language: str = ""


class Media(Message, frozen=True, kw_only=True, omit_defaults=False):
    """A picture by reference. The board fetches it, checks the SHA-256, and drops it at its expiry. `box`: where it
    stands on the screen, `[left, top, width, height]` in pixels; `width_px`, `height_px`: of the file.
    """

    url: str
    content_type: str
    sha256: str
    expires_ms: int
    width_px: int
    height_px: int
    box: list[int]


class Item(Message, frozen=True, kw_only=True, omit_defaults=False):
    """One message, laid out for this model. Shown from `start_ms` until just before `end_ms`. `box`: where its text
    stands, beside a picture; empty: the whole board.
    """

    action: int
    stage: Stage
    priority: Annotated[int, Meta(ge=0, le=99)]
    target: Target = "full"
    behaviour: Behaviour = "static"
    pages: list[Page]
    font: str = ""
    start_ms: int
    end_ms: int
    received_ms: int = 0  # when the engine took it: emergencies page in this order
    media: list[Media] = []
    box: list[int] = []


class Document(Message, frozen=True, kw_only=True, omit_defaults=False):
    """The whole desired state of one board (`board`), or of all boards of one model in one area (`area`, `model`)."""

    board: str = ""
    area: str = ""
    model: str = ""
    version: Version
    on_comm_loss: Literal["blank", "hold"] = "blank"
    comm_loss_s: int = 300
    items: list[Item]


class _RawDocument(Message, frozen=True, kw_only=True, omit_defaults=False):
    """A document whose items are encoded already: boards of one model share them."""

    board: str = ""
    area: str = ""
    model: str = ""
    version: int
    on_comm_loss: str = "blank"
    comm_loss_s: int = 300
    items: msgspec.Raw


class Envelope(Message, frozen=True, kw_only=True, omit_defaults=False):
    """`body` is the encoded document; `sha256` its digest in hex; `signature` Ed25519 over it, by the key `key`."""

    body: bytes
    sha256: str
    key: str = ""
    signature: bytes = b""


class _TextEnvelope(Message, frozen=True, kw_only=True, omit_defaults=False):
    """The envelope in JSON: `body` is the document as a string, the signature in base64."""

    body: str
    sha256: str
    key: str = ""
    signature: bytes = b""


# --- topics -----------------------------------------------------------------------------------------------------------


class Heard(NamedTuple):
    """A topic taken apart: the board, and the leaf (`caps`, `state`, `reported`, `ack`)."""

    board: str
    leaf: str


def desired_topic(board: str) -> str:
    return f"{ROOT}/boards/{board}/desired"


def area_topic(area: str) -> str:
    """Boards list the names of those they listen to in `Caps.areas`."""
    return f"{ROOT}/areas/{area}/desired"


def board_topic(board: str, leaf: str) -> str:
    return f"{ROOT}/boards/{board}/{leaf}"


def read_topic(topic: str) -> Heard | None:
    """The board and leaf of an incoming topic; None when it is not of this contract or the id cannot be one."""
    levels = topic.split("/")
    if len(levels) != 5 or not topic.startswith(_BOARDS):
        return None
    board, leaf = levels[3], levels[4]
    if not leaf or not 0 < len(board) <= limits.BOARD_ID_CHARS_MAX or not board.isprintable():
        return None
    return Heard(board, leaf)


# --- the engine's side: write desired, read the rest ------------------------------------------------------------------

_MSGPACK: Final = msgspec.msgpack.Encoder()
_JSON: Final = msgspec.json.Encoder()


def encode_items(items: Sequence[Item], form: Form) -> bytes:
    """Items once for all boards that share them: for `encode_desired`."""
    return (_JSON if form == "json" else _MSGPACK).encode(items)


def encode_body(
    *,
    board: str = "",
    area: str = "",
    model: str = "",
    version: int,
    on_comm_loss: str,
    comm_loss_s: int,
    items: bytes,
    form: Form,
) -> bytes:
    """The document, as it is signed."""
    document = _RawDocument(
        board=board,
        area=area,
        model=model,
        version=version,
        on_comm_loss=on_comm_loss,
        comm_loss_s=comm_loss_s,
        items=msgspec.Raw(items),
    )
    return (_JSON if form == "json" else _MSGPACK).encode(document)


def encode_envelope(body: bytes, form: Form, *, key: str = "", signature: bytes = b"") -> bytes:
    """The payload of a desired topic."""
    digest = hashlib.sha256(body).hexdigest()
    if form == "json":
        return _JSON.encode(_TextEnvelope(body=body.decode(), sha256=digest, key=key, signature=signature))
    return _MSGPACK.encode(Envelope(body=body, sha256=digest, key=key, signature=signature))


_Kind: TypeAlias = type[Any]
_DECODERS: Final[dict[_Kind, tuple[msgspec.msgpack.Decoder[Any], msgspec.json.Decoder[Any]]]] = {
    kind: (msgspec.msgpack.Decoder(kind), msgspec.json.Decoder(kind))
    for kind in (Caps, State, Reported, list[Ack], Envelope, _TextEnvelope, Document)
}


_JSON_FIRST: Final = (b"{", b"[")
_JSON_BEFORE: Final = frozenset(b" \t\r\n\xef")  # blanks, and the first byte of a byte order mark
_WHOLE_MAX: Final = 2.0**53  # floats are whole numbers beyond doubt up to here


def _decode(payload: bytes, kind: _Kind, board: str, what: str) -> Any:
    if len(payload) > limits.BOARD_DOCUMENT_BYTES_MAX:
        raise Refused("board_document_invalid", board=board, what=what, detail=f"it has {len(payload)} bytes")
    payload = _stripped(payload)
    msgpack, json = _DECODERS[kind]
    is_json = payload[:1] in _JSON_FIRST
    try:
        return json.decode(payload) if is_json else msgpack.decode(payload)
    except msgspec.ValidationError as error:
        mended = _mended(payload, kind, is_json)
        if mended is not None:
            return mended
        detail = str(error)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        detail = str(error)
    raise Refused("board_document_invalid", board=board, what=what, detail=detail)


def _stripped(payload: bytes) -> bytes:
    """The payload without what may stand before JSON. MessagePack of ours begins with a map or an array, never so."""
    if payload and payload[0] in _JSON_BEFORE:
        bare = payload.removeprefix(b"\xef\xbb\xbf").lstrip()
        return bare if bare[:1] in _JSON_FIRST else payload
    return payload


def _mended(payload: bytes, kind: _Kind, is_json: bool) -> Any:
    """What was meant by a document whose types are not quite ours: nulls and whole numbers as floats; None: nothing.

    Only documents that were refused come here, so that those of ten thousand well-behaved boards pay nothing.
    """
    try:
        value = msgspec.json.decode(payload) if is_json else msgspec.msgpack.decode(payload)
        return msgspec.convert(_plain(value), kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, TypeError):
        return None


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items() if each is not None}
        case list():
            return [_plain(each) for each in value]
        case float() if abs(value) <= _WHOLE_MAX and value.is_integer():
            return int(value)
        case _:
            return value


def read_caps(board: str, payload: bytes) -> Caps:
    """`Refused("board_document_invalid")` also when the document is another board's."""
    caps: Caps = _decode(payload, Caps, board, "birth document")
    if caps.board != board:
        detail = f"it says it is board {caps.board!r}"
        raise Refused("board_document_invalid", board=board, what="birth document", detail=detail)
    if caps.protocol != 1:
        detail = f"it speaks protocol version {caps.protocol}; this engine speaks 1"
        raise Refused("board_document_invalid", board=board, what="birth document", detail=detail)
    return caps


def read_state(board: str, payload: bytes) -> State:
    state: State = _decode(payload, State, board, "state")
    return state


def read_reported(board: str, payload: bytes) -> Reported:
    reported: Reported = _decode(payload, Reported, board, "report")
    if reported.board != board:
        detail = f"it says it is board {reported.board!r}"
        raise Refused("board_document_invalid", board=board, what="report", detail=detail)
    return reported


def read_acks(board: str, payload: bytes) -> list[Ack]:
    """A list of acknowledgements; a single one is read too."""
    payload = _stripped(payload)
    if payload[:1] == b"{" or (payload[:1] and 0x80 <= payload[0] <= 0x8F) or payload[:1] in (b"\xde", b"\xdf"):
        is_json = payload[:1] == b"{"
        payload = b"[" + payload + b"]" if is_json else b"\x91" + payload
    acks: list[Ack] = _decode(payload, list[Ack], board, "acknowledgement")
    return acks


# --- the board's side: read desired, write the rest (simulators, and makers who want to compare) ----------------------


def read_envelope(board: str, payload: bytes) -> tuple[Document, Envelope]:
    """The document and its envelope, checksum verified; `Refused("board_document_invalid")` else."""
    if payload[:1] == b"{":
        text: _TextEnvelope = _decode(payload, _TextEnvelope, board, "desired document")
        envelope = Envelope(body=text.body.encode(), sha256=text.sha256, key=text.key, signature=text.signature)
    else:
        envelope = _decode(payload, Envelope, board, "desired document")
    if hashlib.sha256(envelope.body).hexdigest() != envelope.sha256:
        raise Refused("board_document_invalid", board=board, what="desired document", detail="its checksum is wrong")
    document: Document = _decode(envelope.body, Document, board, "desired document")
    return document, envelope


def encode(message: Message | Sequence[Message], form: Form = "msgpack") -> bytes:
    """What a board sends: caps, state, reported, or a list of acks."""
    return (_JSON if form == "json" else _MSGPACK).encode(message)
