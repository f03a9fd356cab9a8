"""A child gets its settings, and ends with its parent, also when the parent is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

CHILD = """
import os, sys, trio
from fanout.children import read_first_line, watch_parent
line = read_first_line()
async def main():
    stop = trio.Event()
    watch_parent(stop, grace_s={grace})
    print(line, flush=True)
    {body}
    print("finished in order", flush=True)
trio.run(main)
"""


def start(body: str, grace: float = 60.0) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(body=body, grace=grace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write('{"settings": 1}\n')
    child.stdin.flush()
    return child, child.stdout.readline().strip()


def test_a_child_finishes_when_its_pipe_closes() -> None:
    child, line = start("await stop.wait()")
    assert line == '{"settings": 1}'
    output, _ = child.communicate()
    assert output.strip() == "finished in order"
    assert child.returncode == 0


def test_a_child_that_hangs_ends_itself() -> None:
    child, _ = start("import threading; threading.Event().wait()", grace=0.2)
    child.communicate()
    assert child.returncode == 3


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    program = textwrap.dedent(f"""
        import subprocess, sys, threading
        child = subprocess.Popen([sys.executable, "-c", {CHILD.format(body="await stop.wait()", grace=60)!r}],
                                 stdin=subprocess.PIPE, stdout=open({str(output)!r}, "w"))
        child.stdin.write(b"x\\n"); child.stdin.flush()
        print(child.pid, flush=True)
        threading.Event().wait()
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    handle = os.pidfd_open(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()

    poll = select.poll()
    poll.register(handle, select.POLLIN)
    assert poll.poll(120_000), "the child is still there"
    os.close(handle)
    assert output.read_text().splitlines()[-1] == "finished in order"
