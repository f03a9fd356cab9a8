"""The life of an action from the command line, against a real engine: in waves, with an update, to its result."""

from __future__ import annotations

import re

from typer.testing import CliRunner

from fanout.cli import cli
from tests.api.conftest import Running


def run(running: Running, *words: str, fails: bool = False) -> str:
    result = CliRunner().invoke(cli, ["action", *words, "--key", running.key, "--address", running.address])
    assert (result.exit_code != 0) is fails, result.output
    return result.output


def test_an_action_in_waves_is_started_updated_and_ended(running: Running) -> None:
    place = ("--lon", "4.9", "--lat", "52.37", "--radius", "8000")
    started = run(running, "start", "Vermist: jongen, 6 jaar.", *place, "--wave", "50", "--operators", "0")
    found = re.search(r"action (\d+): (\d+) people", started)
    assert found is not None
    action, people = found.groups()
    waves = -(-int(people) // 50)
    assert f"2 of {waves} waves of 50 people were let go" in run(running, "operators", action, "2")
    assert f"the update goes to {people} people" in run(running, "update", action, "Hij heeft een blauwe fiets.")
    ended = run(running, "result", action, "Gevonden, dank u wel.", "--outcome", "direct")
    assert f"action {action} is closed" in ended
    assert "action_not_open" in run(running, "operators", action, "1", fails=True)


def test_an_action_is_cancelled(running: Running) -> None:
    place = ("--lon", "4.9", "--lat", "52.37", "--radius", "8000")
    started = run(running, "start", "Vermist: jongen, 6 jaar.", *place, "--wave", "50", "--operators", "0")
    action, people = re.findall(r"action (\d+): (\d+) people", started)[0]
    assert f"action {action} is cancelled; {people} people were not told any more" in run(running, "cancel", action)
    assert "action_without_waves" in run(
        running, "operators", re.findall(r"action (\d+)", run(running, "start", "Brand.", *place))[0], "1", fails=True
    )


def test_whom_an_action_reaches_may_be_said(running: Running) -> None:
    place = ("--lon", "4.9", "--lat", "52.37", "--radius", "8000")

    def people(*words: str) -> int:
        return int(re.findall(r"action \d+: ([\d,]+) people", run(running, "start", "Brand.", *place, *words))[0])

    whole, dutch = people(), people("--speaks", "nl", "--live", "ignore")
    assert 0 < dutch < whole
    assert people("--nearest-to", "4.8,52.3,7.5", "--nearest-to", "4.9,52.4") == whole
    refused = {"--age-group=old": "field_invalid", "--nearest-to=4.9": "field_invalid", "--live=later": "field_invalid",
               "--nearest-to=4.9,99": "area_coordinate_range"}  # fmt: skip
    for wrong, code in refused.items():
        assert code in run(running, "start", "Brand.", *place, wrong, fails=True)
