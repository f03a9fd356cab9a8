"""A running simulator for the tests of posting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulators.kit import Providers, running_providers


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    with running_providers(tmp_path_factory.mktemp("networks")) as providers:
        yield providers


@pytest.fixture
def providers(running: Providers) -> Providers:
    """The simulator, obedient and with no memory."""
    running.http.delete("/_seen")
    running.moods()
    return running
