"""Sockets and processes of the simulators' server: HTTP/1.1, TLS that fails, big answers, workers and their end."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from signage.broker import free_port
from tests.simulators.kit import PATIENCE_S, Providers, running_providers

FCM = "/v1/projects/p/messages:send"
BODY = b'{"message":{"token":"%b","data":{"action":"7","phase":"0"}}}'


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    with running_providers(tmp_path_factory.mktemp("providers")) as running:
        yield running


def connected(providers: Providers) -> ssl.SSLSocket:
    """A raw connection that speaks HTTP/1.1."""
    context = ssl.create_default_context(cafile=str(providers.ca))
    context.set_alpn_protocols(["http/1.1"])
    raw = socket.create_connection(("127.0.0.1", int(providers.url.rpartition(":")[2])), timeout=PATIENCE_S)
    return context.wrap_socket(raw, server_hostname="localhost")


def answers(tls: ssl.SSLSocket, until: bytes) -> bytes:
    """What comes until it has come so far."""
    got = b""
    while until not in got:
        piece = tls.recv(65_536)
        assert piece, got
        got += piece
    return got


def post(token: bytes, extra: bytes = b"") -> bytes:
    body = BODY % token
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n%b" % (FCM.encode(), len(body), extra, body)


def test_requests_one_after_the_other_on_one_connection(providers: Providers) -> None:
    with connected(providers) as tls:
        tls.sendall(post(b"one") + post(b"two"))  # sent at once, answered in turn
        got = b""
        while got.count(b"HTTP/1.1 200") < 2:
            got += tls.recv(65_536)
        tls.sendall(post(b"dead3"))
        assert answers(tls, b"UNREGISTERED").startswith(b"HTTP/1.1 404")
    assert providers.seen(7, tokens=1)["channels"]["fcm"]["tokens"] == ["one", "two"]


def test_who_asks_first_may_go_on(providers: Providers) -> None:
    whole = post(b"four", b"expect: 100-continue\r\n")
    head, _, body = whole.partition(b"\r\n\r\n")
    with connected(providers) as tls:
        tls.sendall(head + b"\r\n\r\n")
        answers(tls, b"100")
        tls.sendall(body)
        assert b"HTTP/1.1 200" in answers(tls, b"projects/")


def test_what_is_no_http_is_left(providers: Providers) -> None:
    with connected(providers) as tls:
        tls.sendall(b"\x00\x01 nonsense\r\n\r\n")
        assert tls.recv(1_000) == b""
    with connected(providers) as tls:
        tls.sendall(post(b"five", b"connection: close\r\n"))
        while tls.recv(65_536):
            pass


def test_what_is_no_tls_is_left(providers: Providers) -> None:
    with socket.create_connection(("127.0.0.1", int(providers.url.rpartition(":")[2])), timeout=PATIENCE_S) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while raw.recv(1_000):
            pass
    assert providers.http.get("/_actions").status_code == 200


def test_an_answer_bigger_than_sockets(providers: Providers) -> None:
    for number in range(20):
        body = b'{"messages":{"msg":[' + b",".join(
            b'{"to":[{"number":"0031%08d%080d"}],"reference":"70-0-1"}' % (number * 1_000 + row, row)
            for row in range(999)
        )
        key = {"x-cm-producttoken": "t"}
        assert providers.http.post("/v1.0/message", content=body + b"]}}", headers=key).status_code == 200
    tokens = providers.seen(70, tokens=1)["channels"]["sms"]["tokens"]
    assert len(tokens) == 19_980


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to(tmp_path: Path, workers: int, how: signal.Signals) -> None:
    with running_providers(tmp_path, workers=workers) as running:
        process = running.process
        running.http.get("/_actions")
        process.send_signal(how)
        assert process.wait(PATIENCE_S) == 0


def test_workers_do_not_outlive_their_parent(tmp_path: Path) -> None:
    with running_providers(tmp_path, workers=2) as running:
        running.http.get("/_actions")
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        assert len(children) == 2
        watched = [os.pidfd_open(int(child)) for child in children]
        running.process.kill()
        for one in watched:  # readable once it has ended
            assert select.select([one], [], [], PATIENCE_S)[0]
            os.close(one)


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        command = [sys.executable, "-m", "fanout.simulators.providers", "--port", str(port), "--folder", str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode != 0
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
