"""Whose rows go next: the one place where lanes, fairness, places in flight and quotas meet.

Rules:

1. A lower lane number goes first, at the grain of `QUANTUM` rows: a life-at-risk action that starts while a national
   one runs has the next free places, whatever is queued.
2. Lanes other than 0 leave `reserve` of the places in flight and of the quota free, so there are next free places even
   when a provider is slow to answer or the quota is drunk as fast as it fills.
3. Actions of one lane take turns; within an action the order of adding holds, so its batches go nearest first.
4. Everything is bounded by us: at most `places` rows are in flight, and a lane's queue is what senders have claimed.
5. Who may not go does not wait: `weed` gives up what was stopped, whether or not there are places and quota. A lane
   calls it every `WEED_S` while rows wait, so the rows of a closed action are back long before a shut quota opens.

Pure: `next(now_s, in_flight)` says what to do, the lane does it. A ticket is anything with `lane`, `action`, `may_go`
and `waiting` (rows not handed to the wire yet); the scheduler keeps the order, the ticket's owner the rows.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from fanout.dispatch.bucket import Bucket
from fanout.wire import LANES

QUANTUM: Final = 64
"""Rows of one action before another of the same lane has its turn: 2 ms of a core."""
WEED_S: Final = 0.05
"""How long the rows of an action that was stopped may go on waiting: a person would call it at once."""


class Ticket(Protocol):
    """Rows of one batch that want to go."""

    lane: int
    action: int
    waiting: int
    may_go: Callable[[], bool]


T = TypeVar("T", bound=Ticket)


class Decision(NamedTuple, Generic[T]):
    """Let `rows` of `ticket` go; or, with no ticket, ask again at `again_s` (None: when something changes)."""

    ticket: T | None
    rows: int
    again_s: float | None


class Scheduler(Generic[T]):
    """The order of one provider's rows in one process."""

    def __init__(self, *, places: int, reserve: float, bucket: Bucket) -> None:
        self._reserve = reserve
        self.resize(places)
        self._bucket = bucket
        self._lanes: list[OrderedDict[int, deque[T]]] = [OrderedDict() for _ in LANES]

    def __repr__(self) -> str:
        waiting = [sum(ticket.waiting for turn in lane.values() for ticket in turn) for lane in self._lanes]
        return f"<Scheduler waiting {waiting}, places {self._places}, {self._bucket!r}>"

    @property
    def empty(self) -> bool:
        """Whether no row waits."""
        return not any(self._lanes)

    @property
    def urgent(self) -> bool:
        """Whether rows of the highest lane wait."""
        return bool(self._lanes[0])

    def resize(self, places: int) -> None:
        """So many rows may be in flight from now on: what the provider's connections carry."""
        self._places = places
        self._places_common = max(1, int(places * (1 - self._reserve)))

    def add(self, ticket: T) -> None:
        self._lanes[ticket.lane].setdefault(ticket.action, deque()).append(ticket)

    def again(self, ticket: T) -> None:
        """Rows of a ticket come back and wait once more: it stands first in its action's turn."""
        turn = self._lanes[ticket.lane].setdefault(ticket.action, deque())
        if ticket not in turn:
            turn.appendleft(ticket)

    def drop(self, ticket: T) -> None:
        """Forget a ticket, wherever it stands; one that is not there is no mistake."""
        turn = self._lanes[ticket.lane].get(ticket.action)
        if turn is not None and ticket in turn:
            turn.remove(ticket)
            if not turn:
                del self._lanes[ticket.lane][ticket.action]

    def weed(self) -> list[T]:
        """Forget the tickets that may not go any more, and return them."""
        found = [ticket for lane in self._lanes for turn in lane.values() for ticket in turn if not ticket.may_go()]
        for ticket in found:
            self.drop(ticket)
        return found

    def next(self, now_s: float, in_flight: int) -> Decision[T]:
        """What to do now. A decision for a ticket counts as done: its rows are off the quota."""
        for number, lane in enumerate(self._lanes):
            if not lane:
                continue
            urgent = number == 0
            places = (self._places if urgent else self._places_common) - in_flight
            if places <= 0:
                return Decision(None, 0, None)
            action, turn = next(iter(lane.items()))
            ticket = turn[0]
            rows = min(ticket.waiting, QUANTUM, places)
            allowed = self._bucket.available(now_s, urgent=urgent)
            if not allowed:
                return Decision(None, 0, self._bucket.ready_s(now_s, min(rows, QUANTUM // 4), urgent=urgent))
            rows = min(rows, allowed)
            self._bucket.take(rows)
            lane.move_to_end(action)
            if rows == ticket.waiting:
                self.drop(ticket)
            return Decision(ticket, rows, None)
        return Decision(None, 0, None)
