"""A running engine for benches: its processes, the simulators, and a client. Shared by `life` and its neighbours."""

from __future__ import annotations

import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fanout import app, wire
from fanout.api.auth import SCOPES, create_key
from fanout.client import Client
from fanout.demo import world
from fanout.demo.crew import Crew
from fanout.settings import load

PATIENCE_S = 300.0
LOOK_EVERY_S = 0.01


class Stage(NamedTuple):
    """What a bench drives. `providers`: the simulators' address, to be verified with `tls`."""

    engine: Client
    address: str
    key: str
    crew: Crew
    scene: world.World
    providers: str
    tls: ssl.SSLContext

    def request(self, area: wire.Area, reference: str) -> wire.ActionRequest:
        """An action on push and SMS, for an hour."""
        return wire.ActionRequest(
            reference=reference,
            kind="missing_child",
            area=area,
            texts={"nl": "Vermist: meisje, 8 jaar, rode jas. Bel 0800-0011.", "en": "Missing: girl, 8, red coat."},
            end_ms=app.clock_ms() + 3_600_000,
        )

    def wait_settled(self, action: int) -> wire.ActionView:
        """Until nothing of the action waits. Errors: `TimeoutError`."""
        pause, give_up_s = threading.Event(), time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_s:
            view = self.engine.view(action)
            if not any(tally.waiting for tally in view.tallies):
                return view
            self.crew.check()
            pause.wait(LOOK_EVERY_S)
        raise TimeoutError(f"action {action} is not settled after {PATIENCE_S:.0f} s")


@contextmanager
def open_stage(folder: Path, people: int, *, boards: int, seed: int, senders: int = 2) -> Iterator[Stage]:
    """A made-up nation, an engine with senders, and the provider simulators; boards only if asked for."""
    scene = world.make(folder / "world", people, max(boards, 1), seed, senders)
    python, config = sys.executable, ["--config", str(scene.settings_file)]
    with Crew(folder / "logs") as crew:
        port, certificates = str(scene.provider_port), str(scene.certificates)
        crew.start("providers", [python, "-m", "fanout.simulators.providers", "--port", port, "--folder", certificates])
        crew.start("import", [python, "-m", "fanout.cli", "participants", "import", str(scene.people_file), *config])
        crew.finish("import", PATIENCE_S)
        crew.wait_for("the simulators", (scene.certificates / "ca.pem").exists, PATIENCE_S)
        crew.start("engine", [python, "-m", "fanout.cli", "serve", *config])
        crew.wait_for("the engine", (scene.data / "run" / "api").exists, PATIENCE_S)
        store = app.open_store(load(scene.settings_file))
        key = create_key(store, "police", "bench", SCOPES, app.clock_ms())
        store.close_store()
        tls = ssl.create_default_context(cafile=str(scene.certificates / "ca.pem"))
        address = (scene.data / "run" / "api").read_text().strip()
        with Client(address, key) as engine:
            yield Stage(engine, address, key, crew, scene, f"https://127.0.0.1:{scene.provider_port}", tls)
