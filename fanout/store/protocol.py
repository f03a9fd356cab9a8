"""What the engine asks of a store. Three things in one place: the ledger, logs, and documents.

* **The ledger**: actions, their phases, and batches of deliveries with one status byte a row. It is what happened.
* **Logs**: append-only streams of bytes with a sequence number (changes of the registry, the audit).
* **Documents**: small values by (space, key): API keys, board shadows.

Rules that `tests/store/kit.py` checks on every store:

1. Every call is blocking and about batches, never about one participant. Trio code calls through `Writer`.
2. When a writing call returns, it is durable: `kill -9` of this process afterwards loses nothing of it.
3. A writing call happens whole or not at all.
4. A batch is worked on by one lease at a time. `intend` and `settle` name the lease; one that was lost gets nothing
   through `intend`, so a slow sender whose batch was taken over cannot ring anybody a second time.
5. `intend` also refuses when the action is no longer open or its end has passed: this is the check just before the
   wire.
6. Batches are claimed in the order (lane, seq): lanes do not wait for lower lanes, and within a lane actions share,
   each nearest first, since `seq` counts from 0 in every phase.
7. Rows are on the wire (`INTENDED`) under a lease only. When it ends, by a settle that leaves them so, by a release, or
   by a claim after its time, they are resolved by `rows.crashed`: unknown, or once more.
8. A close or an end stops what is unsent and nothing else: rows that are `INTENDED` may be on the wire, so they wait
   for their sender's word, or for the loss of its lease, and until then count as reached.
9. Whether a lease is held is a matter of its token, not of the clock: one whose time is over stays good until another
   sender claims the batch, or `release` ends it. A clock that jumps costs unknown rows, never a second ring.
10. A claim that finds nothing writes nothing, so that idle senders do not wake each other.

Times are epoch milliseconds handed in by the caller; no store reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.uint32]
Generations = NDArray[np.uint16]
Bytes8 = NDArray[np.uint8]

LEFT_MS: Final = 100
"""How long a batch of the nearest is left to who claims nothing else."""


class Share(StrEnum):
    """Which batches a claim is for: `NEAREST`, those of `seq` 0; `OTHERS`, all but these while they are left to that.

    They are left for `LEFT_MS` from when their phase was made, unless somebody has had them.
    """

    ALL = "all"
    NEAREST = "nearest"
    OTHERS = "others"


class ActionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One action as the ledger holds it. `body` is the request in msgpack; `digest` tells a repeat from a conflict.

    `state`: `open` · `paused` · `closing` (the result is recorded, its messages not yet planned) · `closed` ·
    `cancelled` · `expired`.
    """

    id: int  # given by the store; 0 in a record not yet stored
    tenant: str
    reference: str
    digest: bytes
    kind: str
    lane: int
    state: str
    created_ms: int
    end_ms: int
    snapshot_version: int
    body: bytes
    outcome: str | None = None
    closed_ms: int | None = None
    result_body: bytes | None = None


class PhaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One message to the recipients of an action: `start`, `update` or `result`, numbered from 0 within the action.

    `texts` and `titles` by language; `end_ms` is this phase's own deadline (a result may outlive its action);
    `reference`: by which its caller knows it again, empty if nobody needs to.
    """

    action: int
    phase: int
    name: str
    created_ms: int
    end_ms: int
    texts: dict[str, str]
    titles: dict[str, str]
    reference: str = ""


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries to be made: one phase, one channel, one language. `rows` uint32[n], `generations` uint16[n].

    `not_before_ms`: when it may go out at the earliest; `Ledger.hasten` brings that forward. `joins_up_to`: a store may
    put the rows of a batch that `settle` moves into one like it, that nobody ever had and that goes no later, if that
    then has so many rows at most. 0: they stay by themselves.
    """

    channel: int
    language: str
    seq: int
    rows: Rows
    generations: Generations
    not_before_ms: int = 0
    joins_up_to: int = 0


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A batch in the hands of one sender until `until_ms`. `status`, `reason`: uint8[n], as they are in the ledger.

    `attempt` counts from 0 how often the batch was given back by `settle(done=False)`. The arrays are read-only.
    """

    batch: int
    token: int  # grows with every claim of the batch: the fence against a sender that comes too late
    action: int
    phase: int
    lane: int
    channel: int
    language: str
    attempt: int
    until_ms: int
    rows: Rows
    generations: Generations
    status: Bytes8
    reason: Bytes8
    seq: int = 0

    def lost(self) -> Lease:
        """As if it were held no more: to settle by this records good news alone, and the lease goes on."""
        return msgspec.structs.replace(self, token=-1)


class BatchView(msgspec.Struct, frozen=True, kw_only=True):
    """One batch with its rows, as reading callers get it. `accepted_ms`: when its last row so far was accepted."""

    batch: int
    phase: int
    channel: int
    language: str
    seq: int
    rows: Rows
    generations: Generations
    status: Bytes8
    reason: Bytes8
    first_ms: int | None
    last_ms: int | None


class BatchCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one batch without its rows: `states` by `State` value, `reasons` by `Reason` value (failed rows)."""

    phase: int
    channel: int
    states: tuple[int, ...]
    reasons: tuple[int, ...]
    first_ms: int | None
    last_ms: int | None


