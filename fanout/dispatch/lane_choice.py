"""Which lane a channel's rows take: the one place that decides it.

* FCM and APNs take the lane that `dispatch.lane` names: `frames`, or `libcurl`. So does each origin of Web Push that
  gets rows enough (`origin_lane.py`).
* Plain `http` has no lane of frames: libcurl.
* A provider that does not agree to HTTP/2 when it is first spoken to (a proxy in between, a test server) is spoken to
  by libcurl from then on, over HTTP/1.1. Rows that were waiting go on there; nothing of them had been sent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NO_CONNECTION, Requests
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.curl_lane import CurlLane
from fanout.dispatch.frame_lane import FrameLane
from fanout.dispatch.lanes import RunningLane, Sent, gathered
from fanout.dispatch.origin_lane import OriginLane
from fanout.settings import DispatchSettings

MANY_ORIGINS = ("webpush",)


def lane_for(
    name: str, *, url: str, ca: str, dispatch: DispatchSettings, bucket: Bucket, clock_ms: Callable[[], int]
) -> RunningLane:
    """The lane of a channel at one provider."""

    def curl() -> CurlLane:
        return CurlLane(
            ca=ca,
            connections=dispatch.connections,
            streams=dispatch.streams,
            timeout_s=dispatch.request_timeout_s,
            reserve=dispatch.reserve,
            bucket=bucket,
            clock_ms=clock_ms,
        )

    def frames(origin: str) -> FramesOrCurl:
        lane = FrameLane(
            url=origin,
            ca=ca,
            connections=dispatch.connections,
            streams=dispatch.streams,
            timeout_s=dispatch.request_timeout_s,
            reserve=dispatch.reserve,
            bucket=bucket,
            clock_ms=clock_ms,
        )
        return FramesOrCurl(lane, curl)

    if dispatch.lane == "libcurl" or not url.startswith("https://"):
        return curl()
    return OriginLane(frames, curl()) if name in MANY_ORIGINS else frames(url)


class FramesOrCurl:
    """A lane of frames, and one of libcurl for a provider that turns out not to speak HTTP/2."""

    def __init__(self, frames: FrameLane, make_curl: Callable[[], CurlLane]) -> None:
        self._frames, self._make_curl = frames, make_curl
        self._curl: CurlLane | None = None
        self._needed, self._stands = trio.Event(), trio.Event()

    def __repr__(self) -> str:
        return repr(self._curl or self._frames)

    @property
    def in_flight(self) -> int:
        """Requests on the wire."""
        return self._frames.in_flight + (self._curl.in_flight if self._curl else 0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the lane until `close`; see `lanes.RunningLane`."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._frames.run)
            task_status.started()
            with trio.CancelScope(shield=True):
                await self._needed.wait()
            if not self._frames.speaks_h2():
                self._curl = self._make_curl()
                await nursery.start(self._curl.run)
                self._stands.set()

    def close(self) -> None:
        """End the lane; rows still on the wire come back as `NO_ANSWER`."""
        self._frames.close()
        self._needed.set()
        if self._curl is not None:
            self._curl.close()

    async def warm(self, url: str) -> bool:
        """Open all connections before the first action; True if the provider answered on each."""
        warm = await self._frames.warm(url)
        return warm or (not self._frames.speaks_h2() and await (await self._other()).warm(url))

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        """Send the rows at `index`; see `lanes.Lane`."""
        if not self._frames.speaks_h2():
            return await (await self._other()).send(requests, index, lane=lane, action=action, may_go=may_go)
        sent = await self._frames.send(requests, index, lane=lane, action=action, may_go=may_go)
        left = np.flatnonzero(sent.codes == NO_CONNECTION)
        if self._frames.speaks_h2() or not len(left):
            return sent
        other = await (await self._other()).send(requests, index[left], lane=lane, action=action, may_go=may_go)
        return gathered(len(index), [(np.arange(len(index)), sent), (left, other)])

    async def _other(self) -> CurlLane:
        self._needed.set()
        await self._stands.wait()
        assert self._curl is not None
        return self._curl
