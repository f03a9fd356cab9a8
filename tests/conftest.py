"""What all tests share: the long option, Hypothesis profiles, and where real data may be found."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", deadline=None, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", default=False, help="more seeds and examples")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("long" if config.getoption("--long") else "ci")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if "long" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="a long search; run with --long"))


def pytest_collection_finish() -> None:
    """Modules and collected tests live to the end; to look for garbage seldom saves a twelfth of a simulated night."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20)


def _shared_data() -> Path | None:
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "data" / "SOURCES.md").is_file():
            return folder / "shared" / "data"
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real open data beside the project; the test is skipped where it is absent."""
    folder = _shared_data()
    if folder is None:
        pytest.skip("no shared/data beside the project: real geography is not here")
    return folder
