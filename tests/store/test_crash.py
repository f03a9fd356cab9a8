"""kill -9 of processes that write: nothing acknowledged is lost, nothing is half done, the file is sound."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import State
from tests.store import kit

ROOT = Path(__file__).resolve().parents[2]


def kill_after(path: Path, name: str, lines: int) -> list[str]:
    """Let two victims write; kill them when one has said `lines` lines. Returns all that both have said."""
    command = [sys.executable, "-m", "tests.store.victim", str(path)]
    victims = [
        subprocess.Popen([*command, f"{name}{number}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    said: list[list[str]] = [[], []]

    def listen(number: int, stop_at: int | None) -> None:
        stream = victims[number].stdout
        assert stream is not None
        for line in stream:
            if line.endswith("\n"):
                said[number].append(line.strip())
            if len(said[number]) == stop_at:
                for victim in victims:
                    victim.kill()

    ears = [threading.Thread(target=listen, args=(0, lines)), threading.Thread(target=listen, args=(1, None))]
    for ear in ears:
        ear.start()
    for ear in ears:
        ear.join()
    for victim in victims:
        victim.wait()
        assert victim.stdout is not None
        victim.stdout.close()
    return said[0] + said[1]


def test_kill_9_at_random_moments(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    chance = random.Random(20)
    path = tmp_path / "ledger.db"
    said: list[str] = []
    for number in range(60 if pytestconfig.getoption("--long") else 6):
        said += kill_after(path, f"v{number}.", chance.randint(1, 60))
        store = SqliteStore.open(path)
        opened, settled = set(), set()
        for record in store.actions():
            opened.add(record.id)
            assert len(kit.states(store, record.id)) == 4  # all batches of an action, or no action; counts agree
            for view in store.batches(record.id):
                assert view.rows.tolist() == list(range(2_000))
                accepted = int((view.status == State.ACCEPTED).sum())
                assert accepted in (0, 1_500)
                assert np.isin(view.status[1_500:], (State.PENDING,)).all()
                if accepted:
                    settled.add(view.batch)
        assert {int(line.split()[1]) for line in said if line.startswith("open")} <= opened
        assert {int(line.split()[1]) for line in said if line.startswith("settle")} <= settled
        appended = [int(line.split()[1]) for line in said if line.startswith("append")]
        assert len(set(appended)) == len(appended)
        assert store.last("changes") >= max(appended, default=0)
        store.close_store()
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
