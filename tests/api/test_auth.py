"""Keys: what is revoked ends, what cannot be looked up does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.api.auth import CACHE_S, SCOPES, Keys, create_key, revoke_key
from fanout.errors import Refused
from fanout.store.sqlite_store import SqliteStore


async def test_a_key_holds_until_it_is_revoked_whatever_ails_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    store = SqliteStore.open(tmp_path / "ledger.db")
    keys = Keys(store, lambda: now_s)
    said = "Bearer " + create_key(store, "police", "x", ("actions",), 1)
    assert await keys.holds(said, "actions")
    assert not await keys.holds(said, "participants")

    def refuse(*_: object) -> bytes:
        raise Refused("store_unavailable", detail="the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(store, "get", refuse)
        now_s = CACHE_S + 1
        assert await keys.holds(said, "actions"), "nobody revoked it"
        with pytest.raises(Refused, match="store_unavailable"):
            await keys.check(said, "actions")
    assert await keys.holds(said, "actions")
    assert revoke_key(store, "") == 1
    now_s += CACHE_S + 1
    assert not await keys.holds(said, "actions")
    assert set(SCOPES) == {"actions", "participants"}
    store.close_store()
