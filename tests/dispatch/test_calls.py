"""Single calls: made once, and each way of failing has its code."""

from __future__ import annotations

import datetime
import gc
from pathlib import Path

import numpy as np
import pytest
import trio

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, Answer, Call
from fanout.dispatch.calls import HttpCaller
from fanout.dispatch.plain_calls import PlainCaller
from fanout.simulators import tls
from fanout.simulators.faults import FAULTS, Fault, FaultyServer
from tests.dispatch import blunt_server
from tests.dispatch.blunt_server import BluntServer
from tests.simulators.kit import PATIENCE_S, Providers

POSSIBLE: dict[Fault, set[int]] = {
    "none": {200},
    "one_stream": {200},
    "shrink": {200},
    "goaway": {200, NO_ANSWER, GARBAGE},
    "refuse": {200, NO_ANSWER, GARBAGE},
    "reset": {200, NO_ANSWER, GARBAGE},
    "drop": {200, NO_ANSWER, GARBAGE},
    "half": {NO_ANSWER, GARBAGE},
    "hang": {NO_ANSWER},
    "endless": {NO_ANSWER, GARBAGE},
    "garbage": {NO_ANSWER, GARBAGE, NO_CONNECTION},
    "mute": {NO_ANSWER, NO_CONNECTION},
}


BLUNT: dict[str, int] = {
    "none": 200,
    "slow": 200,
    "interim": 200,
    "parting": 200,
    "chatty": 200,
    "drop": NO_ANSWER,
    "reset": NO_ANSWER,
    "half_head": NO_ANSWER,
    "half": GARBAGE,
    "early": 413,
    "hang": NO_ANSWER,
    "endless": GARBAGE,
    "endless_head": GARBAGE,
    "garbage": GARBAGE,
    "mute": NO_ANSWER,
    "upgrade": GARBAGE,
}
H2, H1, PLAIN = KINDS = ("httpx over HTTP/2", "httpx over HTTP/1.1", "plain")


def caller_of(kind: str, ca: Path, *, timeout_s: float = 20.0, connections: int = 2) -> HttpCaller | PlainCaller:
    if kind == PLAIN:
        return PlainCaller(ca=str(ca), timeout_s=timeout_s, connections=connections)
    return HttpCaller(ca=str(ca), timeout_s=timeout_s, connections=connections, http2=kind == H2)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Files:
    return tls.write(tmp_path_factory.mktemp("tls"), now=datetime.datetime.now(datetime.UTC))


async def post(kind: str, url: str, ca: Path, *, times: int = 1, timeout_s: float = 20.0) -> list[Answer]:
    caller = caller_of(kind, ca, timeout_s=timeout_s)
    try:
        with trio.fail_after(PATIENCE_S):
            return [
                await caller.call(
                    Call(method="POST", url=f"{url}/{n}", headers={}, body=b"row %d." % n, index=np.zeros(0, np.intp))
                )
                for n in range(times)
            ]
    finally:
        await caller.aclose()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_call_is_made_once(fault: Fault, certificates: tls.Files) -> None:
    server = FaultyServer(fault, cert=certificates.cert, key=certificates.key, after=2)
    silent = fault in ("hang", "endless", "garbage", "mute")
    times, timeout_s = (1, 2.0) if silent else (6, 20.0)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        answers = await post(H2, f"https://127.0.0.1:{port}", certificates.ca, times=times, timeout_s=timeout_s)
        nursery.cancel_scope.cancel()
    assert {answer.code for answer in answers} <= POSSIBLE[fault]
    assert set(server.arrived.values()) <= {1}, "what rings twice is never sent twice"
    for number, answer in enumerate(answers):
        if answer.code == 200:
            assert server.arrived[f"/{number}", b"row %d." % number] == 1
        if answer.code == NO_CONNECTION:
            assert server.arrived[f"/{number}", b"row %d." % number] == 0


@pytest.mark.parametrize(
    ("kind", "fault"),
    [(PLAIN, fault) for fault in blunt_server.FAULTS]
    + [(H1, fault) for fault in blunt_server.FAULTS if fault not in ("chatty", "early")],  # httpx takes these its way
)
async def test_a_call_over_http_1_is_made_once(kind: str, fault: str, certificates: tls.Files) -> None:
    server = BluntServer(fault, cert=certificates.cert, key=certificates.key)
    times, timeout_s = (1, 2.0) if fault in ("hang", "mute") else (4, 20.0)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        answers = await post(kind, f"https://127.0.0.1:{port}", certificates.ca, times=times, timeout_s=timeout_s)
        nursery.cancel_scope.cancel()
    assert [answer.code for answer in answers] == [BLUNT[fault]] * times
    whole = 0 if fault in ("mute", "early") else 1
    assert [server.arrived[f"/{number}", b"row %d." % number] for number in range(times)] == [whole] * times
    if BLUNT[fault] == 200:
        assert all(answer.body == b"done" and answer.headers["x-twice"] == "a, b" for answer in answers)
        alone = fault in ("parting", "chatty")
        assert server.connections == (times if alone else 1), "kept where nothing speaks against it"


