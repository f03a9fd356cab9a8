"""What the tests of sending share: settings for a simulator, a registry of made-up addresses, and actions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fanout.channels.protocol import Column, column
from fanout.registry.columns import preference_of
from fanout.settings import Settings, load
from fanout.store.protocol import ActionRecord, NewBatch, PhaseRecord, Store
from fanout.store.states import State
from fanout.wire import CHANNELS

HOUR_MS = 3_600_000
FCM, APNS, WEBPUSH, SMS, VOICE, EMAIL, WHATSAPP = range(len(CHANNELS))
BASE_POINT = b"BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


def settings_for(
    url: str, ca: Path, *, providers: dict[str, dict[str, object]] | None = None, **dispatch: object
) -> Settings:
    """Settings with every provider at `url`, quick to retry."""
    provider = {"url": url, "ca": str(ca), "rate_per_s": 1e6, "burst": 100_000}
    quick: dict[str, object] = {
        "fall_back": [],
        "request_timeout_s": 20.0,  # who is answered is not hurried, however busy the machine
        "pause_first_s": 0.05,
        "pause_most_s": 0.2,
        "connections": 2,
        "streams": 32,
    }
    return load(
        None,
        {},
        providers={name: provider | {"enabled": True} for name in CHANNELS if name != "email"} | (providers or {}),
        dispatch=quick | dispatch,
        senders={"processes": 1},
    )


class Registry:
    """Addresses made from row numbers; `marks` gives some rows another beginning, `erased` are gone."""

    def __init__(
        self, marks: dict[int, bytes] | None = None, erased: Sequence[int] = (), push: str = "https://127.0.0.1"
    ) -> None:
        self.marks, self.erased, self.push = marks or {}, set(erased), push
        self.only: dict[int, Sequence[int]] = {}
        """Channels a row has an address on, the preferred first; rows not named have all."""

    def refresh(self) -> bool:
        return False

    def addresses(self, channel: int, rows: NDArray[np.uint32], _generations: NDArray[np.uint16]) -> Column:
        gone = [row in self.erased or channel not in self.only.get(row, [channel]) for row in rows.tolist()]
        return column(
            [b"" if none else self.address(channel, row) for none, row in zip(gone, rows.tolist(), strict=True)]
        )

    def preferences(self, rows: NDArray[np.uint32], _generations: NDArray[np.uint16]) -> NDArray[np.uint32]:
        every = tuple(range(len(CHANNELS)))
        return np.array([preference_of(list(self.only.get(row, every))) for row in rows.tolist()], np.uint32)

    def address(self, channel: int, row: int) -> bytes:
        mark = self.marks.get(row, b"")
        if channel in (SMS, VOICE, WHATSAPP):
            return b"+316%08d" % row + mark.replace(b"dead", b"")
        if channel == EMAIL:
            return b"%d@example.nl" % row
        if channel == WEBPUSH:
            keys = b'"keys":{"p256dh":"' + BASE_POINT + b'","auth":"AAAAAAAAAAAAAAAAAAAAAA"}}'
            return b'{"endpoint":"' + self.push.encode() + b"/push/" + mark + b'%d",' % row + keys
        return mark + (b"%064x" % row)


def start(
    store: Store,
    rows: dict[int, Sequence[int]],
    *,
    reference: str = "r",
    lane: int = 1,
    end_ms: int = 0,
    size: int = 64,
) -> int:
    """Open an action with batches of `size` rows on each channel; returns its id."""
    now_ms = clock_ms()
    end_ms = end_ms or now_ms + HOUR_MS
    record = ActionRecord(
        id=0,
        tenant="t",
        reference=reference,
        digest=b"",
        kind="missing_child",
        lane=lane,
        state="open",
        created_ms=now_ms,
        end_ms=end_ms,
        snapshot_version=1,
        body=b"",
    )
    phase = PhaseRecord(
        action=0, phase=0, name="start", created_ms=now_ms, end_ms=end_ms, texts={"nl": "Rode fiets"}, titles={}
    )
    batches = [
        NewBatch(
            channel=channel,
            language="nl",
            seq=seq,
            rows=np.array(of[at : at + size], np.uint32),
            generations=np.zeros(len(of[at : at + size]), np.uint16),
        )
        for channel, of in rows.items()
        for seq, at in enumerate(range(0, len(of), size))
    ]
    opened, _ = store.open_action(record, phase, batches)
    return opened.id


def states(store: Store, action: int) -> dict[str, int]:
    """Rows by state, states without rows left out."""
    total = np.sum([counts.states for counts in store.counts(action)], axis=0)
    return {State(value).name: int(rows) for value, rows in enumerate(total) if rows}


def reasons(store: Store, action: int) -> dict[int, tuple[int, int]]:
    """(state, reason) of each row."""
    return {
        row: (state, reason)
        for batch in store.batches(action)
        for row, state, reason in zip(batch.rows.tolist(), batch.status.tolist(), batch.reason.tolist(), strict=True)
    }
