"""The world around a simulated engine: time, processes that can be killed, and phones that remember.

Rules:

1. Everything random comes from one seeded source, time is trio's virtual clock, and blocking calls are made where they
   are asked for instead of in threads. So a run is a function of its seed.
2. A process is a task and all its children, known by a context variable. Before and after every blocking call it may
   be its time to die: then nothing of it runs on, no `finally` reaches the ledger, and what it had on the wire arrives
   or not, as the wire pleases.
3. Phones keep what providers took, whatever anybody answered about it: they are the truth the ledger is compared with.
   Beside them the journal keeps what the engine let go and when it read addresses, seen at its own borders.
"""

from __future__ import annotations

import contextvars
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.registry.packed import Packed
from fanout.registry.replica import Replica
from fanout.store.protocol import ActionRecord, Generations, Lease, NewBatch, PhaseRecord, Rows
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import State
from fanout.wire import CHANNELS

START_MS = 1_790_000_000_000
TIMEOUT_S = 1.0
LOOK_S = 0.1


def clock_ms() -> int:
    """The virtual time of day."""
    return START_MS + int(trio.current_time() * 1000)


# --- processes ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """This process is no more. Nothing catches it but who started the process."""


class Process:
    """A process that may be killed from outside, or dies at a step of its own choosing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.steps_left: int | None = None
        self.skew_ms = 0  # how wrong its clock is
        self.scope = trio.CancelScope()

    def step(self) -> None:
        """Between two statements."""
        if self.steps_left is not None and not self.dead:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.kill()
        if self.dead:
            raise Killed(self.name)

    def kill(self) -> None:
        self.dead = True
        self.scope.cancel()


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("PROCESS", default=None)


async def run_here(call: Callable[..., Any], *args: Any, **_options: Any) -> Any:
    """In the place of `trio.to_thread.run_sync`: now, here, and with a chance to die before and after."""
    process = PROCESS.get()
    await trio.lowlevel.checkpoint()
    if process is not None:
        process.step()
    if getattr(getattr(call, "func", call), "__name__", "") in ("wait", "look"):
        result = await _wait(call, *args)
    else:
        result = call(*args)
    if process is not None:
        process.step()
    return result


async def _wait(call: Any, *args: float) -> Any:
    """`Store.wait`, or a look that waits by it, in virtual time."""
    (timeout_s,) = args or call.args
    look = partial(getattr(call, "func", call), 0.0)
    end_s = trio.current_time() + timeout_s
    while not (seen := look()):
        if trio.current_time() >= end_s:
            return seen
        await trio.sleep(LOOK_S)
        if (process := PROCESS.get()) is not None:
            process.step()
    return seen


# --- phones ---------------------------------------------------------------------------------------------------------

Key: TypeAlias = tuple[str, int]
"""A channel, and the number of a person."""


class Arrival(NamedTuple):
    """One message that a provider took. `sent_ms`: when it went on the wire, `own_ms`: by its sender's own clock;
    `read_ms`: when its address was read; `quiet`: without a sound."""

    sent_ms: int
    own_ms: int
    read_ms: int
    quiet: bool


class Phones:
    """Everything that was ever taken, by (action, phase, channel, person)."""

    def __init__(self) -> None:
        self.got: defaultdict[tuple[int, int, str, int], list[Arrival]] = defaultdict(list)
        self.never_rang: set[tuple[int, int, str, int]] = set()  # taken by a supplier that told later: not delivered
        self.read_ms: dict[Key, int] = {}

    def take(self, key: tuple[int, int, str, int], sent_ms: int, *, quiet: bool = False) -> None:
        process = PROCESS.get()
        own_ms = sent_ms + (process.skew_ms if process is not None else 0)
        self.got[key].append(Arrival(sent_ms, own_ms, self.read_ms[key[2:]], quiet))

    def who(self, action: int, phase: int) -> set[Key]:
        """All that got a phase of an action."""
        return {(channel, person) for of, number, channel, person in self.got if (of, number) == (action, phase)}


# --- the engine's borders ---------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What an action selected when it was made, byte for byte: its request, its snapshot, and its rows in order."""

    request: bytes
    version: int
    rows: tuple[tuple[int, str, bytes, bytes], ...]


class Journal:
    """What went over the engine's borders, written down at the border."""

    def __init__(self) -> None:
        self.intended: set[tuple[int, int, int, int, int]] = set()  # action, phase, channel, row, generation
        self.closed_ms: dict[int, int] = {}
        self.on_wire_at_close: dict[int, set[tuple[int, int]]] = {}  # rows and generations
        self.plans: dict[int, Plan] = {}
        self.let_go: dict[int, int] = {}


class WatchedStore(SqliteStore):
    """The real store, with a journal of what it committed."""

    journal: Journal

    def open_action(
        self, action: ActionRecord, phase: PhaseRecord, batches: Sequence[NewBatch]
    ) -> tuple[ActionRecord, bool]:
        stored, new = super().open_action(action, phase, batches)
        rows = tuple((one.channel, one.language, one.rows.tobytes(), one.generations.tobytes()) for one in batches)
        self.journal.plans.setdefault(stored.id, Plan(action.body, action.snapshot_version, rows))
        return stored, new

    def intend(self, lease: Lease, index: NDArray[np.intp], *, now_ms: int) -> bool:
        may_go = super().intend(lease, index, now_ms=now_ms)
        if may_go:
            of = (lease.action, lease.phase, lease.channel)
            rows, generations = lease.rows[index].tolist(), lease.generations[index].tolist()
            self.journal.intended.update((*of, *one) for one in zip(rows, generations, strict=True))
        return may_go

    def close(
        self, action: int, *, state: str, now_ms: int, outcome: str | None = None, result_body: bytes | None = None
    ) -> bool:
        on_wire = {
            (int(row), int(generation))
            for view in self.batches(action)
            for row, generation in zip(
                *(c[view.status == State.INTENDED] for c in (view.rows, view.generations)), strict=True
            )
        }
        done = super().close(action, state=state, now_ms=now_ms, outcome=outcome, result_body=result_body)
        if done:
            self.journal.closed_ms[action] = clock_ms()
            self.journal.on_wire_at_close[action] = on_wire
        return done

    def hasten(self, action: int, *, below_seq: int) -> int:
        self.journal.let_go[action] = max(below_seq, self.journal.let_go.get(action, 0))
        return super().hasten(action, below_seq=below_seq)


class WatchedAddresses:
    """The real replica, with a note of when each person's address was read."""

    def __init__(self, replica: Replica, phones: Phones, person_of: Callable[[int, int], int | None]) -> None:
        self._replica, self._phones, self._person_of = replica, phones, person_of
        self.preferences = replica.preferences

    def refresh(self) -> bool:
        return self._replica.refresh()

    def addresses(self, channel: int, rows: Rows, generations: Generations, /) -> Packed:
        found = self._replica.addresses(channel, rows, generations)
        there = np.diff(found.offsets) > 0
        for row, generation in zip(rows[there].tolist(), generations[there].tolist(), strict=True):
            if (person := self._person_of(row, generation)) is not None:
                self._phones.read_ms[CHANNELS[channel], person] = clock_ms()
        return found
