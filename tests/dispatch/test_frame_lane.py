"""What only the lane of frames does: servers not ours, rows that go again by themselves, connections it keeps."""

from __future__ import annotations

import datetime
import select
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import hpack
import hypercorn.trio
import numpy as np
import pytest
import trio
from hypercorn.config import Config

from fanout.channels.protocol import NO_CONNECTION, Requests, Template, column
from fanout.dispatch import frame_lane
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.frame_lane import FrameLane
from fanout.dispatch.lanes import Sent
from fanout.dispatch.tls_socket import TlsSocket
from fanout.simulators import tls
from fanout.simulators.faults import FaultyServer
from signage.broker import free_port
from tests.dispatch.kit import clock_ms
from tests.simulators.kit import PATIENCE_S


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Files:
    return tls.write(tmp_path_factory.mktemp("tls"), now=datetime.datetime.now(datetime.UTC))


def posts(url: str, rows: int, *, body_bytes: int = 20) -> Requests:
    """POST url/<row>; every third by another template."""
    bodies = (b"x" * body_bytes, b"y" * body_bytes)
    templates = tuple(
        Template(method="POST", url=(f"{url}/".encode(), 0), headers=("x-a: b", f"x-c: {body[:1]!r}"), body=(body,))
        for body in bodies
    )
    which = np.zeros(rows, np.uint16)
    which[::3] = 1
    tokens = column([b"%d" % row for row in range(rows)])
    return Requests(templates=templates, columns=(tokens,), which=which, usable=np.ones(rows, np.bool_))


@asynccontextmanager
async def running(url: str, ca: Path, *, timeout_s: float = 20.0, connections: int = 2) -> AsyncIterator[FrameLane]:
    lane = FrameLane(
        url=url,
        ca=str(ca),
        connections=connections,
        streams=32,
        timeout_s=timeout_s,
        reserve=0.125,
        bucket=Bucket(rate_per_s=1e6, burst=1e5, reserve=0.0, now_s=trio.current_time()),
        clock_ms=clock_ms,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(lane.run)
        try:
            yield lane
        finally:
            lane.close()


async def send(lane: FrameLane, requests: Requests, number: int = 0) -> Sent:
    index = np.arange(len(requests.which))
    with trio.fail_after(PATIENCE_S):
        return await lane.send(requests, index, lane=number, action=1, may_go=lambda: True)


@contextmanager
def nginx(folder: Path, files: tls.Files, requests: int) -> Iterator[str]:
    """A server that answers 200 to /1…, 404 to others, with bodies, and takes so many requests on a connection."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
        events {{ worker_connections 64; }}
        http {{
            access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            keepalive_requests {requests};
            server {{
                listen 127.0.0.1:{port} ssl http2;
                ssl_certificate {files.cert}; ssl_certificate_key {files.key};
                location /1 {{ return 200 "taken"; }}
                location / {{ return 404 "unknown"; }}
            }}
        }}"""
    )
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize(("each", "rows"), [(50, 400), (1, 100)])
async def test_nginx_which_says_goodbye_after_some_requests(
    tmp_path: Path, certificates: tls.Files, each: int, rows: int
) -> None:
    with nginx(tmp_path, certificates, each) as url:
        requests = posts(url, rows)
        async with running(url, certificates.ca) as lane:
            with trio.fail_after(PATIENCE_S):
                while (await send(lane, posts(url, 1))).codes[0] == NO_CONNECTION:  # noqa: ASYNC110 it is starting
                    await trio.sleep(0.02)
            sent = await send(lane, requests)
    expected = [200 if str(row).startswith("1") else 404 for row in range(rows)]
    assert sent.codes.tolist() == expected
    assert {sent.bodies[row] for row in range(rows) if expected[row] == 404} == {b"unknown"}


