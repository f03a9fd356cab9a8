"""Single calls: made once, and each way of failing has its code."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
import trio

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, Answer, Call
from fanout.dispatch.calls import HttpCaller
from fanout.simulators import tls
from fanout.simulators.faults import FAULTS, Fault, FaultyServer
from tests.simulators.kit import Providers

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


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Files:
    return tls.write(tmp_path_factory.mktemp("tls"), now=datetime.datetime.now(datetime.UTC))


async def post(url: str, ca: Path, *, times: int = 1, timeout_s: float = 1.0) -> list[Answer]:
    caller = HttpCaller(ca=str(ca), timeout_s=timeout_s, connections=2)
    try:
        with trio.fail_after(20):
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
    times = 1 if fault in ("hang", "endless", "garbage", "mute") else 6
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        answers = await post(f"https://127.0.0.1:{port}", certificates.ca, times=times)
        nursery.cancel_scope.cancel()
    assert {answer.code for answer in answers} <= POSSIBLE[fault]
    assert set(server.arrived.values()) <= {1}, "what rings twice is never sent twice"
    for number, answer in enumerate(answers):
        if answer.code == 200:
            assert server.arrived[f"/{number}", b"row %d." % number] == 1
        if answer.code == NO_CONNECTION:
            assert server.arrived[f"/{number}", b"row %d." % number] == 0


async def test_nobody_there_and_a_wrong_certificate(tmp_path: Path, certificates: tls.Files) -> None:
    assert [one.code for one in await post("https://127.0.0.1:9", certificates.ca)] == [NO_CONNECTION]
    now = datetime.datetime.now(datetime.UTC)
    other = tls.write(tmp_path / "other", now=now, hosts=["wrong.invalid"], addresses=[])
    server = FaultyServer("none", cert=other.cert, key=other.key)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve)
        for ca in (certificates.ca, other.ca):
            assert [one.code for one in await post(f"https://127.0.0.1:{port}", ca)] == [NO_CONNECTION]
        nursery.cancel_scope.cancel()
    assert not server.arrived


async def test_a_redirect_is_not_followed(providers: Providers) -> None:
    providers.moods(sms={"redirect": 1.0})
    caller = HttpCaller(ca=str(providers.ca), timeout_s=5, connections=1)
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


async def test_warming(providers: Providers) -> None:
    caller = HttpCaller(ca=str(providers.ca), timeout_s=1, connections=1)
    assert await caller.warm(providers.url)
    assert not await caller.warm("https://127.0.0.1:9")
    await caller.aclose()
