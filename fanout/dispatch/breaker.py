"""Whether a provider is worth asking: closed, open, or half open.

    closed --TRIP--> open --COOLED--> half open --GOOD--> closed
                       ^                  |
                       +-------BAD--------+

Rules:

1. It trips when, of the answers of the last two spans of `SPAN_S`, at least `LEAST` and at least half were the
   provider's failure (no connection, no answer, 5xx). Refusals of single rows are the provider working.
2. Open, nothing is sent: batches stay in the ledger, where the deadline and other senders see them.
3. After `cool_s` it is half open: one probe may go, of `PROBE_ROWS` rows at most, so that a provider that is still down
   costs a handful of people their time and not thousands. Good closes it; bad opens it again for twice as long, at most
   `COOL_S_MAX`. Half open, only the probe's answer counts: others were asked before.
4. One that has not been closed for `GIVE_UP_S` is given up (`given_up`) until it closes: who has another way goes by
   that, and who has none waits on. Before that the outage may be over soon, and a probe at a time would take a nation
   hours to have had its attempts.
5. Who knows that it cannot work says so (`cannot_work`): that trips it whatever was answered before. It is asked again
   after `COOL_S_FIRST`, however often: that question costs the provider nothing.
6. An event that makes no sense in a state changes nothing.

Two spans of counts, not a list of answers: 35,000 answers a second would make a long list. Pure: `now_s` is given.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

SPAN_S: Final = 5.0
LEAST: Final = 20  # answers; fewer say nothing about a provider
COOL_S_FIRST: Final = 1.0
COOL_S_MAX: Final = 30.0
GIVE_UP_S: Final = 60.0  # about what all attempts of one row take
PROBE_ROWS: Final = 8  # more say no more about a provider


class Is(IntEnum):
    """State of a breaker."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class On(IntEnum):
    """What can happen to it."""

    TRIP = 0
    COOLED = 1
    GOOD = 2
    BAD = 3


TABLE: Final[dict[Is, dict[On, Is]]] = {
    Is.CLOSED: {On.TRIP: Is.OPEN},
    Is.OPEN: {On.COOLED: Is.HALF_OPEN},
    Is.HALF_OPEN: {On.GOOD: Is.CLOSED, On.BAD: Is.OPEN},
}


class Breaker:
    """The breaker of one provider in one process."""

    def __init__(self, *, now_s: float) -> None:
        self.state = Is.CLOSED
        self._span_s = now_s
        self._now = [0, 0]  # good, bad of this span
        self._before = [0, 0]
        self._cool_s = COOL_S_FIRST
        self._open_until_s = self._tripped_s = now_s
        self._probing = False

    def __repr__(self) -> str:
        return f"<Breaker {self.state.name.lower()}, good {self._now[0]}, bad {self._now[1]}>"

    def allows(self, now_s: float) -> int:
        """Batches that may go now: 0, 1 (half open), or as many as there are (a large number).

        The clock is looked at here: who asks lets an open breaker that has cooled be half open.
        """
        if self.state is Is.OPEN and now_s >= self._open_until_s:
            self._step(On.COOLED)
            self._probing = False
        if self.state is Is.OPEN or (self.state is Is.HALF_OPEN and self._probing):
            return 0
        return 1 if self.state is Is.HALF_OPEN else 1_000_000

    def given_up(self, now_s: float) -> bool:
        """Whether it has failed for so long that nobody should wait for it who need not."""
        return self.state is not Is.CLOSED and now_s - self._tripped_s >= GIVE_UP_S

    def probe(self) -> None:
        """A probe went out while half open; nothing else goes before its answer."""
        self._probing = True

    def answered(self, good: int, bad: int, now_s: float, *, probe: bool = True) -> None:
        """So many rows were answered, well or badly. `probe`: they are the probe's, should it be half open."""
        if self.state is Is.HALF_OPEN:
            if not probe:
                return
            self._probing = False
            if good + bad:
                self._step(On.GOOD if good >= bad else On.BAD)
                self._cool_s = COOL_S_FIRST if good >= bad else min(COOL_S_MAX, 2 * self._cool_s)
                self._open_until_s = now_s + self._cool_s
                self._now, self._before = [0, 0], [0, 0]
            return
        if now_s - self._span_s >= SPAN_S:
            fresh = now_s - self._span_s < 2 * SPAN_S
            self._before, self._now, self._span_s = (self._now if fresh else [0, 0]), [0, 0], now_s
        self._now[0] += good
        self._now[1] += bad
        failed, whole = self._now[1] + self._before[1], sum(self._now) + sum(self._before)
        if whole >= LEAST and 2 * failed >= whole and self.state is Is.CLOSED:
            self._trip(now_s)

    def cannot_work(self, now_s: float) -> None:
        """We have nothing to show to it, so nothing may go."""
        if self.state is Is.CLOSED:
            self._trip(now_s)
        elif self.state is Is.HALF_OPEN:
            self._step(On.BAD)
            self._probing = False
        self._open_until_s = now_s + COOL_S_FIRST

    def _trip(self, now_s: float) -> None:
        self._step(On.TRIP)
        self._tripped_s, self._open_until_s = now_s, now_s + self._cool_s
        self._now, self._before = [0, 0], [0, 0]

    def _step(self, event: On) -> None:
        self.state = TABLE[self.state].get(event, self.state)
