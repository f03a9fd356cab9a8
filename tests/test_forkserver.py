"""Forks of one loaded process: their words, their ends, and what happens when the server or the parent dies."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from fanout.forkserver import ForkServer, open_forkserver

PROGRAM = """
import os, sys
from fanout.children import read_first_line
from fanout.forkserver import call_process, serve_forks

settings = read_first_line()
arguments = serve_forks()
if arguments is not None:
    call_process("a-fork")
    print(settings, *arguments, flush=True)
    if "fail" in arguments:
        sys.exit(7)
    if "list" in arguments:
        print(len(os.listdir("/proc/self/fd")), flush=True)
    while os.read(0, 64):
        pass
    if "linger" in arguments:
        while True:
            os.read(os.pipe()[0], 1)
    print("in order", flush=True)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "forks_of_a_test.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    return "forks_of_a_test"


@pytest.fixture
async def server(module: str) -> AsyncIterator[ForkServer]:
    async with open_forkserver(module, "settings") as opened:
        yield opened


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@contextmanager
def watched(pid: int) -> Iterator[select.poll]:
    """Something to poll for the end of a process."""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    yield poll
    os.close(handle)


async def test_a_fork_has_its_arguments_and_the_servers_settings(server: ForkServer) -> None:
    one, other = await server.fork(["one", "sms"]), await server.fork(["other"])
    assert await one.line() == "settings one sms"
    assert await other.line() == "settings other"
    assert one.pid != other.pid
    await one.end(60)
    await other.end(60)


async def test_it_ends_in_order_when_its_input_closes(server: ForkServer) -> None:
    fork = await server.fork(["one"])
    await fork.line()
    with watched(fork.pid) as gone:
        await fork.end(60)
        assert gone.poll(0)


async def test_how_it_ended_is_told(server: ForkServer) -> None:
    failed, killed = await server.fork(["fail"]), await server.fork(["one"])
    assert await failed.wait() == "ended with 7"
    await killed.line()
    os.kill(killed.pid, signal.SIGKILL)
    assert await killed.wait() == "ended with -9"
    assert await killed.wait() == "ended with -9"
    await failed.end(1)
    await killed.end(1)


async def test_one_that_does_not_end_is_killed(server: ForkServer) -> None:
    fork = await server.fork(["linger"])
    await fork.line()
    with watched(fork.pid) as gone:
        await fork.end(0.1)
        assert gone.poll(120_000)


async def test_none_holds_the_pipes_of_another(server: ForkServer) -> None:
    first = await server.fork(["one", "list"])
    await first.line()
    others = [await server.fork(["other", "list"]) for _ in range(3)]
    for other in others:
        await other.line()
    assert {await fork.line() for fork in (first, *others)} == {"4"}, "three streams, and the folder that is read"
    os.kill(first.pid, signal.SIGKILL)
    assert await first.wait() == "ended with -9", "its end is seen while others live"
    for fork in (first, *others):
        await fork.end(60)


async def test_what_it_is_given_it_has_alone(server: ForkServer) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        fork = await server.fork(["one", "list"], [theirs.fileno()])
        theirs.close()
        *said, number = (await fork.line()).split()
        assert said == ["settings", "one", "list"]
        assert os.readlink(f"/proc/{fork.pid}/fd/{number}").startswith("socket:")
        assert await fork.line() == "5", "three streams, what was given, and the folder that is read"
        other = await server.fork(["other", "list"])
        await other.line()
        assert await other.line() == "4"
        await fork.end(60)
        assert ours.recv(1) == b"", "nobody else has it"
        await other.end(60)


async def test_a_server_that_died_is_started_again_and_its_forks_live(server: ForkServer) -> None:
    before = await server.fork(["one"])
    await before.line()
    parent = parent_of(before.pid)
    with watched(parent) as gone:
        os.kill(parent, signal.SIGKILL)
        assert gone.poll(120_000)
    after = await server.fork(["two"])
    if not after.pid:  # the parent had not heard of it yet
        after = await server.fork(["two"])
    assert await after.line() == "settings two"
    with watched(before.pid) as gone:
        assert not gone.poll(0)
        await before.end(60)
        assert gone.poll(120_000)
    await after.end(60)


async def test_a_server_that_cannot_start_gives_dead_forks() -> None:
    async with open_forkserver("there.is.no.such.module", "settings") as server:
        with trio.fail_after(120):
            fork = await server.fork(["one"])
            assert (fork.pid, await fork.line(), await fork.wait()) == (0, "", "")
            await fork.end(1)


def test_all_end_when_the_parent_is_killed(module: str) -> None:
    program = textwrap.dedent(f"""
        import trio
        from fanout.forkserver import open_forkserver
        async def main():
            async with open_forkserver("{module}", "settings") as server:
                forks = [await server.fork(["one"]), await server.fork(["two"])]
                for fork in forks:
                    await fork.line()
                print(*(fork.pid for fork in forks), flush=True)
                await trio.sleep_forever()
        trio.run(main)
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    forks = [int(word) for word in parent.stdout.readline().split()]
    with ExitStack() as stack:
        ends = [stack.enter_context(watched(pid)) for pid in (*forks, parent_of(forks[0]))]
        assert not any(gone.poll(0) for gone in ends)
        parent.kill()
        assert all(gone.poll(120_000) for gone in ends), "one is still there"
    parent.communicate()
