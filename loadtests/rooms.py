"""The story of a control room, as locust plays it: preview, start, follow, close.

Locust patches the standard library when it is imported (gevent), so this module and its process import nothing of the
engine but `fanout.wire`; the engine runs in processes of its own, started by `python -m loadtests`.

A room draws an area (previews, as an operator does who moves a circle), starts an action, looks at its counts a few
times a second until nothing waits, checks that the sums add up, and closes it with a result. Names of requests are the
calls of the API, so the percentiles are those of the calls.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import gevent
import msgspec
from locust import FastHttpUser, between, task
from locust.contrib.fasthttp import ResponseContextManager

from fanout import wire

PREVIEWS_PER_ACTION = 5
LOOK_EVERY_S = 0.25
PATIENCE_S = 30.0
# Towns of the Netherlands: longitude, latitude.
TOWNS = [
    (4.8897, 52.374),
    (6.5625, 52.9967),
    (5.1222, 52.0908),
    (5.4697, 51.4408),
    (6.0944, 52.5125),
    (4.4792, 51.9225),
]
TEXT = {"nl": "Vermist: meisje, 8 jaar, rode jas. Gezien? Bel 0800-0011."}
HEADERS = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}


class ControlRoom(FastHttpUser):
    """One operator. Think times are short: a minute of this is a busy night."""

    wait_time = between(0.2, 1.0)

    def on_start(self) -> None:
        self.headers = {"Authorization": f"Bearer {os.environ['FANOUT_KEY']}", **HEADERS}
        self.number = 0

    @task
    def action(self) -> None:
        """The whole life of one action."""
        lon, lat = random.choice(TOWNS)
        area = wire.Circle(lon=lon, lat=lat, radius_m=random.uniform(300, 2_000))
        for _ in range(PREVIEWS_PER_ACTION):
            area = wire.Circle(lon=area.lon + 1e-4, lat=area.lat, radius_m=area.radius_m)
            preview = wire.PreviewRequest(kind="missing_child", area=area, texts=TEXT)
            shown = self.call("POST", "/v1/preview", preview, wire.Preview)
            if shown is None or not (shown.people or shown.boards.boards):
                return
        self.number += 1
        request = wire.ActionRequest(
            reference=f"room-{id(self)}-{self.number}-{time.time_ns()}",
            kind="missing_child",
            area=area,
            texts=TEXT,
            end_ms=int(time.time() * 1000) + 600_000,
        )
        accepted = self.call("POST", "/v1/actions", request, wire.ActionAccepted)
        if accepted is not None and self.follow(accepted):
            result = wire.ResultRequest(reference="end", outcome="none", texts={"nl": "Gevonden. Dank u wel."})
            self.call("POST", f"/v1/actions/{accepted.id}/result", result, wire.ActionView, "/v1/actions/{id}/result")

    def follow(self, accepted: wire.ActionAccepted) -> bool:
        """Look until everyone is told; True if so in time, and every sum added up."""
        give_up_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_s:
            view = self.call("GET", f"/v1/actions/{accepted.id}", None, wire.ActionView, "/v1/actions/{id}")
            if view is None:
                return False
            tally = view.tallies[0]
            if not tally.waiting:
                return True
            gevent.sleep(LOOK_EVERY_S)
        self.environment.events.request.fire(
            request_type="PROMISE", name="everyone told in time", response_time=PATIENCE_S * 1000, response_length=0,
            exception=TimeoutError(f"action {accepted.id}"), context={},
        )  # fmt: skip
        return False

    def call(self, method: str, path: str, body: Any, answers: Any, name: str | None = None) -> Any:
        """One call of the API, decoded; None where it failed, which locust then counts."""
        content = None if body is None else wire.encode_msgpack(body)
        with self.client.request(
            method, path, data=content, headers=self.headers, name=name or path, catch_response=True
        ) as response:
            assert isinstance(response, ResponseContextManager)
            if response.status_code not in (200, 201):
                response.failure(f"{response.status_code}: {response.text[:200]}")
                return None
            answer = msgspec.msgpack.decode(response.content, type=answers)
            wrong = _wrong_sums(answer)
            if wrong:
                response.failure(wrong)
                return None
            response.success()
            return answer


def _wrong_sums(answer: Any) -> str:
    if isinstance(answer, wire.ActionView):
        for tally in answer.tallies:
            parts = tally.waiting + tally.accepted + tally.failed + tally.expired + tally.cancelled + tally.unknown
            if parts != tally.selected:
                return f"{tally.phase}: selected {tally.selected} is not the sum {parts}"
    return ""
