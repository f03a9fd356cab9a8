"""One push service, many origins: each row by its own origin's lane, and few lanes however many origins come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NO_ANSWER, NOT_SENT, Requests, Template, column
from fanout.dispatch.lanes import Sent, gathered
from fanout.dispatch.origin_lane import ORIGINS_MAX, ROWS_LEAST, OriginLane


class Wire:
    """A lane that says 201, with the path's last letter as its body's; knows what it was given, as whole addresses."""

    in_flight = 0

    def __init__(self, origin: str = "") -> None:
        self.origin, self.given = origin, list[bytes]()
        self.warmed = list[str]()
        self.closed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await self.closed.wait()

    def close(self) -> None:
        self.closed.set()

    async def warm(self, url: str) -> bool:
        self.warmed.append(url)
        return True

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        await trio.lowlevel.checkpoint()
        if self.closed.is_set():
            return Sent(np.full(len(index), NO_ANSWER, np.int16), {}, 0.0, None, None)
        paths = requests.columns[0].rows()
        for row in index.tolist():
            origin = requests.templates[requests.which[row]].url[0]
            assert isinstance(origin, bytes)
            assert not self.origin or origin.decode().startswith(self.origin)
            self.given.append(origin + paths[row])
        bodies = {place: paths[row] for place, row in enumerate(index.tolist())}
        codes = np.array([200 + row % 50 for row in index.tolist()], np.int16)
        return Sent(codes, bodies, float(len(index)), len(self.given), 10 * len(self.given))


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[OriginLane, dict[str, Wire], Wire]]:
    made: dict[str, Wire] = {}

    def make(origin: str) -> Wire:
        assert origin not in made
        made[origin] = Wire(origin)
        return made[origin]

    others = Wire()
    lane = OriginLane(make, others)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(lane.run)
            yield lane, made, others
            lane.close()


def requests_to(*origins: str) -> Requests:
    """A row for each, in this order."""
    names = sorted(set(origins))
    templates = [Template(method="POST", url=(name.encode(), 0), headers=(), body=()) for name in names]
    rows = len(origins)
    return Requests(
        templates=tuple(templates),
        columns=(column([f"/{row}".encode() for row in range(rows)]),),
        which=np.array([names.index(origin) for origin in origins], np.uint16),
        usable=np.ones(rows, np.bool_),
    )


async def send(lane: OriginLane, requests: Requests, index: NDArray[np.intp] | None = None) -> Sent:
    index = np.arange(len(requests.which)) if index is None else index
    return await lane.send(requests, index, lane=1, action=1, may_go=lambda: True)


async def test_each_row_goes_to_its_origin_and_its_answer_comes_back_to_its_place() -> None:
    origins = ["https://a.example", "https://b.example:8443"] * ROWS_LEAST + ["https://c.example"]
    requests = requests_to(*origins)
    async with opened() as (lane, made, others):
        index = np.arange(1, len(origins))
        sent = await send(lane, requests, index)
        assert sent.codes.tolist() == [200 + row % 50 for row in index.tolist()]
        assert sent.bodies == {place: f"/{row}".encode() for place, row in enumerate(index.tolist())}
        assert sent.asked_s == ROWS_LEAST
        few = [f"https://a.example/{row}".encode() for row in range(2, len(origins) - 1, 2)]
        assert others.given == [*few, f"https://c.example/{len(origins) - 1}".encode()]
        assert list(made) == ["https://b.example:8443"]
        assert made["https://b.example:8443"].given == [
            f"https://b.example:8443/{row}".encode() for row in range(1, len(origins) - 1, 2)
        ]


async def test_few_lanes_however_many_origins() -> None:
    async with opened() as (lane, made, others):
        for number in range(ORIGINS_MAX + 3):
            await send(lane, requests_to(*[f"https://{number}.example"] * ROWS_LEAST))
        assert len(made) == ORIGINS_MAX
        assert len(others.given) == 3 * ROWS_LEAST
        await send(lane, requests_to("https://0.example"))
        assert made["https://0.example"].given[-1] == b"https://0.example/0", "one that has a lane keeps to it"
        await send(lane, requests_to(*["http://0.example"] * ROWS_LEAST))
        assert len(others.given) == 4 * ROWS_LEAST, "frames are for TLS"


async def test_its_origin_is_warmed_and_all_end_with_it() -> None:
    async with opened() as (lane, made, others):
        assert await lane.warm("https://a.example/wpush/v2")
        assert made["https://a.example"].warmed == ["https://a.example/wpush/v2"]
        await send(lane, requests_to("https://a.example"))
        assert others.given == []
    assert made["https://a.example"].closed.is_set()
    assert others.closed.is_set()


async def test_no_rows_are_no_parts() -> None:
    async with opened() as (lane, _, _others):
        assert len((await send(lane, requests_to("https://a.example"), np.empty(0, np.intp))).codes) == 0


def test_parts_that_are_gathered() -> None:
    first = Sent(np.array([201, -2], np.int16), {1: b"x"}, 0.0, None, None)
    second = Sent(np.array([503], np.int16), {0: b"y"}, 4.0, 7, 9)
    found = gathered(4, [(np.array([0, 2]), first), (np.array([2]), second)])
    assert found.codes.tolist() == [201, NOT_SENT, 503, NOT_SENT]
    assert found.bodies == {2: b"y"}
    assert (found.asked_s, found.first_ms, found.last_ms) == (4.0, 7, 9)
