"""MQTT 3.1.1 and 5 packets, as bytes: what a simulated board needs of them, and no more. No I/O.

Written here and not taken from paho: one process plays a thousand connections, and a client object with its own locks,
queues and callbacks for each would be the brake of every measurement.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBACK: Final = 9
PINGRESP: Final = 13

PING: Final = b"\xc0\x00"


class Publish(NamedTuple):
    """An incoming message; `packet_id` 0 at QoS 0."""

    topic: str
    payload: bytes
    retained: bool
    packet_id: int


def _length(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("!H", len(data)) + data


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _length(len(body)) + body


def connect(
    client_id: str,
    *,
    version: int,
    keepalive_s: int,
    will: tuple[str, bytes] | None,
    username: str = "",
    password: str = "",
) -> bytes:
    """`version` 4 is MQTT 3.1.1, 5 is MQTT 5. The will is retained, at QoS 1."""
    flags = 0x02
    tail = _text(client_id)
    if will is not None:
        flags |= 0x04 | 0x08 | 0x20
        tail += (b"\x00" if version == 5 else b"") + _text(will[0]) + struct.pack("!H", len(will[1])) + will[1]
    if username:
        flags |= 0x80
        tail += _text(username)
        if password:
            flags |= 0x40
            tail += _text(password)
    properties = b"\x00" if version == 5 else b""
    head = _text("MQTT") + bytes((version, flags)) + struct.pack("!H", keepalive_s) + properties
    return _packet(0x10, head + tail)


def disconnect(version: int, *, with_will: bool = False) -> bytes:
    """Goodbye; `with_will` (MQTT 5) has the broker publish the will."""
    return b"\xe0\x01\x04" if version == 5 and with_will else b"\xe0\x00"


def subscribe(topics: Sequence[str], packet_id: int, version: int) -> bytes:
    properties = b"\x00" if version == 5 else b""
    body = struct.pack("!H", packet_id) + properties + b"".join(_text(topic) + b"\x01" for topic in topics)
    return _packet(0x82, body)


def publish(topic: str, payload: bytes, *, retain: bool, qos: int, packet_id: int, version: int) -> bytes:
    name = topic.encode()
    number = packet_id.to_bytes(2, "big") if qos else b""
    properties = b"\x00" if version == 5 else b""
    length = _length(2 + len(name) + len(number) + len(properties) + len(payload))
    first = bytes((0x30 | (qos << 1) | retain,))
    return b"".join((first, length, len(name).to_bytes(2, "big"), name, number, properties, payload))


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + struct.pack("!H", packet_id)


class Parser:
    """Bytes in, packets out: `(kind, flags, body)`."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Whole packets of what has come so far; the rest is kept."""
        buffer = self._rest + data if self._rest else data
        position, size = 0, len(buffer)
        try:
            while size - position >= 2:
                length = shift = 0
                at = position + 1
                while at < size:
                    digit = buffer[at]
                    length |= (digit & 0x7F) << shift
                    shift += 7
                    at += 1
                    if not digit & 0x80:
                        break
                else:
                    break
                if size - at < length:
                    break
                first, position = buffer[position], at + length
                yield first >> 4, first & 0x0F, buffer[at:position]
        finally:  # also when whoever reads has had enough
            self._rest = buffer[position:]


def read_publish(flags: int, body: bytes, version: int) -> Publish:
    """The body of a PUBLISH."""
    size = int.from_bytes(body[:2], "big")
    topic = body[2 : 2 + size].decode()
    at = 2 + size
    packet_id = 0
    if flags & 0x06:
        packet_id = int.from_bytes(body[at : at + 2], "big")
        at += 2
    if version == 5:
        length = shift = 0
        while True:
            digit = body[at]
            length |= (digit & 0x7F) << shift
            shift += 7
            at += 1
            if not digit & 0x80:
                break
        at += length
    return Publish(topic, body[at:], bool(flags & 1), packet_id)


def connack_code(body: bytes) -> int:
    """0 is accepted."""
    return body[1] if len(body) > 1 else 255
