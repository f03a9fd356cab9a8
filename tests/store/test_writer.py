"""Group commit: who shares a commit, who fails alone, and what a cancelled call leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio

from fanout import limits
from fanout.errors import Refused
from fanout.store.sqlite_store import SqliteStore
from fanout.store.writer import open_writer
from tests.store import kit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore.open(tmp_path / "ledger.db", synchronous="NORMAL")
    yield store
    store.close_store()


class Gate:
    """A call that holds the writer's thread until it is opened, so that others queue up behind it."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.token = trio.lowlevel.current_trio_token()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.token.run_sync_soon(self.entered.set)
        assert self.opened.wait(30)


async def test_calls_that_arrive_during_a_commit_share_the_next(store: SqliteStore) -> None:
    gate = Gate()
    async with open_writer(store) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, gate)
        await gate.entered.wait()
        for _ in range(20):
            nursery.start_soon(writer.run, store.append, "changes", [b"x"])
        await trio.testing.wait_all_tasks_blocked()
        assert writer.statistics().queued == 20
        gate.opened.set()
    statistics = writer.statistics()
    assert (statistics.calls, statistics.commits, statistics.largest, statistics.queued) == (21, 2, 20, 0)
    assert store.last("changes") == 20
    assert repr(writer) == "<Writer closed: 0 waiting, 21 calls in 2 commits>"


async def test_a_call_that_fails_fails_alone(store: SqliteStore) -> None:
    gate = Gate()
    failed: list[Refused] = []

    async def conflict() -> None:
        try:
            await writer.run(store.open_action, kit.action(digest=b"other"), kit.phase(), [])
        except Refused as error:
            failed.append(error)

    kit.opened(store)
    async with open_writer(store) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, gate)
        await gate.entered.wait()
        nursery.start_soon(writer.run, store.append, "changes", [b"1"])
        nursery.start_soon(conflict)
        nursery.start_soon(writer.run, store.append, "changes", [b"2"])
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert [error.code for error in failed] == ["reference_conflict"]
    assert store.last("changes") == 2


async def test_what_is_shared_is_one_call_and_each_gets_its_own(store: SqliteStore) -> None:
    gate, asked, told = Gate(), list[list[int]](), dict[int, object]()

    def tenfold(items: Sequence[int]) -> list[int]:
        asked.append(list(items))
        if 3 in items:
            raise ValueError(f"{len(items)} items and a three among them")
        return [10 * item for item in items]

    async def share(*items: int) -> None:
        try:
            told[items[0]] = await writer.share(tenfold, items)
        except ValueError as error:
            told[items[0]] = str(error)

    async with open_writer(store) as writer:
        for bodies in (((1, 2), (4,), (5, 6)), ((7,), (3,), (8, 9))):
            gate = Gate()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.run, gate)
                await gate.entered.wait()
                for body in bodies:
                    nursery.start_soon(share, *body)
                await trio.testing.wait_all_tasks_blocked()
                gate.opened.set()
    assert sorted(asked[0]) == [1, 2, 4, 5, 6], "all in one"
    assert sorted(map(len, asked[1:])) == [1, 1, 2, 4], "all in one, and then each alone"
    alone = "1 items and a three among them"
    assert told == {1: [10, 20], 4: [40], 5: [50, 60], 7: [70], 3: alone, 8: [80, 90]}


async def test_a_commit_that_fails_is_told_to_all_of_its_group(store: SqliteStore) -> None:
    gate = Gate()
    codes: list[str] = []

    async def write(rows: int) -> None:
        try:
            await writer.run(store.put, "keys", [(str(rows), b"x" * rows)])
        except Refused as error:
            codes.append(error.code)

    (pages,) = store._file._writer.execute("PRAGMA page_count").fetchone()
    store._file._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    async with open_writer(store) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run, gate)
            await gate.entered.wait()
            nursery.start_soon(write, 10)
            nursery.start_soon(write, 100_000)
            await trio.testing.wait_all_tasks_blocked()
            gate.opened.set()
        assert codes == ["store_unavailable"] * 2
        assert store.scan("keys") == []
        store._file._writer.execute("PRAGMA max_page_count = 100000")
        await writer.run(store.put, "keys", [("a", b"1")])
    assert store.scan("keys") == [("a", b"1")]


async def test_a_call_cancelled_while_it_waits_writes_nothing(store: SqliteStore) -> None:
    gate = Gate()
    async with open_writer(store) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, gate)
        await gate.entered.wait()
        with trio.move_on_after(0.01) as scope:
            await writer.run(store.append, "changes", [b"never"])
        assert scope.cancelled_caught
        gate.opened.set()
    assert store.last("changes") == 0


async def test_a_call_cancelled_while_it_commits_returns_what_it_wrote(store: SqliteStore) -> None:
    gate = Gate()
    got: list[int] = []

    def write() -> int:
        gate()
        return store.append("changes", [b"written"])

    async with open_writer(store) as writer, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def call() -> None:
            with scope:
                got.append(await writer.run(write))

        nursery.start_soon(call)
        await gate.entered.wait()
        scope.cancel()
        gate.opened.set()
    assert got == [1]
    assert store.last("changes") == 1


async def test_the_end_commits_what_waits_and_takes_no_more(store: SqliteStore) -> None:
    gate = Gate()
    async with trio.open_nursery() as nursery:
        async with open_writer(store) as writer:
            nursery.start_soon(writer.run, gate)
            await gate.entered.wait()
            nursery.start_soon(writer.run, store.append, "changes", [b"1"])
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(trio.to_thread.run_sync, gate.opened.set)
        with pytest.raises(trio.ClosedResourceError):
            await writer.run(store.append, "changes", [b"2"])
    assert store.last("changes") == 1


async def test_callers_beyond_the_bound_wait_for_room(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STORE_CALLS_QUEUED_MAX", 3)
    gate = Gate()
    async with open_writer(store) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, gate)
        await gate.entered.wait()
        for _ in range(9):
            nursery.start_soon(writer.run, store.append, "changes", [b"x"])
        await trio.testing.wait_all_tasks_blocked()
        assert writer.statistics().queued == 2
        gate.opened.set()
    assert store.last("changes") == 9
