"""Made-up histories, lived by the embedded store and by the naive ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.history import History
from tests.store.test_sqlite_store import place_in


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("seed", range(1_000 if metafunc.config.getoption("--long") else 30))


def test_the_embedded_store_lives_as_the_naive_ledger_does(tmp_path: Path, seed: int) -> None:
    with place_in(tmp_path) as place:
        History(place(), place(), seed).live(150)
