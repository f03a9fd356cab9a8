"""The processes of the demo: started in order, watched, ended in the opposite order, always.

Rules:

1. Each process has a session of its own, so Ctrl-C reaches the demo alone, which then ends them in order.
2. Each gets SIGTERM from the kernel when the demo dies without a chance to end them (kill -9). That is tied to the
   thread that started the process, so processes are started from the main thread only.
3. What a process prints goes to a file below `logs/`; when one dies before its time its last lines are shown.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

PR_SET_PDEATHSIG: Final = 1
LOOK_S: Final = 0.02
END_S: Final = 20.0


class CrewError(Exception):
    """A process of the demo died, or did not get ready; the message has its last lines."""


class Crew:
    """A context: inside it processes can be started, and after it none of them runs."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._members: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Crew:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, _ in reversed(self._members.copy()):
            self.end(name)

    def start(self, name: str, arguments: Sequence[str]) -> int:
        """Start a process and return its id."""
        assert threading.current_thread() is threading.main_thread(), "see rule 2"
        with (self._logs / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._die_with_parent,
            )
        self._members.append((name, process))
        return process.pid

    def end(self, name: str, *, hard: bool = False) -> None:
        """End one process: SIGTERM and patience, or SIGKILL."""
        for member in self._members.copy():
            if member[0] == name:
                process = member[1]
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                self._members.remove(member)

    def finish(self, name: str, timeout_s: float) -> None:
        """Wait until a process ends by itself. Errors: `CrewError` if it fails or takes too long."""
        member = next(member for member in self._members if member[0] == name)
        try:
            status = member[1].wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise CrewError(f"{name} did not end in {timeout_s:.0f} s\n{self._last_lines(name)}") from None
        self._members.remove(member)
        if status:
            raise CrewError(f"{name} ended with status {status}\n{self._last_lines(name)}")

    def wait_for(self, what: str, ready: Callable[[], bool], timeout_s: float, *, look_s: float = LOOK_S) -> float:
        """Until `ready()`; returns the seconds it took. Errors: `CrewError`, when time is over or a process died."""
        started_s = time.monotonic()
        pause = threading.Event()
        while not ready():
            self.check()
            if time.monotonic() - started_s > timeout_s:
                raise CrewError(f"{what} did not get ready in {timeout_s:.0f} s\n{self._last_lines()}")
            pause.wait(look_s)
        return time.monotonic() - started_s

    def check(self) -> None:
        """Errors: `CrewError` if a process that should run has ended."""
        for name, process in self._members:
            if process.poll() is not None:
                raise CrewError(f"{name} ended with status {process.returncode}\n{self._last_lines(name)}")

    def children(self, name: str, command: str) -> list[int]:
        """Process ids of what descends from a process and has this word in its command line or as its name.

        All of them if it is empty.
        """
        pid = next(process.pid for member, process in self._members if member == name)
        return [each for each in _descendants(pid) if not command or command in (*_words(each), _name(each))]

    def memory_mb(self, name: str) -> list[tuple[str, float]]:
        """(name, resident MB not backed by files) of a process and of its children."""
        pid = next(process.pid for member, process in self._members if member == name)
        return [(_command(each), _anonymous_mb(each)) for each in (pid, *_descendants(pid))]

    def _last_lines(self, only: str | None = None) -> str:
        parts = []
        for log in sorted(self._logs.glob(f"{only or '*'}.log")):
            tail = log.read_text(errors="replace").splitlines()[-12:]
            parts.append(f"--- {log}\n" + "\n".join(tail))
        return "\n".join(parts)

    def _die_with_parent(self) -> None:
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        tasks = [listed] if listed else []
        tasks += [
            Path(f"/proc/{pid}/task/{task}/children").read_text().split() for task in os.listdir(f"/proc/{pid}/task")
        ]
    except OSError:
        return []
    return sorted({int(child) for task in tasks for child in task})


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    return [*found, *(further for child in found for further in _descendants(child))]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _anonymous_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields.get("RssAnon", "0 kB").split()[0]) / 1024


def _words(pid: int) -> list[str]:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return [word.decode(errors="replace") for word in words if word]


def _command(pid: int) -> str:
    names = _words(pid)
    if "fanout.cli" in names:
        return "fanout " + " ".join(names[names.index("fanout.cli") + 1 :][:1])
    if "fanout.sender" in names:
        return _name(pid)
    return " ".join(Path(name).name for name in names[:3] if not name.startswith("-"))
