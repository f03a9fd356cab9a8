"""Whose rows go to the wire next on a channel of single calls: places, quotas and breakers of its suppliers. Pure.

A batch stands in line *before* the ledger is told that it goes. What is granted has its places and its quota, so what
the ledger calls on its way is on its way: a second's worth of calls at a crash, and nobody at a close who waits still.

Rules:

1. A lower lane goes first; within a lane actions take turns, a handful each; within an action the nearest go first.
2. Lanes other than 0 leave `reserve` of the places and of the quota free, so that an urgent call waits for none of
   them.
3. The supplier is chosen anew for each handful (`suppliers.py`), among those that work. One whose breaker is open,
   whose probe is under way, or that asked for a pause is not among them while another is.
4. Whom a supplier has no room for keeps it from all behind: nobody overtakes. Others may go by another supplier.
5. A supplier that is half open gets one call of `PROBE_ROWS` rows at most.
6. A handful is one whole call where a call carries many rows, as far as the quota ever holds so many; where a call is a
   row it is `HANDFUL_S` of the quota at least, since each costs the ledger a commit, and what there are places for at
   most. Urgent ones do not wait for others to make a handful.

A want is anything with `lane`, `action`, `batch`, `attempt` and `rows`; what is granted has left the line. `now_s` is
given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from fanout.dispatch.breaker import PROBE_ROWS, Breaker, Is
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.suppliers import choose
from fanout.wire import LANES

HANDFUL_S: Final = 0.25  # of a quota: four commits a second, and a crash leaves as much in doubt
NEVER_S: Final = float("inf")


class Want(Protocol):
    """Rows of one batch that want to go."""

    lane: int
    action: int
    batch: int
    attempt: int
    rows: int


W = TypeVar("W", bound=Want)


class Gate:
    """What one supplier lets through. `places`: calls at once; `call_rows`: rows that one of them carries."""

    def __init__(
        self, *, breaker: Breaker, bucket: Bucket, places: int, reserve: float, call_rows: int = 1, weight: float = 1.0
    ) -> None:
        assert places >= 1
        assert call_rows >= 1
        self.breaker, self.bucket, self.weight = breaker, bucket, weight
        self.call_rows = call_rows
        self.used = 0
        self._places = places
        self._common = max(1, int(places * (1 - reserve)))

    def __repr__(self) -> str:
        return f"<Gate {self.used} of {self._places} places, {self.breaker!r}, {self.bucket!r}>"

    def works(self, now_s: float) -> bool:
        """Whether anything may go to it, were there places and quota."""
        return self.breaker.allows(now_s) > 0 and not self.bucket.shut_s(now_s)

    def offer(self, rows: int, now_s: float, *, urgent: bool) -> int:
        """How many of so many rows may go now; 0: none yet."""
        if not self.breaker.allows(now_s):
            return 0
        places = (self._places if urgent else self._common) - self.used
        most = min(rows, places * self.call_rows)
        offered = min(most, self.bucket.available(now_s, urgent=urgent))
        return self._probe(offered) if offered >= self._least(rows, urgent=urgent) else 0

    def ready_s(self, rows: int, now_s: float, *, urgent: bool) -> float:
        """When the quota has a handful of so many rows; places and breakers come free without saying when."""
        return self.bucket.ready_s(now_s, self._least(rows, urgent=urgent), urgent=urgent)

    def take(self, rows: int) -> bool:
        """Rows go: their places and quota are theirs. True: they are the probe."""
        self.bucket.take(rows)
        self.used += self.calls(rows)
        probe = self.breaker.state is Is.HALF_OPEN
        if probe:
            self.breaker.probe()
        return probe

    def free(self, calls: int) -> None:
        """So many calls have ended, or will not be made."""
        self.used -= calls
        assert self.used >= 0

    def calls(self, rows: int) -> int:
        """How many calls carry so many rows."""
        return -(-rows // self.call_rows)

    def _least(self, rows: int, *, urgent: bool) -> int:
        if self.breaker.state is Is.HALF_OPEN:
            return self._probe(rows)
        if self.call_rows > 1:
            handful = min(rows, self.call_rows)
        elif urgent:
            handful = 1
        else:
            handful = min(rows, max(1, int(self.bucket.rate_per_s * HANDFUL_S)), max(1, self._common // 2))
        return max(1, min(handful, self.bucket.room(urgent=urgent)))

    def _probe(self, rows: int) -> int:
        return min(rows, PROBE_ROWS, self.call_rows) if self.breaker.state is Is.HALF_OPEN else rows


class Granted(NamedTuple, Generic[W]):
    """`rows` of `want` go by gate number `gate`; as its `probe`, if it is half open."""

    want: W
    gate: int
    rows: int
    probe: bool


class Line(Generic[W]):
    """All that wait on one channel."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self.gates = tuple(gates)
        self._lanes: list[OrderedDict[int, list[W]]] = [OrderedDict() for _ in LANES]

    def __repr__(self) -> str:
        waiting = [sum(want.rows for turn in lane.values() for want in turn) for lane in self._lanes]
        return f"<Line waiting {waiting}, {self.gates}>"

    def add(self, want: W) -> None:
        """Stand in line, behind the actions of the same lane that stand there."""
        assert want.rows > 0
        turn = self._lanes[want.lane].setdefault(want.action, [])
        turn.append(want)
        turn.sort(key=lambda one: one.batch)

    def drop(self, want: W) -> None:
        """Leave the line; one that is not there is no mistake."""
        turn = self._lanes[want.lane].get(want.action, [])
        if want in turn:
            turn.remove(want)
            if not turn:
                del self._lanes[want.lane][want.action]

    def next(self, now_s: float) -> tuple[Granted[W] | None, float]:
        """Who goes now, and has left the line; else None, and when to ask again (`NEVER_S`: when something changes)."""
        works = [gate.works(now_s) for gate in self.gates]
        weights = [gate.weight for gate in self.gates]
        kept: set[int] = set()
        again_s = NEVER_S
        for number, lane in enumerate(self._lanes):
            urgent = number == 0
            for turn in lane.values():
                want = turn[0]
                place = choose(want.batch, want.attempt, weights, works)
                if place in kept:
                    continue
                gate = self.gates[place]
                rows = gate.offer(want.rows, now_s, urgent=urgent)
                if rows:
                    self.drop(want)
                    if want.action in lane:
                        lane.move_to_end(want.action)
                    return Granted(want, place, rows, gate.take(rows)), now_s
                kept.add(place)
                again_s = min(again_s, gate.ready_s(want.rows, now_s, urgent=urgent))
        return None, again_s

    def dead(self, now_s: float) -> bool:
        """Whether nothing will go for a while: every breaker is open."""
        return not any(gate.breaker.allows(now_s) or gate.breaker.state is Is.HALF_OPEN for gate in self.gates)
