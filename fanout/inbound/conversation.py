"""One side of an HTTP/1.1 connection: bytes in, whole requests out. No I/O and no clock.

The grammar is httptools' (llhttp, the parser of Node): a parser that the world tries to break is better than ours. This
module is what such a parser leaves to its user: what a request may cost before anybody has shown who they are.

Rules:

1. A request is handed out whole or not at all. What came after one that is refused is not heard.
2. Bytes are counted as they stand on the wire, with chunk sizes, extensions and trailers, since a stranger pays for
   nothing else; a head has a bound of its own. A length that is too large is refused before the body is there.
3. Of a header that comes twice the first counts, and trailers do not: nobody adds a signature afterwards.
4. Nobody changes the protocol. Who offers that beside a request (Java's client does: h2c) has the request answered.

What its caller owes: the time a request may take, and an answer to each in the order of requests.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import httptools

from fanout import limits
from fanout.errors import Refused

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Request(NamedTuple):
    """One whole request. `target` as it was sent; `headers` by lower-case name; `last`: the connection ends with it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    last: bool


Heard: TypeAlias = Request | Refused
"""What is to be answered. After a `Refused` the connection ends."""


class Conversation:
    """`hear` what arrives. `inside`: a request has begun and is not whole; `over`: nothing more is heard."""

    def __init__(self) -> None:
        self.inside = False
        self.over = False
        self._parser = httptools.HttpRequestParser(self)
        self._heard: list[Heard] = []
        self._bytes = 0
        self._in_head = False
        self._waits = False
        self._begin()

    def __repr__(self) -> str:
        state = "over" if self.over else "inside a request" if self.inside else "between requests"
        return f"<Conversation {state}>"

    def hear(self, data: bytes) -> list[Heard]:
        """What `data` completes, in order. Nothing is raised: a `Refused` in the list is the last."""
        if self.over:
            return []
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse(Refused("request_malformed", detail=str(error)))
        if self.inside:
            self._count(len(data))
        heard, self._heard = self._heard, []
        return heard

    def wants_to_go_on(self) -> bool:
        """Whether the client waits for `CONTINUE` before it sends its body; asked once for each request."""
        waits, self._waits = self._waits and self.inside and not self.over, False
        return waits

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as pause:
                if self.over:
                    return
                data = self._head_without_offer() + data[pause.args[0] :]
                self._parser = httptools.HttpRequestParser(self)

    def _head_without_offer(self) -> bytes:
        del self._headers["upgrade"]
        target = self._target.decode("latin-1")
        lines = [f"{self._method()} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in self._headers.items())]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def _method(self) -> str:
        return self._parser.get_method().decode("ascii")

    def _count(self, size: int) -> None:
        self._bytes += size
        if self.over:
            return
        if self._in_head and self._bytes > limits.REQUEST_HEAD_BYTES_MAX:
            self._refuse(Refused("head_too_large", limit=limits.REQUEST_HEAD_BYTES_MAX))
        elif self._bytes > limits.RECEIPTS_BYTES_MAX:
            self._refuse(Refused("body_too_large", "body", limit=limits.RECEIPTS_BYTES_MAX))

    def _refuse(self, error: Refused) -> None:
        if not self.over:
            self.over = True
            self._heard.append(error)

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    # --- what the parser calls, in the order of a request -------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.inside = self._in_head = True
        self._bytes = 0
        self._begin()

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if int(self._headers.get("content-length", 0)) > limits.RECEIPTS_BYTES_MAX:
            self._refuse(Refused("body_too_large", "body", limit=limits.RECEIPTS_BYTES_MAX))
        self._waits = self._headers.get("expect", "").lower() == "100-continue"

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self.inside = False
        if self.over or (self._parser.should_upgrade() and "upgrade" in self._headers):
            return  # what is offered beside it is left out, and the request is read again
        self.over = self._parser.should_upgrade() or not self._parser.should_keep_alive()
        target = self._target.decode("latin-1")
        self._heard.append(Request(self._method(), target, self._headers, bytes(self._body), self.over))
