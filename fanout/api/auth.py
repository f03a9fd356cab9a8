"""Keys: who calls, for which tenant, and what that key may do.

Rules:

1. A key is 32 random bytes, shown once when it is made. The store holds only its SHA-256, so a stolen ledger opens
   nothing. A fast hash is right here: the secret has 256 bits, there is nothing to guess.
2. A request without a valid key gets 401 `key_invalid`, whatever was wrong, and learns nothing about what exists.
3. A key has scopes: `actions` (start and end them, see their counts), `participants` (upsert, erase, positions). Too
   small a scope is 403 `not_permitted`. Providers have no key: they sign their receipts.
4. Answers are kept for `CACHE_S` seconds, so a revoked key dies within that time, its live streams too, and a flood of
   calls does not become a flood of look-ups. Unknown keys are looked up each time: a key made a moment ago works at
   once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import trio

from fanout.errors import Refused
from fanout.store.protocol import Documents

SPACE: Final = "keys"
CACHE_S: Final = 5.0
CACHED_MAX: Final = 1_000

Scope = Literal["actions", "participants"]
SCOPES: Final[tuple[Scope, ...]] = ("actions", "participants")


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds of a key, under the hex SHA-256 of its secret."""

    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    created_ms: int


_RECORD: Final = msgspec.json.Decoder(KeyRecord)


def create_key(documents: Documents, tenant: str, name: str, scopes: tuple[Scope, ...], now_ms: int) -> str:
    """Make a key and return its secret, which cannot be read back later. Blocking."""
    secret = "fk_" + secrets.token_urlsafe(32)
    record = KeyRecord(tenant=tenant, name=name, scopes=scopes, created_ms=now_ms)
    documents.put(SPACE, [(_digest(secret), msgspec.json.encode(record))])
    return secret


def list_keys(documents: Documents) -> list[tuple[str, KeyRecord]]:
    """(first 12 digits of the hash, record) of every key. Blocking."""
    return [(digest[:12], _RECORD.decode(raw)) for digest, raw in documents.scan(SPACE)]


def revoke_key(documents: Documents, prefix: str) -> int:
    """Revoke the keys whose hash begins with `prefix`; returns how many. Blocking."""
    doomed = [digest for digest, _ in documents.scan(SPACE) if digest.startswith(prefix)]
    documents.put(SPACE, [(digest, None) for digest in doomed])
    return len(doomed)


NOBODY: Final = KeyRecord(tenant="", name="", scopes=(), created_ms=0)
"""Who calls where no key is asked for, because the call proves itself otherwise: a signed receipt."""


class Keys:
    """Checks keys of requests."""

    def __init__(self, documents: Documents, clock_s: Callable[[], float]) -> None:
        self._documents = documents
        self._clock_s = clock_s
        self._cache: dict[str, tuple[float, KeyRecord]] = {}

    async def check(self, authorization: str | None, scope: Scope) -> KeyRecord:
        """The record of the key in an `Authorization: Bearer …` header.

        Errors: `Refused("key_invalid")`, `Refused("not_permitted")`.
        """
        word, _, secret = (authorization or "").partition(" ")
        if word.lower() != "bearer" or not secret.startswith("fk_"):
            raise Refused("key_invalid")
        digest, now_s = _digest(secret.strip()), self._clock_s()
        until_s, record = self._cache.get(digest, (0.0, None))
        if record is None or until_s < now_s:
            self._cache.pop(digest, None)
            raw = await trio.to_thread.run_sync(self._documents.get, SPACE, digest)
            if raw is None:
                raise Refused("key_invalid")
            record = _RECORD.decode(raw)
            if len(self._cache) >= CACHED_MAX:
                self._cache.clear()
            self._cache[digest] = (now_s + CACHE_S, record)
        if scope not in record.scopes:
            raise Refused("not_permitted")
        return record

    async def holds(self, authorization: str | None, scope: Scope) -> bool:
        """Whether a key that was good still is; a ledger that cannot say takes nothing away."""
        try:
            await self.check(authorization, scope)
        except Refused as error:
            return error.code not in ("key_invalid", "not_permitted")
        return True


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
