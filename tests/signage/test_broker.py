"""The broker of our own: it starts, answers, stops, and never outlives us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from signage.broker import find_mosquitto, free_port, start_broker

BROKERS = [
    "amqtt",
    pytest.param("mosquitto", marks=pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto")),
]


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("kind", BROKERS)
def test_it_starts_and_stops(kind: str, tmp_path: Path) -> None:
    broker = start_broker(tmp_path, kind=kind)
    try:
        assert broker.kind == kind
        assert answers(broker.port)
    finally:
        broker.stop()
    assert not answers(broker.port)
    broker.stop()


@pytest.mark.parametrize("kind", BROKERS)
def test_it_ends_with_a_parent_that_is_killed(kind: str, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from signage.broker import start_broker;"
        f"b = start_broker(Path({str(tmp_path)!r}), kind={kind!r}); print(b.port, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    try:
        port = int(parent.stdout.readline())
        assert answers(port)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    pause = threading.Event()
    for _ in range(1_200):
        if not answers(port):
            return
        pause.wait(0.05)
    pytest.fail("the broker outlived its parent")


def test_a_free_port_is_kept_for_its_server_and_given_to_nobody_else() -> None:
    port = free_port()
    with socket.socket() as stranger, pytest.raises(OSError):
        stranger.bind(("127.0.0.1", port))
    assert not answers(port)
    with socket.create_server(("127.0.0.1", port)):
        assert answers(port)
