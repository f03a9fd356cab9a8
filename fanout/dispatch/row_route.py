"""The way of push services: one request a row, by a bulk lane, a whole batch at a time.

A batch is reserved and intended whole: the lane has quota and places of its own, and what a crash leaves in doubt is
sent once more without a sound. What the breaker asks is kept here:

1. Open, nothing is reserved: the batch goes back to the ledger.
2. Half open, one batch goes, and of it first `PROBE_ROWS` rows. If they find the provider working, the others follow;
   if not, they speak for all: the batch has had an attempt, and 2,000 people have not waited for a time-out.

Rows carry who we are from when they were rendered, and may wait for a quota longer than that is good. So what has not
gone when the credential is another is taken back from the lane, and goes on with the new one: no attempt is spent.
While there is none at all nothing goes, which spends none either; to the breaker that is a provider that fails.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NOT_SENT, Column, Message, Requests, RowChannel, authorizations, authorized
from fanout.dispatch.breaker import PROBE_ROWS, Breaker, Is
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.credentials import Credential
from fanout.dispatch.lanes import Lane, Sent, gathered
from fanout.dispatch.routes import ASK_S, EVERY, Batch, Delivered, Early, MayGo, ignored, merged, not_taken, tell
from fanout.store.protocol import Lease
from fanout.store.states import State


class Way:
    """One provider's lane with what is known of it."""

    def __init__(
        self, channel: RowChannel, lane: Lane, *, breaker: Breaker, bucket: Bucket, credential: Credential
    ) -> None:
        self.breaker, self.bucket = breaker, bucket
        self._channel, self._lane, self._credential = channel, lane, credential

    async def send(
        self, requests: Requests, index: NDArray[np.intp], lease: Lease, may_go: MayGo, *, probe: bool
    ) -> Delivered:
        """Send the rows of `requests` at `index`; as a probe first a few."""
        requests = authorized(requests, self._credential.authorize) if _is_nobodys(requests) else requests
        if _is_nobodys(requests):
            self.breaker.cannot_work(trio.current_time())
            return merged(len(index), [])
        if not probe or len(index) <= PROBE_ROWS:
            return await self._send(requests, index, lease, may_go, probe=probe)
        few = await self._send(requests, index[:PROBE_ROWS], lease, may_go, probe=True)
        rest = index[PROBE_ROWS:]
        if self.breaker.state is Is.OPEN:
            others = not_taken(len(rest), few.asked_s)
        else:
            others = await self._send(requests, rest, lease, may_go, probe=False)
        places = np.arange(len(index))
        return merged(len(index), [(places[:PROBE_ROWS], few), (places[PROBE_ROWS:], others)])

    async def _send(
        self, requests: Requests, index: NDArray[np.intp], lease: Lease, may_go: MayGo, *, probe: bool
    ) -> Delivered:
        try:
            sent = await self._signed(requests, index, lease, may_go)
        except BaseException:
            if probe:  # it will not answer
                self.breaker.answered(0, 0, trio.current_time())
            raise
        tell(self.breaker, self.bucket, sent.codes, sent.asked_s, trio.current_time(), probe=probe)
        self._credential.answered(sent.codes, sent.bodies)
        outcome = self._channel.interpret(sent.codes, sent.bodies)
        since_ms = self._channel.dead_since_ms(sent.codes, sent.bodies)
        return Delivered(sent.codes, outcome, sent.asked_s, sent.first_ms, sent.last_ms, since_ms)

    async def _signed(self, requests: Requests, index: NDArray[np.intp], lease: Lease, may_go: MayGo) -> Sent:
        """Send rows, each with who we are when it goes."""
        authorize = self._credential.authorize
        parts: list[tuple[NDArray[np.intp], Sent]] = []
        left = np.arange(len(index))
        while True:
            said = authorizations(requests)

            def holds(said: list[tuple[str, str]] = said) -> bool:
                return all(authorize(origin) == value for origin, value in said)

            def goes(holds: Callable[[], bool] = holds) -> bool:
                return may_go() and holds()

            sent = await self._lane.send(requests, index[left], lane=lease.lane, action=lease.action, may_go=goes)
            parts.append((left, sent))
            left = left[sent.codes == NOT_SENT]
            if not len(left) or not may_go() or holds():
                return sent if len(parts) == 1 else gathered(len(index), parts)
            requests = authorized(requests, authorize)
            if _is_nobodys(requests):
                return gathered(len(index), parts)

    def close(self) -> None:
        """End the lane."""
        self._lane.close()


def _is_nobodys(requests: Requests) -> bool:
    """Whether there was nothing to show to a provider as these were made."""
    return any(not value for _, value in authorizations(requests))


class RowRoute:
    """One request a row, to one provider."""

    def __init__(
        self, channel: RowChannel, lane: Lane, *, breaker: Breaker, bucket: Bucket, credential: Credential
    ) -> None:
        self.name, self.number = channel.name, channel.number
        self.breaker = breaker
        self.channel, self.credential = channel, credential
        self.way = Way(channel, lane, breaker=breaker, bucket=bucket, credential=credential)

    def allows(self, now_s: float) -> int:
        return EVERY if self.given_up(now_s) else self.breaker.allows(now_s)

    def given_up(self, now_s: float) -> bool:
        return self.breaker.given_up(now_s)

    def paused_s(self, now_s: float) -> float:
        return self.way.bucket.shut_s(now_s)

    async def reserve(self, lease: Lease, rows: int, may_go: MayGo) -> _Whole | None:
        """A whole batch, once the breaker lets one go; see `routes.Route`."""
        while may_go():
            if self.breaker.allows(trio.current_time()):
                probe = self.breaker.state is Is.HALF_OPEN
                if probe:
                    self.breaker.probe()
                return _Whole(self, rows, probe=probe)
            if self.breaker.state is Is.OPEN:
                return None
            await trio.sleep(ASK_S)  # for the answer of a probe
        return None

    async def close(self) -> None:
        self.way.close()


class _Whole:
    """A batch on its way."""

    def __init__(self, route: RowRoute, rows: int, *, probe: bool) -> None:
        self.rows = rows
        self._route, self._probe = route, probe

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Requests:
        again, authorize = lease.status[wanted] == State.AGAIN, self._route.credential.authorize
        return self._route.channel.render(message, addresses, again, now_ms=now_ms, authorize=authorize)

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo, early: Early = ignored
    ) -> Delivered:
        assert isinstance(batch, Requests)
        probe, self._probe = self._probe, False
        return await self._route.way.send(batch, np.flatnonzero(batch.usable), lease, may_go, probe=probe)

    def free(self) -> None:
        """A probe that came to nothing lets the next batch be one."""
        if self._probe:
            self._probe = False
            self._route.breaker.answered(0, 0, trio.current_time())
