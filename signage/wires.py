"""A connection to a broker as bytes in memory: what `mqtt` moves with one system call for many packets, and paho reads.

`open_wire` does name look-up, TCP and TLS on trio; the `Wire` it gives never blocks: `fill` and `flush` raise
`BlockingIOError` (or TLS's `SSLWant…`) when there is nothing to read or no room to write, and the caller waits for the
socket then. `packet` finds the next MQTT packet that is whole, and refuses one whose length makes no sense before it is
read. Of a message that is longer than anything we take the beginning is given and the rest passed over: a broker that
keeps it gives it to us at each connection, so to end one for it would be to end them all. What a message means, nothing
here knows.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final
from urllib.parse import urlsplit

import trio

from fanout.errors import Refused

READ_BYTES: Final = 16 * 1024  # one read: at most some 150 messages, 5 ms of work between two checkpoints
PACKET_BYTES_MAX: Final = 1024 * 1024  # a board's report has some hundred bytes, and 64 KiB at most
PUBLISH: Final = 3  # the kind of packet that carries a message


class Down(Exception):
    """The connection ended; the reason is the argument."""


class Unanswered(Down):
    """The other side took the connection and said nothing."""


class Wire:
    """What paho takes for its socket: bytes in memory, moved by the link's tasks."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming = b""
        self.position = 0
        self.limit = 0
        self.outgoing = bytearray()
        self.closed = False
        self._to_pass = 0  # bytes that come yet, of a message too long for us

    def recv(self, size: int) -> bytes:
        """What paho reads: never past the packet it was given."""
        piece = self.incoming[self.position : min(self.position + size, self.limit)]
        if not piece:
            if self.closed:
                return b""
            raise BlockingIOError(errno.EAGAIN, "nothing here yet")
        self.position += len(piece)
        return piece

    def send(self, data: bytes | bytearray) -> int:
        self.outgoing += data
        return len(data)

    def fill(self) -> None:
        """Read once from the socket; `Down` at its end. Blocking is an exception, as sockets have it."""
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise Down("the broker closed the connection")
        self.incoming = self.incoming[self.position :] + data  # bytes: a piece of them is one copy, of an array two
        self.position = 0

    def packet(self) -> tuple[int, int, int] | None:
        """The next packet when it is whole: its first byte, where its body begins, where it ends. Of a message longer
        than `PACKET_BYTES_MAX` so much of it.
        """
        if self._to_pass:
            passed = min(self._to_pass, len(self.incoming) - self.position)
            self.position += passed
            self._to_pass -= passed
        data, at = self.incoming, self.position + 1
        size = len(data)
        length = shift = 0
        while at < size:
            digit = data[at]
            at += 1
            if digit < 0x80:
                length |= digit << shift
                break
            length |= (digit & 0x7F) << shift
            shift += 7
            if shift > 21:
                raise Down("the broker sent a packet whose length makes no sense")
        else:
            return None
        too_long = max(0, length - PACKET_BYTES_MAX)
        if too_long and data[self.position] >> 4 != PUBLISH:
            raise Down(f"the broker sent a packet of {length} bytes")
        end = at + length - too_long
        if end > size:
            return None
        self._to_pass = too_long
        return data[self.position], at, end

    def flush(self) -> None:
        while self.outgoing:
            count = self.sock.send(self.outgoing)
            del self.outgoing[:count]

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.closed = True


def varint(value: int) -> bytes:
    """A length as MQTT writes it: seven bits a byte, the lowest first."""
    if value <= 0x7F:
        return bytes((value,))
    if value <= 0x3FFF:  # a document of a board
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse_broker(address: str) -> tuple[str, int, bool]:
    """Host, port, TLS of `mqtt://host[:port]` or `mqtts://host[:port]`; `Refused("settings_invalid")` else."""
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or port == -1 or parts.path not in ("", "/"):
        problem = f"  signage.brokers: {address!r} is not mqtt://host:port or mqtts://host:port"
        raise Refused("settings_invalid", "signage.brokers", count=1, problems=problem)
    tls = parts.scheme == "mqtts"
    return parts.hostname, port or (8883 if tls else 1883), tls


def tls_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """The authorities of a file, or the system's; and our own certificate, where there is one."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None)
    return context


async def open_wire(host: str, port: int, context: ssl.SSLContext | None) -> Wire:
    """A connected wire; TLS done, name checked. *Errors*: `OSError`, `ssl.SSLError`."""
    stream = await trio.open_tcp_stream(host, port)
    sock = socket.socket(fileno=stream.socket.detach())
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return Wire(sock)
        sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        while True:
            try:
                sock.do_handshake()
                return Wire(sock)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(sock)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(sock)
    except BaseException:
        sock.close()
        raise
