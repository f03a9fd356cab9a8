"""`python -m loadtests`: a minute of control rooms, headless, against a fenced engine that it starts itself.

The engine, its senders, the provider simulators and locust are processes of their own; all end with this one. The
percentiles per call are printed by locust; afterwards the simulators are asked whether anybody was rung twice. The exit
status is 1 when a request failed, a sum did not add up, or somebody was rung twice.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fanout.demo.stage import Stage, open_stage
from fanout.errors import Refused

HERE = Path(__file__).resolve().parent


def main(
    rooms: Annotated[int, typer.Option(min=1, help="Control rooms at work at once.")] = 10,
    seconds: Annotated[int, typer.Option(min=5, help="How long.")] = 60,
    participants: Annotated[int, typer.Option(min=1_000, help="People registered.")] = 200_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same nation.")] = 1,
) -> None:
    """Start an engine, let control rooms work on it, and print the percentiles of every call."""
    with tempfile.TemporaryDirectory() as folder:
        with open_stage(Path(folder), participants, seed=seed) as stage:
            failed = _locust(stage, rooms, seconds)
            doubled = _doubled(stage)
        print(f"rung twice: {doubled}")
    raise typer.Exit(1 if failed or doubled else 0)


def _locust(stage: Stage, rooms: int, seconds: int) -> bool:
    command = [
        sys.executable, "-m", "locust", "--headless", "--only-summary", "--locustfile", str(HERE / "rooms.py"),
        "--host", stage.address, "--users", str(rooms), "--spawn-rate", str(max(1, rooms // 2)),
        "--run-time", f"{seconds}s", "--stop-timeout", "30",
    ]  # fmt: skip
    environment = {**os.environ, "FANOUT_KEY": stage.key}
    return subprocess.run(command, env=environment, cwd=HERE.parent, check=False).returncode != 0


def _doubled(stage: Stage) -> int:
    """People that got one phase of one action more than once, over all actions, as the simulators counted them."""
    doubled = 0
    for action in itertools.count(1):
        try:
            stage.engine.view(action)
        except Refused:
            return doubled
        doubled += stage.seen(action)["doubled_count"]
    raise AssertionError("unreachable: actions end")


if __name__ == "__main__":
    typer.run(main)
