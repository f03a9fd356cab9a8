"""The process at the door of receipts: real ones, which end, die and come back; the ledger has what was answered."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from bench.receipts import accepted, bodies
from fanout.demo.crew import Crew
from fanout.errors import Refused
from fanout.inbound.receipts import SIGNATURE, sign
from fanout.settings import load
from fanout.simulators.tls import write as write_certificates
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import State
from tests.simulators.kit import PATIENCE_S
from tests.test_app import SERVE, started, write_settings

SECRET = "secret"
ROWS = 400
API = '[api]\nlisten = "127.0.0.1:0"\nreceipts_listen = "127.0.0.1:0"\n'


@contextmanager
def engine(folder: Path, more: str = "") -> Iterator[tuple[Crew, int, str]]:
    """A running engine: its crew, its process id, and the address of the door."""
    settings = write_settings(folder, f'[providers.sms]\nreceipt_secret = "{SECRET}"\n{API}{more}', senders=0)
    with Crew(folder / "logs") as crew:
        pid, _ = started(crew, settings)
        yield crew, pid, (folder / "data" / "run" / "receipts").read_text().strip()


def prepared(folder: Path) -> tuple[list[bytes], np.ndarray]:
    """Receipts for an action in the ledger of a running engine, one a body, and who was delivered."""
    store = SqliteStore.open(folder / "data" / "ledger.db")
    action = accepted(store, ROWS)
    store.close_store()
    return bodies(action, ROWS, 1, seed=5)


def delivered(folder: Path) -> np.ndarray:
    store = SqliteStore.open(folder / "data" / "ledger.db")
    state = np.concatenate([batch.status for batch in store.batches(1)])
    store.close_store()
    return state == State.DELIVERED


def post(http: httpx.Client, body: bytes) -> httpx.Response:
    return http.post("/v1/receipts/sms", content=body, headers={SIGNATURE: sign(body, SECRET)})


def door_of(crew: Crew) -> int:
    (pid,) = (one for one in crew.children("engine", "") if Path(f"/proc/{one}/comm").read_text().strip() == "receipts")
    return pid


def test_what_it_answered_is_in_the_ledger_though_it_is_killed_again_and_again(tmp_path: Path) -> None:
    kills, finished = 0, threading.Event()
    with engine(tmp_path) as (crew, pid, address):
        posted, expected = prepared(tmp_path)
        left = list(reversed(posted))

        def supplier() -> None:
            while left:
                with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=PATIENCE_S) as http:
                    try:
                        while left:
                            assert post(http, left[-1]).status_code == 200
                            left.pop()
                    except httpx.TransportError:
                        pass  # not answered: sent again
            finished.set()

        sending = threading.Thread(target=supplier)
        sending.start()
        for part in (0.8, 0.6, 0.4):
            crew.wait_for("some receipts", lambda part=part: len(left) < part * len(posted), PATIENCE_S)
            os.kill(door_of(crew), signal.SIGKILL)
            kills += 1
        crew.wait_for("all receipts", finished.is_set, PATIENCE_S)
        sending.join()
        os.kill(pid, signal.SIGKILL)
    assert kills == 3
    assert (delivered(tmp_path) == expected).all()


def test_the_api_and_the_door_say_the_same_and_end_together(tmp_path: Path) -> None:
    with engine(tmp_path) as (crew, pid, address):
        posted, _ = prepared(tmp_path)
        api = (tmp_path / "data" / "run" / "api").read_text().strip()
        with (
            httpx.Client(base_url=api, trust_env=False, timeout=PATIENCE_S) as one,
            httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=PATIENCE_S) as other,
        ):
            assert post(one, posted[0]).json() == {"reports": 1, "changed": 1, "ignored": 0}
            assert post(other, posted[0]).json() == {"reports": 1, "changed": 0, "ignored": 0}, "it was told before"
            for method, path in (
                ("POST", "/v1/receipts/sms"),
                ("POST", "/v1/receipts/nobody"),
                ("PATCH", "/v1/receipts/sms"),
                ("GET", "/v1/receipts/sms"),
            ):
                answers = [http.request(method, path, content=b"{}") for http in (one, other)]
                assert len({(answer.status_code, answer.text) for answer in answers}) == 1
                told = [(answer.headers.get("allow"), answer.headers.get("www-authenticate")) for answer in answers]
                assert told[0] == told[1]
            signed = [
                http.post("/v1/receipts/sms", content=b"{", headers={SIGNATURE: sign(b"{", SECRET)})
                for http in (one, other)
            ]
            assert {(answer.status_code, answer.json()["code"]) for answer in signed} == {(400, "body_malformed")}
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port))) as idle:
            os.kill(pid, signal.SIGTERM)
            crew.finish("engine", PATIENCE_S)
            assert idle.recv(1) == b""
        socket.create_server((host, int(port))).close()


def test_it_shows_the_certificate_of_the_api(tmp_path: Path) -> None:
    write_certificates(tmp_path / "tls", now=datetime.datetime.now(datetime.UTC))
    cert, key, ca = (tmp_path / "tls" / name for name in ("cert.pem", "key.pem", "ca.pem"))
    more = f'tls_certificate = "{cert}"\ntls_key = "{key}"\nclient_ca = "{ca}"\n'
    with engine(tmp_path, more) as (_, _, address):
        posted, _ = prepared(tmp_path)
        context = ssl.create_default_context(cafile=str(ca))
        with httpx.Client(base_url=f"https://{address}", verify=context, trust_env=False, timeout=PATIENCE_S) as http:
            assert post(http, posted[0]).json()["changed"] == 1, "a supplier has no certificate of ours"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = write_settings(tmp_path, API.replace('s_listen = "127.0.0.1:0"', f's_listen = "127.0.0.1:{port}"'))
        run = subprocess.run([*SERVE, str(settings)], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode == 1
    assert "port_in_use" in run.stderr
    assert str(port) in run.stderr
    assert "Traceback" not in run.stderr


def test_the_fence_holds_here_too() -> None:
    assert load(None, {}).api.receipts_listen == "", "it is opened by who wants it"
    with pytest.raises(Refused) as refused:
        load(None, {}, api={"receipts_listen": "0.0.0.0:8081"})
    assert (refused.value.code, refused.value.where) == ("fence", "api.receipts_listen")
