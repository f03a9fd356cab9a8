"""Lets the waves of actions go as operators come free. The law is in `plan/waves.py`; its state is kept in the ledger.

The state of an action's waves is a document (space `waves`, by action), written in the same commit as the batches it
lets go. A document that is missing is that of an action whose first waves went and nothing since: so a start needs to
write none, and a crash between the two loses nothing.

Rules:

1. Whoever changes waves, or adds batches that follow them, holds `turn`; the engine calls `step` every second.
2. An action that is paused keeps its waves where they are; one that is over is forgotten here.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from fanout import wire
from fanout.plan import waves as law
from fanout.store.protocol import ActionRecord, Store
from fanout.store.writer import Writer

SPACE = "waves"

_STATE = msgspec.msgpack.Decoder(law.Waves)


class WaveKeeper:
    """See the module. `add` every action that is open and told in waves, new ones and those found at the start."""

    def __init__(self, store: Store, writer: Writer, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._writer = writer
        self._clock_ms = clock_ms
        self.turn = trio.Lock()
        self._open: dict[int, wire.Waves] = {}

    def __repr__(self) -> str:
        return f"<WaveKeeper of {len(self._open)} actions>"

    def add(self, action: int, waves: wire.Waves) -> None:
        """From now on `step` looks after this action."""
        self._open[action] = waves

    async def step(self) -> None:
        """Let go what may go by now, of every action."""
        async with self.turn:
            for action in list(self._open):
                record = await trio.to_thread.run_sync(self._store.action, action)
                if record is None or record.state not in ("open", "paused"):
                    del self._open[action]
                    await self._writer.run(self._store.put, SPACE, [(str(action), None)])
                elif record.state == "open":
                    await self._go_on(record, self._open[action], None)

    async def report(self, record: ActionRecord, asked: wire.Waves, free: int) -> None:
        """So many operators are free for this action now."""
        async with self.turn:
            await self._go_on(record, asked, free)

    async def _go_on(self, record: ActionRecord, asked: wire.Waves, free: int | None) -> None:
        now_ms = self._clock_ms()
        before = await trio.to_thread.run_sync(self._state, record, asked)
        after = law.step(
            before, free=before.free if free is None else free, now_ms=now_ms, answer_ms=asked.answer_s * 1000
        )
        if (after.free, after.let_go) != (before.free, before.let_go):
            await self._writer.run(_store, self._store, record.id, before, after)

    def counts(self, record: ActionRecord, asked: wire.Waves) -> wire.WaveCounts:
        """How far it is. Blocking."""
        state = self._state(record, asked)
        return wire.WaveCounts(people=asked.people, let_go=state.let_go, of=state.of, free=state.free)

    def _state(self, record: ActionRecord, asked: wire.Waves) -> law.Waves:
        raw = self._store.get(SPACE, str(record.id))
        if raw is not None:
            return _STATE.decode(raw)
        people = sum(sum(batch.states) for batch in self._store.counts(record.id) if batch.phase == 0)
        return law.begin(free=asked.free, of=-(-people // asked.people), now_ms=record.created_ms)


def _store(store: Store, action: int, before: law.Waves, after: law.Waves) -> None:
    if after.let_go != before.let_go:
        store.hasten(action, below_seq=after.let_go)
    store.put(SPACE, [(str(action), msgspec.msgpack.encode(after))])
