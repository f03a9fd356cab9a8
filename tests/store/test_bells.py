"""Bells: who waits is woken, whose owner is dead is removed, and closing wakes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fanout.errors import Refused
from fanout.store.bells import Bell, ring
from fanout.store.sqlite_store import SqliteStore

LONG_S = 60.0


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everyone_who_waits_is_woken(tmp_path: Path) -> None:
    bells = [Bell(tmp_path / "ledger.db") for _ in range(3)]
    threads = [in_thread(lambda bell=bell: bell.wait(LONG_S)) for bell in bells]  # type: ignore[misc]
    ring(tmp_path / "ledger.db")
    for thread in threads:
        thread.join(LONG_S / 2)
        assert not thread.is_alive()
    for bell in bells:
        bell.close()
    assert names(tmp_path) == []


def test_what_was_rung_before_is_not_missed_and_rings_once(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "ledger.db")
    for _ in range(3):
        ring(tmp_path / "ledger.db")
    bell.wait(LONG_S)
    begun_s = time.monotonic()
    bell.wait(0.05)
    assert time.monotonic() - begun_s >= 0.05
    bell.close()


def test_another_ledgers_bell_is_not_rung(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "ledger.db")
    ring(tmp_path / "other.db")
    begun_s = time.monotonic()
    bell.wait(0.05)
    assert time.monotonic() - begun_s >= 0.05
    bell.close()


def test_a_pipe_that_is_full_holds_nobody(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "ledger.db")
    (name,) = names(tmp_path)
    pipe = os.open(tmp_path / name, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4_096))
    os.close(pipe)
    ring(tmp_path / "ledger.db")
    assert bell.wait(LONG_S)
    bell.close()


def test_the_bell_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys; from fanout.store.bells import Bell; Bell(pathlib.Path(sys.argv[1])); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "ledger.db")], check=False, timeout=240)
    assert len(names(tmp_path)) == 1
    mine = Bell(tmp_path / "ledger.db")
    ring(tmp_path / "ledger.db")
    assert len(names(tmp_path)) == 1
    mine.wait(LONG_S)
    mine.close()
    assert names(tmp_path) == []


def test_closing_wakes_who_waits(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "ledger.db")
    thread = in_thread(lambda: bell.wait(LONG_S))
    bell.close()
    thread.join(LONG_S / 2)
    assert not thread.is_alive()


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    ring(tmp_path / "nowhere" / "ledger.db")


def test_a_folder_that_takes_no_named_pipes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network and FAT file systems: nobody should have to read a traceback to find out."""

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "mkfifo", refuse)
    with pytest.raises(Refused) as caught:
        SqliteStore.open(tmp_path / "ledger.db")
    assert caught.value.code == "store_unavailable"
    assert f"{tmp_path} takes no named pipes" in caught.value.message
