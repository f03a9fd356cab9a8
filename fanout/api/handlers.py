"""What each call does: a line or two from the checked request to the engine and back. No decision is made here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fanout import limits, wire
from fanout.api import bodies
from fanout.api.events import Changes, stream
from fanout.api.openapi import document
from fanout.api.routes import Call, Row
from fanout.engine import Boards, Engine
from fanout.errors import Refused
from fanout.media.shelf import MIME, Shelf
from fanout.registry.bodies import Positions, positions
from fanout.registry.registry import Registry

VERSION = "1"
HARMLESS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}
"""For answers that a browser might open and that began as a stranger's file."""


class Handlers:
    """The handlers of all calls, over the services that `app` composed."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        boards: Boards,
        changes: Changes,
        clock_ms: Callable[[], int],
        readiness: Callable[[], dict[str, str] | None],
        metrics: CollectorRegistry,
        shelf: Shelf,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._boards = boards
        self._changes = changes
        self._clock_ms = clock_ms
        self._readiness = readiness
        self._metrics = metrics
        self._shelf = shelf
        self._pictures = trio.CapacityLimiter(limits.PICTURES_AT_ONCE)

    def rows(self) -> list[Row]:
        """The table of calls."""
        view, action = wire.ActionView, "/v1/actions/{id:int}"
        return [
            Row("POST", "/v1/actions", "actions", wire.ActionRequest, wire.ActionAccepted, self.start_action,
                "Start an action: everyone in its area gets it.", 201),
            Row("POST", "/v1/preview", "actions", wire.PreviewRequest, wire.Preview, self.preview_action,
                "What an action would do, without doing it."),
            Row("GET", action, "actions", None, view, self.get_action, "State and counts of an action."),
            Row("GET", action + "/boards", "actions", None, wire.BoardProofList, self.prove_action,
                "Every board of an action: when it was told, showed it, took it down, and why it lags."),
            Row("GET", action + "/events", "actions", None, None, self.follow_action,
                "The same as a live stream of server-sent events, until it is over.", streams=True),
            Row("POST", action + "/update", "actions", wire.UpdateRequest, view, self.update_action,
                "Tell news of an action that goes on to everyone who got it."),
            Row("POST", action + "/operators", "actions", wire.OperatorsRequest, view, self.report_operators,
                "How many operators are free: lets the next waves of an action go."),
            Row("POST", action + "/result", "actions", wire.ResultRequest, view, self.close_action,
                "Close an action and tell its result to everyone who got it."),
            Row("POST", action + "/cancel", "actions", wire.ReasonRequest, view, self.cancel_action,
                "Stop an action without a result."),
            Row("POST", action + "/pause", "actions", wire.ReasonRequest, view, self.pause_action,
                "Hold back what is unsent."),
            Row("POST", action + "/resume", "actions", wire.ReasonRequest, view, self.resume_action,
                "Let a paused action go on."),
            Row("DELETE", action + "/posts", "actions", None, view, self.withdraw_posts,
                "Remove what our accounts posted of it, and post nothing more."),
            Row("POST", "/v1/media", "actions", None, wire.Photo, self.put_media,
                "Take a picture in, as the bytes of a JPEG, PNG or WebP: name its hash as an action's photo.", 201),
            Row("GET", "/v1/media/{hash}", None, None, None, self.get_media,
                "A picture. It never changes.", media="image/jpeg"),
            Row("GET", "/v1/media/{hash}/thumbnail", None, None, None, self.get_thumbnail,
                "The same, 320 pixels at most.", media="image/jpeg"),
            Row("PUT", "/v1/participants", "participants", wire.ParticipantsRequest, wire.ParticipantsAccepted,
                self.put_participants, "Register or replace participants, a batch at once."),
            Row("DELETE", "/v1/participants/{participant}", "participants", None, wire.Erased, self.erase_participant,
                "Erase a participant: nothing is sent to them from now on."),
            Row("POST", "/v1/positions", "participants", wire.PositionsRequest, wire.PositionsAccepted,
                self.post_positions, "Live positions: kept in memory until they expire.", quick=positions),
            Row("POST", "/v1/receipts/{provider}", None, None, wire.ReceiptsAccepted, self.post_receipts,
                "Delivery receipts in the provider's own form, signed by it."),
            Row("GET", "/v1/boards", "actions", None, wire.BoardList, self.list_boards,
                "All boards: what they can, what they shall show, what they say they show."),
            Row("GET", "/v1/boards/{board}", "actions", None, wire.BoardView, self.get_board, "One board."),
            Row("GET", "/v1/keys/boards", "actions", None, wire.BoardKey, self.get_board_key,
                "The public key that boards verify documents with; 404 when they are not signed."),
        ]  # fmt: skip

    def open_routes(self) -> list[Route]:
        """Calls that need no key."""
        return [
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._show_metrics),
            Route("/openapi.json", self._openapi),
        ]

    # --- actions ----------------------------------------------------------------------------------------------------

    async def start_action(self, call: Call) -> wire.ActionAccepted:
        return await self._engine.start(call.key.tenant, call.body)

    async def preview_action(self, call: Call) -> wire.Preview:
        return await self._engine.preview(call.key.tenant, call.body)

    async def get_action(self, call: Call) -> wire.ActionView:
        return await self._engine.view(call.key.tenant, call.path["id"])

    async def prove_action(self, call: Call) -> wire.BoardProofList:
        shown = await self._engine.view(call.key.tenant, call.path["id"])
        return wire.BoardProofList(boards=self._boards.proofs(shown.id))

    async def follow_action(self, call: Call) -> Response:
        await self._engine.view(call.key.tenant, call.path["id"])
        events = stream(self._engine, self._changes, call.key.tenant, call.path["id"], call.holds)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def update_action(self, call: Call) -> wire.ActionView:
        return await self._engine.update(call.key.tenant, call.path["id"], call.body)

    async def report_operators(self, call: Call) -> wire.ActionView:
        return await self._engine.operators(call.key.tenant, call.path["id"], call.body)

    async def close_action(self, call: Call) -> wire.ActionView:
        return await self._engine.result(call.key.tenant, call.path["id"], call.body)

    async def cancel_action(self, call: Call) -> wire.ActionView:
        return await self._engine.cancel(call.key.tenant, call.path["id"])

    async def pause_action(self, call: Call) -> wire.ActionView:
        return await self._engine.pause(call.key.tenant, call.path["id"], paused=True)

    async def resume_action(self, call: Call) -> wire.ActionView:
        return await self._engine.pause(call.key.tenant, call.path["id"], paused=False)

    async def withdraw_posts(self, call: Call) -> wire.ActionView:
        return await self._engine.withdraw_posts(call.key.tenant, call.path["id"])

    # --- pictures ---------------------------------------------------------------------------------------------------

    async def put_media(self, call: Call) -> wire.Photo:
        file = await bodies.read_bytes(call.request)
        return await trio.to_thread.run_sync(self._shelf.put, file, limiter=self._pictures)

    async def get_media(self, call: Call) -> Response:
        return await self._picture(call, thumbnail=False)

    async def get_thumbnail(self, call: Call) -> Response:
        return await self._picture(call, thumbnail=True)

    async def _picture(self, call: Call, *, thumbnail: bool) -> Response:
        name = call.path["hash"]
        tag = f'"{name}-small"' if thumbnail else f'"{name}"'
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "ETag": tag} | HARMLESS
        file = await trio.to_thread.run_sync(partial(self._shelf.get, name, thumbnail=thumbnail))
        if tag in call.request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file, media_type=MIME, headers=headers)

    # --- participants -----------------------------------------------------------------------------------------------

    async def put_participants(self, call: Call) -> wire.ParticipantsAccepted:
        participants = call.body.participants
        version = await trio.to_thread.run_sync(self._registry.upsert, participants)
        return wire.ParticipantsAccepted(upserted=len(participants), version=version)

    async def erase_participant(self, call: Call) -> wire.Erased:
        erased = await trio.to_thread.run_sync(self._registry.erase, [call.path["participant"]])
        if not erased:
            raise Refused("not_found", "participant", what="participant")
        return wire.Erased(erased=erased)

    async def post_positions(self, call: Call) -> wire.PositionsAccepted:
        if isinstance(call.body, Positions):
            take = partial(self._registry.positions_of, *call.body, self._clock_ms())
        else:
            take = partial(self._registry.positions, call.body.positions, self._clock_ms())
        accepted, unknown = await trio.to_thread.run_sync(take)
        return wire.PositionsAccepted(accepted=accepted, unknown=unknown)

    # --- what comes back --------------------------------------------------------------------------------------------

    async def post_receipts(self, call: Call) -> wire.ReceiptsAccepted:
        body = await bodies.read_bytes(call.request, most=limits.RECEIPTS_BODY_BYTES_MAX)
        return await self._engine.take_receipts(call.path["provider"], call.request.headers, body)

    # --- boards -----------------------------------------------------------------------------------------------------

    async def list_boards(self, call: Call) -> wire.BoardList:
        return wire.BoardList(boards=self._boards.views())

    async def get_board(self, call: Call) -> wire.BoardView:
        board = self._boards.view(call.path["board"])
        if board is None:
            raise Refused("not_found", "board", what="board")
        return board

    async def get_board_key(self, call: Call) -> wire.BoardKey:
        key = self._boards.key()
        if key is None:
            raise Refused("not_found", "signage.signing_key", what="key: documents of boards are not signed")
        return key

    # --- for ops ----------------------------------------------------------------------------------------------------

    async def _healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _readyz(self, request: Request) -> Response:
        why_not = self._readiness()
        return JSONResponse({"status": "ready"}) if why_not is None else JSONResponse(why_not, 503)

    async def _show_metrics(self, request: Request) -> Response:
        page = await trio.to_thread.run_sync(generate_latest, self._metrics)
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(document(self.rows(), VERSION))
