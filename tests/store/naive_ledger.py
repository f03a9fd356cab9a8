"""The slow, obvious ledger: rows as Python lists, one loop a call, no tables. What every store is compared with.

Written from the rules in `fanout/store/protocol.py` and `states.py`, not from the stores, and without `rows.py`: where
both misread a rule the same way, they did so twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from fanout.store.protocol import LEFT_MS, ActionRecord, NewBatch, PhaseRecord, Share
from fanout.store.states import Reason, State

PUSH = (0, 1, 2)
OPEN = (State.PENDING, State.INTENDED, State.AGAIN, State.BOUNCED)


@dataclass
class Row:
    row: int
    state: State = State.PENDING
    reason: Reason = Reason.NONE


@dataclass
class NaiveBatch:
    number: int
    action: int
    phase: int
    lane: int
    channel: int
    seq: int
    rows: list[Row]
    owner: str | None = None  # of the lease, None when nobody has it
    due_ms: int = 0
    token: int = 0
    attempt: int = 0
    first_ms: int | None = None
    last_ms: int | None = None

    @property
    def is_open(self) -> bool:
        return any(row.state in OPEN for row in self.rows)


@dataclass
class NaiveAction:
    state: str
    lane: int
    phases: list[PhaseRecord] = field(default_factory=list)


@dataclass
class NaiveLease:
    batch: int
    token: int
    attempt: int
    states: list[State]
    reasons: list[Reason]


class NaiveLedger:
    def __init__(self) -> None:
        self.actions: dict[int, NaiveAction] = {}
        self.all_batches: list[NaiveBatch] = []

    # --- actions ----------------------------------------------------------------------------------------------------

    def open_action(self, number: int, record: ActionRecord, phase: PhaseRecord, batches: Sequence[NewBatch]) -> None:
        self.actions[number] = NaiveAction(state=record.state, lane=record.lane, phases=[phase])
        self._add(number, phase.phase, batches)

    def add_phase(
        self, action: int, phase: PhaseRecord, batches: Sequence[NewBatch], state: str, of: Sequence[str]
    ) -> bool:
        if self.actions[action].state not in of:
            return False
        self.actions[action].state = state
        self.actions[action].phases.append(phase)
        self._add(action, phase.phase, batches)
        return True

    def close(self, action: int, state: str) -> bool:
        if self.actions[action].state not in ("open", "paused"):
            return False
        self.actions[action].state = state
        for batch in self.all_batches:
            if batch.action == action:
                self._stop(batch, ended=state == "expired")
                if not batch.is_open:
                    batch.owner = None
        return True

    def set_paused(self, action: int, paused: bool) -> bool:
        if self.actions[action].state not in ("open", "paused"):
            return False
        self.actions[action].state = "paused" if paused else "open"
        return True

    def move_end(self, action: int, end_ms: int, now_ms: int) -> bool:
        found = self.actions[action]
        before_ms = found.phases[0].end_ms
        if found.state not in ("open", "paused") or before_ms <= now_ms:
            return False
        found.phases = [msgspec.structs.replace(phase, end_ms=end_ms) for phase in found.phases]
        for batch in self.all_batches:
            if batch.action == action and batch.token == 0 and batch.due_ms >= before_ms:
                batch.due_ms = end_ms
        return True

    def hasten(self, action: int, below_seq: int) -> int:
        changed = 0
        for batch in self.all_batches:
            mine = batch.action == action and batch.seq < below_seq
            if mine and batch.token == 0 and batch.due_ms > 0:
                batch.due_ms = 0
                changed += 1
        return changed

    # --- deliveries -------------------------------------------------------------------------------------------------

    def claim(
        self,
        owner: str,
        channels: Sequence[int],
        lanes: Sequence[int],
        now_ms: int,
        lease_ms: int,
        most: int,
        share: Share,
    ) -> list[NaiveLease]:
        for batch in self.all_batches:
            if self._over(batch, now_ms) and not (batch.owner is not None and batch.due_ms > now_ms):
                self._crash(batch)
                self._stop(batch, ended=self._ended(batch))
                batch.owner = None
        leases: list[NaiveLease] = []
        for batch in sorted(self.all_batches, key=lambda batch: (batch.lane, batch.seq, batch.number)):
            fits = batch.channel in channels and batch.lane in lanes and batch.due_ms <= now_ms
            made_ms = self.actions[batch.action].phases[batch.phase].created_ms
            left = batch.seq == 0 and batch.token == 0 and now_ms < made_ms + LEFT_MS
            fits = fits and not (share is Share.OTHERS and left) and not (share is Share.NEAREST and batch.seq > 0)
            if len(leases) == most or not fits:
                continue
            self._crash(batch)
            batch.owner = None
            if not batch.is_open or self.actions[batch.action].state == "paused":
                continue
            batch.owner, batch.due_ms, batch.token = owner, now_ms + lease_ms, batch.token + 1
            states, reasons = [row.state for row in batch.rows], [row.reason for row in batch.rows]
            leases.append(NaiveLease(batch.number, batch.token, batch.attempt, states, reasons))
        return leases

    def intend(self, batch: int, token: int, index: Sequence[int], now_ms: int) -> bool:
        held = self.all_batches[batch]
        if held.owner is None or held.token != token or self._over(held, now_ms):
            return False
        if self.actions[held.action].state == "paused":
            return False
        for place in index:
            if held.rows[place].state in (State.PENDING, State.AGAIN):
                held.rows[place].state = State.INTENDED
        return True

    def settle(
        self,
        number: int,
        token: int,
        states: Sequence[State],
        reasons: Sequence[Reason],
        first_ms: int | None,
        last_ms: int | None,
        not_before_ms: int,
        moved: Sequence[NewBatch],
    ) -> None:
        batch = self.all_batches[number]
        held = batch.owner is not None and batch.token == token
        stopped = self._closed(batch)
        changed = False
        gone = []
        for row, state, reason in zip(batch.rows, states, reasons, strict=True):
            before = row.state
            if held:
                self._hear(row, state, reason, stopped)
            elif state is State.ACCEPTED and row.state in (
                State.INTENDED, State.AGAIN, State.UNKNOWN, State.EXPIRED, State.CANCELLED,
            ):  # fmt: skip
                row.state, row.reason = State.ACCEPTED, Reason.NONE
            changed |= row.state is not before
            if row.state is State.MOVED and before is not State.MOVED:
                gone.append(row.row)
        if held or changed:
            batch.first_ms = min((ms for ms in (batch.first_ms, first_ms) if ms is not None), default=None)
            batch.last_ms = max((ms for ms in (batch.last_ms, last_ms) if ms is not None), default=None)
        if not held:
            return
        self._let_go(batch)
        batch.due_ms, batch.attempt = not_before_ms, batch.attempt + 1
        self._add(batch.action, batch.phase, moved, gone)

    def _hear(self, row: Row, state: State, reason: Reason, stopped: bool) -> None:
        """One row's report from the sender that has the lease."""
        twice = row.state is State.INTENDED and row.reason is Reason.CRASH
        if state is State.MOVED and stopped:
            state = State.FAILED
        if twice and state is State.PENDING:
            state = State.AGAIN
        if (twice or row.state is State.AGAIN) and state in (State.CANCELLED, State.EXPIRED):
            state = State.UNKNOWN
        counts = {
            State.PENDING: state in (State.FAILED, State.MOVED, State.EXPIRED, State.CANCELLED),
            State.INTENDED: True,
            State.AGAIN: state in (State.FAILED, State.MOVED, State.ACCEPTED, State.UNKNOWN),
            State.FAILED: state is State.MOVED,
            State.BOUNCED: state in (State.FAILED, State.MOVED),
            State.UNKNOWN: state is State.ACCEPTED,
            State.EXPIRED: state is State.ACCEPTED,
            State.CANCELLED: state is State.ACCEPTED,
        }
        if not counts.get(row.state):
            return
        if state is State.AGAIN:
            reason = Reason.CRASH
        if state in (State.ACCEPTED, State.DELIVERED):
            reason = Reason.NONE
        row.state, row.reason = state, reason

    def renew(self, batch: int, token: int, until_ms: int) -> None:
        held = self.all_batches[batch]
        if held.owner is not None and held.token == token:
            held.due_ms = max(held.due_ms, until_ms)

    def release(self, owner: str) -> int:
        released = 0
        for batch in self.all_batches:
            if batch.owner == owner:
                self._let_go(batch)
                batch.due_ms = 0
                released += 1
        return released

    def receipt(self, action: int, phase: int, channel: int, number: int, delivered: bool, bounced: bool) -> None:
        for batch in self.all_batches:
            if (batch.action, batch.phase, batch.channel) != (action, phase, channel):
                continue
            for row in batch.rows:
                if row.row != number:
                    continue
                if delivered and row.state not in (State.PENDING, State.DELIVERED, State.MOVED):
                    row.state, row.reason = State.DELIVERED, Reason.NONE
                if not delivered and row.state in (State.INTENDED, State.AGAIN, State.ACCEPTED, State.UNKNOWN):
                    again = bounced and not self._closed(batch)
                    row.state, row.reason = State.BOUNCED if again else State.FAILED, Reason.UNDELIVERED

    # --- inside -----------------------------------------------------------------------------------------------------

    def _add(self, action: int, phase: int, batches: Sequence[NewBatch], only: Sequence[int] | None = None) -> None:
        for batch in batches:
            rows = [Row(row) for row in batch.rows.tolist() if only is None or row in only]
            if not rows:
                continue
            lane = self.actions[action].lane
            number = len(self.all_batches)
            made = NaiveBatch(number, action, phase, lane, batch.channel, batch.seq, rows)
            made.due_ms = batch.not_before_ms
            self.all_batches.append(made)

    def _phase(self, batch: NaiveBatch) -> PhaseRecord:
        return self.actions[batch.action].phases[batch.phase]

    def _closed(self, batch: NaiveBatch) -> bool:
        """Whether the action's state stops this batch; a pause does not."""
        if self._phase(batch).name == "result":
            return False
        return self.actions[batch.action].state not in ("open", "paused")

    def _over(self, batch: NaiveBatch, now_ms: int) -> bool:
        return self._closed(batch) or now_ms >= self._phase(batch).end_ms

    def _ended(self, batch: NaiveBatch) -> bool:
        return not self._closed(batch) or self.actions[batch.action].state == "expired"

    def _let_go(self, batch: NaiveBatch) -> None:
        batch.owner = None
        self._crash(batch)
        if self._closed(batch):
            self._stop(batch, ended=self._ended(batch))

    def _crash(self, batch: NaiveBatch) -> None:
        for row in batch.rows:
            if row.state is State.INTENDED:
                row.state = State.AGAIN if batch.channel in PUSH else State.UNKNOWN
                row.reason = Reason.CRASH

    def _stop(self, batch: NaiveBatch, *, ended: bool) -> None:
        for row in batch.rows:
            if row.state is State.PENDING:
                row.state = State.EXPIRED if ended else State.CANCELLED
                row.reason = Reason.END if ended else Reason.CLOSED
            elif row.state is State.AGAIN:
                row.state = State.UNKNOWN
            elif row.state is State.BOUNCED:
                row.state = State.FAILED
