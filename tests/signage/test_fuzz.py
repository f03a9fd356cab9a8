"""Whatever boards and displays send: random bytes, wrong types, numbers of 400 digits, nests a thousand deep. No
function that reads it raises anything but the refusal that names it, and the boards beside show what they showed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fanout.errors import Refused
from signage.dialects import native
from signage.dialects import rtig_t047 as t047
from signage.simulators.passenger import PassengerDisplay
from tests.signage.worlds import START_MS, World, action, shown

HOUR_MS = 3_600_000
HUGE = 10**400
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([HUGE, -HUGE, 2**53, 2**63, 2**64, -1, 0]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["", " ", "v", "d", "b0", "NaN", "1e999", "9" * 5_000, "\0", "a/b+#", "é" * 300, "3", "-7"]),
)
WORDS = """
vendorId deviceId requestId responseId deviceModel locationConfig localities clusters stops locationName text lang
geographicCoordinates longitude latitude textDisplayConfig graphicalDisplayConfig screenDimensions x y lines
charsPerLine charEncodings charEncdings canScroll canPage maxScrollChar statusReport firmwareVersion upSince
displayOverride operatingSystem data errorText errorRef result status timestamp board model version shown action stage
errors heartbeat state boot protocol kind items pages charset areas lon lat controller what reason at_ms why
"""
NAMES = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=25,
)
DEEP = st.builds(
    lambda depth, left, right: left * depth + b"0" + right * depth,
    st.sampled_from([5, 200, 900, 5_000, 30_000]),
    st.sampled_from([b"[", b'{"a":', b"\x91", b"\x81\xa1a"]),
    st.sampled_from([b"]", b"}", b""]),
)


def as_json(value: object) -> bytes:
    """JSON as careless writers have it: NaN, integers of any length."""
    return json.dumps(value, skipkeys=True).encode("utf-8", "surrogatepass")


def as_msgpack(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError, TypeError):
        return b"\xc1"


PAYLOADS = st.one_of(
    st.binary(max_size=200),
    DEEP,
    VALUES.map(as_json),
    VALUES.map(as_msgpack),
    st.tuples(VALUES.map(as_json), st.integers(0, 60), st.binary(min_size=1, max_size=3)).map(
        lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] :]
    ),
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=12)
TOPICS_T047 = [
    f"PID-LED/{what}"
    for what in (
        "discovery/request", "discovery/acknowledge", "heartbeat/service", "displayCapability/response",
        "status/response", "textSnapshot/response", "reset/response", "sensorEvent/service/DATA",
    )
] + ["CMS/informationMessage/request"]  # fmt: skip
LEAVES_NATIVE = ("caps", "state", "reported", "ack")
READERS: list[Callable[[str, bytes], Any]] = [
    native.read_caps, native.read_state, native.read_reported, native.read_acks, native.read_envelope
]  # fmt: skip


def refusal(read: Callable[[str, bytes], Any], name: str, payload: bytes) -> Refused | None:
    try:
        read(name, payload)
    except Refused as refused:
        return refused
    return None


@given(PAYLOADS)
@example(b'{"board":"b0","model":"m","lon":' + b"9" * 400 + b"}")
@example(b"9" * 5_000)
def test_readers_of_the_native_contract_refuse_and_never_trip(payload: bytes) -> None:
    for read in READERS:
        refused = refusal(read, "b0", payload)
        assert refused is None or (refused.code == "board_document_invalid" and "b0" in refused.message)


@given(BODIES)
@example({"geographicCoordinates": {"longitude": HUGE, "latitude": HUGE}})
@example({"textDisplayConfig": {"lines": HUGE, "charsPerLine": float("nan")}})
def test_readers_of_the_standard_take_any_body(body: dict[str, Any]) -> None:
    t047.identity(body)
    t047.request_id(body)
    t047.locations_of(body)
    t047.locations_of(body.get("locationConfig"))
    t047.snapshot_lines(body)
    t047.status_of(body)
    caps = t047.caps_of("v:d", "PID-LED", "m", body)
    msgspec.msgpack.decode(native.encode(caps), type=native.Caps)


@given(st.sampled_from(TOPICS_T047), PAYLOADS)
def test_messages_of_the_standard_are_read_or_refused(topic: str, payload: bytes) -> None:
    refused = refusal(t047.read, topic, payload)
    assert refused is None or refused.code == "board_document_invalid"


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(TOPICS_T047), BODIES.map(as_json) | PAYLOADS), max_size=6))
@example([("PID-LED/displayCapability/response", as_json(
    {"vendorId": "v", "deviceId": "d", "textDisplayConfig": {"lines": HUGE, "charsPerLine": HUGE}}))])  # fmt: skip
def test_whatever_displays_send_the_one_beside_shows_it(sent: list[tuple[str, bytes]]) -> None:
    world = World([], passengers=[PassengerDisplay("v", "good", ("L", "c", "s"), position=(5.0, 52.0))])
    world.pass_time(2)
    for topic, payload in sent:
        world.core.received(topic, payload, False)
        if b'"good"' not in payload:
            named = payload.replace(b'"vendorId": null', b'"vendorId": "v"').replace(b'{"', b'{"vendorId": "v", "', 1)
            world.core.received(topic, named.replace(b'{"', b'{"deviceId": "d", "', 1), False)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.pass_time(5)
    assert shown(world.displays[0]) == [(1, "start")]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(LEAVES_NATIVE), BODIES, st.booleans()), max_size=6))
def test_whatever_a_board_sends_the_one_beside_shows_it(sent: list[tuple[str, dict[str, Any], bool]]) -> None:
    world = World(["well", "well"], models=["led-3x26"])
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    for leaf, body, packed in sent:
        body = {"model": "m", "version": 1, "state": "ready", "what": "received", **body, "board": "b0"}
        world.core.received(f"signage/1/boards/b0/{leaf}", as_msgpack(body) if packed else as_json(body), False)
        world.core.received(f"signage/1/boards/new/{leaf}", as_json({**body, "board": "new"}), False)
    world.pass_time(3)
    assert shown(world.displays[1]) == [(1, "start")]
    assert world.core.proof(1).rows()[1].shown_ms is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("topic", TOPICS_T047)
@pytest.mark.parametrize("payload", [b"\xff", b"[", b"7", b'"x"', b"{" * 70_000, b"9" * 5_000, b'{"a":' * 3_000])
def test_what_is_no_message_is_told_to_ops(topic: str, payload: bytes, caplog: pytest.LogCaptureFixture) -> None:
    world = World([])
    with caplog.at_level(logging.WARNING):
        world.core.received(topic, payload, False)
    assert [record for record in caplog.records if "invalid" in record.getMessage()], caplog.text
