"""The door of receipts over real sockets: suppliers, proxies, and those who mean no good."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trio
import trio.testing

from fanout import limits
from fanout.errors import CATALOGUE, Refused
from fanout.inbound import connection, door, receipts
from fanout.inbound.door import Door
from fanout.simulators.tls import write as write_certificates
from fanout.store.protocol import Receipts

SECRET = "secret"


class Ledger:
    """Remembers what was applied; waits for `go_on` and raises what it is told to, before."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.sizes: list[int] = []
        self.poison = -1
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def apply(self, given: Sequence[Receipts]) -> list[int]:
        assert self.go_on.wait(120), "nobody waited for this"
        rows = [one.rows.tolist() for one in given]
        if self.error is not None:
            raise self.error
        if [self.poison] in rows:
            raise ValueError("a row that nothing can have")
        self.sizes.append(sum(len(group) for group in rows))
        self.rows += [row for group in rows for row in group]
        return [len(group) for group in rows]


class House(NamedTuple):
    door: Door
    ledger: Ledger
    address: tuple[str, int]
    stop: trio.Event

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address)


def read(provider: str, headers: object, body: bytes) -> receipts.Read:
    assert isinstance(headers, dict)
    if body == b"our bug":
        raise ZeroDivisionError
    return receipts.read(provider, headers, body, secret=SECRET)


