"""Positions as columns are those that the structs of the wire are, or none at all."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout import limits, wire
from fanout.errors import Refused
from fanout.registry.bodies import positions

GOOD = {"id": "a-1", "lon": 5.0, "lat": 52.0, "at_ms": 1_790_000_000_000}
IDS = st.text("azAZ09._:@-", min_size=1, max_size=64)
SPOTS = st.tuples(IDS, st.floats(-180, 180), st.floats(-90, 90), st.integers(2**31, 2**62))


@settings(max_examples=300)
@given(st.lists(SPOTS, max_size=40))
def test_columns_are_what_the_structs_are(spots: list[tuple[str, float, float, int]]) -> None:
    sent = [wire.LivePosition(id=name, lon=lon, lat=lat, at_ms=at_ms) for name, lon, lat, at_ms in spots]
    found = positions(wire.encode_msgpack(wire.PositionsRequest(positions=sent)))
    assert found is not None
    read = zip(found.ids.texts(), found.lon.tolist(), found.lat.tolist(), found.at_ms.tolist(), strict=True)
    assert list(read) == spots


@settings(max_examples=1_000)
@given(st.integers(0, 2**32 - 1))
def test_a_damaged_body_is_read_as_the_structs_are_or_not_at_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    body = bytearray(
        msgspec.msgpack.encode({"positions": [GOOD | {"id": "b" * int(n)} for n in random.integers(1, 70, 3)]})
    )
    for _ in range(random.integers(0, 3)):
        body[random.integers(len(body))] = random.integers(256)
    found = positions(bytes(body[: random.integers(len(body) + 1)] if random.random() < 0.3 else body))
    if found is not None:
        same = wire.decode_msgpack(bytes(body), wire.PositionsRequest)
        assert [one.id for one in same.positions] == found.ids.texts()
        assert [one.lon for one in same.positions] == found.lon.tolist()
        assert [one.at_ms for one in same.positions] == found.at_ms.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"lon": 181.0},
        {"lat": float("nan")},
        {"id": ""},
        {"id": "no blanks"},
        {"id": "x" * 65},
        {"more": 1},
        {"at_ms": "now"},
    ],
    ids=str,
)
def test_what_is_wrong_is_for_the_structs_to_refuse(wrong: dict[str, Any]) -> None:
    body = msgspec.msgpack.encode({"positions": [GOOD, GOOD | wrong]})
    assert positions(body) is None
    with pytest.raises(Refused, match="field_invalid"):
        wire.decode_msgpack(body, wire.PositionsRequest)


def test_other_forms_of_the_same_are_for_the_structs_to_read() -> None:
    for fields in ({"lon": 5}, {"at_ms": 7}):
        body = msgspec.msgpack.encode({"positions": [GOOD | fields]})
        assert positions(body) is None
        assert len(wire.decode_msgpack(body, wire.PositionsRequest).positions) == 1


def test_a_time_before_all_times_is_for_the_structs_to_refuse() -> None:
    body = msgspec.msgpack.encode({"positions": [GOOD | {"at_ms": -1}]})
    assert positions(body) is None
    with pytest.raises(Refused, match=r"positions\[0\].at_ms"):
        wire.decode_msgpack(body, wire.PositionsRequest)


def test_the_shortest_bodies_are_read_or_left() -> None:
    none = positions(msgspec.msgpack.encode({"positions": []}))
    assert none is not None
    assert none.ids.rows == none.lon.size == 0
    for body in (b"", b"\x81", b"\x81\xa9positions", b"\x80", msgspec.msgpack.encode({"positions": []}) + b"\x00"):
        assert positions(body) is None


def test_too_many_are_for_the_structs_to_refuse() -> None:
    assert positions(msgspec.msgpack.encode({"positions": [GOOD] * (limits.POSITIONS_PER_REQUEST_MAX + 1)})) is None


def test_ids_are_of_the_kind_that_the_warm_kernels_have() -> None:
    """Packed by hand they could be written to, and the first positions waited seconds for a compiler."""
    read = positions(b"\x81\xa9positions\x90")
    assert read is not None
    assert not read.ids.data.flags.writeable
    assert not read.ids.offsets.flags.writeable
