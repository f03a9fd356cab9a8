"""The way of Web Push: one channel, several push services, each with a breaker, a quota and a lane of its own.

A batch has rows for all of them, since a subscription may be anybody's; here it is parted by service, and each part
goes its own way, side by side. Rules:

1. A service is what the settings name in `providers.webpush.hosts`: `*.notify.windows.com` is one, whatever hosts are
   below it. So there are as many as the operator named, `PUSH_SERVICES_MAX` at most; what is more shares the last.
2. Who hangs, fails or asks for patience keeps the rows of its own part only. Its places are not others', and a batch
   does not wait for it longer than one time-out: rows of a service whose breaker is open, or that asked for more than
   `PATIENCE_S`, are not taken, and their attempt counts, so that in the end they go to the next channel.
3. Half open, a service is probed with a handful (`row_route.py`); other batches leave it out meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NOT_SENT, Column, Message, Requests, RowChannel, origin_of
from fanout.dispatch.breaker import Is
from fanout.dispatch.credentials import Credential
from fanout.dispatch.routes import ASK_S, EVERY, Batch, Delivered, Early, MayGo, ignored, merged, not_taken, perhaps
from fanout.dispatch.row_route import Way
from fanout.logs import what_failed
from fanout.store.protocol import Lease
from fanout.store.states import Reason, State

log = logging.getLogger("fanout.dispatch")

PUSH_SERVICES_MAX: Final = 16  # each has connections and some hundred handles of its own; browsers have a handful
PATIENCE_S: Final = 1.0  # a pause that is shorter is waited for; a batch in hand would be held up by a longer one


def service_of(hosts: Sequence[str], url: str) -> int:
    """The number of the service that `url` is of, among `hosts` as the settings name them; the last if of none."""
    host = urlsplit(url).hostname or ""
    exact = [number for number, name in enumerate(hosts) if name == host]
    below = [number for number, name in enumerate(hosts) if name.startswith("*.") and host.endswith(name[1:])]
    return min((exact or below or [len(hosts) - 1])[0], PUSH_SERVICES_MAX - 1)


class ServiceRoute:
    """One request a row, to several providers. `ways`: one for each of `hosts`, `PUSH_SERVICES_MAX` at most."""

    def __init__(
        self, channel: RowChannel, hosts: Sequence[str], ways: Sequence[Way], *, credential: Credential
    ) -> None:
        assert len(ways) == min(len(hosts), PUSH_SERVICES_MAX)
        self.name, self.number = channel.name, channel.number
        self.channel, self.credential = channel, credential
        self._hosts, self._ways = tuple(hosts), tuple(ways)

    def __repr__(self) -> str:
        ways = zip(self._hosts, self._ways, strict=False)
        return f"<ServiceRoute {self.name}, {', '.join(f'{host} {way.breaker!r}' for host, way in ways)}>"

    def allows(self, now_s: float) -> int:
        return EVERY if self.given_up(now_s) else max(way.breaker.allows(now_s) for way in self._ways)

    def given_up(self, now_s: float) -> bool:
        return all(way.breaker.given_up(now_s) for way in self._ways)

    def paused_s(self, now_s: float) -> float:
        return min(way.bucket.shut_s(now_s) for way in self._ways)

    async def reserve(self, lease: Lease, rows: int, may_go: MayGo) -> _Parted | None:
        """A whole batch, once any service may have some of it; see `routes.Route`."""
        while may_go():
            now_s = trio.current_time()
            if any(way.breaker.allows(now_s) for way in self._ways):
                return _Parted(self, rows)
            if all(way.breaker.state is Is.OPEN for way in self._ways):
                return None
            await trio.sleep(ASK_S)  # for the answer of a probe
        return None

    async def close(self) -> None:
        for way in self._ways:
            way.close()

    async def send(self, requests: Requests, lease: Lease, may_go: MayGo, early: Early = ignored) -> Delivered:
        """Send the usable rows of a batch, each by its service; `early` is told of each service's."""
        usable = np.flatnonzero(requests.usable)
        number = self._numbers(requests)[requests.which[usable]]
        parts: list[tuple[NDArray[np.intp], Delivered]] = []

        async def one(way: Way, at: NDArray[np.intp]) -> None:
            try:
                found = await _send(way, requests, usable[at], lease, may_go)
            except Exception as error:  # the parts of others are theirs
                log.error("rows by %s may have gone out: %s", self.name, what_failed(error))
                found = perhaps(len(at))
            parts.append((at, found))
            early(at, found)

        async with trio.open_nursery() as nursery:
            for service in np.unique(number).tolist():
                nursery.start_soon(one, self._ways[service], np.flatnonzero(number == service))
        return merged(len(usable), parts)

    def _numbers(self, requests: Requests) -> NDArray[np.intp]:
        """intp[templates]: the service of each; a template has one origin, which its address begins with."""
        return np.array([service_of(self._hosts, origin_of(template)) for template in requests.templates], np.intp)


async def _send(way: Way, requests: Requests, index: NDArray[np.intp], lease: Lease, may_go: MayGo) -> Delivered:
    """The rows of one service."""

    def goes() -> bool:
        return may_go() and way.bucket.shut_s(trio.current_time()) <= PATIENCE_S

    now_s = trio.current_time()
    if not way.breaker.allows(now_s):
        return not_taken(len(index))
    if (shut_s := way.bucket.shut_s(now_s)) > PATIENCE_S:
        return not_taken(len(index), shut_s, Reason.QUOTA)
    probe = way.breaker.state is Is.HALF_OPEN
    if probe:
        way.breaker.probe()
    found = await way.send(requests, index, lease, goes, probe=probe)
    shut_s = way.bucket.shut_s(trio.current_time())
    behind = np.flatnonzero(found.codes == NOT_SENT)
    if len(behind) and shut_s > PATIENCE_S and may_go():
        places = np.arange(len(index))
        return merged(len(index), [(places, found), (behind, not_taken(len(behind), shut_s, Reason.QUOTA))])
    return found


class _Parted:
    """A batch on its way to several services."""

    def __init__(self, route: ServiceRoute, rows: int) -> None:
        self.rows = rows
        self._route = route

    def render(
        self, message: Message, addresses: Column, lease: Lease, wanted: NDArray[np.intp], *, now_ms: int
    ) -> Requests:
        again, authorize = lease.status[wanted] == State.AGAIN, self._route.credential.authorize
        return self._route.channel.render(message, addresses, again, now_ms=now_ms, authorize=authorize)

    async def deliver(
        self, batch: Batch, lease: Lease, index: NDArray[np.intp], may_go: MayGo, early: Early = ignored
    ) -> Delivered:
        assert isinstance(batch, Requests)
        return await self._route.send(batch, lease, may_go, early)

    def free(self) -> None:
        """Nothing was reserved: lanes have places and quota of their own."""
