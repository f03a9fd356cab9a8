"""Group commit: many tasks write at once, and what arrives during one commit shares the next.

A commit costs a disk flush, whether it holds one call or fifty. `Writer.run` queues a call, one thread takes whatever
is queued into one `store.group()`, and each caller is woken when *its* commit is on the disk. Alone, a call waits for
nothing but its own commit.

Rules:

1. What `run` returns is durable.
2. A call that fails fails alone: it raises in its caller, and the others of its group are committed.
3. If the commit itself fails, every caller of the group gets that error, and nothing of the group was written.
4. What is shared (`share`) is one call for all that wait: what they bring is put together, so that a hundred receipts
   in a hundred requests cost what they do in one. If that call fails, each of them is tried alone: rule 2 holds.
5. At most `STORE_CALLS_QUEUED_MAX` calls wait; further callers wait for room, first come first served.

Why a task and trio's threads, not a thread and a queue of our own: cancellation, errors and the end of the program are
then those of a nursery, and a crash in here cannot go unseen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import trio

from fanout import limits
from fanout.store.protocol import Store

T = TypeVar("T")
Item = TypeVar("Item")


class WriterStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """`calls` and `commits` so far; `queued`: calls that wait for a commit now; `largest`: calls in one commit."""

    calls: int
    commits: int
    queued: int
    largest: int


class _Call:
    """One call on its way: waiting, then taken into a group, then done. `shared`: with others that call the same."""

    def __init__(self, call: Callable[..., Any], given: tuple[Any, ...], *, shared: bool = False) -> None:
        self.call = call
        self.given = given
        self.shared = shared
        self.done = trio.Event()
        self.result: Any = None
        self.error: Exception | None = None

    def attempt(self) -> None:
        """Run it in the writer's thread; what it raises is its caller's."""
        try:
            self.result = self.call(*self.given)
        except Exception as error:
            self.error = error

    def fail(self) -> None:
        """Its writer is gone; whether it was written is not known."""
        self.error = trio.BrokenResourceError("the writer ended before it could say whether this was written")
        self.done.set()

    def unwrap(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class Writer:
    """Made by `open_writer`; `run` may be called by many tasks at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Call] = deque()
        self._room = trio.Semaphore(limits.STORE_CALLS_QUEUED_MAX)
        self._bell = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._closed = False
        self._calls = self._commits = self._largest = 0

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Writer {state}: {len(self._waiting)} waiting, {self._calls} calls in {self._commits} commits>"

    def statistics(self) -> WriterStatistics:
        """What it has done so far."""
        return WriterStatistics(
            calls=self._calls, commits=self._commits, queued=len(self._waiting), largest=self._largest
        )

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Run `call(*args)`, a call of the store or several, in the next commit; returns what it returned.

        Errors: whatever `call` raises; `Refused("store_unavailable")` if the commit failed; `trio.ClosedResourceError`
        after the end of `open_writer`; `trio.BrokenResourceError` if the writer itself broke.

        Cancellation: while it waits, the call is withdrawn and nothing of it is written. Once its commit has begun it
        cannot be stopped: then this returns what it wrote, and the cancellation is delivered at the next checkpoint.
        """
        result: T = await self._done(_Call(call, args))
        return result

    async def share(self, call: Callable[[Sequence[Item]], list[T]], items: Sequence[Item]) -> list[T]:
        """Run `call(items)` together with all others that wait to have the same called with theirs; a result an item.

        Errors and cancellation: as of `run`.
        """
        result: list[T] = await self._done(_Call(call, (items,), shared=True))
        return result

    async def _done(self, mine: _Call) -> Any:
        await self._room.acquire()
        try:
            if self._closed:
                raise trio.ClosedResourceError("the writer is closed")
            self._waiting.append(mine)
            self._bell.set()
            try:
                await mine.done.wait()
            except trio.Cancelled:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                    raise
                with trio.CancelScope(shield=True):
                    await mine.done.wait()
            return mine.unwrap()
        finally:
            self._room.release()

    async def work(self) -> None:
        """Commit group after group until closed and empty. Cancellation: none, since callers rely on their commits."""
        try:
            with trio.CancelScope(shield=True):
                while not self._closed or self._waiting:
                    await self._bell.wait()
                    self._bell = trio.Event()
                    while self._waiting:
                        await self._group()
        finally:  # if it broke, nobody may wait for ever, not even behind a shield
            self._closed = True
            while self._waiting:
                self._waiting.popleft().fail()

    async def _group(self) -> None:
        size = min(len(self._waiting), limits.STORE_CALLS_PER_COMMIT_MAX)
        group = [self._waiting.popleft() for _ in range(size)]
        try:
            await trio.to_thread.run_sync(self._commit, group, limiter=self._thread)
        except BaseException:
            for call in group:
                call.fail()
            raise
        self._calls += size
        self._commits += 1
        self._largest = max(self._largest, size)
        for call in group:
            call.done.set()

    def _commit(self, group: list[_Call]) -> None:
        try:
            with self._store.group():
                for call in group:
                    if not call.shared:
                        call.attempt()
                shared = [call for call in group if call.shared]
                for what in dict.fromkeys(call.call for call in shared):
                    _attempt_together(what, [call for call in shared if call.call == what])
        except Exception as error:
            for call in group:
                call.error = call.error or error

    def close(self) -> None:
        """Take no more calls; `work` ends when those that wait are committed."""
        self._closed = True
        self._bell.set()


def _attempt_together(what: Callable[[list[Any]], list[Any]], calls: list[_Call]) -> None:
    """One call for all of them, in the writer's thread; if it fails, one for each."""
    items = [item for call in calls for item in call.given[0]]
    try:
        results = what(items)
    except Exception:
        for call in calls:
            call.attempt()
        return
    end = 0
    for call in calls:
        begin, end = end, end + len(call.given[0])
        call.result = results[begin:end]


@asynccontextmanager
async def open_writer(store: Store) -> AsyncIterator[Writer]:
    """A writer for the time of the block. At its end no new calls are taken, and those that wait are committed.

    Cancellation: the same; the calls that wait are withdrawn by their own callers, if these are cancelled too.
    """
    writer = Writer(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.work)
        try:
            yield writer
        finally:
            writer.close()
