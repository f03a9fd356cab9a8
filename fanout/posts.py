"""What the engine asks of whoever posts at social networks and of whoever keeps pictures, and what nobody answers.

The poster itself (`social/poster.py`) stands above the engine, which knows no network; `app` brings them together. An
engine without accounts and pictures has `Nobody`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fanout import wire
from fanout.errors import Refused
from fanout.geo.areas import Shape


class PostPlanner(Protocol):
    """What a draft asks."""

    async def plan(self, tenant: str, action: wire.Action, shape: Shape) -> list[wire.PostPlan]:
        """What each account would post; without effect. Errors: `Refused("text_too_long")` naming the account."""


class Posts(PostPlanner, Protocol):
    """What the engine asks. Everything is durable when it returns; again, it changes nothing."""

    async def check(self, action_id: int, texts: Mapping[str, str], titles: Mapping[str, str]) -> None:
        """Errors: `Refused("text_too_long")` if news does not fit an account that tells this action."""

    async def start(self, action_id: int, tenant: str, action: wire.Action, shape: Shape, lane: int) -> None:
        """Let every account that tells the action post it."""

    async def tell(
        self, action_id: int, name: str, phase: int, texts: Mapping[str, str], titles: Mapping[str, str], end_ms: int
    ) -> None:
        """Let an `update` or the `result` follow, as replies."""

    async def move_end(self, action_id: int, end_ms: int) -> None:
        """The action ends at another time: what is unsent may go until then."""

    async def over(self, action_id: int, state: str, now_ms: int) -> None:
        """The action is `closed`, `cancelled` or `expired`."""

    async def withdraw(self, action_id: int) -> None:
        """Remove every post of an action; nothing more is posted of it."""

    def views(self, action_id: int) -> list[wire.PostView]:
        """Every post of an action. Blocking."""


class Photos(Protocol):
    """Who keeps pictures."""

    def photo(self, name: str, where: str = "photo") -> wire.Photo:
        """What is known of a picture. Blocking. Errors: `Refused("not_found")`."""


class Nobody:
    """Posts nothing, and keeps no pictures."""

    async def plan(self, tenant: str, action: wire.Action, shape: Shape) -> list[wire.PostPlan]:
        return []

    async def check(self, action_id: int, texts: Mapping[str, str], titles: Mapping[str, str]) -> None: ...

    async def start(self, action_id: int, tenant: str, action: wire.Action, shape: Shape, lane: int) -> None: ...

    async def tell(
        self, action_id: int, name: str, phase: int, texts: Mapping[str, str], titles: Mapping[str, str], end_ms: int
    ) -> None: ...

    async def move_end(self, action_id: int, end_ms: int) -> None: ...

    async def over(self, action_id: int, state: str, now_ms: int) -> None: ...

    async def withdraw(self, action_id: int) -> None: ...

    def views(self, action_id: int) -> list[wire.PostView]:
        return []

    def photo(self, name: str, where: str = "photo") -> wire.Photo:
        raise Refused("not_found", where, what="picture")


NOBODY = Nobody()
