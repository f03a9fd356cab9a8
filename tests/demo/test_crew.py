"""Processes of the demo end, whatever happens to the demo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from fanout.demo.crew import Crew, CrewError

SLEEPER = [sys.executable, "-c", "import threading; print('up', flush=True); threading.Event().wait()"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False


def wait_dead(pid: int, timeout_s: float = 60) -> bool:
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if not alive(pid):
            return True
        pause.wait(0.02)
    return False


def test_all_end_when_the_context_ends(tmp_path: Path) -> None:
    with Crew(tmp_path) as crew:
        pids = [crew.start(f"sleeper-{number}", SLEEPER) for number in range(3)]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


def test_all_end_when_the_story_fails(tmp_path: Path) -> None:
    pids = []

    def story() -> None:
        with Crew(tmp_path) as crew:
            pids.append(crew.start("sleeper", SLEEPER))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        story()
    assert not alive(pids[0])


def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.demo.crew.END_S", 0.3)
    deaf = (
        "import signal, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True);"
        "threading.Event().wait()"
    )
    with Crew(tmp_path) as crew:
        pid = crew.start("deaf", [sys.executable, "-c", deaf])
        crew.wait_for("it", lambda: "up" in (tmp_path / "deaf.log").read_text(), 60)
    assert not alive(pid)


def test_one_that_dies_is_told_with_its_last_lines(tmp_path: Path) -> None:
    with Crew(tmp_path) as crew:
        crew.start("broken", [sys.executable, "-c", "raise SystemExit('no luck today')"])
        with pytest.raises(CrewError, match="no luck today"):
            crew.wait_for("what never comes", lambda: False, 60)


def test_all_end_when_the_demo_is_killed_hard(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import sys, threading
        from pathlib import Path
        from fanout.demo.crew import Crew
        with Crew(Path({str(tmp_path)!r})) as crew:
            print(crew.start("sleeper", {SLEEPER!r}), flush=True)
            threading.Event().wait()
    """)
    demo = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    pid = int(demo.stdout.readline())
    assert alive(pid)
    os.kill(demo.pid, signal.SIGKILL)
    demo.wait()
    demo.stdout.close()
    assert wait_dead(pid)