@asynccontextmanager
async def opened(tls: ssl.SSLContext | None = None, drain_s: float = 5.0) -> AsyncIterator[House]:
    ledger, stop = Ledger(), trio.Event()
    served = Door(read, ledger.apply)
    listener = socket.create_server(("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(served.serve, listener, stop, tls=tls, drain_s=drain_s))
        yield House(served, ledger, listener.getsockname(), stop)
        ledger.go_on.set()
        stop.set()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    with trio.fail_after(120):
        async with opened() as one:
            yield one


@pytest.fixture
def jumping_clock(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> trio.testing.MockClock:
    """Jumps where nothing happens for a moment. Commits are made here: it would jump beside a thread that is slow."""

    async def here(call: Callable[..., object], *given: object, **_options: object) -> object:
        await trio.lowlevel.checkpoint()
        return call(*given)

    monkeypatch.setattr(trio.to_thread, "run_sync", here)
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


def body_of(*rows: int) -> bytes:
    return json.dumps(
        {"messages": {"msg": [{"reference": f"7-0-{row}", "status": {"code": 2}} for row in rows]}}
    ).encode()


def post(*rows: int, more: str = "", target: str = "/v1/receipts/sms", body: bytes | None = None) -> bytes:
    body = body_of(*rows) if body is None else body
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nX-Signature-256: {receipts.sign(body, SECRET)}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Answer(NamedTuple):
    status: int
    headers: httpx.Headers
    body: dict[str, object]

    @property
    def code(self) -> object:
        return self.body.get("code", "")


class Reader:
    """Answers as they come on one stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream, self.heard = stream, b""

    async def line_end(self, mark: bytes) -> bytes:
        while mark not in self.heard:
            more = await self.stream.receive_some()
            assert more, f"the end, after {self.heard!r}"
            self.heard += more
        found, _, self.heard = self.heard.partition(mark)
        return found

    async def answer(self) -> Answer:
        first, *lines = (await self.line_end(b"\r\n\r\n")).decode().split("\r\n")
        headers = httpx.Headers([(name, value) for name, _, value in (line.partition(": ") for line in lines)])
        length = int(headers["content-length"])
        while len(self.heard) < length:
            self.heard += await self.stream.receive_some()
        body, self.heard = self.heard[:length], self.heard[length:]
        return Answer(int(first.split()[1]), headers, json.loads(body))

    async def end(self) -> None:
        assert (self.heard, await self.stream.receive_some()) == (b"", b"")


async def ask(house: House, *pieces: bytes) -> Answer:
    async with await house.connect() as stream:
        for piece in pieces:
            await stream.send_all(piece)
        return await Reader(stream).answer()


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110 - nobody tells of it
        await trio.sleep(0.005)


# --- suppliers --------------------------------------------------------------------------------------------------------


async def test_one_a_request_on_a_connection_that_stays(house: House) -> None:
    async with await house.connect() as stream:
        reader = Reader(stream)
        for row in range(20):
            await stream.send_all(post(row))
            answer = await reader.answer()
            assert (answer.status, answer.body) == (200, {"reports": 1, "changed": 1, "ignored": 0})
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["connection"] == "keep-alive"
            assert answer.headers["date"].endswith("GMT")
    assert house.ledger.rows == list(range(20))


async def test_it_is_answered_after_the_commit(house: House) -> None:
    house.ledger.go_on.clear()
    async with await house.connect() as stream:
        await stream.send_all(post(1))
        await until(lambda: house.door.statistics().waiting)
        with trio.move_on_after(0.05) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught, "nothing was written yet"
        house.ledger.go_on.set()
        assert (await Reader(stream).answer()).status == 200
    assert house.ledger.rows == [1]


async def test_what_waits_together_is_one_commit_and_each_learns_of_its_own(house: House) -> None:
    house.ledger.go_on.clear()
    answers: dict[int, Answer] = {}

    async def supplier(size: int) -> None:
        answers[size] = await ask(house, post(*range(size)))

    async with trio.open_nursery() as nursery:
        for size in range(9):
            nursery.start_soon(supplier, size)
        await until(lambda: house.door.statistics().waiting == 9)
        assert repr(house.door) == "<Door: 9 connections, 9 requests waiting>"
        house.ledger.go_on.set()
    assert {size: answer.body["changed"] for size, answer in answers.items()} == {size: size for size in range(9)}
    assert house.door.statistics()[2:] == (9, 2), "what came first, and what came meanwhile"


async def test_a_commit_is_not_longer_than_others_can_wait(house: House) -> None:
    size = limits.RECEIPTS_PER_COMMIT_MAX * 3 // 5
    house.ledger.go_on.clear()
    async with await house.connect() as stream:
        await stream.send_all(post(*range(size)) * 5)
        await until(lambda: house.door.statistics().waiting == 5)
        house.ledger.go_on.set()
        reader = Reader(stream)
        assert [(await reader.answer()).status for _ in range(5)] == [200] * 5
    assert sum(house.ledger.sizes) == 5 * size
    assert max(house.ledger.sizes) == 2 * size, "what began below the bound is taken, and then no more"


async def test_many_before_one_answer_are_answered_in_order(house: House) -> None:
    async with await house.connect() as stream:
        await stream.send_all(b"".join([post(1), post(2, 3), post(target="/nowhere"), post(), post(4)]))
        reader = Reader(stream)
        assert [(await reader.answer()).body.get("reports", "error") for _ in range(5)] == [1, 2, "error", 0, 1]


async def test_who_does_not_listen_is_not_read_for_ever(house: House) -> None:
    house.ledger.go_on.clear()
    async with await house.connect() as stream:
        with trio.move_on_after(1) as flood:
            for row in range(1_000_000):
                await stream.send_all(post(row))
        assert flood.cancelled_caught, "the kernel's buffers are full, since nobody reads"
        (one,) = house.door._connections
        assert one.owed <= limits.RECEIPTS_OWED_MAX + connection.CHUNK_BYTES // len(post(1)) + 1


async def test_who_asks_and_takes_no_answers_is_closed(house: House) -> None:
    async with await house.connect() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        bad = b"GET / HTTP/1.1\r\n\r\n" * 500
        with suppress(trio.BrokenResourceError):
            while house.door.statistics().connections or not house.door.statistics().answered:
                await stream.send_all(bad)


@pytest.mark.parametrize(
    "pieces",
    [
        [post(1, target="http://alert.example.org/v1/receipts/sms")],
        [post(1, target="HTTPS://alert.example.org:8443/v1/receipts/sms?from=cm")],
        [post(1, target="/v1/receipts/s%6ds?x=/y")],
        [post(1, more="Connection: Upgrade\r\nUpgrade: h2c\r\n")],
        [post(1, more="Connection: close\r\n")],
        [post(1).replace(b"HTTP/1.1", b"HTTP/1.0")],
        [bytes([byte]) for byte in post(1)],
    ],
    ids=["absolute", "absolute with more", "escaped", "h2c", "close", "1.0", "a byte at a time"],
)
async def test_what_proxies_and_clients_make_of_it(house: House, pieces: list[bytes]) -> None:
    assert (await ask(house, *pieces)).body == {"reports": 1, "changed": 1, "ignored": 0}


async def test_a_word_before_the_body(house: House) -> None:
    async with await house.connect() as stream:
        head, _, body = post(1, more="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        await stream.send_all(head + b"\r\n\r\n")
        reader = Reader(stream)
        assert await reader.line_end(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        await stream.send_all(body)
        assert (await reader.answer()).status == 200


async def test_one_who_has_said_all_still_gets_the_answer(house: House) -> None:
    async with await house.connect() as stream:
        await stream.send_all(post(1))
        await stream.send_eof()
        reader = Reader(stream)
        assert (await reader.answer()).status == 200
        await reader.end()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code", "where"),
    [
        (post(1, target="/v1/receipts/nobody"), "not_found", "provider"),
        (post(1, target="/v1/receipts/__class__"), "not_found", "provider"),
        (post(1, target="/v1/receipts/"), "not_found", "/v1/receipts/"),
        (post(1, target="/v1/receipts/sms/more"), "not_found", "/v1/receipts/sms/more"),
        (post(1, target="/v1/actions"), "not_found", "/v1/actions"),
        (post(1, target="*"), "not_found", "/"),
        (post(1).replace(b"POST", b"PUT"), "method_not_allowed", "/v1/receipts/sms"),
        (b"GET /v1/receipts/sms HTTP/1.1\r\n\r\n", "method_not_allowed", "/v1/receipts/sms"),
        (post(1, target="/v1/receipts/voice").replace(b"sha256=", b"sha256=0"), "key_invalid", "x-signature-256"),
        (post(1).replace(b"X-Signature", b"X-Other"), "key_invalid", "x-signature-256"),
        (post(1, body=b"{"), "body_malformed", "body"),
        (post(1, body=b"\xff"), "body_malformed", "body"),
        (post(1, body=b"our bug"), "internal", ""),
    ],
)
async def test_one_clear_error_and_the_connection_stays(house: House, request_: bytes, code: str, where: str) -> None:
    async with await house.connect() as stream:
        await stream.send_all(request_)
        reader = Reader(stream)
        answer = await reader.answer()
        assert (answer.code, answer.status, answer.body["where"]) == (code, CATALOGUE[code].status, where)
        assert answer.headers.get("allow") == ("POST" if code == "method_not_allowed" else None)
        assert answer.headers.get("www-authenticate") == ("Bearer" if code == "key_invalid" else None)
        await stream.send_all(post(1))
        assert (await reader.answer()).status == 200
    assert house.ledger.rows == [1]


async def test_head_is_answered_without_a_body(house: House) -> None:
    async with await house.connect() as stream:
        await stream.send_all(b"HEAD /v1/receipts/sms HTTP/1.1\r\n\r\n" + post(1))
        reader = Reader(stream)
        assert (await reader.line_end(b"\r\n\r\n")).startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
        assert (await reader.answer()).status == 200


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "request_malformed"),
        (b"POST /v1/receipts/sms HTTP/1.1\r\n" + b"x: y\r\n" * 5_000, "head_too_large"),
        (post(1).replace(b"Content-Length: ", b"Content-Length: 99999") + bytes(200_000), "body_too_large"),
    ],
)
async def test_what_is_no_request_ends_the_connection_and_says_why(house: House, garbage: bytes, code: str) -> None:
    async with await house.connect() as stream:
        await stream.send_all(post(1) + garbage)
        reader = Reader(stream)
        assert (await reader.answer()).status == 200
        answer = await reader.answer()
        assert (answer.code, answer.status, answer.headers["connection"]) == (code, CATALOGUE[code].status, "close")
        await reader.end()


@pytest.mark.parametrize("error", [Refused("store_unavailable", detail="the disk is full"), ValueError("a bug")])
async def test_a_ledger_that_takes_nothing_is_told_and_tried_again(house: House, error: Exception) -> None:
    house.ledger.error = error
    code = error.code if isinstance(error, Refused) else "internal"
    assert (await ask(house, post(1))).code == code
    assert (await ask(house, post())).status == 200, "what brings nothing needs no ledger"
    house.ledger.error = None
    assert (await ask(house, post(1))).status == 200
    assert house.ledger.rows == [1]


async def test_who_breaks_a_commit_breaks_it_for_himself(house: House) -> None:
    house.ledger.poison = 3
    async with await house.connect() as stream:
        house.ledger.go_on.clear()
        await stream.send_all(b"".join(post(row) for row in (0, 1, 2, 3, 4)))
        await until(lambda: house.door.statistics().waiting == 5)
        house.ledger.go_on.set()
        reader = Reader(stream)
        assert [(await reader.answer()).status for _ in range(5)] == [200, 200, 200, 500, 200]
    assert house.ledger.rows == [0, 1, 2, 4]


# --- time -------------------------------------------------------------------------------------------------------------


async def drip(stream: trio.abc.SendStream) -> None:
    for byte in post(1, 2, 3):
        await stream.send_all(bytes([byte]))
        await trio.sleep(1)


async def half(stream: trio.abc.SendStream) -> None:
    await stream.send_all(post(1)[:-1])


@pytest.mark.parametrize("how", [drip, half], ids=["a byte a second", "half of it"])
async def test_a_request_that_takes_too_long(
    jumping_clock: trio.testing.MockClock, how: Callable[[trio.abc.SendStream], Awaitable[None]]
) -> None:
    async with opened() as house, await house.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(how, stream)
        began_s = trio.current_time()
        answer = await Reader(stream).answer()
        assert (answer.code, answer.status) == ("body_too_slow", 408)
        assert trio.current_time() - began_s <= limits.BODY_S_MAX + 2
        nursery.cancel_scope.cancel()


async def test_what_is_refused_is_told_to_the_log(
    jumping_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened() as house:
        for _ in range(3):
            await ask(house, post(1).replace(b"sha256=", b"sha256=0"))
        await ask(house, post(1, body=b"{"))
        await ask(house, post(1))
        await trio.sleep(3 * door.TELL_EVERY_S)
    assert [one.getMessage() for one in caplog.records] == [
        "receipts: requests were refused: 3 key_invalid, 1 body_malformed"
    ]


async def test_a_silent_connection_is_closed(jumping_clock: trio.testing.MockClock) -> None:
    async with opened() as house, await house.connect() as stream:
        await stream.send_all(b"\r\n")
        assert await stream.receive_some() == b""
        assert trio.current_time() <= connection.IDLE_S + 1


async def test_a_stream_of_requests_has_no_end(jumping_clock: trio.testing.MockClock) -> None:
    """Each is whole in time; that one is always begun does not count against them."""
    stream_of = b"".join(post(row) for row in range(10))
    cut = len(post(1)) // 2
    async with opened() as house, await house.connect() as stream:
        reader, sent = Reader(stream), 0
        for row in range(9):
            end = (row + 1) * len(post(1)) + cut
            await stream.send_all(stream_of[sent:end])
            assert (await reader.answer()).status == 200
            await trio.sleep(limits.BODY_S_MAX * 0.8)
            sent = end


async def test_a_door_that_is_full_says_so(monkeypatch: pytest.MonkeyPatch, house: House) -> None:
    """All of them with requests that have just begun, or wait for their commit."""
    monkeypatch.setattr(limits, "RECEIPTS_CONNECTIONS_MAX", 2)
    monkeypatch.setattr(connection, "BEGUN_S", 3_600.0)
    house.ledger.go_on.clear()
    whole = post(1)
    async with await house.connect() as begun, await house.connect() as owed:
        await begun.send_all(whole[:20])
        await owed.send_all(post(2))
        await until(lambda: [one.kept_since_s for one in house.door._connections] == [None, None])
        async with await house.connect() as third:
            answer = await Reader(third).answer()
            assert (answer.code, answer.headers["retry-after"]) == ("too_many_requests", "1")
        house.ledger.go_on.set()
        await begun.send_all(whole[20:])
        for stream in (begun, owed):
            assert (await Reader(stream).answer()).status == 200


async def test_requests_without_end_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch, jumping_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger who begins a request on every place and sends a byte now and then, or who was refused and stays."""
    monkeypatch.setattr(limits, "RECEIPTS_CONNECTIONS_MAX", 3)
    monkeypatch.setattr(connection, "LINGER_S", 3_600.0)

    async def supplier(row: int) -> None:
        stream = await ends.enter_async_context(await house.connect())
        await stream.send_all(post(row))
        assert (await Reader(stream).answer()).status == 200

    async with opened() as house, AsyncExitStack() as ends:
        slow = []
        for said in (b"P", b"P", b"\xff"):
            slow.append(await ends.enter_async_context(await house.connect()))
            await slow[-1].send_all(said)
            await trio.sleep(connection.BEGUN_S)
        await slow[1].send_all(b"O")
        for row, gone in enumerate(slow):
            await supplier(row)
            with suppress(trio.BrokenResourceError):
                while await gone.receive_some():
                    pass
        assert house.ledger.rows == [0, 1, 2]
        await trio.sleep(door.TELL_EVERY_S)
    assert [one.getMessage() for one in caplog.records] == [
        "receipts: requests were refused: 2 body_too_slow, 1 request_malformed"
    ]


@pytest.mark.parametrize("secure", [False, True])
async def test_who_has_been_silent_for_longest_makes_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: bool
) -> None:
    """A stranger with as many silent connections as there are places keeps nobody out; TLS: not even shaken hands."""
    monkeypatch.setattr(limits, "RECEIPTS_CONNECTIONS_MAX", 3)
    server = client = None
    if secure:
        write_certificates(tmp_path, now=datetime.datetime.now(datetime.UTC))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))

    async def supplier(row: int) -> Reader:
        stream: trio.abc.Stream = await house.connect()
        if client is not None:
            stream = trio.SSLStream(stream, client, server_hostname="localhost")
        reader = Reader(await ends.enter_async_context(stream))
        await stream.send_all(post(row))
        assert (await reader.answer()).status == 200
        return reader

    with trio.fail_after(120):
        async with opened(server) as house, AsyncExitStack() as ends:
            silent = []
            for number in range(1, 3):
                silent.append(await ends.enter_async_context(await house.connect()))
                await until(lambda number=number: len(house.door._connections) == number)
            first, second = await supplier(1), await supplier(2)
            assert await silent[0].receive_some() == b"", "the oldest was closed"
            assert len(house.door._connections) == 3
            third = await supplier(3)
            assert await silent[1].receive_some() == b""
            for row, reader in enumerate((first, second, third), 4):
                await reader.stream.send_all(post(row))
                assert (await reader.answer()).status == 200
            await supplier(7)
            with suppress(trio.BrokenResourceError):
                assert await first.stream.receive_some() == b"", "of suppliers the one who was heard first"


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_at_the_end_what_is_begun_is_finished(house: House) -> None:
    states = [
        "<Connection: <Conversation between requests>, owed 0>",
        "<Connection: <Conversation between requests>, owed 1>",
        "<Connection: <Conversation inside a request>, owed 0>",
    ]
    house.ledger.go_on.clear()
    async with await house.connect() as idle, await house.connect() as begun, await house.connect() as waiting:
        await waiting.send_all(post(1))
        await begun.send_all(post(2)[:-1])
        await until(lambda: sorted(map(repr, house.door._connections)) == states)
        house.stop.set()
        assert await idle.receive_some() == b""
        await begun.send_all(post(2)[-1:])
        house.ledger.go_on.set()
        for stream, word in ((waiting, "keep-alive"), (begun, "close")):
            reader = Reader(stream)
            answer = await reader.answer()
            assert (answer.status, answer.headers["connection"]) == (200, word)
            await reader.end()
    with pytest.raises(OSError):
        await house.connect()
    assert sorted(house.ledger.rows) == [1, 2]


