"""A running engine for tests, benches and load tests: its own processes, a made-up nation, provider simulators.

    with open_stage(folder, people=3_000) as stage:
        accepted = stage.engine.start(stage.request(wire.Everyone(), "case-1"))

Everything is fenced and on loopback; all processes end with the context. `stop_engine(hard=True)` is kill -9, and
`start_engine` after it goes on with the same data.
"""

from __future__ import annotations

import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from fanout import app, wire
from fanout.api.auth import SCOPES, Scope, create_key
from fanout.client import Client
from fanout.demo import world
from fanout.demo.crew import Crew
from fanout.settings import load
from fanout.stores import open_store

PATIENCE_S: Final = 300.0
PEOPLE_PER_S: Final = 10_000  # a busy machine at its slowest: patience grows with the nation
LOOK_EVERY_S: Final = 0.05  # each look counts the action's rows, on the cores that are measured


class Stage:
    """What a test or bench drives. `engine` is the client, with a key of every scope (`key`); `scene` has the files."""

    engine: Client
    address: str
    key: str

    def __init__(self, crew: Crew, scene: world.World) -> None:
        self.crew = crew
        self.scene = scene
        self.patience_s = PATIENCE_S
        self.providers = scene.providers
        self.tls = ssl.create_default_context(cafile=str(scene.certificates / "ca.pem"))

    def start_engine(self) -> float:
        """Start it and wait until it is ready; returns the seconds that took."""
        run_file = self.scene.data / "run" / "api"
        run_file.unlink(missing_ok=True)
        config = ["--config", str(self.scene.settings_file)]
        self.crew.start("engine", [sys.executable, "-m", "fanout.cli", "serve", *config])
        took_s = self.crew.wait_for("the engine", run_file.exists, PATIENCE_S)
        self.address, self.key = run_file.read_text().strip(), self.new_key(SCOPES)
        self.engine = Client(self.address, self.key)
        world.set_moods(self.scene, self.address)
        return took_s

    def stop_engine(self, *, hard: bool = False) -> None:
        """End it in order, or with SIGKILL."""
        self.engine.close()
        self.crew.end("engine", hard=hard)

    def new_key(self, scopes: tuple[Scope, ...]) -> str:
        """A key of the tenant `police`."""
        store = open_store(load(self.scene.settings_file))
        try:
            return create_key(store, "police", "stage", scopes, app.clock_ms())
        finally:
            store.close_store()

    def request(self, area: wire.Area, reference: str, **changes: Any) -> wire.ActionRequest:
        """An action on all channels, for an hour."""
        fields: dict[str, Any] = {
            "reference": reference,
            "kind": "missing_child",
            "area": area,
            "texts": {"nl": "Vermist: meisje, 8 jaar, rode jas. Bel 0800-0011.", "en": "Missing: girl, 8, red coat."},
            "end_ms": app.clock_ms() + 3_600_000,
        }
        return wire.ActionRequest(**{**fields, **changes})

    def wait_settled(self, action: int) -> wire.ActionView:
        """Until nothing of the action waits. Errors: `TimeoutError`."""
        return self.wait_waiting(action, 0)

    def wait_waiting(self, action: int, most: int, *, every_s: float = LOOK_EVERY_S) -> wire.ActionView:
        """Until at most so many wait, looking every so often. Errors: `TimeoutError`."""
        pause, give_up_s = threading.Event(), time.monotonic() + self.patience_s
        while time.monotonic() < give_up_s:
            view = self.engine.view(action)
            if sum(tally.waiting for tally in view.tallies) <= most:
                return view
            self.crew.check()
            pause.wait(every_s)
        raise TimeoutError(f"action {action} is not settled after {self.patience_s:.0f} s")

    def wait_delivered(self, action: int) -> wire.ActionView:
        """Until a receipt of the action's first message has come. Errors: `TimeoutError`."""
        pause, give_up_s = threading.Event(), time.monotonic() + self.patience_s
        while time.monotonic() < give_up_s:
            view = self.engine.view(action)
            if view.tallies[0].delivered:
                return view
            self.crew.check()
            pause.wait(LOOK_EVERY_S)
        raise TimeoutError(f"action {action} has no receipt after {self.patience_s:.0f} s")

    def seen(self, action: int) -> dict[str, Any]:
        """What the provider simulators counted of an action."""
        url, query = f"{self.providers}/_seen", {"action": action}
        answer: dict[str, Any] = httpx.get(url, params=query, verify=self.tls, trust_env=False, timeout=60).json()
        return answer


@contextmanager
def open_stage(
    folder: Path,
    people: int,
    *,
    seed: int = 1,
    senders: int = 1,
    more_settings: str = "",
    voice_per_s: float = world.VOICE_PER_S,
) -> Iterator[Stage]:
    """Everything up and ready; ended when the context ends. `more_settings`: TOML after the demo's."""
    scene = world.make(folder / "world", people, 1, seed, senders, voice_per_s=voice_per_s)
    with scene.settings_file.open("a") as settings:
        settings.write(more_settings)
    python, config = sys.executable, ["--config", str(scene.settings_file)]
    with Crew(folder / "logs") as crew:
        port, certificates = str(scene.provider_port), str(scene.certificates)
        crew.start("providers", [python, "-m", "fanout.simulators.providers", "--port", port, "--folder", certificates])
        crew.start("import", [python, "-m", "fanout.cli", "participants", "import", str(scene.people_file), *config])
        patience_s = PATIENCE_S + people / PEOPLE_PER_S
        crew.finish("import", patience_s)
        crew.wait_for("the simulators", partial(world.simulators_answer, scene), PATIENCE_S)
        stage = Stage(crew, scene)
        stage.patience_s = patience_s
        stage.start_engine()
        try:
            yield stage
        finally:
            stage.engine.close()
