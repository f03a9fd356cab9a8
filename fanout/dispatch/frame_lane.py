"""The bulk lane that writes HTTP/2 frames itself: one provider, one origin, tens of thousands of requests a second.

A request costs libcurl 50 µs here, whatever one does about it, since it is an object with a life of its own there. Rows
of one batch differ by a token in the path or the body and by nothing else, so this lane writes them a handful at a time
straight from the batch's columns into the connection's buffer, and reads answers as a column of codes. `frames/` is the
protocol, this is the shell: sockets, TLS, time, and whose rows go next. Rules beside those of `lanes.py`:

1. All connections are driven through an epoll of the lane's own, a turn at a time: read what came, hand out free
   places, write. A turn is a few milliseconds at most, and a busy lane leaves a gap between two (`gap.py`), in which
   answers gather and other tasks have theirs; the shortest, while rows wait to which life is at risk. Who brings new
   rows has a turn at once, in its own task: until the lane's came round a busy sender took 10 ms.
2. Connections are kept open from the first use on. One that ends is replaced; one that fails is tried again after a
   pause that doubles, so a dead provider costs next to nothing, and what waits comes back as `NO_CONNECTION`. One that
   ends young without an answer has failed, unless it gave a sign of life and was never asked for more: a provider may
   close what is idle. Such a one is replaced a second after it was opened, or at once when rows wait.
3. Rows that certainly were not taken go again by themselves, `TRIES_MAX` times, then they are `NO_CONNECTION`. Those
   left over by a connection that ended and had let others through do not count it: a provider may take one at a time.
4. Little waits before the socket (`connection.UNSENT_BYTES_MAX`), so a life-at-risk row waits for no buffer.
5. A provider that does not agree to HTTP/2 in the handshake is not spoken to (`speaks_h2()` is then False).
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import NO_CONNECTION, NOT_SENT, Answer, Requests
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.frames import kernels
from fanout.dispatch.frames.connection import Connection
from fanout.dispatch.frames.plans import Text, columns_of, origin_of, text_of
from fanout.dispatch.gap import LEAST_S, Gap
from fanout.dispatch.lanes import NOTHING_SENT, Job, Sent
from fanout.dispatch.retry_after import seconds_of
from fanout.dispatch.scheduler import WEED_S, Scheduler
from fanout.dispatch.tls_socket import TlsSocket, connect

NEVER_S: Final = float("inf")
STARTS_MAX: Final = 1_024  # rows written in one turn: 2 ms
TRIES_MAX: Final = 4  # times a row that was refused unprocessed is sent again at once
PAUSE_FIRST_S: Final = 0.1  # before a failed connection is tried again; doubled each time
PAUSE_MOST_S: Final = 5.0
IDLE_S: Final = 1.0  # of a connection's life, at least, before one that was closed unused is replaced unasked
PING_S: Final = 120.0  # of silence before a connection is asked whether it still stands
LINKS_MAX: Final = 8  # times the connections that are kept: with those that take no more, and have answers to give
CHECKS: Final = 20  # looks for late answers within one time-out


class _Job(Job):
    """The rows of one batch, by template: those that ring before those that are sent again quietly."""

    def __init__(
        self,
        requests: Requests,
        index: NDArray[np.intp],
        origin: str,
        *,
        lane: int,
        action: int,
        may_go: Callable[[], bool],
    ) -> None:
        super().__init__(len(index), lane=lane, action=action, may_go=may_go)
        self.number = 0  # among the lane's jobs
        self.columns = columns_of(requests)
        self.rows = index.astype(np.int64)
        which = requests.which[index]
        self.order = np.argsort(which, kind="stable").astype(np.int64)  # places in `index`
        self.ends = np.cumsum(np.bincount(which, minlength=len(requests.templates))).tolist()  # of each template's rows
        self.requests, self.origin = requests, origin
        self.texts: dict[int, Text] = {}
        self.next = 0  # of `order`
        self.returned: list[int] = []  # places whose rows go again, before all others
        self.tries: dict[int, int] = {}

    def handful(self, count: int) -> tuple[Text, NDArray[np.int64]]:
        """The next `count` rows' places at most, all of one template, and its text."""
        if self.returned:
            template = int(self.requests.which[self.rows[self.returned[0]]])
            places = [place for place in self.returned if self.requests.which[self.rows[place]] == template][:count]
            taken = set(places)
            self.returned = [place for place in self.returned if place not in taken]
            return self.text(template), np.array(places, np.int64)
        template = next(number for number, end in enumerate(self.ends) if end > self.next)
        begin, self.next = self.next, min(self.next + count, self.ends[template])
        return self.text(template), self.order[begin : self.next]

    def text(self, template: int) -> Text:
        found = self.texts.get(template)
        if found is None:
            found = self.texts[template] = text_of(self.requests.templates[template], self.origin)
        return found

    def back(self, places: list[int]) -> None:
        """Rows that were handed out wait again."""
        self.returned = places + self.returned
        self.waiting += len(places)

    def stop(self) -> None:
        """Nothing more of it goes to the wire."""
        self.next, self.returned = len(self.order), []
        super().stop()

    def rest(self) -> NDArray[np.int64]:
        """The places of all rows that wait."""
        return np.concatenate((np.array(self.returned, np.int64), self.order[self.next :]))

    def answer(self, places: NDArray[np.int64], codes: NDArray[np.int64], now_ms: int) -> None:
        """Rows have got their codes."""
        self.codes[places] = codes
        if ((codes >= 200) & (codes < 300)).any():
            self.last_ms = now_ms
            self.first_ms = now_ms if self.first_ms is None else self.first_ms
        self.unanswered -= len(places)
        if not self.unanswered:
            self.done.set()


