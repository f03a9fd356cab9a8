"""TLS on a socket that never blocks: many records a system call, and certainty about what went.

A push service sends a record per answer, and OpenSSL reads a record from a socket by two system calls, which on a busy
lane cost more than all the rest. So the socket is read in big pieces into memory, and OpenSSL reads from there. The way
out is by memory as well, record by record: `send` counts the plain bytes whose record the socket has taken whole. Of
all others the peer cannot read a byte, since a record that is cut off does not decrypt.

Nothing waits here but `handshake`; the owner asks the operating system when to call again.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from contextlib import suppress
from typing import Final

import trio

RECORD_BYTES: Final = 16_384  # of plain text, at most
READ_BYTES: Final = 256 * 1024  # from the socket at once


class TlsSocket:
    """One end of a connection; `raw` is connected, non-blocking, and ours from now on.

    `host` is whom a client speaks to, and must be in its certificate; None is the server's end. `read_bytes`: taken
    from the socket at once, kept for as long as the connection.
    """

    def __init__(
        self, raw: socket.socket, context: ssl.SSLContext, host: str | None, *, read_bytes: int = READ_BYTES
    ) -> None:
        self._raw = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=host is None, server_hostname=host)
        self._buffer = bytearray(read_bytes)
        self._cipher = memoryview(b"")  # records on their way out
        self._records: deque[tuple[int, int]] = deque()  # of `_cipher`: (bytes left, plain bytes within)
        self._ended = False

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()

    @property
    def protocol(self) -> str | None:
        """What was agreed in the handshake (ALPN)."""
        return self._tls.selected_alpn_protocol()

    @property
    def waits(self) -> bool:
        """Whether the socket must take more before anything else can be sent."""
        return bool(self._cipher)

    def shake(self) -> bool:
        """One step of the handshake with what was fetched: whether it is done. Errors: `OSError` (`ssl.SSLError`)."""
        done = False
        try:
            self._tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            if self._ended:
                raise ConnectionResetError("ended in the handshake") from None
        finally:  # also what it has to say of its failure
            self.send(memoryview(b""))
        return done

    async def handshake(self) -> None:
        """Errors: `OSError`, of which `ssl.SSLError` is one."""
        done = False
        while not done:
            done = self.shake()
            while self.waits:
                await trio.lowlevel.wait_writable(self._raw)
                self.send(memoryview(b""))
            if not done:
                await trio.lowlevel.wait_readable(self._raw)
                self.fetch()

    def fetch(self) -> None:
        """Take in what the socket has. Errors: `OSError`."""
        with suppress(BlockingIOError):
            count = self._raw.recv_into(self._buffer)
            self._ended = count == 0
            self._incoming.write(memoryview(self._buffer)[:count])

    def receive(self, view: memoryview) -> tuple[int, bool]:
        """Decrypt what was fetched into `view`: (bytes put there, whether there may be more). Errors: `OSError`.

        With nothing more and the peer gone it raises `ConnectionResetError`, after all that came before was returned.
        So it does with what breaks TLS.
        """
        filled, read = 0, self._tls.read
        try:
            while len(view) - filled >= RECORD_BYTES:
                count = int(read(RECORD_BYTES, view[filled:]))
                if not count:
                    self._ended = True
                    break
                filled += count
            else:
                return filled, True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # an alert, or no record at all; it says so again
            if not filled:
                raise
            return filled, True
        if self._ended and not filled:
            raise ConnectionResetError("ended")
        return filled, self._ended

    def send(self, data: memoryview) -> int:
        """Write `data`; returns how many of its first bytes are out now. Errors: `OSError`.

        The next call begins with the first byte that is not. While `waits`, only what is under way goes on.
        """
        if not self._cipher:
            for at in range(0, len(data), RECORD_BYTES):
                before = self._outgoing.pending
                plain = self._tls.write(data[at : at + RECORD_BYTES])
                self._records.append((self._outgoing.pending - before, plain))
            held = self._outgoing.pending - sum(size for size, _ in self._records)
            if held:  # the protocol's own, from before
                self._records.appendleft((held, 0))
            self._cipher = memoryview(self._outgoing.read())
        out = 0
        with suppress(BlockingIOError):
            while self._cipher:
                count = self._raw.send(self._cipher)
                self._cipher = self._cipher[count:]
                out += self._taken(count)
        return out

    def _taken(self, count: int) -> int:
        """Plain bytes that are out whole by `count` more bytes of records."""
        plain = 0
        while count:
            size, within = self._records[0]
            if count < size:
                self._records[0] = (size - count, within)
                break
            self._records.popleft()
            count -= size
            plain += within
        return plain


async def connect(host: str, port: int, context: ssl.SSLContext, *, read_bytes: int = READ_BYTES) -> TlsSocket:
    """A connection with TLS, and with the keep-alive of TCP. Errors: `OSError`."""
    stream = await trio.open_tcp_stream(host, port)
    raw = socket.socket(fileno=stream.socket.detach())
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        tls = TlsSocket(raw, context, host, read_bytes=read_bytes)
        await tls.handshake()
    except BaseException:
        raw.close()
        raise
    return tls
