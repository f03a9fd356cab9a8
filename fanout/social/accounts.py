"""Our accounts, as the settings have them: which actions they tell, and the way to their network.

An account has its own quota and breaker, since networks count by account; accounts at one address share connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import trio

from fanout import wire
from fanout.channels.mastodon import Mastodon
from fanout.channels.posts import PostChannel
from fanout.channels.telegram import Telegram
from fanout.channels.x import X
from fanout.dispatch.breaker import Breaker
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.calls import Caller
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas, Shape
from fanout.geo.ground import is_empty
from fanout.geo.shapes import Intersection
from fanout.settings import AccountSettings

CREDENTIAL_WORDS = {"x": (1, 4), "mastodon": (1,), "telegram": (1,)}


class Account(NamedTuple):
    """One account with its way to the wire."""

    name: str
    settings: AccountSettings
    channel: PostChannel
    caller: Caller
    breaker: Breaker
    bucket: Bucket

    def tells(self, tenant: str, action: wire.Action, shape: Shape, areas: NamedAreas) -> bool:
        """Whether it posts an action of this tenant, kind and area. Takes what GEOS takes: call it in a thread."""
        settings = self.settings
        if settings.tenants and tenant not in settings.tenants:
            return False
        if settings.kinds and action.kind not in settings.kinds:
            return False
        if not settings.area_kind:
            return True
        ours = areas(settings.area_kind, settings.area_name)
        return ours is not None and not is_empty(Intersection((shape, ours)))


def open_account(name: str, settings: AccountSettings, areas: NamedAreas, caller: Callable[[str], Caller]) -> Account:
    """`caller(ca)` gives connections that trust `ca`. Errors: `Refused("settings_invalid" | "area_unknown")`."""
    where = f"social.accounts.{name}"
    if len(settings.credential.split()) not in CREDENTIAL_WORDS[settings.network]:
        words = " or ".join(map(str, CREDENTIAL_WORDS[settings.network]))
        raise Refused("settings_invalid", where, count=1, problems=f"{where}.credential: has not {words} words")
    if settings.network == "telegram" and not settings.target:
        raise Refused("settings_invalid", where, count=1, problems=f"{where}.target: missing, as @channel")
    if settings.area_kind and areas(settings.area_kind, settings.area_name) is None:
        raise Refused("area_unknown", where, kind=settings.area_kind, name=settings.area_name)
    now_s = trio.current_time()
    return Account(
        name,
        settings,
        channel_of(settings),
        caller(settings.ca),
        Breaker(now_s=now_s),
        Bucket(rate_per_s=settings.rate_per_s, burst=float(settings.burst), reserve=0.0, now_s=now_s),
    )


def channel_of(settings: AccountSettings) -> PostChannel:
    """The network's channel for one account."""
    if settings.network == "x":
        return X(url=settings.url, credential=settings.credential)
    if settings.network == "mastodon":
        return Mastodon(url=settings.url, credential=settings.credential)
    return Telegram(url=settings.url, credential=settings.credential, target=settings.target)