class Receipts(NamedTuple):
    """Receipts of one (action, phase, channel): `rows` uint32[n], and `delivered` bool[n].

    `bounced` bool[n]: of the others, those of which the provider is certain that nothing arrived; None: of none.
    """

    action: int
    phase: int
    channel: int
    rows: Rows
    delivered: NDArray[np.bool_]
    bounced: NDArray[np.bool_] | None = None


class Ledger(Protocol):
    """Actions and deliveries."""

    def open_action(
        self, action: ActionRecord, phase: PhaseRecord, batches: Sequence[NewBatch]
    ) -> tuple[ActionRecord, bool]:
        """Store an action, its first phase and all its batches; returns the record with its id, and True: it is new.

        If (tenant, reference) exists with the same digest, returns the existing record and False, and stores nothing;
        with another digest raises `Refused("reference_conflict")`.
        """

    def add_phase(
        self, action: int, phase: PhaseRecord, batches: Sequence[NewBatch], *, state: str, from_states: Sequence[str]
    ) -> bool:
        """Store a further phase and set the action's state, if the action is in one of `from_states`; else False."""

    def close(
        self, action: int, *, state: str, now_ms: int, outcome: str | None = None, result_body: bytes | None = None
    ) -> bool:
        """Close an action that is open or paused: cancels every unsent row of it (or expires, if `state` is `expired`).

        Rows that may have been received already (`AGAIN`) become `UNKNOWN`; rows on the wire stay (rule 8).
        False if it was not open or paused: nothing was changed then.
        """

    def set_paused(self, action: int, paused: bool) -> bool:
        """Open to paused, or back. False if it was in neither."""

    def move_end(self, action: int, *, end_ms: int, now_ms: int) -> bool:
        """Let an action that goes on end at another time, later or sooner, and all its phases with it.

        Batches that wait for the end since nobody let them go (`hasten`) wait for the new one. False if the action is
        not open or paused, or its end has passed: nothing was changed then.
        """

    def hasten(self, action: int, *, below_seq: int) -> int:
        """Let batches of an action whose `seq` is below a number go out now, which waited for their time.

        Returns how many did. Only those that no sender ever had: a retry keeps its pause.
        """

    def action(self, action: int) -> ActionRecord | None: ...

    def action_by_reference(self, tenant: str, reference: str) -> ActionRecord | None: ...

    def actions(self, states: Sequence[str] | None = None) -> list[ActionRecord]: ...

    def phases(self, action: int) -> list[PhaseRecord]: ...

    def ready(self, *, channels: Sequence[int], lanes: Sequence[int], now_ms: int, share: Share = Share.ALL) -> bool:
        """Whether a claim might find anything to do. Only reads; a store may say yes where a claim finds nothing."""

    def claim(
        self,
        owner: str,
        *,
        channels: Sequence[int],
        lanes: Sequence[int],
        now_ms: int,
        lease_ms: int,
        most: int,
        share: Share = Share.ALL,
    ) -> list[Lease]:
        """Take up to `most` batches that are ready, or whose lease ran out, in the order (lane, seq).

        Batches of phases that are over are settled on the way, of all channels and lanes, unless a lease still runs.
        """

    def intend(self, lease: Lease, index: NDArray[np.intp], *, now_ms: int) -> bool:
        """Record that the rows at `index` (into the lease's arrays) are about to go out.

        False, and nothing recorded, if the lease was lost, the action is not open (its result phase: not closed),
        or the phase's deadline has passed.
        """

    def settle(
        self,
        lease: Lease,
        *,
        status: Bytes8,
        reason: Bytes8,
        first_ms: int | None,
        last_ms: int | None,
        done: bool,
        not_before_ms: int = 0,
        moved: Sequence[NewBatch] = (),
    ) -> None:
        """Record what came back: the whole batch's status and reason, uint8[n], and end the lease.

        `done=False` gives the batch back for another attempt not before `not_before_ms`, if rows are still open. Of
        what the ledger has learnt since the lease was given (a close, a receipt) nothing is lost: `rows.settled` says
        which word counts. From a lost lease only good news is taken: rows that are `ACCEPTED` here and on the wire,
        `AGAIN` or `UNKNOWN` there.

        `moved`: batches on their next channels for the rows that are `MOVED` here, stored in the same commit; of them
        only rows that the ledger did move. If nothing more may go out, no row moves: it is `FAILED` with its reason.
        """

    def renew(self, leases: Sequence[Lease], *, until_ms: int) -> None:
        """Keep leases that are still held."""

    def release(self, owner: str) -> int:
        """End all leases of an owner that is known to be dead, and resolve its rows (rule 7); returns how many."""

    def apply_receipts(self, receipts: Sequence[Receipts]) -> list[int]:
        """Record receipts, as many at once as there are; returns for each how many rows changed by it.

        A row that several of them change counts with the first that names it. Rows that are nobody's are passed over.
        Where a row bounced and its action goes on, its batch is ready again, for a sender to move the row; in one that
        is closed it has failed.
        """

    def counts(self, action: int) -> list[BatchCounts]: ...

    def batches(self, action: int) -> Iterator[BatchView]: ...

    def open_rows(self) -> Rows:
        """Rows that any action not yet closed refers to, sorted, each once: these may not be given to others."""


