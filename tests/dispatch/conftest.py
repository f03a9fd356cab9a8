"""A running simulator for all tests of sending."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout.store.sqlite_store import SqliteStore
from tests.simulators.kit import Providers, running_providers


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    with running_providers(tmp_path_factory.mktemp("providers")) as providers:
        yield providers


@pytest.fixture
def providers(running: Providers) -> Providers:
    """The simulator, obedient and with no memory."""
    running.http.delete("/_seen")
    running.moods()
    return running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore.open(tmp_path / "ledger.db")
    yield found
    found.close_store()
