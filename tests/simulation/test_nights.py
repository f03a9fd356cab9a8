"""The whole engine under a virtual clock, with seeded faults. A failing seed is in the name of its test."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.simulation.town import live
from tests.simulation.world import run_here


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("seed", range(1_000 if metafunc.config.getoption("--long") else 25))


def test_a_night_keeps_every_promise(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
    live(tmp_path, seed)