@pytest.mark.parametrize(
    ("kind", "fault", "code"), [(PLAIN, "early", 413), (PLAIN, "mute", NO_ANSWER), (H1, "mute", NO_ANSWER)]
)
async def test_a_large_call_meets_a_provider_that_reads_nothing(
    kind: str, fault: str, code: int, certificates: tls.Files
) -> None:
    server = BluntServer(fault, cert=certificates.cert, key=certificates.key)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        caller = caller_of(kind, certificates.ca, connections=1, timeout_s=2.0 if fault == "mute" else 20.0)
        url = f"https://127.0.0.1:{port}/"
        big = Call(method="POST", url=url, headers={}, body=bytes(8_000_000), index=np.zeros(0, np.intp))
        answer = await caller.call(big)
        gc.collect()  # what is left half way makes the garbage collector complain
        await caller.aclose()
        nursery.cancel_scope.cancel()
    assert answer.code in (code, NO_ANSWER), "an answer may be lost with the reset that follows it"
    assert not server.arrived


async def test_who_finds_no_place_in_time_was_not_heard(certificates: tls.Files) -> None:
    server = BluntServer("hang", cert=certificates.cert, key=certificates.key)
    codes: list[int] = []
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        caller = caller_of(PLAIN, certificates.ca, timeout_s=2.0, connections=1)

        async def call(number: int) -> None:
            url = f"https://127.0.0.1:{port}/{number}"
            made = Call(method="POST", url=url, headers={}, body=b"", index=np.zeros(0, np.intp))
            codes.append((await caller.call(made)).code)

        async with trio.open_nursery() as calls:
            for number in range(3):
                calls.start_soon(call, number)
        nursery.cancel_scope.cancel()
    assert sorted(codes) == sorted([NO_ANSWER, NO_CONNECTION, NO_CONNECTION])
    assert sum(server.arrived.values()) == 1


@pytest.mark.parametrize("ends", ["its time", "its owner"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_handshake_that_is_given_up_leaves_no_socket(kind: str, ends: str, certificates: tls.Files) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"https://127.0.0.1:{listener.socket.getsockname()[1]}/"
    caller = caller_of(kind, certificates.ca, timeout_s=0.3 if ends == "its time" else 20)
    async with listener, trio.open_nursery() as nursery:
        call = Call(method="POST", url=url, headers={}, body=b"", index=np.zeros(0, np.intp))
        nursery.start_soon(caller.call, call)
        with trio.CancelScope(shield=True), trio.fail_after(PATIENCE_S):
            async with await listener.accept() as silent:
                assert await silent.receive_some(), "the handshake begins"
                if ends == "its owner":
                    nursery.cancel_scope.cancel()
                while await silent.receive_some():
                    pass
    await caller.aclose()


async def test_a_header_with_a_line_in_it_goes_nowhere(certificates: tls.Files) -> None:
    caller = caller_of(PLAIN, certificates.ca)
    headers = {"x-key": "a\r\nx-other: b"}
    answer = await caller.call(
        Call(method="POST", url="https://127.0.0.1:9", headers=headers, body=b"", index=np.zeros(0, np.intp))
    )
    assert answer.code == NO_CONNECTION


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_there_and_a_wrong_certificate(kind: str, tmp_path: Path, certificates: tls.Files) -> None:
    assert [one.code for one in await post(kind, "https://127.0.0.1:9", certificates.ca)] == [NO_CONNECTION]
    now = datetime.datetime.now(datetime.UTC)
    other = tls.write(tmp_path / "other", now=now, hosts=["wrong.invalid"], addresses=[])
    server = FaultyServer("none", cert=other.cert, key=other.key)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        for ca in (certificates.ca, other.ca):
            assert [one.code for one in await post(kind, f"https://127.0.0.1:{port}", ca)] == [NO_CONNECTION]
        nursery.cancel_scope.cancel()
    assert not server.arrived


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_is_not_followed(kind: str, providers: Providers) -> None:
    providers.moods(sms={"redirect": 1.0})
    caller = caller_of(kind, providers.ca)
    answer = await caller.call(
        Call(
            method="POST",
            url=f"{providers.url}/v1.0/message",
            headers={"x-cm-producttoken": "t"},
            body=b'{"messages":{"msg":[]}}',
            index=np.zeros(0, np.intp),
        )
    )
    await caller.aclose()
    assert answer.code == 302


@pytest.mark.parametrize("kind", KINDS)
async def test_warming(kind: str, providers: Providers) -> None:
    caller = caller_of(kind, providers.ca)
    assert await caller.warm(providers.url)
    assert not await caller.warm("https://127.0.0.1:9")
    await caller.aclose()
