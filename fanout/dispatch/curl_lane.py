"""The lane for many origins and for HTTP/1.1: one request a row by libcurl's multi interface. The only pycurl import.

What it does: takes the rows of many batches, lets the scheduler say whose go next, keeps at most `connections *
streams` requests in flight, and answers each batch with a code a row. What it does not: retry, pace, read meanings, or
look at a clock of its own. Rules:

1. Every row ends with a definite code: an HTTP status, or `NOT_SENT`, `NO_CONNECTION`, `NO_ANSWER`, `GARBAGE`. Whether
   anything of a request left this process is asked of libcurl (`REQUEST_SIZE`), not guessed from the kind of error.
2. `may_go` of a batch is asked before each handful of its rows goes to the wire: an action that is closed or over stops
   within a few milliseconds, rows not sent yet come back as `NOT_SENT`.
3. Handles live as long as the lane and keep their options; per row only what differs by row is set.
4. libcurl sends a request a second time, on its own, when the provider refused the stream before looking at it
   (REFUSED_STREAM, GOAWAY) or the connection ended before one byte of answer. So only channels that replace in place
   may use this lane; what rings twice goes by `calls.py`, which never does that.

How libcurl and trio meet: libcurl says which sockets it watches; they are registered in an epoll of our own, and one
task waits for that epoll to be readable or for libcurl's timer. One task and one wait, whatever the number of sockets,
and no race between a socket that libcurl closes and a task that still waits for it.

Requests of one turn leave together: libcurl writes each by a system call of its own, so its connections are corked
(`TCP_CORK`) while a turn lasts. That takes a third off the kernel's share and delays nothing, since a turn is short.

Why no header callback: it costs more than the request. Retry-After and the status come from `getinfo`.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import numpy as np
import pycurl
import trio
from numpy.typing import NDArray

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, NOT_SENT, Pieces, Requests, Template
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.lanes import NOTHING_SENT, Job, Sent
from fanout.dispatch.scheduler import WEED_S, Scheduler
from fanout.limits import ANSWER_BYTES_MAX

IDLE_S_MAX: Final = 50  # front ends close what is idle for 60 s or more, and what goes into such a one is unknown
NEVER_S: Final = float("inf")
GAP_S: Final = 0.004  # between turns of a busy lane, in which answers gather: a turn for each costs more than they do
STARTS_MAX: Final = 128  # requests begun in one turn, before other tasks have theirs

_GARBAGE_ERRORS: Final = frozenset(
    {
        pycurl.E_UNSUPPORTED_PROTOCOL,  # HTTP/0.9, or no HTTP at all
        pycurl.E_HTTP_RETURNED_ERROR,
        pycurl.E_WRITE_ERROR,
        pycurl.E_BAD_CONTENT_ENCODING,
        pycurl.E_FILESIZE_EXCEEDED,
        8,  # CURLE_WEIRD_SERVER_REPLY
    }
)

Handle: TypeAlias = Any
Fill: TypeAlias = Callable[[int], bytes]


class _Job(Job):
    """The rows of one batch, with what fills their templates."""

    def __init__(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> None:
        super().__init__(len(index), lane=lane, action=action, may_go=may_go)
        self.rows: list[int] = index.tolist()
        self.which: list[int] = requests.which[index].tolist()
        columns = [column.rows() for column in requests.columns]
        self.templates = [_Filled(template, columns) for template in requests.templates]


class _Filled:
    """A template with its columns at hand. `url` and `body` are None where they have no hole and stand in `fixed_*`."""

    def __init__(self, template: Template, columns: list[list[bytes]]) -> None:
        self.method = template.method
        # Without these libcurl adds its own Accept and User-Agent to every request.
        self.headers = [*template.headers, "accept:", "user-agent:"]
        self.fixed_url, self.url = _filler(template.url, columns)
        self.fixed_body, self.body = _filler(template.body, columns)


def _filler(pieces: Pieces, columns: list[list[bytes]]) -> tuple[bytes, Fill | None]:
    """The constant, or a function of the row. The two shapes that push services have are spelt out: they are hot."""
    match pieces:
        case (bytes(whole),):
            return whole, None
        case (bytes(before), int(hole)):
            values = columns[hole]
            return b"", lambda row: before + values[row]
        case (bytes(before), int(hole), bytes(after)):
            values = columns[hole]
            return b"", lambda row: before + values[row] + after
    return b"", lambda row: b"".join(piece if isinstance(piece, bytes) else columns[piece][row] for piece in pieces)


class CurlLane:
    """One provider's lane in one process. `run` is its task; `send` may be called by many."""

    def __init__(
        self,
        *,
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
        self._clock_ms = clock_ms
        self._ca = ca
        self._timeout_ms = int(timeout_s * 1000)
        self._connections, self._streams = connections, streams
        self._places = connections * streams
        self._scheduler: Scheduler[_Job] = Scheduler(places=self._places, reserve=reserve, bucket=bucket)
        self._epoll = select.epoll()
        self._masks: dict[int, int] = {}
        self._corks: dict[int, socket.socket] = {}
        self._timer_s = NEVER_S
        self._again_s = NEVER_S
        self._weed_s = 0.0
        self._life = trio.CancelScope(shield=True)
        self._nap = trio.CancelScope()
        self._woken = False
        self._multi = pycurl.CurlMulti()
        for option, value in (
            (pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX),
            (pycurl.M_MAX_HOST_CONNECTIONS, connections),
            (pycurl.M_MAX_CONCURRENT_STREAMS, streams),
            (pycurl.M_SOCKETFUNCTION, self._on_socket),
            (pycurl.M_TIMERFUNCTION, self._on_timer),
        ):
            self._multi.setopt(option, value)
        self._idle: list[Handle] = [self._handle() for _ in range(self._places)]
        self._busy: set[_Job] = set()

    def __repr__(self) -> str:
        return f"<CurlLane in flight {self.in_flight} of {self._places}, {self._scheduler!r}>"

    @property
    def in_flight(self) -> int:
        """Requests on the wire."""
        return self._places - len(self._idle)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the lane until `close`.

        *Cancellation*: none; a cancelled sender lets the rows on the wire end, and closes the lane after them.
        """
        task_status.started()
        try:
            with self._life:
                while True:
                    if not self._woken:
                        with trio.CancelScope(deadline=min(self._timer_s, self._again_s)) as self._nap:
                            await trio.lowlevel.wait_readable(self._epoll.fileno())
                    await trio.lowlevel.checkpoint_if_cancelled()
                    self._woken = False
                    self._turn()
                    if self.in_flight >= self._streams:
                        with trio.CancelScope(deadline=trio.current_time() + GAP_S) as self._nap:
                            await trio.sleep_forever()
                        await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            self._end()

    def _wake(self) -> None:
        """Have the next turn at once."""
        self._woken = True
        self._nap.cancel()

    def close(self) -> None:
        """End `run`; rows still on the wire come back as `NO_ANSWER`."""
        self._life.cancel()

    async def warm(self, url: str) -> bool:
        """Open all connections before the first action; True if the provider answered on each.

        A HEAD of a path that no provider has: it is answered, and counts against nobody's quota.
        """
        answers = []
        async with trio.open_nursery() as nursery:
            for _ in range(self._connections):
                template = Template(method="HEAD", url=(url.encode(),), headers=(), body=(b"",))
                requests = Requests(
                    templates=(template,), columns=(), which=np.zeros(1, np.uint8), usable=np.ones(1, np.bool_)
                )
                job = _Job(requests, np.zeros(1, np.intp), lane=0, action=0, may_go=lambda: True)
                self._busy.add(job)
                answers.append(job)
                self._start(job, 1, fresh=True)
                nursery.start_soon(self._finish, job)
            self._wake()
        return all(job.codes[0] > 0 for job in answers)

    async def send(
        self, requests: Requests, index: NDArray[np.intp], *, lane: int, action: int, may_go: Callable[[], bool]
    ) -> Sent:
        """Send the rows at `index`; returns when each has its code.

        *Cancellation*: rows not sent yet stay unsent, those on the wire go on and their answers are dropped; a caller
        that wants them shields this call, which ends within the request time-out.
        """
        if not len(index):
            return NOTHING_SENT
        job = _Job(requests, index, lane=lane, action=action, may_go=may_go)
        self._busy.add(job)
        self._scheduler.add(job)
        self._wake()
        return await self._finish(job)

    async def _finish(self, job: _Job) -> Sent:
        try:
            await job.done.wait()
        finally:
            self._busy.discard(job)
            self._scheduler.drop(job)
        return job.sent()

    # --- libcurl's side -----------------------------------------------------------------------------------------

    def _handle(self) -> Handle:
        handle = pycurl.Curl()
        chunks: list[bytes] = []
        for option, value in (
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS),
            (pycurl.PIPEWAIT, 1),
            (pycurl.NOSIGNAL, 1),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.TIMEOUT_MS, self._timeout_ms),
            (pycurl.CONNECTTIMEOUT_MS, self._timeout_ms),
            (pycurl.MAXFILESIZE, ANSWER_BYTES_MAX),
            (pycurl.MAXAGE_CONN, IDLE_S_MAX),
            (pycurl.PROXY, ""),
            (pycurl.WRITEFUNCTION, chunks.append),
        ):
            handle.setopt(option, value)
        if self._ca:
            handle.setopt(pycurl.CAINFO, self._ca)
        handle.chunks, handle.template, handle.job, handle.place, handle.fresh = chunks, None, None, 0, False
        return handle

    def _on_socket(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        known = fd in self._masks
        if what == pycurl.POLL_REMOVE:
            if known:
                del self._masks[fd]
                self._epoll.unregister(fd)
                self._uncork(fd)
            return
        mask = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (select.EPOLLOUT if what & pycurl.POLL_OUT else 0)
        if not known:
            self._epoll.register(fd, mask)
            self._cork(fd)
        elif self._masks[fd] != mask:
            self._epoll.modify(fd, mask)
        self._masks[fd] = mask

    def _cork(self, fd: int) -> None:
        """Keep a second handle on a connection, to hold back what goes out until a turn ends."""
        with suppress(OSError):  # libcurl also watches things that are no TCP sockets
            self._corks[fd] = cork = socket.socket(fileno=os.dup(fd))
            cork.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)

    def _uncork(self, fd: int) -> None:
        if (cork := self._corks.pop(fd, None)) is not None:
            with suppress(OSError):  # the connection may be gone
                cork.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            cork.close()

    def _on_timer(self, after_ms: int) -> None:
        self._timer_s = NEVER_S if after_ms < 0 else trio.current_time() + after_ms / 1000

    def _turn(self) -> None:
        """Everything that can be done now: sockets, timer, answers, new requests."""
        self._hold_back(True)
        try:
            self._work()
        finally:
            self._hold_back(False)

    def _hold_back(self, yes: bool) -> None:
        for cork in self._corks.values():
            with suppress(OSError):  # the connection may be gone
                cork.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(yes))

    def _work(self) -> None:
        """One connection's answers, and as many new requests: some milliseconds, then others have their turn."""
        for fd, mask in self._epoll.poll(0, 1):
            ready = (pycurl.CSELECT_IN if mask & ~select.EPOLLOUT else 0) | (
                pycurl.CSELECT_OUT if mask & select.EPOLLOUT else 0
            )
            self._multi.socket_action(fd, ready)
        self._collect()
        self._feed()
        self._weed(trio.current_time())
        if self._timer_s <= trio.current_time():
            self._timer_s = NEVER_S
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            self._again_s = trio.current_time()  # what this has ended is collected in the next turn

    def _feed(self) -> None:
        """Put rows on the wire while the scheduler has any and there are free places."""
        self._again_s = NEVER_S
        enough = self.requests + STARTS_MAX
        while self._idle:
            if self.requests >= enough:
                self._again_s = trio.current_time()
                return
            decision = self._scheduler.next(trio.current_time(), self.in_flight)
            job = decision.ticket
            if job is None:
                self._again_s = NEVER_S if decision.again_s is None else decision.again_s
                return
            if job.may_go():
                self._start(job, decision.rows)
            else:
                self._scheduler.drop(job)
                job.stop()

    def _weed(self, now_s: float) -> None:
        """Give up what was stopped, also while there is no place and no quota."""
        if now_s >= self._weed_s:
            self._weed_s = now_s + WEED_S
            for job in self._scheduler.weed():
                job.stop()
        if not self._scheduler.empty:
            self._again_s = min(self._again_s, self._weed_s)

    def _start(self, job: _Job, count: int, *, fresh: bool = False) -> None:
        idle, add = self._idle, self._multi.add_handle
        first = len(job.rows) - job.waiting
        job.waiting -= count
        self.requests += count
        for place in range(first, first + count):
            handle = idle.pop()
            row = job.rows[place]
            template = job.templates[job.which[place]]
            if handle.template is not template:
                self._dress(handle, template)
            if template.url is not None:
                handle.setopt(pycurl.URL, template.url(row))
            if template.body is not None:
                handle.setopt(pycurl.POSTFIELDS, template.body(row))
            if handle.fresh is not fresh:
                handle.fresh = fresh
                handle.setopt(pycurl.FRESH_CONNECT, int(fresh))
                handle.setopt(pycurl.PIPEWAIT, int(not fresh))
            handle.job, handle.place = job, place
            add(handle)

    @staticmethod
    def _dress(handle: Handle, template: _Filled) -> None:
        """Give a handle what is the same for all rows of a template."""
        if template.method == "HEAD":
            handle.setopt(pycurl.NOBODY, 1)
        else:
            handle.setopt(pycurl.NOBODY, 0)
            handle.setopt(pycurl.POST, 1)
        handle.setopt(pycurl.HTTPHEADER, template.headers)
        if template.url is None:
            handle.setopt(pycurl.URL, template.fixed_url)
        if template.body is None and template.method != "HEAD":
            handle.setopt(pycurl.POSTFIELDS, template.fixed_body)
        handle.template = template

    def _collect(self) -> None:
        """Take in finished requests."""
        now_ms = 0
        queued = 1
        while queued:
            queued, good, bad = self._multi.info_read(self._places)
            if good and not now_ms:
                now_ms = self._clock_ms()
            for handle in good:
                self._take(handle, handle.getinfo(pycurl.RESPONSE_CODE), now_ms)
            for handle, error, _text in bad:
                self._take(handle, _code(handle, error), 0)

    def _take(self, handle: Handle, code: int, now_ms: int) -> None:
        job: _Job = handle.job
        self._multi.remove_handle(handle)
        job.codes[handle.place] = code
        if 200 <= code < 300:
            if job.first_ms is None:
                job.first_ms = now_ms
            job.last_ms = now_ms
        elif code > 0:
            job.bodies[handle.place] = b"".join(handle.chunks)
            if code == 429 or code == 503:
                job.asked_s = max(job.asked_s, float(handle.getinfo(pycurl.RETRY_AFTER)))
        handle.chunks.clear()
        handle.job = None
        self._idle.append(handle)
        job.unanswered -= 1
        if not job.unanswered:
            job.done.set()

    def _end(self) -> None:
        for job in list(self._busy):
            self._scheduler.drop(job)
            sent = job.codes[: len(job.rows) - job.waiting]
            sent[sent == NOT_SENT] = NO_ANSWER
            job.unanswered = job.waiting
            job.stop()
        self._multi.close()
        for fd in list(self._corks):
            self._uncork(fd)
        self._epoll.close()


def _code(handle: Handle, error: int) -> int:
    """The code of a request that ended without a whole answer."""
    if error in _GARBAGE_ERRORS:
        return GARBAGE
    return NO_ANSWER if handle.getinfo(pycurl.REQUEST_SIZE) > 0 else NO_CONNECTION
