"""One connection at the door of receipts: a task that wakes when bytes come, and never for an answer.

Rules:

1. A request must be whole within `limits.BODY_S_MAX` of its first byte, however it trickles; between requests it may be
   silent for `IDLE_S`.
2. Answers go out from where they are made, at once: they are small, and the kernel has room for many. For whom it has
   none, who asks and does not listen, the connection ends.
3. Who is owed `limits.RECEIPTS_OWED_MAX` answers is not read further until all are sent.
4. Whoever ends it, what is owed is answered first. Then we say that nothing more comes, and read on for `LINGER_S`,
   since to close upon unread bytes takes the last answer from the client (RFC 9112, 9.6).
5. Who keeps us waiting and is owed nothing may have to give way to a newcomer, at once: a client opens another. That is
   who says nothing, who has been refused and lingers, and who has begun a request that is not whole after `BEGUN_S`.

Sockets are used without trio's streams, which take as long as all the rest of a request; TLS is OpenSSL's on the same
sockets. One deadline is moved instead of a scope made for each wait.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias, TypeVar

import trio

from fanout import limits
from fanout.errors import Refused
from fanout.inbound.conversation import CONTINUE, Conversation, Heard

T = TypeVar("T")

CHUNK_BYTES: Final = 16 * 1024
IDLE_S: Final = 60.0
"""Suppliers keep connections open between bursts, and open another when one is gone."""
HANDSHAKE_S: Final = 10.0
LINGER_S: Final = 2.0
BEGUN_S: Final = 0.25
"""A supplier's request is some hundred bytes, and comes in one piece: who takes longer waits for others, not they for
him. Nobody shakes hands often enough to have every place with requests that are younger."""
EXACT_S: Final = 0.5
"""A deadline is moved only by more than this: trio keeps each in a heap, which costs as much as to read a request."""

Take: TypeAlias = Callable[["Connection", Heard], None]
"""Where what is heard goes. Each is answered by one `say`, in the order in which it was taken."""


class Connection:
    """`run` until it ends. `owed`: answers that were not said yet. Owns `sock`, and closes it."""

    def __init__(self, sock: socket.socket, take: Take) -> None:
        self.owed = 0
        self._sock = sock
        self._take = take
        self._talk = Conversation()
        self._patience = trio.CancelScope()
        self._since_s = trio.current_time()
        self._paid: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<Connection: {self._talk!r}, owed {self.owed}>"

    async def run(self, tls: ssl.SSLContext | None) -> None:
        """Talk until either side ends it. *Cancellation*: it is cut."""
        try:
            with suppress(OSError):
                if tls is None or await self._shake_hands(tls):
                    await self._converse()
                    await self._until_paid()
                    await self._part()
        finally:
            self._sock.close()

    def say(self, answer: bytes) -> None:
        """One answer. For who does not take it the connection is over."""
        self._send(answer)
        self.owed -= 1
        if self._paid is not None and not self.owed:
            self._paid.set()

    def hurry(self) -> None:
        """End it as soon as nothing is begun."""
        if not self._talk.inside:
            self._patience.cancel()

    @property
    def begun(self) -> bool:
        """Whether the rest of a request is waited for."""
        return self._talk.inside and not self._talk.over

    @property
    def kept_since_s(self) -> float | None:
        """Since when we wait (trio's clock): for a request, for the rest of one, or for hands to be shaken; None for
        who is owed something, or has begun just now."""
        fresh = self.begun and trio.current_time() - self._since_s < BEGUN_S
        return None if self.owed or fresh else self._since_s

    def give_way(self) -> None:
        """End it now: its place is another's."""
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # TLS' own would drop a handshake that is under way

    async def _converse(self) -> None:
        with self._patience:
            inside = False
            while not self._talk.over:
                if not (inside and self._talk.inside):
                    inside, self._since_s = self._talk.inside, trio.current_time()
                    self._wait_until(self._since_s + (limits.BODY_S_MAX if inside else IDLE_S))
                data = await self._receive()
                if not data:
                    return
                for heard in self._talk.hear(data):
                    self._hand_in(heard)
                    inside = False
                if self._talk.wants_to_go_on() and not self.owed:
                    self._send(CONTINUE)
                if self.owed > limits.RECEIPTS_OWED_MAX:
                    await self._until_paid()
        if self._patience.cancelled_caught and self._talk.inside:
            self._hand_in(Refused("body_too_slow", "body", limit_s=int(limits.BODY_S_MAX)))

    def _wait_until(self, deadline: float) -> None:
        if abs(deadline - self._patience.deadline) > EXACT_S:
            self._patience.deadline = deadline

    def _hand_in(self, heard: Heard) -> None:
        self.owed += 1
        self._take(self, heard)

    async def _until_paid(self) -> None:
        if self.owed:
            self._paid = trio.Event()
            await self._paid.wait()
            self._paid = None

    async def _part(self) -> None:
        if isinstance(self._sock, ssl.SSLSocket):
            with suppress(OSError):  # it has been said, and theirs is not waited for
                self._sock.unwrap()
        self._sock.shutdown(socket.SHUT_WR)
        with trio.move_on_after(LINGER_S):
            while await self._receive():
                pass

    # --- the socket ---------------------------------------------------------------------------------------------------

    async def _shake_hands(self, tls: ssl.SSLContext) -> bool:
        wrapped = tls.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        self._sock = wrapped
        with trio.move_on_after(HANDSHAKE_S):
            await self._as_soon_as_it_can(wrapped.do_handshake)
            return True
        return False

    async def _receive(self) -> bytes:
        """The next bytes; empty at the end. A checkpoint, whoever floods us."""
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._sock)
        try:
            return self._sock.recv(CHUNK_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return await self._as_soon_as_it_can(partial(self._sock.recv, CHUNK_BYTES))

    async def _as_soon_as_it_can(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(self._sock)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._sock)

    def _send(self, data: bytes) -> None:
        try:
            if self._sock.send(data) == len(data):
                return
        except OSError:  # gone, or it has no room, which TLS tells by errors of its own
            pass
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
