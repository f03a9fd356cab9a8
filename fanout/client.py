"""What an upstream action system imports: every call of the API as a method, over msgpack.

    from fanout import client, wire

    with client.Client("http://127.0.0.1:8080", key="fk_…") as fanout:
        accepted = fanout.start(wire.ActionRequest(reference="case-17", kind="missing_child", …))
        for view in fanout.follow(accepted.id):
            print(view.tallies[0].accepted)

Who of the area is reached may be narrowed, and live positions weighed, in an action and its preview alike:

    wire.PreviewRequest(…, languages=["nl"], age_groups=["adult"], live=wire.Live(mode="instead", fresh_s=60),
                        centre=wire.Point(coordinates=(6.56, 52.99)))

Rules:

1. What the engine refuses is raised as `fanout.errors.Refused`, with the engine's code, sentence and place. When no
   engine answers, or it stops in the middle, that is `Refused("engine_unreachable")`.
2. A connection that fails is tried again `RETRIES` times for calls that may be repeated without harm. That is all of
   them but positions: an action carries its reference, so `start` twice is one action.
3. The client is blocking and of one thread; systems of another mind use the API itself, see `fanout/api/README.md`.

`fanout.errors` and `fanout.wire` need msgspec alone; this module adds httpx.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

import httpx
import msgspec

from fanout import wire
from fanout.errors import CATALOGUE, Refused, rebuild

RETRIES: Final = 3
TIMEOUT_S: Final = 30.0
_MSGPACK: Final = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}

Answer = TypeVar("Answer")


class Client:
    """A connection to one engine.

    `address`: `http://host:port` or `https://…`; `key`: from `fanout key create`; `verify`: an SSL context for engines
    with a certificate of a private authority (and with our own certificate, where the engine asks for one).
    """

    def __init__(
        self, address: str, key: str, *, verify: ssl.SSLContext | bool = True, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}", **_MSGPACK},
            timeout=timeout_s,
            transport=httpx.HTTPTransport(verify=verify, retries=RETRIES),
            trust_env=False,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    # --- actions ----------------------------------------------------------------------------------------------------

    def start(self, request: wire.ActionRequest) -> wire.ActionAccepted:
        """Start an action; when this returns it is durable and under way."""
        return self._call("POST", "/v1/actions", request, wire.ActionAccepted)

    def preview(self, request: wire.PreviewRequest) -> wire.Preview:
        """What `start` would do, without effect."""
        return self._call("POST", "/v1/preview", request, wire.Preview)

    def view(self, action: int) -> wire.ActionView:
        """State and counts."""
        return self._call("GET", f"/v1/actions/{action}", None, wire.ActionView)

    def follow(self, action: int) -> Iterator[wire.ActionView]:
        """Views as they change, until the action is over."""
        path, headers = f"/v1/actions/{action}/events", {"Accept": "application/json"}
        try:
            with self._http.stream("GET", path, headers=headers, timeout=None) as response:
                if response.is_error:
                    response.read()
                    _raise(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield msgspec.json.decode(line[6:], type=wire.ActionView)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def update(self, action: int, request: wire.UpdateRequest) -> wire.ActionView:
        """Tell news of an action that goes on."""
        return self._call("POST", f"/v1/actions/{action}/update", request, wire.ActionView)

    def operators(self, action: int, request: wire.OperatorsRequest) -> wire.ActionView:
        """Say how many operators are free: lets the next waves of an action go."""
        return self._call("POST", f"/v1/actions/{action}/operators", request, wire.ActionView)

    def result(self, action: int, request: wire.ResultRequest) -> wire.ActionView:
        """Close an action and tell its result."""
        return self._call("POST", f"/v1/actions/{action}/result", request, wire.ActionView)

    def cancel(self, action: int, request: wire.ReasonRequest) -> wire.ActionView:
        """Stop an action without a result."""
        return self._call("POST", f"/v1/actions/{action}/cancel", request, wire.ActionView)

    def pause(self, action: int, request: wire.ReasonRequest) -> wire.ActionView:
        """Hold back what is unsent."""
        return self._call("POST", f"/v1/actions/{action}/pause", request, wire.ActionView)

    def resume(self, action: int, request: wire.ReasonRequest) -> wire.ActionView:
        """Let a paused action go on."""
        return self._call("POST", f"/v1/actions/{action}/resume", request, wire.ActionView)

    def withdraw_posts(self, action: int) -> wire.ActionView:
        """Remove what accounts posted of an action at social networks, and post nothing more of it."""
        return self._call("DELETE", f"/v1/actions/{action}/posts", None, wire.ActionView)

    def put_photo(self, file: bytes) -> wire.Photo:
        """Take a picture in (JPEG, PNG or WebP); its `hash` is what an action's `photo` names."""
        return self._call("POST", "/v1/media", file, wire.Photo)

    # --- participants and boards ------------------------------------------------------------------------------------

    def put_participants(self, participants: Sequence[wire.Participant]) -> wire.ParticipantsAccepted:
        """Register or replace a batch; at most `limits.PARTICIPANTS_PER_REQUEST_MAX`."""
        request = wire.ParticipantsRequest(participants=list(participants))
        return self._call("PUT", "/v1/participants", request, wire.ParticipantsAccepted)

    def erase(self, participant: str) -> wire.Erased:
        """Erase one participant, at once."""
        return self._call("DELETE", f"/v1/participants/{participant}", None, wire.Erased)

    def positions(self, positions: Sequence[wire.LivePosition]) -> wire.PositionsAccepted:
        """Live positions: for a while they count beside people's places, or as an action's `live` has it."""
        request = wire.PositionsRequest(positions=list(positions))
        return self._call("POST", "/v1/positions", request, wire.PositionsAccepted)

    def boards(self) -> wire.BoardList:
        """All boards."""
        return self._call("GET", "/v1/boards", None, wire.BoardList)

    def board_key(self) -> wire.BoardKey:
        """The public key that boards verify documents with. `Refused("not_found")`: documents are not signed."""
        return self._call("GET", "/v1/keys/boards", None, wire.BoardKey)

    def is_ready(self) -> bool:
        """Whether the engine takes actions."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    # --- inside -----------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: Any, answers: type[Answer]) -> Answer:
        content = body if body is None or isinstance(body, bytes) else wire.encode_msgpack(body)
        try:
            response = self._http.request(method, path, content=content)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            _raise(response)
        return msgspec.msgpack.decode(response.content, type=answers)

    def _unreachable(self, error: httpx.TransportError) -> Refused:
        return Refused(
            "engine_unreachable",
            address=str(self._http.base_url),
            detail=str(error).rstrip(".") or type(error).__name__,
        )


def _raise(response: httpx.Response) -> None:
    decoder: Any = msgspec.msgpack if "msgpack" in response.headers.get("content-type", "") else msgspec.json
    try:
        error = decoder.decode(response.content, type=wire.ErrorBody)
    except msgspec.DecodeError:
        response.raise_for_status()
        raise
    if error.code not in CATALOGUE:
        response.raise_for_status()
    raise rebuild(error.code, error.where, error.message)


__all__ = ["Client", "Refused"]
