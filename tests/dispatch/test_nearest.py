"""The nearest of each action have a sender of their own; others leave them to it, and take them if it is gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import trio

from fanout.dispatch.sender import run_sender
from fanout.store.protocol import Lease, Share
from fanout.store.sqlite_store import SqliteStore
from tests.dispatch.kit import FCM, Registry, clock_ms, settings_for, start, states
from tests.simulators.kit import PATIENCE_S, Providers

PEOPLE, SIZE = 5_000, 500
BEHIND_S = 0.05


async def told_by(
    store: SqliteStore,
    providers: Providers,
    monkeypatch: pytest.MonkeyPatch,
    shares: list[Share],
    clock: Callable[[], int] = clock_ms,
) -> dict[Share, set[int]]:
    """An action to all, sent by a sender of each share; which batches, by `seq`, each of them had."""
    claim = store.claim
    had: dict[Share, set[int]] = defaultdict(set)

    def watched(owner: str, *, share: Share, **more: Any) -> list[Lease]:
        leases = claim(owner, share=share, **more)
        had[share] |= {lease.seq for lease in leases}
        return leases

    monkeypatch.setattr(store, "claim", watched)
    stop = trio.Event()
    settings = settings_for(providers.url, providers.ca)
    async with trio.open_nursery() as nursery:
        for share in shares:

            async def run(share: Share = share, *, task_status: trio.TaskStatus[None]) -> None:
                await run_sender(
                    store,
                    Registry(),
                    settings,
                    owner=share,
                    clock_ms=clock,
                    stop=stop,
                    on_warm=task_status.started,
                    channels=("fcm",),
                    share=share,
                    behind_s=0.0 if share is Share.NEAREST else BEHIND_S,
                )

            await nursery.start(run)
        action = start(store, {FCM: range(PEOPLE)}, size=SIZE)
        with trio.fail_after(PATIENCE_S):
            while states(store, action) != {"ACCEPTED": PEOPLE}:  # noqa: ASYNC110  (told by a provider)
                await trio.sleep(0.02)
        stop.set()
    assert providers.seen(action)["doubled_count"] == 0
    return had


async def test_the_nearest_go_by_their_own_sender_and_the_rest_by_the_other(
    store: SqliteStore, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = clock_ms()  # and stays: nobody is too slow for the moment in which they are left
    had = await told_by(store, providers, monkeypatch, [Share.NEAREST, Share.OTHERS], lambda: now_ms)
    assert had[Share.NEAREST] == {0}
    assert had[Share.OTHERS] == set(range(1, PEOPLE // SIZE))


async def test_without_their_sender_the_nearest_go_all_the_same(
    store: SqliteStore, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = await told_by(store, providers, monkeypatch, [Share.OTHERS])
    assert had[Share.OTHERS] == set(range(PEOPLE // SIZE))
