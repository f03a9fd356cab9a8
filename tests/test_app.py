"""The engine as ops meets it: one per folder, TLS and client certificates, and an end that leaves nothing behind."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from fanout import app, limits
from fanout.api.events import Changes
from fanout.demo.crew import Crew, CrewError
from fanout.errors import Refused
from fanout.geo import EVERYONE
from fanout.registry import view
from fanout.registry.registry import Registry
from fanout.selection import Query, choose
from fanout.simulators.tls import write as write_certificates
from fanout.store.sqlite_store import SqliteStore
from signage.broker import free_port
from tests.registry.naive_registry import person
from tests.simulators.kit import PATIENCE_S

SERVE = [sys.executable, "-m", "fanout.cli", "serve", "--config"]


def write_settings(folder: Path, more: str = "", *, senders: int = 1) -> Path:
    """Settings of an engine without people; its providers are not there, which keeps nobody from starting."""
    port = free_port()
    file = folder / "my.toml"
    file.write_text(
        f'[engine]\ndata = "{folder / "data"}"\n[senders]\nprocesses = {senders}\n'
        f'[providers.fcm]\nurl = "https://127.0.0.1:{port}"\n[providers.apns]\nurl = "https://127.0.0.1:{port}"\n{more}'
    )
    return file


def started(crew: Crew, settings: Path) -> tuple[int, str]:
    run_file = settings.parent / "data" / "run" / "api"
    run_file.unlink(missing_ok=True)
    pid = crew.start("engine", [*SERVE, str(settings)])
    crew.wait_for("the engine", run_file.exists, PATIENCE_S)
    return pid, run_file.read_text().strip()


def gone(pids: list[int]) -> bool:
    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
            return False

    return not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_all_its_processes_end_with_it(tmp_path: Path, how: signal.Signals) -> None:
    settings = write_settings(tmp_path, '[api]\nlisten = "127.0.0.1:0"\n', senders=2)
    with Crew(tmp_path / "logs") as crew:
        pid, _ = started(crew, settings)
        family = [pid, *crew.children("engine", "")]
        assert len(family) >= 4, "the engine, two senders and a broker"
        os.kill(pid, how)
        with pytest.raises(CrewError, match="engine ended"):
            crew.wait_for("the end of the engine", lambda: False, PATIENCE_S)
        with Crew(tmp_path / "waiting") as waiting:
            waiting.wait_for("the end of its children", lambda: gone(family), PATIENCE_S)


def test_a_second_engine_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, '[api]\nlisten = "127.0.0.1:0"\n', senders=0)
    with Crew(tmp_path / "logs") as crew:
        started(crew, settings)
        second = subprocess.run(
            [*SERVE, str(settings)], capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    assert second.returncode == 1
    assert "data_in_use" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = write_settings(tmp_path, f'[api]\nlisten = "127.0.0.1:{port}"\n', senders=0)
        run = subprocess.run([*SERVE, str(settings)], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode == 1
    assert "port_in_use" in run.stderr
    assert str(port) in run.stderr


def test_a_certificate_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, '[api]\nlisten = "127.0.0.1:0"\ntls_certificate = "none.pem"\n', senders=0)
    ended = subprocess.run([*SERVE, str(settings)], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert "api.tls_certificate: 'none.pem' with ''" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("there", [False, True])
def test_a_key_that_cannot_be_used_is_one_sentence(tmp_path: Path, there: bool) -> None:
    key = tmp_path / "key.p8"
    if there:
        key.write_text("no key")
    settings = write_settings(tmp_path, f'[providers.webpush]\nenabled = true\nkey_file = "{key}"\n', senders=0)
    ended = subprocess.run([*SERVE, str(settings)], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert "settings_invalid" in ended.stderr
    assert "providers.webpush.key_file: " in ended.stderr
    assert str(key) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_fence_keeps_an_engine_from_starting(tmp_path: Path) -> None:
    settings = write_settings(tmp_path)
    settings.write_text(settings.read_text() + '[providers.sms]\nurl = "https://gw.example.net"\n')
    run = subprocess.run([*SERVE, str(settings)], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode == 1
    assert "providers.sms.url" in run.stderr
    assert not (tmp_path / "data").exists(), "it refused before it began"


async def test_the_delta_becomes_a_base_beside_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a new base is made, people are selected and taken in; then it is there, by one change of reference."""
    monkeypatch.setattr(limits, "DELTA_ROWS_MAX", 50)
    making, go_on, merged = threading.Event(), threading.Event(), view.merged

    def slowly(now: view.View) -> view.Part:
        making.set()
        assert go_on.wait(PATIENCE_S), "nobody waited for this"
        return merged(now)

    monkeypatch.setattr(view, "merged", slowly)
    store = SqliteStore.open(tmp_path / "ledger.db")
    registry = Registry.open(tmp_path / "registry", store)
    with trio.fail_after(2 * PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app._every, 0.005, partial(app._compact, registry, store))
            registry.upsert([person(f"p{n}", n) for n in range(60)])
            assert await trio.to_thread.run_sync(making.wait, PATIENCE_S)
            registry.upsert([person("late", 7)])
            assert len(choose(registry.view(), Query(shape=EVERYONE))) == 61
            assert registry.statistics()["delta"] == 61
            go_on.set()
            while registry.statistics()["delta"] > 1:  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
    assert len(choose(registry.view(), Query(shape=EVERYONE))) == 61
    assert registry.statistics()["changes"] == 61, "a snapshot is due by what changed since the last, not by the delta"
    registry.close()
    store.close_store()