async def test_hypercorn(certificates: tls.Files) -> None:
    seen: dict[str, bytes] = {}

    async def application(scope: Any, receive: Any, respond: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan here")
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen[scope["path"]] = body
        status = 200 if len(seen) % 5 else 503
        await respond({"type": "http.response.start", "status": status, "headers": [(b"retry-after", b"3")]})
        await respond({"type": "http.response.body", "body": b"busy" if status == 503 else b""})

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.certfile, config.keyfile = str(certificates.cert), str(certificates.key)
    config.loglevel = "ERROR"
    async with trio.open_nursery() as nursery:
        serve: Any = hypercorn.trio.serve
        bound = await nursery.start(serve, application, config)
        url = bound[0].replace("http://", "https://")
        requests = posts(url, 60, body_bytes=30_000)
        async with running(url, certificates.ca, timeout_s=20) as lane:
            sent = await send(lane, requests)
        nursery.cancel_scope.cancel()
    assert sorted(sent.codes.tolist()) == [200] * 48 + [503] * 12
    assert sent.asked_s == 3
    assert set(sent.bodies.values()) == {b"busy"}
    assert {len(body) for body in seen.values()} == {30_000}
    assert len(seen) == 60


async def test_rows_that_were_refused_go_again(certificates: tls.Files) -> None:
    server = FaultyServer("goaway", cert=certificates.cert, key=certificates.key)
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with running(url, certificates.ca) as lane:
            sent = await send(lane, posts(url, 200))
        nursery.cancel_scope.cancel()
    assert sent.codes.tolist() == [200] * 200
    assert set(server.arrived.values()) == {1}


async def test_a_dead_provider_is_not_hammered(monkeypatch: pytest.MonkeyPatch, certificates: tls.Files) -> None:
    tried = 0

    async def refuse(*_: object, **__: object) -> trio.SocketStream:
        nonlocal tried
        tried += 1
        raise ConnectionRefusedError

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    async with running("https://127.0.0.1:9", certificates.ca, timeout_s=1.0) as lane:
        for _ in range(3):
            sent = await send(lane, posts("https://127.0.0.1:9", 100))
            assert set(sent.codes.tolist()) == {NO_CONNECTION}
        with trio.move_on_after(0.2):
            await trio.sleep_forever()
    assert tried <= 8


class Curt:
    """A provider's front end that ends connections young: `goodbye` with its first words, `idle` once it answered.
    `still` ends none and takes no byte of any message.
    """

    def __init__(self, files: tls.Files, mood: str) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files.cert, files.key)
        self.context.set_alpn_protocols(["h2"])
        self.mood = mood
        self.connections = 0

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self.answer, [listener])

    async def answer(self, raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, self.context, server_side=True, https_compatible=True)
        with suppress(trio.BrokenResourceError):
            await stream.do_handshake()
            self.connections += 1
            window = b"\0\4" + bytes(4) if self.mood == "still" else b""
            await stream.send_all(frame(4, 0, window) + (frame(7, 0, bytes(8)) if self.mood == "goodbye" else b""))
            if self.mood == "idle":
                await stream.receive_some()
                await stream.send_all(frame(4, 1) + frame(6, 1, bytes(8)))
                await trio.sleep(0.1)
            elif self.mood == "still":
                while await stream.receive_some():
                    pass
        await trio.aclose_forcefully(stream)


