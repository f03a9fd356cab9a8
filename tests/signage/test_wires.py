"""Addresses of brokers, and packets found in bytes that come in pieces."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from fanout.errors import Refused
from signage.wires import PACKET_BYTES_MAX, Down, Wire, parse_broker, varint


@pytest.mark.parametrize("address", ["http://x", "mqtt://", "mqtt://host:99999", "host:1883", "mqtt://h/path"])
def test_a_broker_address_that_is_none(address: str) -> None:
    with pytest.raises(Refused):
        parse_broker(address)


def test_broker_addresses() -> None:
    assert parse_broker("mqtt://h") == ("h", 1883, False)
    assert parse_broker("mqtts://h") == ("h", 8883, True)
    assert parse_broker("mqtts://[::1]:7") == ("::1", 7, True)


@pytest.fixture
def pair() -> Iterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Wire(ours), theirs


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384])
def test_a_packet_is_found_when_it_is_whole(pair: tuple[Wire, socket.socket], size: int) -> None:
    wire, other = pair
    data = b"\x30" + varint(size) + b"x" * size
    for at in range(0, len(data), 7_000):
        assert wire.packet() is None
        other.sendall(data[at : at + 7_000])
        wire.fill()
    first, body, end = wire.packet() or (0, 0, 0)
    assert (first, bytes(wire.incoming[body:end])) == (0x30, b"x" * size)


@pytest.mark.parametrize("data", [b"\x30\xff\xff\xff\xff\x01", b"\x90" + varint(2_000_000)])
def test_a_length_that_makes_no_sense_ends_it(pair: tuple[Wire, socket.socket], data: bytes) -> None:
    wire, other = pair
    other.sendall(data)
    wire.fill()
    with pytest.raises(Down):
        wire.packet()


@pytest.mark.parametrize("more", [1, 3_000_000])
def test_of_a_message_too_long_the_rest_is_passed_over(pair: tuple[Wire, socket.socket], more: int) -> None:
    wire, other = pair
    data = b"\x32" + varint(PACKET_BYTES_MAX + more) + b"x" * (PACKET_BYTES_MAX + more) + b"\x30\x01y" * 2
    found = []
    for at in range(0, len(data), 16_000):
        other.sendall(data[at : at + 16_000])
        wire.fill()
        while (packet := wire.packet()) is not None:
            first, body, wire.position = packet
            found.append((first, wire.incoming[body : wire.position]))
    assert found == [(0x32, b"x" * PACKET_BYTES_MAX), (0x30, b"y"), (0x30, b"y")]


def test_nothing_there_is_said_and_the_end_too(pair: tuple[Wire, socket.socket]) -> None:
    wire, other = pair
    with pytest.raises(BlockingIOError):
        wire.fill()
    other.close()
    with pytest.raises(Down, match="closed"):
        wire.fill()
