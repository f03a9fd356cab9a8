"""Logs and documents of the Redis store: streams of numbered entries in a hash each, spaces as one hash each.

Numbers of a stream grow by one under `WATCH`, so they have no holes; `trim` remembers where the entries now begin.
No Redis library is imported here: `RedisStore` brings the client and the transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from fanout.store.redis_keys import PREFIX

T = TypeVar("T")


class RedisShelves(ABC):
    """`Log` and `Documents` of the store protocol."""

    _redis: Any

    @abstractmethod
    def _told_plainly(self) -> AbstractContextManager[None]:
        """Say `store_unavailable` where the client says something of its own."""

    @abstractmethod
    def _change(self, work: Callable[[Any], T], *watched: str) -> T:
        """One transaction: `work` reads what is watched, calls `multi`, and queues its writes."""

    def append(self, stream: str, entries: Sequence[bytes]) -> int:
        """See `Log.append`."""
        last_key, entries_key = f"{PREFIX}{{log {stream}}}:last", f"{PREFIX}{{log {stream}}}:entries"

        def work(pipe: Any) -> int:
            last = int(pipe.get(last_key) or 0)
            if entries:
                pipe.multi()
                numbered = {str(last + number): entry for number, entry in enumerate(entries, 1)}
                pipe.hset(entries_key, mapping=numbered)
                pipe.set(last_key, last + len(entries))
            return last + len(entries)

        return self._change(work, last_key)

    def read(self, stream: str, *, after: int, most: int) -> list[tuple[int, bytes]]:
        """See `Log.read`."""
        with self._told_plainly():
            first = int(self._redis.get(f"{PREFIX}{{log {stream}}}:first") or 1)
            begin = max(after + 1, first)
            numbers = list(range(begin, min(self.last(stream), begin + most - 1) + 1))
            if not numbers:
                return []
            found = self._redis.hmget(f"{PREFIX}{{log {stream}}}:entries", numbers)
        return [(number, entry) for number, entry in zip(numbers, found, strict=True) if entry is not None]

    def trim(self, stream: str, *, upto: int) -> None:
        """See `Log.trim`."""
        first_key, entries_key = f"{PREFIX}{{log {stream}}}:first", f"{PREFIX}{{log {stream}}}:entries"

        def work(pipe: Any) -> None:
            first = int(pipe.get(first_key) or 1)
            end = min(upto, int(pipe.get(f"{PREFIX}{{log {stream}}}:last") or 0))
            if end >= first:
                pipe.multi()
                pipe.hdel(entries_key, *range(first, end + 1))
                pipe.set(first_key, end + 1)

        self._change(work, first_key)

    def last(self, stream: str) -> int:
        """See `Log.last`."""
        with self._told_plainly():
            return int(self._redis.get(f"{PREFIX}{{log {stream}}}:last") or 0)

    def put(self, space: str, values: Iterable[tuple[str, bytes | None]]) -> None:
        """See `Documents.put`."""
        listed, key = list(values), f"{PREFIX}{{space {space}}}"

        def work(pipe: Any) -> None:
            pipe.multi()
            for name, value in listed:
                if value is None:
                    pipe.hdel(key, name)
                else:
                    pipe.hset(key, name, value)

        self._change(work)

    def get(self, space: str, key: str) -> bytes | None:
        """See `Documents.get`."""
        with self._told_plainly():
            found: bytes | None = self._redis.hget(f"{PREFIX}{{space {space}}}", key)
        return found

    def scan(self, space: str) -> list[tuple[str, bytes]]:
        """See `Documents.scan`."""
        with self._told_plainly():
            found = self._redis.hgetall(f"{PREFIX}{{space {space}}}")
        return sorted((key.decode(), value) for key, value in found.items())
