"""A door of its own for receipts: HTTP/1.1 and nothing but `POST /v1/receipts/{provider}`, for suppliers that send one
receipt a request, thousands a second. The same call at the API does the same at ten times the price.

It is cheap by what it leaves out: a connection is a task that wakes once for each request (`connection.py`); what all
of them hear waits in one line, is committed together, and is answered from there. Rules:

1. An answer is sent after the commit. What was not answered may be sent again: receipts are idempotent.
2. Everything goes through the line, refusals too: so answers leave in the order of their requests.
3. A commit that fails is tried again for each request alone, unless the ledger itself refused: none fails with others.
4. What is refused is counted, and told to the log once a minute: a supplier with a wrong secret tells nobody.
5. At the end: no new connections, silent ones are closed, begun requests are finished, and told that it was the last.
6. When all places are taken, the connection that has kept us waiting for longest gives way to who comes: nobody keeps
   suppliers out by saying nothing, or by requests without end. Only if all have one under way is the newcomer refused.
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from itertools import islice
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote

import trio

from fanout import limits, wire
from fanout.errors import Refused
from fanout.inbound import replies
from fanout.inbound.connection import Connection
from fanout.inbound.conversation import Heard, Request
from fanout.inbound.receipts import Read
from fanout.store.protocol import Receipts

log = logging.getLogger("fanout.receipts")

PATH: Final = "/v1/receipts/"
TELL_EVERY_S: Final = 60.0

Reader: TypeAlias = Callable[[str, Mapping[str, str], bytes], Read]
"""`receipts.read` with the secret of the provider: of provider, headers by lower-case name, and body."""
Apply: TypeAlias = Callable[[Sequence[Receipts]], list[int]]
"""`Ledger.apply_receipts`. Blocking, durable when it returns."""


class DoorStatistics(NamedTuple):
    """`connections` now, and requests `waiting` for an answer; `answered` so far, in so many `commits`."""

    connections: int
    waiting: int
    answered: int
    commits: int


class _Asked(NamedTuple):
    """A request in the line, and what was read of it, or why it is refused. `bare`: its answer has no body (HEAD)."""

    connection: Connection
    found: Read | Refused
    last: bool
    bare: bool


class Door:
    """`read` and `apply` say what receipts are; this, how they come in. `serve` once."""

    def __init__(self, read: Reader, apply: Apply) -> None:
        self._read = read
        self._apply = apply
        self._line: deque[_Asked] = deque()
        self._bell = trio.Event()
        self._connections: set[Connection] = set()
        self._closing = False
        self._refused: Counter[str] = Counter()
        self._answered = self._commits = 0
        self._thread = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<Door: {now.connections} connections, {now.waiting} requests waiting>"

    def statistics(self) -> DoorStatistics:
        """What it does now and has done so far."""
        waiting = sum(connection.owed for connection in self._connections)
        return DoorStatistics(len(self._connections), waiting, self._answered, self._commits)

    async def serve(
        self, listener: socket.socket, stop: trio.Event, *, tls: ssl.SSLContext | None = None, drain_s: float
    ) -> None:
        """Take requests in until `stop`, then finish what is begun within `drain_s` seconds. Closes `listener`.

        *Cancellation*: connections are cut; a commit that has begun ends first.
        """
        async with trio.open_nursery() as line:
            line.start_soon(self._work)
            line.start_soon(self._tell)
            async with trio.open_nursery() as talks, trio.open_nursery() as doorway:
                doorway.start_soon(self._accept, listener, tls, talks)
                await stop.wait()
                doorway.cancel_scope.cancel()
                self._closing = True
                for connection in self._connections:
                    connection.hurry()
                talks.cancel_scope.deadline = trio.current_time() + drain_s
            line.cancel_scope.cancel()

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None, talks: trio.Nursery) -> None:
        async def meet(stream: trio.SocketStream) -> None:
            await self._meet(socket.socket(fileno=stream.socket.detach()), tls)

        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
        await trio.serve_listeners(meet, listeners, handler_nursery=talks)

    async def _meet(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        sock.setblocking(False)
        if len(self._connections) >= limits.RECEIPTS_CONNECTIONS_MAX and not self._make_room():
            error = Refused("too_many_requests", retry_s=1)
            self._refused[error.code] += 1
            full = replies.refused(error, date=formatdate(usegmt=True), last=True)
            with sock, suppress(OSError):
                sock.send(b"" if tls else full)
            return
        connection = Connection(sock, self._take)
        self._connections.add(connection)
        try:
            await connection.run(tls)
        finally:
            self._connections.discard(connection)

    def _make_room(self) -> bool:
        """End the connection that has kept us waiting for longest, if there is one."""
        kept = [(since_s, one) for one in self._connections if (since_s := one.kept_since_s) is not None]
        if not kept:
            return False
        _, oldest = min(kept, key=itemgetter(0))
        self._connections.discard(oldest)
        if oldest.begun:
            self._refused["body_too_slow"] += 1
        oldest.give_way()
        return True

    # --- the line -----------------------------------------------------------------------------------------------------

    def _take(self, connection: Connection, heard: Heard) -> None:
        if isinstance(heard, Refused):
            asked = _Asked(connection, heard, last=True, bare=False)
        else:
            last, bare = heard.last or self._closing, heard.method == "HEAD"
            asked = _Asked(connection, self._found(heard), last, bare)
        self._line.append(asked)
        self._bell.set()

    def _found(self, request: Request) -> Read | Refused:
        try:
            return self._read(_provider(request), request.headers, request.body)
        except Refused as error:
            return error
        except Exception:
            return _incident("a body of receipts")

    async def _work(self) -> None:
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            while self._line:
                group: list[_Asked] = []
                reports = 0
                while self._line and reports < limits.RECEIPTS_PER_COMMIT_MAX:
                    group.append(self._line.popleft())
                    reports += group[-1].found.reports if isinstance(group[-1].found, Read) else 0
                await self._settle(group)

    async def _settle(self, group: list[_Asked]) -> None:
        """Commit what these brought, and answer them."""
        changed = await self._commit([one for asked in group for one in _receipts(asked)])
        if isinstance(changed, Refused) and changed.code == "internal" and len(group) > 1:
            for asked in group:
                await self._settle([asked])
            return
        date = formatdate(usegmt=True)
        counts = iter(() if isinstance(changed, Refused) else changed)
        for asked in group:
            found = changed if isinstance(changed, Refused) and _receipts(asked) else asked.found
            if isinstance(found, Refused):
                self._refused[found.code] += 1
                answer = replies.refused(found, date=date, last=asked.last, bare=asked.bare)
            else:
                mine = sum(islice(counts, len(found.receipts)))
                accepted = wire.ReceiptsAccepted(reports=found.reports, changed=mine, ignored=found.ignored)
                answer = replies.taken(accepted, date=date, last=asked.last)
            asked.connection.say(answer)
        self._answered += len(group)

    async def _tell(self) -> None:
        while True:
            await trio.sleep(TELL_EVERY_S)
            if self._refused:
                told = ", ".join(f"{count} {code}" for code, count in self._refused.most_common())
                log.warning("receipts: requests were refused: %s", told)
                self._refused.clear()

    async def _commit(self, receipts: list[Receipts]) -> list[int] | Refused:
        """How many rows changed by each, or why nothing was written."""
        if not receipts:
            return []
        try:
            changed = await trio.to_thread.run_sync(self._apply, receipts, limiter=self._thread)
        except Refused as error:
            return error
        except Exception:
            return _incident("a commit")
        self._commits += 1
        return changed


def _receipts(asked: _Asked) -> Sequence[Receipts]:
    return asked.found.receipts if isinstance(asked.found, Read) else ()


def _incident(what: str) -> Refused:
    """Called where an exception is handled that is our bug."""
    incident = secrets.token_hex(6)
    log.exception("incident %s: %s", incident, what)
    return Refused("internal", incident=incident)


def _provider(request: Request) -> str:
    """Whose receipts these are. Errors: `Refused("not_found" | "method_not_allowed")`."""
    target = request.target
    if not target.startswith("/"):  # the absolute form, which is for proxies and is to be understood by all
        target = "/" + target.partition("://")[2].partition("/")[2]
    path = unquote(target.partition("?")[0])
    provider = path.removeprefix(PATH)
    if provider == path or not provider or "/" in provider:
        raise Refused("not_found", path, what="address")
    if request.method != "POST":
        raise Refused("method_not_allowed", path, method=request.method)
    return provider
