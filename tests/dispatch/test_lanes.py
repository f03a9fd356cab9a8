"""The bulk lane against servers that break the protocol: every row has a definite code, whatever happens.

What really arrived is counted by the server. Of a row whose code says that it certainly was not taken, nothing may have
arrived; a row with a 200 arrived.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, NOT_SENT, Requests, Template, column
from fanout.dispatch import curl_lane
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.curl_lane import CurlLane
from fanout.dispatch.frame_lane import FrameLane
from fanout.dispatch.lanes import RunningLane, Sent
from fanout.simulators import tls
from fanout.simulators.faults import FAULTS, Fault, FaultyServer
from tests.dispatch.blunt_server import BluntServer
from tests.dispatch.kit import clock_ms
from tests.simulators.kit import PATIENCE_S, Providers

ROWS = 40


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Files:
    return tls.write(tmp_path_factory.mktemp("tls"), now=datetime.datetime.now(datetime.UTC))


def requests(url: str, rows: int = ROWS) -> Requests:
    """POST url/<row> with a body of its own."""
    template = Template(method="POST", url=(f"{url}/".encode(), 0), headers=(), body=(b"row ", 0, b"."))
    return Requests(
        templates=(template,),
        columns=(column([b"%d" % row for row in range(rows)]),),
        which=np.zeros(rows, np.uint8),
        usable=np.ones(rows, np.bool_),
    )


LANES = ("frames", "libcurl")

Opener = Callable[..., AbstractAsyncContextManager[RunningLane]]


@pytest.fixture(params=LANES)
def open_lane(request: pytest.FixtureRequest) -> Opener:
    """Opens a lane of each kind in turn."""
    kind: str = request.param

    @asynccontextmanager
    async def opened(
        url: str, ca: Path, *, timeout_s: float = 20.0, rate: float = 1e6, streams: int = 16
    ) -> AsyncIterator[RunningLane]:
        bucket = Bucket(rate_per_s=rate, burst=max(1.0, rate / 10), reserve=0.125, now_s=trio.current_time())
        common: dict[str, Any] = {"ca": str(ca), "connections": 2, "streams": streams, "timeout_s": timeout_s}
        common |= {"reserve": 0.125, "bucket": bucket, "clock_ms": clock_ms}
        lane: RunningLane = FrameLane(url=url, **common) if kind == "frames" else CurlLane(**common)
        async with trio.open_nursery() as nursery:
            await nursery.start(lane.run)
            try:
                yield lane
            finally:
                lane.close()

    return opened


async def send(lane: RunningLane, url: str, rows: int = ROWS, may_go: Callable[[], bool] = lambda: True) -> Sent:
    with trio.fail_after(PATIENCE_S):
        return await lane.send(requests(url, rows), np.arange(rows), lane=0, action=1, may_go=may_go)


POSSIBLE: dict[Fault, set[int]] = {
    "none": {200},
    "one_stream": {200},
    "shrink": {200},
    "goaway": {200, NO_ANSWER},
    "refuse": {200, NO_ANSWER, NO_CONNECTION},
    "reset": {200, NO_ANSWER},
    "drop": {200, NO_ANSWER},
    "half": {NO_ANSWER, NO_CONNECTION},
    "hang": {NO_ANSWER, NO_CONNECTION},
    "endless": {GARBAGE, NO_ANSWER, NO_CONNECTION},
    "garbage": {NO_ANSWER, NO_CONNECTION, GARBAGE},
    "mute": {NO_ANSWER, NO_CONNECTION},
}


async def test_every_success_has_its_moment(
    open_lane: Opener, certificates: tls.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """202 is one: what a push service says of a phone that is off. Its rows counted, and had no time."""

    async def later(_judge: object, _request: object) -> tuple[int, list[tuple[str, str]], bytes]:
        return 202, [], b""

    monkeypatch.setattr("fanout.simulators.faults._Judge.reply", later)
    server = FaultyServer("none", cert=certificates.cert, key=certificates.key)
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with open_lane(url, certificates.ca) as lane:
            sent = await send(lane, url)
        nursery.cancel_scope.cancel()
    assert set(sent.codes.tolist()) == {202}
    assert sent.first_ms is not None
    assert sent.last_ms is not None


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_row_has_a_definite_code(open_lane: Opener, fault: Fault, certificates: tls.Files) -> None:
    server = FaultyServer(fault, cert=certificates.cert, key=certificates.key)
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with open_lane(url, certificates.ca, timeout_s=20.0 if 200 in POSSIBLE[fault] else 1.0) as lane:
            sent = await send(lane, url)
            assert lane.in_flight == 0
        nursery.cancel_scope.cancel()
    assert set(sent.codes.tolist()) <= POSSIBLE[fault], fault
    arrived = {path: count for (path, _), count in server.arrived.items()}
    for row, code in enumerate(sent.codes.tolist()):
        count = arrived.get(f"/{row}", 0)
        if code == 200:
            assert count >= 1, "what was accepted has arrived"
        if code in (NO_CONNECTION, NOT_SENT):
            assert count == 0, "what certainly was not taken has not arrived"
    if fault in ("none", "one_stream", "shrink"):
        assert set(arrived.values()) == {1}
        assert {(f"/{row}", b"row %d." % row) for row in range(ROWS)} == set(server.arrived)


async def test_a_wrong_certificate_takes_nothing(open_lane: Opener, tmp_path: Path, certificates: tls.Files) -> None:
    now = datetime.datetime.now(datetime.UTC)
    other = tls.write(tmp_path / "other", now=now, hosts=["wrong.invalid"], addresses=[])
    server = FaultyServer("none", cert=other.cert, key=other.key)
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        for ca in (certificates.ca, other.ca):  # an authority that is not ours; a name that is not its own
            async with open_lane(url, ca, timeout_s=1.0) as lane:
                sent = await send(lane, url)
                assert set(sent.codes.tolist()) == {NO_CONNECTION}
        nursery.cancel_scope.cancel()
    assert not server.arrived


async def test_nobody_there(open_lane: Opener, certificates: tls.Files) -> None:
    async with open_lane("https://127.0.0.1:9", certificates.ca, timeout_s=1.0) as lane:
        sent = await send(lane, "https://127.0.0.1:9")
    assert set(sent.codes.tolist()) == {NO_CONNECTION}


async def test_a_stop_between_rows_leaves_the_rest_unsent(open_lane: Opener, providers: Providers) -> None:
    allowed = 3

    def may_go() -> bool:
        nonlocal allowed
        allowed -= 1
        return allowed >= 0

    async with open_lane(providers.url, providers.ca) as lane:
        sent = await send(lane, providers.url, 200, may_go)
    codes = sent.codes.tolist()
    assert NOT_SENT in codes
    first = codes.index(NOT_SENT)
    assert set(codes[first:]) == {NOT_SENT}, "in order, and nothing after the stop"
    assert NOT_SENT not in codes[:first]


@pytest.mark.parametrize("why", ["the quota is shut", "no place is free"])
async def test_rows_that_may_not_go_do_not_wait(open_lane: Opener, certificates: tls.Files, why: str) -> None:
    server, closed = FaultyServer("hang", cert=certificates.cert, key=certificates.key), False
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with open_lane(url, certificates.ca, timeout_s=600.0, streams=2) as lane, trio.open_nursery() as callers:
            if why == "the quota is shut":
                lane.bucket.shut(trio.current_time() + 600)  # type: ignore[attr-defined]
            else:
                callers.start_soon(send, lane, url, 4)
                while lane.in_flight < 4:  # noqa: ASYNC110 - nobody tells of it
                    await trio.sleep(0.01)

            async def close() -> None:
                nonlocal closed
                await trio.sleep(0.2)
                closed = True

            callers.start_soon(close)
            began_s = trio.current_time()
            sent = await send(lane, url, ROWS, lambda: not closed)
            assert trio.current_time() - began_s < 60.0, "before a place is free, or the quota open again"
            assert set(sent.codes.tolist()) == {NOT_SENT}
            lane.close()
        nursery.cancel_scope.cancel()


async def test_bodies_are_of_refusals_and_retry_after_is_read(open_lane: Opener, providers: Providers) -> None:
    providers.moods(fcm={"storm": 1.0, "retry_after_s": 7})
    template = Template(
        method="POST",
        url=(f"{providers.url}/v1/projects/p/messages:send".encode(),),
        headers=("content-type: application/json",),
        body=(b'{"message":{"token":"', 0, b'"}}'),
    )
    storm = Requests(
        templates=(template,), columns=(column([b"a"]),), which=np.zeros(1, np.uint8), usable=np.ones(1, np.bool_)
    )
    async with open_lane(providers.url, providers.ca) as lane:
        sent = await lane.send(storm, np.arange(1), lane=0, action=1, may_go=lambda: True)
    assert sent.codes.tolist() == [503]
    assert sent.asked_s == 7
    assert b"UNAVAILABLE" in sent.bodies[0]
    assert sent.first_ms is None


async def test_a_cancelled_caller_takes_its_unsent_rows_along(open_lane: Opener, certificates: tls.Files) -> None:
    server = FaultyServer("hang", cert=certificates.cert, key=certificates.key)
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with open_lane(url, certificates.ca, timeout_s=0.5) as lane:
            with trio.move_on_after(0.2):
                await send(lane, url, 500)
            sent = await send(lane, url, 3)
            assert set(sent.codes.tolist()) <= {NO_ANSWER, NO_CONNECTION}
        nursery.cancel_scope.cancel()
    assert len(server.arrived) < 100


async def test_a_closed_lane_answers_its_callers(open_lane: Opener, certificates: tls.Files) -> None:
    server = FaultyServer("hang", cert=certificates.cert, key=certificates.key)
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        async with open_lane(url, certificates.ca, timeout_s=60) as lane, trio.open_nursery() as callers:
            found: list[Sent] = []

            async def call() -> None:
                found.append(await send(lane, url, 100))

            callers.start_soon(call)
            while lane.in_flight == 0:  # noqa: ASYNC110
                await trio.sleep(0.01)
            lane.close()
        nursery.cancel_scope.cancel()
    codes = found[0].codes.tolist()
    assert set(codes) == {NO_ANSWER, NOT_SENT}
    assert codes.count(NO_ANSWER) < 100


async def test_warming_opens_every_connection(open_lane: Opener, providers: Providers) -> None:
    async with open_lane(providers.url, providers.ca) as lane:
        assert await lane.warm(providers.url)
        assert lane.in_flight == 0
        assert (await send(lane, providers.url)).codes.tolist() == [404] * ROWS
    async with open_lane("https://127.0.0.1:9", providers.ca, timeout_s=0.5) as lane:
        assert not await lane.warm("https://127.0.0.1:9")


@pytest.mark.parametrize(("idle_s", "reused"), [(1, False), (3_600, True)])
async def test_what_was_idle_for_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, certificates: tls.Files, idle_s: int, reused: bool
) -> None:
    """libcurl does not always see that a provider has closed it, and what goes into it then is unknown."""
    monkeypatch.setattr(curl_lane, "IDLE_S_MAX", idle_s)
    server = BluntServer("none", cert=certificates.cert, key=certificates.key)
    bucket = Bucket(rate_per_s=1e6, burst=1e5, reserve=0.125, now_s=trio.current_time())
    lane = CurlLane(
        ca=str(certificates.ca), connections=1, streams=1, timeout_s=20.0, reserve=0.125, bucket=bucket,
        clock_ms=clock_ms,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        url = f"https://127.0.0.1:{await nursery.start(server.serve)}"
        await nursery.start(lane.run)
        assert set((await send(lane, url, 1)).codes.tolist()) == {200}
        await trio.sleep(2.5)
        assert set((await send(lane, url, 1)).codes.tolist()) == {200}
        lane.close()
        nursery.cancel_scope.cancel()
    assert server.connections == (1 if reused else 2)
