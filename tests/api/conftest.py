"""One real engine for the tests of the API: its own processes, a small nation, provider simulators, all on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fanout import app
from fanout.api.auth import SCOPES, create_key
from fanout.client import Client
from fanout.demo import world
from fanout.demo.crew import Crew
from fanout.settings import load

PEOPLE = 3_000
RECEIPT_SECRET = "a shared secret"


class Running(NamedTuple):
    """A running engine: its address, a key with every scope, one that may only register people, and its files."""

    address: str
    key: str
    registrar_key: str
    scene: world.World


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("engine")
    scene = world.make(folder / "world", PEOPLE, 20, seed=3, senders=1)
    with scene.settings_file.open("a") as settings:
        settings.write(f'receipt_secret = "{RECEIPT_SECRET}"\n')  # the file ends in [providers.sms]
    python, config = sys.executable, ["--config", str(scene.settings_file)]
    with Crew(folder / "logs") as crew:
        port, certificates = str(scene.provider_port), str(scene.certificates)
        crew.start(
            "providers",
            [python, "-m", "fanout.simulators.providers", "--port", port, "--folder", certificates],
        )
        crew.start("import", [python, "-m", "fanout.cli", "participants", "import", str(scene.people_file), *config])
        crew.finish("import", 120)
        crew.wait_for("the simulators", (scene.certificates / "ca.pem").exists, 60)
        crew.start("engine", [python, "-m", "fanout.cli", "serve", *config])
        crew.wait_for("the engine", (scene.data / "run" / "api").exists, 120)
        store = app.open_store(load(scene.settings_file))
        key = create_key(store, "police", "tests", SCOPES, app.clock_ms())
        registrar_key = create_key(store, "police", "registrar", ("participants",), app.clock_ms())
        store.close_store()
        yield Running((scene.data / "run" / "api").read_text().strip(), key, registrar_key, scene)


@pytest.fixture
def engine(running: Running) -> Iterator[Client]:
    with Client(running.address, running.key) as client:
        yield client
