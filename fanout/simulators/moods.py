"""How a simulated provider behaves: per channel, changed at run time by `PUT /_moods`, decided per delivery.

A mood is a rule with a share: `{"fcm": {"storm": 0.2}}` answers a fifth of FCM's requests with 503. Which requests
those are follows from a sum, not from chance, so a run can be repeated: every request adds the share, and each time the
sum passes a whole number one is hit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]


class Mood(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One channel's behaviour. All shares 0 and quota 0: an obedient provider.

    The last block is of those that break connections, not answers (`rough.py`).
    """

    quota_per_s: Annotated[float, Meta(ge=0)] = 0.0  # rows a second; above it 429; 0: no quota
    retry_after_s: Annotated[int, Meta(ge=0, le=3_600)] = 1  # what a 429 or 503 asks for
    storm: Share = 0.0  # 503 with Retry-After
    broken: Share = 0.0  # 500
    slow: Share = 0.0  # answered after slow_ms
    slow_ms: Annotated[int, Meta(ge=0, le=600_000)] = 2_000
    hang: Share = 0.0  # taken, and never answered
    garbage: Share = 0.0  # 200 with nonsense
    redirect: Share = 0.0  # 302 to elsewhere
    refuse: Share = 0.0  # refused as a dead token; of a call with many recipients, this share of them

    goaway: Share = 0.0  # the connection takes no more (GOAWAY): this one and what follows on it were not taken
    shed: Share = 0.0  # REFUSED_STREAM: not taken, and the connection goes on
    reset: Share = 0.0  # taken, then the stream is reset
    drop: Share = 0.0  # taken, then the connection ends without a word
    half: Share = 0.0  # taken, then half an answer and the end of the connection
    endless: Share = 0.0  # taken, then an answer without an end
    streams: Annotated[int, Meta(ge=0, le=100_000)] = 0  # that a connection may have open; 0: as many as usual


class Receipts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Receipts of SMS and voice: below which address they are posted (`<url>/sms`, `<url>/sms_second`, `<url>/voice`;
    none: nowhere), signed with what, and what becomes of them on the way. `secret_second`: the second supplier's, where
    it is another.

    Every doubled one comes twice; late ones come after the others, so order is lost too.
    """

    url: str = ""
    secret: str = ""
    secret_second: str = ""
    headers: dict[str, str] = {}
    after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 200
    lost: Share = 0.0
    doubled: Share = 0.0
    late: Share = 0.0
    failed: Share = 0.0


class Moods(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All channels' behaviour. `strict`: credentials are checked as the providers check them."""

    fcm: Mood = msgspec.field(default_factory=Mood)
    apns: Mood = msgspec.field(default_factory=Mood)
    webpush: Mood = msgspec.field(default_factory=Mood)
    sms: Mood = msgspec.field(default_factory=Mood)
    sms_second: Mood = msgspec.field(default_factory=Mood)  # the supplier whose product token ends with `second`
    voice: Mood = msgspec.field(default_factory=Mood)
    whatsapp: Mood = msgspec.field(default_factory=Mood)
    x: Mood = msgspec.field(default_factory=Mood)
    mastodon: Mood = msgspec.field(default_factory=Mood)
    telegram: Mood = msgspec.field(default_factory=Mood)
    receipts: Receipts = msgspec.field(default_factory=Receipts)
    strict: bool = False
    token_life_s: Annotated[int, Meta(ge=1, le=86_400)] = 3_600


MOODS_FILE: Final = "moods.json"
ROUGH: Final = ("goaway", "shed", "reset", "drop", "half", "endless", "streams")
CHANNELS: Final = tuple(field.name for field in msgspec.structs.fields(Moods) if field.type is Mood)


def write_moods(file: Path, moods: Moods) -> None:
    """Tell workers that start later; whole or not at all."""
    made = file.with_suffix(f".{os.getpid()}")
    made.write_bytes(msgspec.json.encode(moods))
    made.replace(file)


class Dice:
    """Spreads shares evenly and repeatably, and counts a quota."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._window_s = 0.0
        self._used = 0

    def hit(self, name: str, share: float) -> bool:
        """Whether this one is among the share."""
        total = self._sums.get(name, 0.0) + share
        self._sums[name] = total - int(total)
        return total >= 1.0

    def over(self, quota_per_s: float, now_s: float, rows: int = 1) -> bool:
        """Whether so many rows more are over the quota of this second; those over it do not count."""
        if now_s - self._window_s >= 1.0:
            self._window_s, self._used = now_s, 0
        if self._used + rows > quota_per_s:
            return True
        self._used += rows
        return False
