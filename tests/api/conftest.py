"""One real engine for the tests of the API: its own processes, a small nation, provider simulators, all on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from fanout.client import Client
from fanout.demo.stage import open_stage

PEOPLE = 3_000
MORE_SETTINGS = """
[tenants.village]
kinds = ["fire"]
people_max = 10
area_km2_max = 100.0
"""


class Running(NamedTuple):
    """A running engine: its address, a key with every scope, and one that may only register people."""

    address: str
    key: str
    registrar_key: str


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("engine")
    with open_stage(folder, PEOPLE, seed=3, senders=1, more_settings=MORE_SETTINGS) as stage:
        yield Running(stage.address, stage.key, stage.new_key(("participants",)))


@pytest.fixture
def engine(running: Running) -> Iterator[Client]:
    with Client(running.address, running.key) as client:
        yield client
