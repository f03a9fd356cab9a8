"""Which store the settings name. The only module that knows them all; the library of each is loaded if asked for."""

from __future__ import annotations

from fanout.settings import Settings
from fanout.store.protocol import Store


def open_store(settings: Settings) -> Store:
    """Open it, in this process. Errors: `Refused("store_unavailable")`, with what to do."""
    settings.data.mkdir(parents=True, exist_ok=True)
    if settings.store.kind == "redis":
        from fanout.store.redis_store import RedisStore

        return RedisStore.open(settings.store.redis)
    from fanout.store.sqlite_store import SqliteStore

    return SqliteStore.open(settings.data / "ledger.db", synchronous=settings.store.synchronous)
