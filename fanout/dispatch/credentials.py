"""Who we are to a provider, renewed before it ends: what stands in the authorisation header.

Four kinds, one question: `authorize(origin)` gives the header's value now. It is empty while there is none: then
nothing goes on the wire (`row_route.py`).

* `Fixed`: a key that does not change, or a simulator that wants none.
* `ProviderToken` (APNs): an ES256 JWT of our own, made anew after 40 minutes. Apple refuses tokens older than an hour,
  and refuses a key that is renewed more often than every 20 minutes; so one that Apple calls expired (by its clock) is
  made anew at once, but the next such word counts only 20 minutes later.
* `Vapid` (Web Push): an ES256 JWT per origin, good for 12 hours, made anew after half of them.
* `AccessToken` (FCM): an RS256 JWT of the service account, exchanged for an access token at Google's token endpoint
  (RFC 7523). It is fetched in the background when a fifth of its life is left, so that no batch ever waits for it;
  while the endpoint fails the old token goes on to its end, and after it there is none. A 401 fetches another, unless
  it says that somebody else's key is meant (`THIRD_PARTY_AUTH_ERROR`: what the project has with Apple).

Time is the wall clock, in seconds since 1970, handed in: tokens carry it. A token is judged by when *we* got it, so a
clock that jumps costs at most one renewal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Protocol
from urllib.parse import urlencode

import msgspec
import numpy as np
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta
from numpy.typing import NDArray

from fanout.channels.answers import decoded
from fanout.channels.jwt import Key, base64url, load_key, point, sign
from fanout.channels.protocol import Answer, Call
from fanout.dispatch.calls import Caller
from fanout.dispatch.retry import pause_s
from fanout.errors import Refused
from fanout.settings import ProvidersSettings

log = logging.getLogger("fanout.dispatch")

PROVIDER_TOKEN_S: Final = 40 * 60  # between the 20 minutes below which Apple objects and the 60 it allows
PROVIDER_TOKEN_LEAST_S: Final = 20 * 60
VAPID_S: Final = 12 * 3_600  # RFC 8292 allows 24
ASSERTION_S: Final = 3_600  # the longest Google takes
RENEW_AT: Final = 0.8  # of a token's life
FCM_SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Credential(Protocol):
    """What a route asks before it renders."""

    def authorize(self, origin: str) -> str:
        """The header's value; empty if there is none now."""

    def answered(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> None:
        """What came back, as a channel's `interpret` gets it: the credential may be what was refused."""

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The task that renews; starts once there is something to show, or it is known that there is not."""


class Fixed:
    """Always the same."""

    def __init__(self, value: str) -> None:
        self._value = value

    def authorize(self, origin: str) -> str:
        return self._value

    def answered(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> None:
        """There is no other."""

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()


class ProviderToken(Fixed):
    """APNs: one token for all devices of a team."""

    def __init__(self, key: Key, *, key_id: str, team_id: str, now_s: Callable[[], float]) -> None:
        super().__init__("")
        self._key, self._key_id, self._team_id, self._now_s = key, key_id, team_id, now_s
        self._made_s = self._expired_s = float("-inf")

    def authorize(self, origin: str) -> str:
        now_s = self._now_s()
        if not self._made_s <= now_s < self._made_s + PROVIDER_TOKEN_S:
            token = sign(self._key, {"iss": self._team_id, "iat": int(now_s)}, kid=self._key_id)
            self._value, self._made_s = f"bearer {token}", now_s
        return self._value

    def answered(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> None:
        """403 `ExpiredProviderToken`: whoever asks next gets another."""
        refused = np.flatnonzero(codes == 403).tolist()
        if not any(b"ExpiredProviderToken" in bodies.get(row, b"") for row in refused):
            return
        now_s = self._now_s()
        if not self._expired_s <= now_s < self._expired_s + PROVIDER_TOKEN_LEAST_S:
            log.warning("Apple calls our provider token expired; it is made anew")
            self._made_s, self._expired_s = float("-inf"), now_s


class Vapid(Fixed):
    """Web Push: one token per push service."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, *, subject: str, now_s: Callable[[], float]) -> None:
        super().__init__("")
        self._key, self._subject, self._now_s = key, subject, now_s
        self._public = base64url(point(key))
        self._made: dict[str, tuple[float, str]] = {}

    def authorize(self, origin: str) -> str:
        now_s = self._now_s()
        made_s, value = self._made.get(origin, (float("-inf"), ""))
        if not made_s <= now_s < made_s + VAPID_S / 2:
            token = sign(self._key, {"aud": origin, "exp": int(now_s) + VAPID_S, "sub": self._subject})
            value = f"vapid t={token}, k={self._public}"
            self._made[origin] = now_s, value
        return value


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Google's key file, as it is downloaded; fields we do not need are left out."""

    client_email: str
    private_key: str
    private_key_id: str = ""
    token_uri: str


class _Granted(msgspec.Struct):
    access_token: Annotated[str, Meta(min_length=1, max_length=4_096, pattern=r"^[\x21-\x7e]+$(?!\n)")]
    expires_in: Annotated[int, Meta(ge=1, le=86_400)]


_GRANTED: Final = msgspec.json.Decoder(_Granted)


class AccessToken(Fixed):
    """FCM: an OAuth 2 access token for a service account."""

    def __init__(self, account: ServiceAccount, caller: Caller, *, now_s: Callable[[], float]) -> None:
        super().__init__("")
        self._account, self._caller, self._now_s = account, caller, now_s
        self._key = load_key(account.private_key.encode())
        self._refused = trio.Event()
        self.renewals = 0

    def answered(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> None:
        """401: the provider did not accept the token; another is fetched now."""
        refused = np.flatnonzero(codes == 401).tolist()
        if not all(b"THIRD_PARTY_AUTH_ERROR" in bodies.get(row, b"") for row in refused):
            self._refused.set()

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            await self._renew(task_status)
        finally:
            with trio.CancelScope(shield=True):
                await self._caller.aclose()

    async def _renew(self, task_status: trio.TaskStatus[None]) -> None:
        attempt, end_s = 0, float("inf")
        while True:
            asked_s = trio.current_time()
            granted = await self._fetch()
            if granted is None:
                attempt += 1
                wait_s = pause_s(0, attempt, first_s=0.5, most_s=30.0)
                left_s = end_s - trio.current_time()
                if left_s > 0:
                    wait_s = min(wait_s, left_s)
                else:
                    self._value = ""
            else:
                attempt, end_s = 0, asked_s + granted.expires_in
                self._value = f"Bearer {granted.access_token}"
                self.renewals += 1
                wait_s = RENEW_AT * granted.expires_in
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            self._refused = trio.Event()
            with trio.move_on_after(wait_s):
                await self._refused.wait()
                await trio.sleep(pause_s(0, 1, first_s=0.5, most_s=1.0))  # a token refused again and again

    async def _fetch(self) -> _Granted | None:
        now_s = int(self._now_s())
        account = self._account
        claims = {
            "iss": account.client_email,
            "scope": FCM_SCOPE,
            "aud": account.token_uri,
            "iat": now_s,
            "exp": now_s + ASSERTION_S,
        }
        assertion = sign(self._key, claims, kid=account.private_key_id)
        answer: Answer = await self._caller.call(
            Call(
                method="POST",
                url=account.token_uri,
                headers={"content-type": "application/x-www-form-urlencoded"},
                body=urlencode({"grant_type": GRANT, "assertion": assertion}).encode(),
                index=np.zeros(0, np.intp),
            )
        )
        granted = decoded(_GRANTED, answer.body) if answer.code == 200 else None
        if granted is not None:
            return granted
        log.warning("no access token: the token endpoint answered %d", answer.code)
        return None


def check(providers: ProvidersSettings) -> None:
    """Read what says who we are to those that are switched on. Blocking. Errors: as `read_key`, the first of them."""
    for name, setting, read in (
        ("fcm", "service_account", read_account),
        ("apns", "key_file", read_key),
        ("webpush", "key_file", read_key),
    ):
        provider = getattr(providers, name)
        if provider.enabled and (file := getattr(provider, setting)):
            read(f"providers.{name}.{setting}", file)


def read_key(setting: str, file: str) -> Key:
    """The key in a file. Errors: `Refused("settings_invalid")` naming the setting."""
    try:
        return load_key(Path(file).read_bytes())
    except (OSError, ValueError) as error:
        raise Refused("settings_invalid", setting, count=1, problems=f"{setting}: {file}: {error}") from None


def read_account(setting: str, file: str) -> ServiceAccount:
    """The service account in a file. Errors as `read_key`."""
    try:
        account = msgspec.json.decode(Path(file).read_bytes(), type=ServiceAccount)
        load_key(account.private_key.encode())
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise Refused("settings_invalid", setting, count=1, problems=f"{setting}: {file}: {error}") from None
    return account
