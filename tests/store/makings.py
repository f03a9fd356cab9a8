"""What checks of stores are made from: actions, batches, a claim, a report, and a look at all states at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from fanout.errors import Refused
from fanout.store.protocol import ActionRecord, Lease, NewBatch, PhaseRecord, Store
from fanout.store.states import Reason, State

Place: TypeAlias = Callable[[], Store]
Make: TypeAlias = Callable[[], AbstractContextManager[Place]]
Check: TypeAlias = Callable[[Place], None]

END_MS = 1_000_000
FCM, APNS, SMS = 0, 1, 3
ALL = (FCM, APNS, SMS)


# --- makings --------------------------------------------------------------------------------------------------------


def action(reference: str = "r", *, digest: bytes = b"d", lane: int = 0, end_ms: int = END_MS) -> ActionRecord:
    return ActionRecord(
        id=0, tenant="police", reference=reference, digest=digest, kind="missing_child", lane=lane, state="open",
        created_ms=1, end_ms=end_ms, snapshot_version=7, body=b"body",
    )  # fmt: skip


def phase(number: int = 0, name: str = "start", *, end_ms: int = END_MS) -> PhaseRecord:
    return PhaseRecord(
        action=0,
        phase=number,
        name=name,
        created_ms=1,
        end_ms=end_ms,
        texts={"nl": "één kind"},
        titles={"nl": "Kijk"},
        reference=f"{name} {number}",
    )


def batch(rows: Sequence[int], *, channel: int = FCM, seq: int = 0, not_before_ms: int = 0) -> NewBatch:
    return NewBatch(
        channel=channel, language="nl", seq=seq, rows=np.array(rows, np.uint32),
        generations=np.arange(len(rows), dtype=np.uint16), not_before_ms=not_before_ms,
    )  # fmt: skip


def opened(store: Store, *batches: NewBatch, reference: str = "r", lane: int = 0, end_ms: int = END_MS) -> int:
    record, new = store.open_action(
        action(reference, lane=lane, end_ms=end_ms), phase(end_ms=end_ms), batches or (batch((1, 2, 3)),)
    )
    assert new
    return record.id


def claim(store: Store, owner: str = "me", *, now_ms: int = 10, most: int = 1, lease_ms: int = 100) -> list[Lease]:
    return store.claim(owner, channels=ALL, lanes=(0, 1, 2), now_ms=now_ms, lease_ms=lease_ms, most=most)


def everything(lease: Lease) -> NDArray[np.intp]:
    return np.arange(len(lease.rows))


def report(store: Store, lease: Lease, *states: State, reason: Reason = Reason.NONE, not_before_ms: int = 0) -> None:
    status = np.array(states, np.uint8)
    done = not np.isin(status, (State.PENDING, State.INTENDED, State.AGAIN)).any()
    store.settle(
        lease, status=status, reason=np.full(len(states), reason, np.uint8), first_ms=20, last_ms=30, done=bool(done),
        not_before_ms=not_before_ms,
    )  # fmt: skip


def states(store: Store, number: int) -> list[list[State]]:
    """The states of all rows by batch; checks on the way that the counts say the same."""
    views = list(store.batches(number))
    counts = store.counts(number)
    for view, count in zip(views, counts, strict=True):
        assert (view.phase, view.channel, view.first_ms, view.last_ms) == (
            count.phase, count.channel, count.first_ms, count.last_ms,
        )  # fmt: skip
        assert np.bincount(view.status, minlength=len(State)).tolist() == list(count.states)
        failed = view.reason[view.status == State.FAILED]
        assert np.bincount(failed, minlength=len(Reason)).tolist() == list(count.reasons)
    return [[State(value) for value in view.status] for view in views]


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code


P, IN, AG, AC, D = State.PENDING, State.INTENDED, State.AGAIN, State.ACCEPTED, State.DELIVERED
F, E, C, U, M = State.FAILED, State.EXPIRED, State.CANCELLED, State.UNKNOWN, State.MOVED