async def test_nobody_holds_up_the_end() -> None:
    with trio.fail_after(120):
        async with opened(drain_s=0.1) as house, await house.connect() as stream:
            await stream.send_all(post(2)[:-1])
            await until(lambda: "inside" in str(house.door._connections))
            house.stop.set()
            assert await stream.receive_some() == b""


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_over_tls(tmp_path: Path) -> None:
    write_certificates(tmp_path, now=datetime.datetime.now(datetime.UTC))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with trio.fail_after(120):
        async with opened(server) as house:
            async with await house.connect() as stranger:
                await stranger.send_all(post(1))
                with suppress(trio.BrokenResourceError):
                    assert await stranger.receive_some() == b"", "no word of HTTP without TLS"
            stream = trio.SSLStream(await house.connect(), client, server_hostname="localhost")
            async with stream:
                reader = Reader(stream)
                await stream.send_all(post(1))
                assert (await reader.answer()).status == 200
                await stream.send_all(post(*range(20_000), more="Connection: close\r\n")[:900_000])
                await stream.send_all(post(*range(20_000), more="Connection: close\r\n")[900_000:])
                assert (await reader.answer()).body["reports"] == 20_000
                await reader.end()
    assert len(house.ledger.rows) == 20_001


async def test_a_handshake_that_does_not_come(tmp_path: Path, jumping_clock: trio.testing.MockClock) -> None:
    write_certificates(tmp_path, now=datetime.datetime.now(datetime.UTC))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with opened(server) as house, await house.connect() as stream:
        assert await stream.receive_some() == b""
        assert trio.current_time() <= connection.HANDSHAKE_S + connection.LINGER_S + 1
