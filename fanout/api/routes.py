"""The table of calls, and the application made from it.

One row a call: method, path, scope, what it takes, what it answers, and the handler. The same table makes the routes,
the OpenAPI document and the table in `fanout/api/README.md`, so they cannot differ.

Order of the checks of a request: room (429), key (401), scope (403), body (4xx), then the handler. A path that does not
exist is told to nobody without a key.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fanout import limits
from fanout.api import bodies
from fanout.api.auth import NOBODY, KeyRecord, Keys, Scope
from fanout.errors import Refused

log = logging.getLogger("fanout.api")

Handler = Callable[["Call"], Awaitable[Any]]


class Call(NamedTuple):
    """One request, checked: who calls, the path's parameters, the decoded body (None where the call takes none).

    `holds`: whether its key is still good, for answers that go on.
    """

    key: KeyRecord
    path: dict[str, Any]
    body: Any
    request: Request
    holds: Callable[[], Awaitable[bool]]


class Row(NamedTuple):
    """One call of the API.

    `takes`, `answers`: structs of `fanout.wire`; `answers` None: the handler's own Response, of the type `media`.
    `quick`: reads a msgpack body into something better than `takes`, or answers None (see `bodies.read`).
    `scope` None: no key is asked for, since the handler checks a signature itself, or the address is the secret.
    """

    method: str
    path: str
    scope: Scope | None
    takes: type[Any] | None
    answers: Any
    handler: Handler
    summary: str
    status: int = 200
    streams: bool = False
    media: str = "text/event-stream"
    quick: Callable[[bytes], Any] | None = None


def build(rows: list[Row], open_routes: list[Route], keys: Keys, *, in_flight_max: int) -> Starlette:
    """The ASGI application. `open_routes` need no key (health, metrics, the OpenAPI document)."""
    room = _Room(in_flight_max)
    by_path: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_path.setdefault(row.path, {})[row.method] = row
    routes = [*open_routes, *(Route(path, _Endpoint(methods, keys, room)) for path, methods in by_path.items())]
    open_paths = frozenset(route.path for route in open_routes)
    routes.append(Route("/{rest:path}", _Endpoint({}, keys, room, open_paths)))
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})


class _Room:
    """How many requests are inside; more than `most` are turned away at the door."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside = 0


class _Endpoint:
    """One path with its methods, as an ASGI application: Starlette passes these through untouched."""

    def __init__(
        self, methods: dict[str, Row], keys: Keys, room: _Room, only_read: frozenset[str] = frozenset()
    ) -> None:
        self._methods = dict(methods)
        if (row := methods.get("GET")) is not None and not row.streams:
            self._methods["HEAD"] = row  # the server leaves the body out
        self._keys = keys
        self._room = room
        self._only_read = only_read  # paths that are somebody else's, and there take nothing but GET

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        row = self._methods.get(request.method)
        if self._room.inside >= self._room.most and not (row and row.streams):
            return bodies.write_error(request, Refused("too_many_requests", retry_s=1))
        self._room.inside += 1
        try:
            return await self._checked(request, row)
        except Refused as error:
            response = bodies.write_error(request, error)
            if error.code == "method_not_allowed":
                response.headers["Allow"] = ", ".join(sorted(self._methods or ("GET", "HEAD")))
            return response
        except Exception:
            incident = secrets.token_hex(6)
            log.exception("incident %s: %s %s", incident, request.method, request.url.path)
            return bodies.write_error(request, Refused("internal", incident=incident))
        finally:
            self._room.inside -= 1

    async def _checked(self, request: Request, row: Row | None) -> Response:
        any_row = row or next(iter(self._methods.values()), None)
        scope = any_row.scope if any_row else "actions"
        said = request.headers.get("authorization")
        key = NOBODY if scope is None else await self._keys.check(said, scope)
        if row is None and (self._methods or request.url.path in self._only_read):
            raise Refused("method_not_allowed", request.url.path, method=request.method)
        if row is None:
            raise Refused("not_found", request.url.path, what="address")
        body = None if row.takes is None else await bodies.read(request, row.takes, row.quick)
        holds = partial(self._keys.holds, said, scope or "actions")
        answer = await row.handler(Call(key, _path(request), body, request, holds))
        return answer if isinstance(answer, Response) else bodies.write(request, answer, row.status)


def _path(request: Request) -> dict[str, Any]:
    """The path's parameters. Errors: `Refused("not_found")` for a number that nothing can have."""
    for name, value in request.path_params.items():
        if isinstance(value, int) and value > limits.NUMBER_MAX:
            raise Refused("not_found", name, what="action")
    return dict(request.path_params)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return bodies.write_error(request, Refused("method_not_allowed", request.url.path, method=request.method))
    return bodies.write_error(request, Refused("not_found", request.url.path, what="address"))
