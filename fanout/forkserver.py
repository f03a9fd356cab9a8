"""Processes that are forked from one which has loaded everything already.

What a sender is made of takes over a second of a core to load, numba most of all. So one child, the fork server, loads
it once; each sender is a fork of it, made in milliseconds, also the one that takes the place of a dead one. What was
loaded is in memory once for all of them. `multiprocessing` has such a server too, but it loads the main program in each
process, adds one of its own, and asks for none of what follows.

Rules:

1. The server runs no thread and opens no file, connection or ledger: a fork of it is as good as a fresh process.
2. A fork has a pipe as standard input, which stays open and silent as long as its parent lives (`children.py`), and one
   as standard output. On the latter come lines: its process id, what else it says, and at last from the server how it
   ended.
3. Only the server has that pipe besides, until it has buried the fork: where the pipe ends, the fork has ended, or, if
   the server died first, will be gone with its own end of it.
4. A server that died is started again by the next that wants a fork; forks that live go on without one.
5. The server ends with its parent, as every child does, and never waits for its forks.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from fanout.children import start_child

ORDER_BYTES_MAX: Final = 4_096
"""Of one order: the arguments of a fork."""

HANDLES_MAX: Final = 1
"""Files beside its pipes that a fork may be given: a socket to listen on."""

LOADING: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""Environment of the server: numpy's linear algebra, which nobody here uses, would start a thread for each core."""


class Fork:
    """One process, as its parent has it. `pid`: 0 if it did not come to be."""

    def __init__(self, silence: trio.lowlevel.FdStream, words: trio.lowlevel.FdStream) -> None:
        self.pid = 0
        self._silence, self._words = silence, words
        self._heard = bytearray()
        self._last = ""

    async def line(self) -> str:
        """The next that is said, by it or of it; empty: it has ended. *Cancellation*: nothing is lost."""
        while b"\n" not in self._heard:
            said = await self._words.receive_some(ORDER_BYTES_MAX)
            if not said:
                return ""
            self._heard += said
        first, _, rest = self._heard.partition(b"\n")
        self._heard = rest
        self._last = first.decode(errors="replace")
        return self._last

    async def wait(self) -> str:
        """Until it has ended; the last that was said."""
        while await self.line():
            pass
        return self._last

    async def end(self, grace_s: float) -> None:
        """Let it finish: close its input, wait, then kill. Safe for one that is dead."""
        with trio.CancelScope(shield=True):
            await self._silence.aclose()
            with trio.move_on_after(grace_s) as patience:
                await self.wait()
            if patience.cancelled_caught and self.pid:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                await self.wait()
            await self._words.aclose()


class ForkServer:
    """`python -m MODULE` with its settings, of which forks are had; made by `open_forkserver`."""

    def __init__(self, module: str, first_line: str) -> None:
        self._module, self._first_line = module, first_line
        self._one_at_a_time = trio.Lock()
        self._server: trio.Process | None = None
        self._orders: socket.socket | None = None

    async def start(self) -> None:
        """Begin to load, unless that was begun; forks may be asked for at once."""
        if self._server is not None and self._server.poll() is None:
            return
        await self.close()
        self._orders, theirs = socket.socketpair()
        with theirs:
            self._server = await start_child([self._module], theirs.fileno(), os.environ | LOADING)
        await trio.to_thread.run_sync(self._orders.sendall, self._first_line.encode() + b"\n")

    async def fork(self, arguments: Sequence[str], handles: Sequence[int] = ()) -> Fork:
        """A process with these arguments, as soon as the server has loaded; one that is dead if the server died.

        `handles`, at most `HANDLES_MAX`: files it has too; their numbers there are appended to its arguments.
        """
        async with self._one_at_a_time:
            await self.start()
            assert self._orders is not None
            silence, into = os.pipe()
            words, out = os.pipe()
            fork = Fork(trio.lowlevel.FdStream(into), trio.lowlevel.FdStream(words))
            with suppress(OSError):  # it died: nobody has the pipe then, and it ends
                socket.send_fds(self._orders, ["\0".join(arguments).encode()], [silence, out, *handles])
            os.close(silence)
            os.close(out)
            try:
                first = await fork.line()
                fork.pid = int(first) if first.isdigit() else 0
            except BaseException:
                await fork.end(0.0)
                raise
            return fork

    async def close(self) -> None:
        """End the server, which has nothing to finish; forks go on."""
        if self._orders is not None:
            self._orders.close()
        if self._server is not None:
            self._server.kill()
            await self._server.wait()
        self._orders = self._server = None


@asynccontextmanager
async def open_forkserver(module: str, first_line: str) -> AsyncIterator[ForkServer]:
    """A server for the time of the block, which begins to load at once."""
    server = ForkServer(module, first_line)
    try:
        await server.start()
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await server.close()


# --- in the server ----------------------------------------------------------------------------------------------------


def serve_forks() -> list[str] | None:
    """Serve, once everything is loaded. Returns in each fork, with its arguments; in the server with None, at its end.

    In a fork standard input and output are its pipes, what it was given is open, and all else of the server is closed.
    """
    gc.collect()
    gc.freeze()  # or a collection in a fork would write to every page that it shares
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, _noted)
    signal.set_wakeup_fd(wake.fileno())
    orders = socket.socket(fileno=os.dup(0))
    pipes: dict[int, int] = {}
    try:
        while True:
            ready, _, _ = select.select([orders, woken], [], [])
            if woken in ready:
                woken.recv(ORDER_BYTES_MAX)
                _bury(pipes)
            if orders in ready:
                order, handles, _, _ = socket.recv_fds(orders, ORDER_BYTES_MAX, 2 + HANDLES_MAX)
                if not order:
                    return None
                silence, out, *given = handles
                pid = os.fork()
                if not pid:
                    os.dup2(silence, 0)
                    os.dup2(out, 1)
                    for pipe in (silence, out, *pipes.values()):
                        os.close(pipe)
                    _say(1, f"{os.getpid()}")
                    return [*order.decode().split("\0"), *(str(handle) for handle in given)]
                for handle in (silence, *given):
                    os.close(handle)
                pipes[pid] = out
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in (orders, woken, wake):
            one.close()


def call_process(name: str) -> None:
    """What `ps` and `top` show for this process, where the system has a way: 15 characters."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _noted(number: int, frame: object) -> None:
    """A child ended; the loop is woken for it."""


def _bury(pipes: dict[int, int]) -> None:
    """Say of every fork that has ended how it did, and close its pipe."""
    while pipes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        out = pipes.pop(pid)
        _say(out, f"ended with {os.waitstatus_to_exitcode(status)}")
        os.close(out)


def _say(pipe: int, line: str) -> None:
    with suppress(BrokenPipeError):  # its parent has lost interest
        os.write(pipe, line.encode() + b"\n")
