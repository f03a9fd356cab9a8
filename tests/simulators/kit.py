"""Simulated providers as a process of their own, for the tests of those who speak to them."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from signage.broker import free_port

PATIENCE_S = 120.0
"""Until what must come is given up: a busy machine is slow, and no test measures how slow."""


class Providers:
    """A running simulator: where it is, whom to trust, and its questions."""

    def __init__(self, url: str, ca: Path, process: subprocess.Popen[bytes]) -> None:
        self.url, self.ca, self.process = url, ca, process
        self.http = httpx.Client(
            base_url=url, verify=ssl.create_default_context(cafile=str(ca)), timeout=PATIENCE_S, trust_env=False
        )

    def seen(self, action: int, **asked: object) -> dict[str, Any]:
        params = {"action": str(action)} | {name: str(value) for name, value in asked.items()}
        found: dict[str, Any] = self.http.get("/_seen", params=params).json()
        return found

    def moods(self, **channels: dict[str, float]) -> None:
        """Set the moods; channels not named are obedient."""
        answer = self.http.put("/_moods", json=channels)
        assert answer.status_code == 204, answer.text


@contextmanager
def running_providers(folder: Path, *, workers: int = 1, moods: str = "") -> Iterator[Providers]:
    """Start the simulator, wait until it answers, end it."""
    port = free_port()
    command = [sys.executable, "-m", "fanout.simulators.providers", "--port", str(port), "--folder", str(folder)]
    process = subprocess.Popen([*command, "--workers", str(workers), "--moods", moods])
    pause = threading.Event()
    try:
        while True:
            assert process.poll() is None, "the simulator ended before it began"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            pause.wait(0.01)
        providers = Providers(f"https://127.0.0.1:{port}", folder / "ca.pem", process)
        with providers.http:
            yield providers
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