class Log(Protocol):
    """Append-only streams of bytes."""

    def append(self, stream: str, entries: Sequence[bytes]) -> int:
        """Append; returns the number of the newest entry. Numbers start at 1 and grow by 1 per entry."""

    def read(self, stream: str, *, after: int, most: int) -> list[tuple[int, bytes]]: ...

    def trim(self, stream: str, *, upto: int) -> None:
        """Forget entries up to and including a number; numbers go on from where they were."""

    def last(self, stream: str) -> int:
        """The number of the newest entry ever appended, 0 if none."""


class Documents(Protocol):
    """Small values by (space, key)."""

    def put(self, space: str, values: Iterable[tuple[str, bytes | None]]) -> None:
        """Write, or delete where the value is None; all in one commit."""

    def get(self, space: str, key: str) -> bytes | None: ...

    def scan(self, space: str) -> list[tuple[str, bytes]]:
        """All of a space, ordered by key."""


class Store(Ledger, Log, Documents, Protocol):
    """A whole store. Every call may be made from any thread; every call may raise `Refused("store_unavailable")`."""

    def group(self) -> AbstractContextManager[None]:
        """Calls that this thread makes inside share one commit, made at the end; each is still whole or not at all.

        What they return is durable only when the group ends without an error. Errors: `Refused("store_unavailable")`
        at the end if the commit failed: then nothing of the group was written.
        """

    def wait(self, timeout_s: float) -> bool:
        """Block until somebody, in any process, may have committed something (True), or the time is over (False).

        Counts from the last `wait` of this store, so nothing is missed between two. One waiter a store: a second one
        is safe, and may learn of a commit only at its time-out.
        """

    def wait_for_work(self, timeout_s: float) -> bool:
        """As `wait`, but for senders: only what gives somebody work or stops it ends this before the time is over.

        That is an action opened, closed, paused, resumed or given a phase, batches hastened, leases released, rows that
        moved to another channel and need not wait. Of all else, a nation's intents and results by the hundred a second,
        it says at the end of the time that there was some (True).
        """

    def close_store(self) -> None:
        """End it: every connection is closed, and a `wait` returns. No other call may follow."""
