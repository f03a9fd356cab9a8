"""The lane of one push service of browsers: its rows may go to many origins, and most go to one or two.

A row costs libcurl ten times what it costs a lane of frames, which speaks to one origin. So the origins that have rows
enough get a lane of frames each, and the others share libcurl. Rules beside those of `lanes.py`:

1. An origin gets a lane of frames with the first batch that has `ROWS_LEAST` rows for it, `ORIGINS_MAX` of them at
   most: each holds connections for as long as the sender lives, and origins come from outside. What is beyond goes by
   libcurl, as do origins of a few rows.
2. A template has one origin, the constant that its address begins with.
3. All lanes share the service's quota. The parts of a batch go side by side; it is done when all of them are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import Requests, origin_of
from fanout.dispatch.lanes import NOTHING_SENT, RunningLane, Sent, gathered

ORIGINS_MAX: Final = 8  # with a lane of frames; Microsoft's service has some dozens, all others one
ROWS_LEAST: Final = 32  # to open connections for


class OriginLane:
    """`make_frames(origin)` gives a lane to one origin, `others` carries what has none."""

    def __init__(self, make_frames: Callable[[str], RunningLane], others: RunningLane) -> None:
        self._make_frames, self._others = make_frames, others
        self._frames: dict[str, RunningLane] = {}
        self._nursery: trio.Nursery | None = None
        self._life = trio.Event()

    def __repr__(self) -> str:
        return f"<OriginLane {list(self._frames.values())}, {self._others!r}>"

    @property
    def in_flight(self) -> int:
        """Requests on the wire."""
        return self._others.in_flight + sum(lane.in_flight for lane in self._frames.values())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive all lanes until `close`; see `lanes.RunningLane`."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._others.run)
            task_status.started()
            with trio.CancelScope(shield=True):
                await self._life.wait()

    def close(self) -> None:
        """End all lanes; rows still on the wire come back as `NO_ANSWER`."""
        for lane in (self._others, *self._frames.values()):
            lane.close()
        self._life.set()

    async def warm(self, url: str) -> bool:
        """Open connections to the origin of `url` before the first action; True if it answered on each."""
        scheme, _, rest = url.partition("://")
        return await (await self._lane(f"{scheme}://{rest.partition('/')[0]}", ROWS_LEAST)).warm(url)

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        """Send the rows at `index`; see `lanes.Lane`."""
        which = requests.which[index]
        origins = np.array([origin_of(template) for template in requests.templates])
        found, number = np.unique(origins, return_inverse=True)
        parts: list[tuple[NDArray[np.intp], Sent]] = []

        async def one(way: RunningLane, at: NDArray[np.intp]) -> None:
            sent = await way.send(requests, index[at], lane=lane, action=action, may_go=may_go)
            parts.append((at, sent))

        ways: dict[RunningLane, list[NDArray[np.intp]]] = {}
        for place, origin in enumerate(found.tolist()):
            at = np.flatnonzero(number[which] == place)
            if len(at):
                ways.setdefault(await self._lane(origin, len(at)), []).append(at)
        if len(ways) == 1 and len(found) == 1:
            (way,) = ways
            return await way.send(requests, index, lane=lane, action=action, may_go=may_go)
        async with trio.open_nursery() as nursery:
            for way, places in ways.items():
                nursery.start_soon(one, way, np.sort(np.concatenate(places)))
        return gathered(len(index), parts) if parts else NOTHING_SENT

    async def _lane(self, origin: str, rows: int) -> RunningLane:
        """The lane for so many rows to an origin."""
        known = self._frames.get(origin)
        if known is not None:
            return known
        if rows < ROWS_LEAST or len(self._frames) >= ORIGINS_MAX or not origin.startswith("https://"):
            return self._others
        assert self._nursery is not None, "a lane is run before it sends"
        lane = self._frames[origin] = self._make_frames(origin)
        await self._nursery.start(lane.run)
        return lane