class _Link:
    """One connection with its socket."""

    def __init__(self, tls: TlsSocket, http: Connection, now_s: float, timeout_s: float) -> None:
        self.tls, self.http = tls, http
        self.fd = tls.fileno()
        self.ready_by_s = now_s + timeout_s
        self.opened_s = self.heard_s = now_s
        self.asked_s = NEVER_S  # when a sign of life was asked for
        self.used = False
        self.waits = False  # for the socket to take more

    @property
    def usable(self) -> bool:
        return self.http.ready and not self.http.draining


class FrameLane:
    """One provider's lane in one process. `run` is its task; `send` may be called by many."""

    def __init__(
        self,
        *,
        url: str,
        ca: str,
        connections: int,
        streams: int,
        timeout_s: float,
        reserve: float,
        bucket: Bucket,
        clock_ms: Callable[[], int],
    ) -> None:
        self.bucket = bucket
        self.requests = 0
        self._speaks_h2 = True
        self._host, self._port, self._authority = origin_of(url)
        self._origin = f"https://{self._authority}"
        self._clock_ms = clock_ms
        self._connections, self._streams, self._timeout_s = connections, streams, timeout_s
        self._context = ssl.create_default_context(cafile=ca or None)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        self._scheduler: Scheduler[_Job] = Scheduler(places=connections * streams, reserve=reserve, bucket=bucket)
        self._links: dict[int, _Link] = {}
        self._opening = 0
        self._warming = 0
        self._wanted = False  # from the first use on
        self._failures = 0
        self._open_at_s = 0.0
        self._stuck_s = NEVER_S  # since when rows wait and nothing can carry them
        self._jobs: dict[int, _Job] = {}
        self._numbers = 0
        self._again_s = NEVER_S
        self._weed_s = 0.0
        self._check_s = NEVER_S
        self._epoll = select.epoll()
        self._news = trio.Event()
        self._life = trio.CancelScope(shield=True)
        self._nap = trio.CancelScope()
        self._gap = Gap()
        self._woken = False
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        links = [link.http for link in self._links.values()]
        return f"<FrameLane {self._authority}, in flight {self.in_flight}, {links}, {self._scheduler!r}>"

    @property
    def in_flight(self) -> int:
        """Requests on the wire."""
        return sum(link.http.open for link in self._links.values())

    def speaks_h2(self) -> bool:
        """False once the provider has refused HTTP/2; nothing is sent to it then."""
        return self._speaks_h2

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the lane until `close`; see `lanes.RunningLane`."""
        await trio.to_thread.run_sync(kernels.warm)
        try:
            with self._life:
                async with trio.open_nursery() as self._nursery:
                    task_status.started()
                    await self._drive()
        finally:
            self._end()

    async def _drive(self) -> None:
        while True:
            if not self._woken:
                with trio.CancelScope(deadline=min(self._again_s, self._check_s)) as self._nap:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
            await trio.lowlevel.checkpoint_if_cancelled()
            self._woken = False
            self._turn()
            if self.in_flight >= self._streams:
                gap_s = LEAST_S if self._scheduler.urgent else self._gap.s
                with trio.CancelScope(deadline=trio.current_time() + gap_s) as self._nap:
                    await trio.sleep_forever()
                await trio.lowlevel.checkpoint_if_cancelled()

    def _wake(self) -> None:
        """Have the next turn at once."""
        self._woken = True
        self._nap.cancel()

    def close(self) -> None:
        """End `run`; rows still on the wire come back as `NO_ANSWER`."""
        self._life.cancel()

    async def warm(self, url: str) -> bool:
        """Open all connections before the first action; True if the provider answered on each.

        The answer is to a PING of HTTP/2, which counts against nobody's quota.
        """
        assert url.startswith(self._origin)
        self._wanted = True
        self._wake()
        self._warming += 1
        try:
            with trio.move_on_after(self._timeout_s):
                while self._failures == 0:
                    links = [link.http for link in self._links.values() if link.usable and link.http.pongs]
                    if len(links) == self._connections:
                        return True
                    await self._news.wait()
            return False
        finally:
            self._warming -= 1

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        """Send the rows at `index`; see `lanes.Lane`."""
        if not len(index):
            return NOTHING_SENT
        job = _Job(requests, index, self._origin, lane=lane, action=action, may_go=may_go)
        self._numbers += 1
        number = job.number = self._numbers
        self._jobs[number] = job
        self._wanted = True
        self._scheduler.add(job)
        if self._nursery is not None and not self._life.cancel_called:
            self._turn()
            self._nap.deadline = min(self._nap.deadline, self._again_s, self._check_s)
        try:
            await job.done.wait()
        finally:
            del self._jobs[number]
            self._scheduler.drop(job)
        return job.sent()

    # --- a turn -----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Everything that can be done now: answers, new requests, sockets, time."""
        now_s, before = trio.current_time(), self.in_flight
        for fd, _mask in self._epoll.poll(0):
            self._receive(self._links[fd], now_s)
        self._gap.learn(before, before - self.in_flight)
        self._feed(now_s)
        self._weed(now_s)
        for link in list(self._links.values()):
            if link.http.unsent:
                self._write(link, now_s)
        if now_s >= self._check_s:
            self._check(now_s)
        self._keep_open(now_s)

    def _receive(self, link: _Link, now_s: float) -> None:
        http, more, ended = link.http, True, False
        try:
            link.tls.fetch()
            while more and not http.broken:
                count, more = link.tls.receive(http.space())
                http.put(count)
                http.read()
        except OSError:
            ended = True
        link.heard_s, link.asked_s = now_s, NEVER_S
        self._collect(http)
        if http.pongs and self._scheduler.empty:
            self._failures = 0
        if ended or http.broken:
            self._lose(link, now_s)
        if self._warming:
            self._tell()

    def _tell(self) -> None:
        """Wake who waits for connections to change."""
        self._news.set()
        self._news = trio.Event()

    def _collect(self, http: Connection) -> None:
        """Give the rows that have ended to their jobs."""
        ended = http.take()
        if ended is None:
            return
        if http.answered:
            self._failures = 0
        for note in ended.notes:
            if (job := self._jobs.get(note.job)) is not None:
                job.bodies[note.place] = note.body
                answer = Answer(code=note.code, headers={"retry-after": note.retry_after})
                job.asked_s = max(job.asked_s, seconds_of(answer, self._clock_ms()))
        now_ms = self._clock_ms()
        rows = ended.rows
        whose = rows[:, 0]
        numbers = [int(whose[0])] if (whose == whose[0]).all() else np.unique(whose).tolist()
        for number in numbers:
            if (job := self._jobs.get(number)) is None:
                continue
            mine = rows if len(numbers) == 1 else rows[whose == number]
            places, codes = mine[:, 1], mine[:, 2]
            if (codes == NOT_SENT).any():
                self._again(job, places[codes == NOT_SENT].tolist(), counts=not http.served)
                places, codes = places[codes != NOT_SENT], codes[codes != NOT_SENT]
            job.answer(places, codes, now_ms)

    def _again(self, job: _Job, places: list[int], *, counts: bool) -> None:
        """Rows that certainly were not taken; whether that counts as a try of theirs."""
        for place in places:
            job.tries[place] = job.tries.get(place, 0) + counts
        spent = [place for place in places if job.tries[place] > TRIES_MAX]
        if spent:
            job.answer(np.array(spent, np.int64), np.full(len(spent), NO_CONNECTION, np.int64), 0)
        fresh = [place for place in places if job.tries[place] <= TRIES_MAX]
        if fresh:
            job.back(fresh)
            self._scheduler.again(job)

    def _feed(self, now_s: float) -> None:
        """Put rows on the wire while the scheduler has any and there are free places."""
        self._again_s = NEVER_S
        if self._scheduler.empty:
            self._stuck_s = NEVER_S
            return
        rooms = {link: link.http.room for link in self._links.values() if link.usable}
        capacity = sum(link.http.streams for link in rooms)
        self._scheduler.resize(capacity)
        started = 0
        while (free := sum(rooms.values())) > 0:
            if started >= STARTS_MAX:
                self._again_s = now_s
                return
            decision = self._scheduler.next(now_s, capacity - free)
            job = decision.ticket
            if job is None:
                self._again_s = NEVER_S if decision.again_s is None else decision.again_s
                return
            if job.may_go():
                left = self._start(job, decision.rows, rooms, now_s)
                started += decision.rows - left
            else:
                self._scheduler.drop(job)
                job.stop()
                left = decision.rows
            self.bucket.give_back(left)

    def _weed(self, now_s: float) -> None:
        """Give up what was stopped, also while there is no place and no quota."""
        if now_s >= self._weed_s:
            self._weed_s = now_s + WEED_S
            for job in self._scheduler.weed():
                job.stop()
        if not self._scheduler.empty:
            self._again_s = min(self._again_s, self._weed_s)

    def _start(self, job: _Job, count: int, rooms: dict[_Link, int], now_s: float) -> int:
        """Write so many rows of a job; returns how many found no room after all."""
        job.waiting -= count
        left, due_ms = count, int(1000 * (now_s + self._timeout_s))
        while left:
            link = max(rooms, key=rooms.__getitem__)
            if not rooms[link]:
                break
            text, places = job.handful(min(left, rooms[link]))
            link.used = True
            wrote = link.http.write(job.number, text, job.columns, job.rows[places], places, due_ms=due_ms)
            if wrote < len(places):
                job.returned = places[wrote:].tolist() + job.returned
            left -= wrote
            rooms[link] = link.http.room
        self.requests += count - left
        if left:
            job.waiting += left
            self._scheduler.again(job)
        return left

    def _write(self, link: _Link, now_s: float) -> None:
        http, tls = link.http, link.tls
        try:
            while http.unsent or tls.waits:
                http.sent(tls.send(http.output()))
                if tls.waits:
                    break
        except OSError:
            self._lose(link, now_s)
            return
        if tls.waits != link.waits:
            link.waits = tls.waits
            self._epoll.modify(link.fd, select.EPOLLIN | (select.EPOLLOUT if link.waits else 0))

    # --- connections ------------------------------------------------------------------------------------------------

    def _check(self, now_s: float) -> None:
        """What only time tells: late answers, silent connections, rows that nothing can carry."""
        for link in list(self._links.values()):
            http = link.http
            late = http.expire(int(1000 * now_s))
            self._collect(http)
            silent_s = now_s - link.heard_s
            if silent_s >= PING_S and link.asked_s == NEVER_S:
                http.ping()
                link.asked_s = now_s
            dead = now_s >= link.asked_s + self._timeout_s or (late and silent_s >= self._timeout_s)
            if dead or http.broken or not (http.ready or now_s < link.ready_by_s):
                self._lose(link, now_s)
        if (
            not self._scheduler.empty
            and not self.in_flight
            and not any(link.http.room for link in self._links.values())
        ):
            self._stuck_s = min(self._stuck_s, now_s)
            if now_s >= self._stuck_s + self._timeout_s:
                self._give_up()
        else:
            self._stuck_s = NEVER_S
        awaited = self._links or self._jobs or self._opening
        self._check_s = now_s + self._timeout_s / CHECKS if awaited else NEVER_S

    def _keep_open(self, now_s: float) -> None:
        """Replace connections that are gone, with a pause after failures."""
        for link in list(self._links.values()):
            if link.http.draining and not link.http.open and not link.http.unsent:
                self._drop(link)
                self._judge(link, now_s)
        standing = self._opening + sum(not link.http.draining for link in self._links.values())
        missing = self._connections * LINKS_MAX - self._opening - len(self._links)
        missing = min(self._connections - standing, missing)
        if missing <= 0 or not self._wanted or not self._speaks_h2:
            return
        self._check_s = min(self._check_s, now_s + self._timeout_s / CHECKS)
        if now_s < self._open_at_s and (self._failures or self._scheduler.empty):
            self._again_s = min(self._again_s, self._open_at_s)
            return
        for _ in range(1 if self._failures else missing):
            assert self._nursery is not None
            self._opening += 1
            self._nursery.start_soon(self._open)

    async def _open(self) -> None:
        try:
            with trio.fail_after(self._timeout_s):
                tls = await connect(self._host, self._port, self._context)
        except (OSError, trio.TooSlowError):
            self._opening -= 1
            self._fail(trio.current_time())
            return
        except trio.Cancelled:
            self._opening -= 1
            raise
        self._opening -= 1
        if tls.protocol == "h2":
            now_s = trio.current_time()
            link = _Link(tls, Connection(self._authority, streams=self._streams), now_s, self._timeout_s)
            link.http.ping()
            self._links[link.fd] = link
            self._epoll.register(link.fd, select.EPOLLIN)
            self._write(link, now_s)
        else:
            tls.close()
            self._speaks_h2 = False
            self._fail(trio.current_time())

    def _lose(self, link: _Link, now_s: float) -> None:
        """A connection has ended, or is given up."""
        if self._links.get(link.fd) is not link:
            return
        if link.http.broken and link.http.unsent:  # a last word, why; rows that wait before it may go along
            with suppress(OSError):
                link.http.sent(link.tls.send(link.http.output()))
        link.http.lose()
        self._drop(link)
        self._collect(link.http)
        self._judge(link, now_s)

    def _judge(self, link: _Link, now_s: float) -> None:
        """Whether a connection that ended had come to nothing."""
        if not link.http.stuck and (link.http.answered or now_s >= link.opened_s + PAUSE_MOST_S):
            return
        if link.http.pongs and not link.used:
            self._open_at_s = max(self._open_at_s, link.opened_s + IDLE_S)
            return
        self._fail(now_s)

    def _drop(self, link: _Link) -> None:
        del self._links[link.fd]
        with suppress(OSError):
            self._epoll.unregister(link.fd)
        link.tls.close()

    def _fail(self, now_s: float) -> None:
        """A connection came to nothing: try again later, and let go what nothing else can carry."""
        self._failures += 1
        self._open_at_s = now_s + min(PAUSE_MOST_S, PAUSE_FIRST_S * 2 ** min(self._failures - 1, 10))
        if not self._opening and not any(link.usable for link in self._links.values()):
            self._give_up()
        self._tell()
        self._wake()

    def _give_up(self) -> None:
        """Rows that wait are not taken."""
        self._stuck_s = NEVER_S
        for job in list(self._jobs.values()):
            places = job.rest()
            self._scheduler.drop(job)
            job.waiting, job.next, job.returned = 0, len(job.order), []
            job.answer(places, np.full(len(places), NO_CONNECTION, np.int64), 0)

    def _end(self) -> None:
        for link in list(self._links.values()):
            link.http.lose()
            self._drop(link)
            self._collect(link.http)
        for job in self._jobs.values():
            self._scheduler.drop(job)
            job.stop()
        self._epoll.close()
