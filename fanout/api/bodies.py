"""Bodies in and out: msgpack or JSON from the same structs, bounded, every error in the catalogue's shape.

A request says what it sends by `Content-Type` (`application/msgpack`, `application/json`) and what it wants back by
`Accept`; without an `Accept` it gets back what it sent, and JSON when it sent nothing: that is a person with curl.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fanout import limits, wire
from fanout.errors import Refused

MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"
_MSGPACK_NAMES: Final = (MSGPACK, "application/x-msgpack", "application/vnd.msgpack")


async def read(request: Request, kind: type[Any], quick: Callable[[bytes], Any] | None = None) -> Any:
    """The body as a `kind`; `quick` reads msgpack first, and what it answers but None is taken instead.

    Errors: `Refused("media_type_unknown" | "field_invalid")`, and those of `read_bytes`.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in (*_MSGPACK_NAMES, JSON):
        raise Refused("media_type_unknown", "content-type", given=given)
    body = await read_bytes(request)
    if quick is not None and given != JSON and (columns := quick(body)) is not None:
        return columns
    return wire.decode_json(body, kind) if given == JSON else wire.decode_msgpack(body, kind)


async def read_bytes(request: Request, *, most: int = limits.BODY_BYTES_MAX) -> bytes:
    """The body, at most `most` bytes within `limits.BODY_S_MAX`.

    Errors: `Refused("body_too_large")`, before the rest is read; `Refused("body_too_slow" | "body_malformed")`.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        with trio.fail_after(limits.BODY_S_MAX):
            async with aclosing(request.stream()) as stream:
                async for chunk in stream:
                    size += len(chunk)
                    if size > most:
                        raise Refused("body_too_large", "body", limit=most)
                    chunks.append(chunk)
    except ClientDisconnect:
        raise Refused("body_malformed", "body", format="HTTP", detail="the connection ended inside it") from None
    except trio.TooSlowError:
        raise Refused("body_too_slow", "body", limit_s=int(limits.BODY_S_MAX)) from None
    return b"".join(chunks)


def write(request: Request, body: Any, status: int = 200) -> Response:
    """An answer in the form the caller wants."""
    if wants_msgpack(request):
        return Response(wire.encode_msgpack(body), status, media_type=MSGPACK)
    return Response(wire.encode_json(body), status, media_type=JSON)


def write_error(request: Request, error: Refused) -> Response:
    """An error of the catalogue as `{code, message, where}`."""
    body = wire.ErrorBody(code=error.code, message=error.message, where=error.where)
    response = write(request, body, error.status)
    response.headers.update(error.headers)
    return response


def wants_msgpack(request: Request) -> bool:
    """By `Accept`, else by what was sent."""
    accept = request.headers.get("accept", "*/*").lower()
    if JSON in accept:
        return False
    if any(name in accept for name in _MSGPACK_NAMES):
        return True
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in _MSGPACK_NAMES
