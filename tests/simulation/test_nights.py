"""The whole engine under a virtual clock, with seeded faults. A failing seed is in the name of its test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.simulation.town import live
from tests.simulation.world import run_here

SEEDS, SEEDS_LONG = 200, 5_000


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(SEEDS_LONG if metafunc.config.getoption("--long") else SEEDS))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a night lives. Nobody pulls a plug in it, so nothing waits for a disk."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_a_night_keeps_every_promise(folder: Path, seed: int) -> None:
    live(folder, seed)


def test_a_night_is_a_function_of_its_seed(folder: Path) -> None:
    for name in ("once", "again"):
        (folder / name).mkdir()
    once, again = live(folder / "once", 3), live(folder / "again", 3)
    assert once.told == again.told
    assert once.met == again.met
    assert once.phones.got == again.phones.got
