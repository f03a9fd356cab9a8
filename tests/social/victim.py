"""A process that posts one action and is killed while the networks have not answered: `python -m tests.social.victim`.

Arguments: the folder, the simulator's address and authority.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import trio

from fanout.geo.areas import NamedAreas
from fanout.settings import load
from fanout.social.poster import open_poster
from fanout.store.protocol import ActionRecord, PhaseRecord
from fanout.store.sqlite_store import SqliteStore
from fanout.store.writer import open_writer
from tests.dispatch.kit import HOUR_MS, clock_ms
from tests.social.test_poster import ASSEN, NETWORKS, WORDS, request, shape


async def main(folder: Path, url: str, ca: str) -> None:
    """Start one action, and wait for ever."""
    accounts: dict[str, Any] = {name: {"url": url, "ca": ca} | one for name, one in NETWORKS.items()}
    settings = load(None, {}, social={"accounts": accounts}, dispatch={"request_timeout_s": 60.0})
    store = SqliteStore.open(folder / "ledger.db")
    now_ms = clock_ms()
    record = ActionRecord(
        id=0, tenant="police", reference="r", digest=b"", kind="missing_child", lane=0, state="open",
        created_ms=now_ms, end_ms=now_ms + HOUR_MS, snapshot_version=1, body=b"",
    )  # fmt: skip
    phase = PhaseRecord(
        action=0, phase=0, name="start", created_ms=now_ms, end_ms=record.end_ms, texts=WORDS, titles={}
    )
    action, _ = store.open_action(record, phase, [])
    areas = NamedAreas.open(folder / "areas")
    async with (
        open_writer(store) as writer,
        open_poster(settings, store, writer, areas, lambda name: b"", clock_ms) as poster,
    ):
        await poster.start(action.id, "police", request(), shape(ASSEN), 0)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3])
