"""A control room as a locust user: looks before it acts, starts an action, follows it, tells the result.

Rules:

1. Of the engine this imports `fanout.wire` alone: locust patches the standard library when it is imported, and what is
   measured must not share a process with what measures.
2. A room begins a new story every `PACE_S` at most. The time of a story is also kept as events of its own (`told`,
   `result told`): from the request to the last person handed over, as the operator sees it.
3. A story whose sums do not add up is a failure, however fast it was.

    locust -f loadtests/control_room.py --headless -u 10 -r 5 -t 60s -H http://127.0.0.1:8080

with a key of the engine in the environment as FANOUT_KEY. `python -m loadtests` does all of it.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from typing import Any, Final

import gevent
from locust import FastHttpUser, constant_pacing, task

from fanout import wire

PACE_S: Final = float(os.environ.get("FANOUT_PACE_S", "2"))
LOOK_EVERY_S: Final = 0.05
PATIENCE_S: Final = 60.0
KEY: Final = os.environ.get("FANOUT_KEY", "")
SEED: Final = int(os.environ.get("FANOUT_SEED", "1"))

# name, longitude, latitude: towns of different size
TOWNS: Final = (
    ("Assen", 6.5625, 52.9967), ("Zwolle", 6.0944, 52.5125), ("Utrecht", 5.1222, 52.0908),
    ("Leiden", 4.4931, 52.1583), ("Breda", 4.7759, 51.5866), ("Venlo", 6.1681, 51.3700),
    ("Sneek", 5.6589, 53.0330), ("Middelburg", 3.6109, 51.5000), ("Hoorn", 5.0597, 52.6425),
)  # fmt: skip
TEXTS: Final = {"nl": "Vermist: meisje, 8 jaar, rode jas. Bel 0800-0011.", "en": "Missing: girl, 8, red coat."}
FOUND: Final = {"nl": "Het meisje is gezond gevonden. Dank u wel.", "en": "The girl was found safe. Thank you."}

_numbers = itertools.count(1)


class ControlRoom(FastHttpUser):
    """One operator at a desk."""

    wait_time = constant_pacing(PACE_S)

    def on_start(self) -> None:
        """Sit down: a key, a dice of one's own."""
        number = next(_numbers)
        self.name = f"room-{os.getpid()}-{number}"
        self.dice = random.Random(SEED * 1_000 + number)
        self.stories = 0

    @task
    def story(self) -> None:
        """Preview while the circle is dragged, start, follow, result, follow."""
        self.stories += 1
        _, lon, lat = self.dice.choice(TOWNS)
        circle = wire.Circle(lon=lon, lat=lat, radius_m=self.dice.choice((1_000.0, 2_000.0, 3_000.0)))
        for share in (0.5, 0.8):
            drawn = wire.Circle(lon=lon, lat=lat, radius_m=circle.radius_m * share)
            self.call("POST", "/v1/preview", wire.PreviewRequest(kind="missing_child", area=drawn, texts=TEXTS))
        request = wire.ActionRequest(
            reference=f"{self.name}-{self.stories}-{time.time_ns()}",
            kind="missing_child",
            area=circle,
            texts=TEXTS,
            end_ms=time.time_ns() // 1_000_000 + 3_600_000,
        )
        began_s = time.perf_counter()
        accepted = self.call("POST", "/v1/actions", request, wire.ActionAccepted)
        if accepted is None:
            return
        self.follow(accepted, "start", began_s)
        result = wire.ResultRequest(reference=f"{request.reference}-r", outcome="direct", texts=FOUND)
        began_s = time.perf_counter()
        path, name = f"/v1/actions/{accepted.id}/result", "/v1/actions/{id}/result"
        if self.call("POST", path, result, wire.ActionView, name) is not None:
            self.follow(accepted, "result", began_s)

    def follow(self, accepted: wire.ActionAccepted, phase: str, began_s: float) -> None:
        """Look until everyone of the phase is settled; the sums are checked then."""
        give_up_s = began_s + PATIENCE_S
        path, name = f"/v1/actions/{accepted.id}", "/v1/actions/{id}"
        while True:
            view = self.call("GET", path, None, wire.ActionView, name)
            tally = None if view is None else next((one for one in view.tallies if one.phase == phase), None)
            if tally is not None and not tally.waiting:
                self.tell(phase, began_s, tally, _wrong(tally, accepted.people if phase == "start" else None))
                return
            if time.perf_counter() > give_up_s:
                self.tell(phase, began_s, tally, "not settled in time")
                return
            gevent.sleep(LOOK_EVERY_S)

    def tell(self, phase: str, began_s: float, tally: wire.Tally | None, wrong: str) -> None:
        """Keep the time of a whole phase, and the engine's own figures, beside those of single requests."""
        whole_ms = (time.perf_counter() - began_s) * 1000
        figures = {"last person, as seen": whole_ms}
        if tally is not None and tally.first_ms is not None and tally.last_ms is not None:
            figures |= {"first person, by the ledger": tally.first_ms, "last person, by the ledger": tally.last_ms}
        for name, value in figures.items():
            self.environment.events.request.fire(
                request_type=phase.upper(),
                name=name,
                response_time=value,
                response_length=0,
                exception=AssertionError(wrong) if wrong else None,
                context={},
            )

    def call(self, method: str, path: str, body: Any, answers: Any = None, name: str | None = None) -> Any:
        """One request in msgpack; None if it failed, which locust has counted."""
        headers = {"Authorization": f"Bearer {KEY}", "Accept": "application/msgpack"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/msgpack"
            data = wire.encode_msgpack(body)
        with self.client.request(
            method, path, data=data, headers=headers, name=name or path, catch_response=True
        ) as response:
            if not 200 <= response.status_code < 300:
                response.failure(f"{response.status_code} {response.content[:200]!r}")
                return None
            return None if answers is None else wire.decode_msgpack(response.content, answers)


def _wrong(tally: wire.Tally, people: int | None) -> str:
    parts = tally.accepted + tally.failed + tally.expired + tally.cancelled + tally.unknown
    if tally.selected != parts:
        return f"selected {tally.selected}, but the parts make {parts}"
    if people is not None and tally.selected != people:
        return f"{people} people were promised, {tally.selected} are accounted for"
    return ""
