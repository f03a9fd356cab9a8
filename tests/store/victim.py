"""A process that writes to a ledger until it is killed, and says after each call what was acknowledged.

`python victim.py LEDGER NAME` - lines on standard output, one `write` each: `open ID`, `intend BATCH`, `settle BATCH`,
`append NUMBER`. What was said was durable before it was said.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import State
from tests.store import kit


def say(what: str) -> None:
    os.write(1, f"{what}\n".encode())


def main(path: Path, name: str) -> None:
    store = SqliteStore.open(path)
    now_ms, round_number = 10, 0
    while True:
        round_number += 1
        now_ms += 1
        batches = [kit.batch(range(2_000), channel=(0, 3)[seq % 2], seq=seq // 2) for seq in range(4)]
        record, _ = store.open_action(kit.action(f"{name}-{round_number}"), kit.phase(), batches)
        say(f"open {record.id}")
        for lease in kit.claim(store, name, now_ms=now_ms, most=3, lease_ms=50):
            if not store.intend(lease, kit.everything(lease)[:1_500], now_ms=now_ms):
                continue
            say(f"intend {lease.batch}")
            status = lease.status.copy()
            status[:1_500] = State.ACCEPTED
            store.settle(
                lease, status=status, reason=np.zeros(2_000, np.uint8), first_ms=now_ms, last_ms=now_ms, done=False,
                not_before_ms=10**9,
            )  # fmt: skip
            say(f"settle {lease.batch}")
        say(f"append {store.append('changes', [name.encode()])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