class Unwritable:
    """What refuses its first calls, as a ledger on a full disk does, and then goes on as if nothing had been."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, dict.fromkeys(UPKEEP, 0)

    def __getattr__(self, name: str) -> Any:
        def call(*_: object) -> int:
            self.asked[name] += 1
            if self.asked[name] <= 2:
                raise self.error
            return 0

        return call


UPKEEP = ("wants_compaction", "wants_rebuild", "take_dead", "wait", "keep_up", "ring", "open_rows")


@pytest.mark.parametrize(
    "error", [Refused("store_unavailable", detail="the disk is full"), OSError(28, "No space left on device")]
)
async def test_a_full_disk_ends_no_upkeep(monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path) -> None:
    for name in ("COMPACT_EVERY_S", "DEAD_EVERY_S", "EXPIRE_EVERY_S", "AGAIN_S"):
        monkeypatch.setattr(app, name, 0.01)
    things: Any = Unwritable(error)

    async def keep_up() -> None:
        things.keep_up()

    async def sweep() -> None:
        things.ring()

    engine: Any = type("Engine", (), {"keep_up": staticmethod(keep_up)})
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            changes = Changes()
            nursery.start_soon(changes.wait, 30.0)
            await nursery.start(app._upkeep, things, things, engine, changes, sweep, app.Readiness(keep_up, tmp_path))
            asked = ("wants_compaction", "take_dead", "wait", "keep_up")
            while any(things.asked[name] < 4 for name in asked):  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


def test_callers_meet_tls_and_must_show_a_certificate(tmp_path: Path) -> None:
    server, stranger = tmp_path / "server", tmp_path / "stranger"
    for folder in (server, stranger):
        write_certificates(folder, now=datetime.datetime.now(datetime.UTC))
    more = (
        f'[api]\nlisten = "127.0.0.1:0"\ntls_certificate = "{server / "cert.pem"}"\ntls_key = "{server / "key.pem"}"\n'
        f'client_ca = "{server / "ca.pem"}"\n'
    )
    settings = write_settings(tmp_path, more, senders=0)
    with Crew(tmp_path / "logs") as crew:
        _, address = started(crew, settings)
        assert address.startswith("https://")

        def get(certificates: Path | None) -> httpx.Response:
            context = ssl.create_default_context(cafile=str(server / "ca.pem"))
            if certificates is not None:
                context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
            with httpx.Client(verify=context, trust_env=False, http2=True, timeout=PATIENCE_S) as http:
                return http.get(f"{address}/healthz")

        known = get(server)
        assert (known.status_code, known.http_version) == (200, "HTTP/2")
        for certificates in (None, stranger):
            with pytest.raises(httpx.TransportError):
                get(certificates)