def frame(kind: int, flags: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 on stream 0."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + bytes(4) + payload


@pytest.mark.parametrize(("mood", "at_least"), [("goodbye", 1), ("idle", 4)])
async def test_who_ends_connections_young_is_not_hammered(mood: str, at_least: int, certificates: tls.Files) -> None:
    server = Curt(certificates, mood)
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with running(url, certificates.ca) as lane:
            began_s = trio.current_time()
            assert await lane.warm(url) == (mood == "idle")
            await trio.sleep(2.5)
            with trio.fail_after(PATIENCE_S):
                while server.connections < at_least:  # noqa: ASYNC110 - nobody tells of it
                    await trio.sleep(0.05)
            # two connections, and at most one more of each a second, or a pause that doubles
            assert server.connections <= 5 + 2 * (trio.current_time() - began_s)
            if mood == "idle":
                assert await lane.warm(url), "closed for silence is no failure"
        nursery.cancel_scope.cancel()


async def test_who_takes_no_byte_is_given_one_time_out(
    monkeypatch: pytest.MonkeyPatch, certificates: tls.Files
) -> None:
    """Also if that is longer than what is young: rows went out five times, each for as long as a time-out."""
    monkeypatch.setattr(frame_lane, "PAUSE_MOST_S", 0.05)
    server = Curt(certificates, "still")
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with running(url, certificates.ca, timeout_s=2.0) as lane:
            sent = await send(lane, posts(url, 50))
            assert server.connections == 2
        nursery.cancel_scope.cancel()
    assert sent.codes.tolist() == [NO_CONNECTION] * 50


class Deaf:
    """A provider that reads nothing until the client's socket is full, then all there is, and answers `last` to it."""

    def __init__(self, files: tls.Files, last: bytes) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files.cert, files.key)
        self.context.set_alpn_protocols(["h2"])
        self.last = last
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self.read = bytearray()

    async def serve(self, lane: FrameLane, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.listener.setblocking(False)
        task_status.started()
        await trio.lowlevel.wait_readable(self.listener)
        raw, _ = self.listener.accept()
        self.listener.close()
        raw.setblocking(False)
        end = TlsSocket(raw, self.context, None)
        await end.handshake()
        wide = b"\0\4" + (2**30).to_bytes(4)
        end.send(memoryview(frame(4, 0, wide) + frame(8, 0, (2**30).to_bytes(4))))
        while not any(link.waits for link in lane._links.values()):  # noqa: ASYNC110
            await trio.sleep(0.001)
        self.take(end)  # the client has no turn before it hears of it
        end.send(memoryview(self.last))
        with suppress(OSError):
            while True:
                await trio.lowlevel.wait_readable(raw)
                self.take(end)
        end.close()

    def take(self, end: TlsSocket) -> None:
        """All that the client's socket holds, too."""
        space = memoryview(bytearray(64 * 1024))
        while select.select([end], [], [], 0)[0]:
            end.fetch()
            more = True
            while more:
                count, more = end.receive(space)
                self.read += space[:count]

    def rows(self) -> set[int]:
        """Whose request was read whole."""
        found, at, path = set(), len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), dict[int, int]()
        decoder = hpack.Decoder()
        while at + 9 <= len(self.read):
            length, kind, flags = int.from_bytes(self.read[at : at + 3]), self.read[at + 3], self.read[at + 4]
            stream, payload = int.from_bytes(self.read[at + 5 : at + 9]), bytes(self.read[at + 9 : at + 9 + length])
            at += 9 + length
            if kind == 1:
                path[stream] = int(dict(decoder.decode(payload, raw=True))[b":path"].removeprefix(b"/"))
            elif kind == 0 and flags & 1 and len(payload) == length:
                found.add(path[stream])
        return found


async def test_what_goes_out_with_the_last_word_may_have_been_taken(certificates: tls.Files) -> None:
    server = Deaf(certificates, last=frame(6, 0, bytes(7)))
    async with (
        running(server.url, certificates.ca, timeout_s=30.0, connections=1) as lane,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(server.serve, lane)
        sent = await send(lane, posts(server.url, 32, body_bytes=16_000))
        lane.close()
    unsent = set(np.flatnonzero(sent.codes == NO_CONNECTION).tolist())
    assert unsent
    assert server.rows()
    assert not unsent & server.rows()


async def test_a_connection_that_ends_is_replaced(certificates: tls.Files) -> None:
    server = FaultyServer("drop", cert=certificates.cert, key=certificates.key, after=3)
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with running(url, certificates.ca, connections=1) as lane:
            await send(lane, posts(url, 5))
            assert (await send(lane, posts(url, 50))).codes.tolist() == [200] * 50
        nursery.cancel_scope.cancel()


async def test_life_at_risk_goes_first(certificates: tls.Files) -> None:
    server = FaultyServer("one_stream", cert=certificates.cert, key=certificates.key)
    ends: list[str] = []
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with running(url, certificates.ca, timeout_s=20) as lane, trio.open_nursery() as callers:

            async def call(name: str, rows: int, number: int) -> None:
                assert (await send(lane, posts(url, rows), number)).codes.tolist() == [200] * rows
                ends.append(name)

            callers.start_soon(call, "national", 300, 1)
            while lane.in_flight == 0:  # noqa: ASYNC110
                await trio.sleep(0.001)
            callers.start_soon(call, "local", 20, 0)
        nursery.cancel_scope.cancel()
    assert ends == ["local", "national"]


async def test_a_repr_tells_the_state(certificates: tls.Files) -> None:
    async with running("https://127.0.0.1:9", certificates.ca) as lane:
        assert repr(lane).startswith("<FrameLane 127.0.0.1:9, in flight 0, [], <Scheduler")
