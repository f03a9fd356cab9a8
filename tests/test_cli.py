"""The command line: every command helps, and a refusal is one sentence and status 1."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from fanout.cli import cli
from signage.broker import free_port

runner = CliRunner()


def commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = getattr(command, "commands", {})
    return [path, *(deep for name, each in inner.items() for deep in commands(each, (*path, name)))]


ALL = commands(typer.main.get_command(cli))


def test_the_commands_there_must_be() -> None:
    wanted = {
        ("demo",), ("serve",), ("participants", "import"), ("key", "create"), ("action", "start"), ("action", "result"),
        ("simulate", "providers"),
    }  # fmt: skip
    assert wanted <= set(ALL)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_helps(path: tuple[str, ...]) -> None:
    if path == ("simulate", "providers"):
        return  # `test_the_simulators_tell_their_own_options`
    result = runner.invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(result.output.splitlines()) >= 6


SIMULATE = [sys.executable, "-m", "fanout.cli", "simulate", "providers"]


def plain(output: str) -> str:
    """Without colours, which a CI may ask for (FORCE_COLOR) and which stand between `-` and `-port`."""
    return re.sub(r"\x1b\[[0-9;]*m", "", output)


def test_the_simulators_tell_their_own_options() -> None:
    shown = subprocess.run([*SIMULATE, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(option in plain(shown) for option in ("--port", "--moods", "--workers"))


def test_who_ends_the_simulators_leaves_none_behind(tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen([*SIMULATE, "--port", str(port), "--folder", str(tmp_path)]) as simulators:
        try:
            while not answers(port):
                assert simulators.poll() is None, "the simulators ended before they began"
        finally:
            simulators.terminate()
    assert not answers(port)


def test_simulators_that_cannot_write_their_certificates_say_so(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    ended = subprocess.run([*SIMULATE, "--folder", str(taken)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, f"simulators: {taken}: File exists\n")


def test_an_address_that_is_none_is_one_sentence() -> None:
    asked = ["action", "start", "Vermist", "--key", "k", "--lon", "5", "--lat", "52", "--address", "nonsense"]
    ended = runner.invoke(cli, asked)
    assert ended.exit_code == 1
    assert ended.stderr.startswith("engine_unreachable: ")
    assert ended.stderr.endswith("protocol.\n")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_no_help_loses_what_stands_in_brackets() -> None:
    shown = runner.invoke(cli, ["action", "start", "--help"], terminal_width=200).output
    assert "[kinds.NAME]" in plain(shown)
    assert "[tenants.NAME]" in plain(runner.invoke(cli, ["key", "create", "--help"], terminal_width=200).output)


def test_a_refusal_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANOUT__ENGINE__DATA", str(tmp_path))
    result = runner.invoke(cli, ["key", "create", "--tenant", "nobody"])
    assert result.exit_code == 1
    assert "tenant_unknown" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [["serve"], ["participants", "import", "nobody.csv"], ["key", "list"]])
def test_a_data_folder_that_cannot_be_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "data").write_text("a file")
    (tmp_path / "nobody.csv").write_text("id,lon,lat\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FANOUT__ENGINE__DATA", str(tmp_path / "data"))
    result = runner.invoke(cli, command)
    assert result.exit_code == 1
    assert "data_unwritable" in result.stderr
    assert str(tmp_path / "data") in result.stderr.replace("\n", "")
    assert "Traceback" not in result.output


def test_a_disk_that_fills_up_during_a_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(*_: object) -> None:
        raise ExceptionGroup("nursery", [OSError(28, "No space left on device", str(tmp_path / "run" / "api.new"))])

    monkeypatch.setattr("fanout.cli.serve_until_told", serve)
    result = runner.invoke(cli, ["serve"])
    assert result.exit_code == 1
    assert "data_unwritable" in result.stderr
    assert "No space left on device" in result.stderr


def test_keys_are_made_listed_and_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANOUT__ENGINE__DATA", str(tmp_path))
    made = runner.invoke(cli, ["key", "create", "--name", "room 3"])
    secret = made.output.strip()
    assert secret.startswith("fk_")
    listed = runner.invoke(cli, ["key", "list"]).output
    assert "room 3" in listed
    assert secret not in listed
    import hashlib

    prefix = hashlib.sha256(secret.encode()).hexdigest()[:12]
    for less in ("", prefix[:1], prefix[:7]):
        assert runner.invoke(cli, ["key", "revoke", less]).exit_code == 2, "it would be the end of many"
    assert "room 3" in runner.invoke(cli, ["key", "list"]).output
    assert "1 revoked" in runner.invoke(cli, ["key", "revoke", prefix]).output
    assert "room 3" not in runner.invoke(cli, ["key", "list"]).output
    assert runner.invoke(cli, ["key", "revoke", prefix]).exit_code == 1
