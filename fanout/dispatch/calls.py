"""Single calls by httpx: social posts, tokens, whatever is rare; SMS, voice and WhatsApp take `plain_calls.py`.

Rules:

1. A call is made once. No retries, no redirects, no proxy out of the environment, no second connection attempt: what
   rings twice goes this way, and the ledger decides what is sent again.
2. Each way of failing has its code: no connection is `NO_CONNECTION` (certainly not taken), all that comes after the
   first byte went out is `NO_ANSWER`, an answer that is no HTTP or has no end is `GARBAGE`.
3. An answer is read up to a limit and within one time-out for the whole call, not one per read: a provider that sends
   a byte a second holds nobody.
4. Senders speak HTTP/1.1 to providers of single calls (`http2=False`): a call on a connection of its own is one write
   and a few reads. On HTTP/2 all calls share one connection, each frame is a turn of the event loop, and beside a busy
   push lane eight calls of 500 messages took 6.6 s instead of 0.8 s: near the time-out, after which they are unknown.
5. A connection is used again for `KEEP_S` of silence and no longer: a call into one that the provider is just closing
   may have been heard, so it is unknown for ever, and a new handshake is nothing beside the seconds an SMS takes.
6. A socket whose handshake is cancelled is closed here: httpcore closes it for errors only, and leaves it, connected,
   to the garbage collector when a call's time or its owner ends.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Protocol

import httpx
import trio

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, Answer, Call

ANSWER_BYTES_MAX: Final = 1_000_000  # 1,000 statuses of an SMS call are 250 kB
KEEP_S: Final = 30.0  # most servers keep what is idle for 60 s or more


class Caller(Protocol):
    """A way to the wire for single calls. Simulations bring their own."""

    async def call(self, call: Call) -> Answer: ...

    async def aclose(self) -> None: ...


class HttpCaller:
    """One provider's connections in one process. Close with `aclose`."""

    def __init__(self, *, ca: str, timeout_s: float, connections: int, http2: bool = True) -> None:
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=ca or None),
            http1=True,
            http2=http2,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s),
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEP_S
            ),
            headers={"user-agent": "fanout", "accept-encoding": "identity"},
        )

    async def call(self, call: Call) -> Answer:
        """Make the call. *Errors*: none of the outside world; each has its code. *Cancellation*: the call may have
        arrived."""
        answer = Answer(code=NO_ANSWER)
        async with _traced() as trace:
            with trio.move_on_after(self._timeout_s) as scope:
                answer = await self._exchange(call, {"trace": trace})
        if (scope.cancelled_caught or answer.code == NO_ANSWER) and not trace.gone:
            return Answer(code=NO_CONNECTION)
        return answer

    async def warm(self, url: str) -> bool:
        """Open a connection before the first action; True if the provider answered."""
        async with _traced() as trace:
            with trio.move_on_after(self._timeout_s):
                try:
                    await self._client.head(url, extensions={"trace": trace})
                except httpx.HTTPError:
                    return False
                return True
        return False

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _exchange(self, call: Call, extensions: dict[str, object]) -> Answer:
        endless = False
        try:
            request = self._client.build_request(
                call.method, call.url, headers={**call.headers, **_length(call)}, extensions=extensions
            )
            request.stream = _Body(call.body)
            response = await self._client.send(request, stream=True)
            async with aclosing(response):
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        endless = True
                        await response.aclose()  # what is half read is ended by its own error, below
                return Answer(code=response.status_code, headers=dict(response.headers), body=bytes(body))
        except (httpx.TransportError, httpx.StreamClosed, trio.ClosedResourceError) as error:
            return Answer(code=GARBAGE if endless else _code(error))


def _length(call: Call) -> dict[str, str]:
    return {"content-length": str(len(call.body))} if call.body else {}


class _Body(httpx.AsyncByteStream):
    """A body in one piece. The one of httpx is an async generator, and one whose call is cancelled while it is sent
    is left half way for the garbage collector."""

    def __init__(self, body: bytes) -> None:
        self._pieces = [body]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


class _Trace:
    """How far a call got. `gone`: its first byte may be out. `shaking`: a connected stream still without its TLS."""

    def __init__(self) -> None:
        self.gone = False
        self.shaking: trio.abc.AsyncResource | None = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self.shaking = info["return_value"]
        elif event == "connection.start_tls.complete":
            self.shaking = None
        elif event.endswith("send_request_headers.started"):
            self.gone, self.shaking = True, None


@asynccontextmanager
async def _traced() -> AsyncIterator[_Trace]:
    trace = _Trace()
    try:
        yield trace
    finally:
        if trace.shaking is not None:
            await trio.aclose_forcefully(trace.shaking)


def _code(error: Exception) -> int:
    """The code of a call that ended without a whole answer."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return NO_CONNECTION
    # "Server disconnected without sending a response" is silence, every other breach of the protocol is nonsense.
    nonsense = isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error)
    return GARBAGE if nonsense else NO_ANSWER
