"""Which lane is taken, and a provider that turns out to speak HTTP/1.1 only."""

from __future__ import annotations

import datetime
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import numpy as np
import pytest
import trio

from fanout.channels.protocol import Requests, Template, column
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.curl_lane import CurlLane
from fanout.dispatch.lane_choice import FramesOrCurl, lane_for
from fanout.dispatch.lanes import RunningLane
from fanout.dispatch.origin_lane import OriginLane
from fanout.settings import DispatchSettings
from fanout.simulators import tls
from tests.dispatch.kit import clock_ms, settings_for

ROWS = 30


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Files:
    return tls.write(tmp_path_factory.mktemp("tls"), now=datetime.datetime.now(datetime.UTC))


def choose(name: str, url: str, ca: Path, dispatch: DispatchSettings) -> RunningLane:
    bucket = Bucket(rate_per_s=1e6, burst=1e5, reserve=0.0, now_s=0.0)
    return lane_for(name, url=url, ca=str(ca), dispatch=dispatch, bucket=bucket, clock_ms=clock_ms)


async def test_which_lane(certificates: tls.Files) -> None:
    url, ca = "https://127.0.0.1:9", certificates.ca
    frames, libcurl = (settings_for(url, ca, lane=lane).dispatch for lane in ("frames", "libcurl"))
    assert isinstance(choose("fcm", url, ca, frames), FramesOrCurl)
    assert isinstance(choose("apns", url, ca, frames), FramesOrCurl)
    assert isinstance(choose("webpush", url, ca, frames), OriginLane)
    assert isinstance(choose("webpush", url, ca, libcurl), CurlLane)
    assert isinstance(choose("fcm", "http://127.0.0.1:9", ca, frames), CurlLane)
    assert isinstance(choose("fcm", url, ca, libcurl), CurlLane)


class OldServer:
    """HTTP/1.1 over TLS, by h11; counts what arrived."""

    def __init__(self, files: tls.Files) -> None:
        self.arrived: Counter[str] = Counter()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.cert, files.key)
        self._context.set_alpn_protocols(["http/1.1"])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._connection, listeners)
            yield f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()

    async def _connection(self, raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, self._context, server_side=True, https_compatible=True)
        http = h11.Connection(h11.SERVER)
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Request):
                    self.arrived[event.target.decode()] += 1
                elif isinstance(event, h11.EndOfMessage):
                    answer = h11.Response(status_code=200, headers=[("content-length", "0")])
                    await stream.send_all((http.send(answer) or b"") + (http.send(h11.EndOfMessage()) or b""))
                    http.start_next_cycle()
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return
        finally:
            await trio.aclose_forcefully(stream)


async def test_a_provider_without_http_2_is_libcurls(certificates: tls.Files) -> None:
    server = OldServer(certificates)
    async with server.serving() as url, trio.open_nursery() as nursery:
        lane = choose("fcm", url, certificates.ca, settings_for(url, certificates.ca).dispatch)
        await nursery.start(lane.run)
        template = Template(method="POST", url=(f"{url}/".encode(), 0), headers=(), body=(b"x",))
        requests = Requests(
            templates=(template,),
            columns=(column([b"%d" % row for row in range(ROWS)]),),
            which=np.zeros(ROWS, np.uint16),
            usable=np.ones(ROWS, np.bool_),
        )
        with trio.fail_after(60):
            for _ in range(2):  # what waits when it turns out, and what comes after
                sent = await lane.send(requests, np.arange(ROWS), lane=0, action=1, may_go=lambda: True)
                assert sent.codes.tolist() == [200] * ROWS
                assert sent.first_ms is not None
        assert lane.in_flight == 0
        lane.close()
    assert set(server.arrived.values()) == {2}
    assert len(server.arrived) == ROWS


async def test_warming_a_provider_without_http_2(certificates: tls.Files) -> None:
    server = OldServer(certificates)
    async with server.serving() as url, trio.open_nursery() as nursery:
        lane = choose("apns", url, certificates.ca, settings_for(url, certificates.ca).dispatch)
        await nursery.start(lane.run)
        with trio.fail_after(60):
            assert await lane.warm(url)
        lane.close()
