"""From settings to routes that are warm: connections, TLS and credentials stand before the first action.

One place makes all of it, so that no channel is warmed differently from how it is used. Providers are opened side by
side; one that cannot be reached is tried by the first batch again and holds up nobody's start. Those whose word will be
taken without a look at it are greeted first (`greeting.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from cryptography.hazmat.primitives.asymmetric import ec

from fanout.channels import catalogue, ece
from fanout.channels.sms import MESSAGES_PER_CALL_MAX
from fanout.dispatch.breaker import Breaker
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.calls import HttpCaller
from fanout.dispatch.credentials import (
    AccessToken,
    Credential,
    Fixed,
    ProviderToken,
    Vapid,
    read_account,
    read_key,
)
from fanout.dispatch.greeting import greet
from fanout.dispatch.lane_choice import lane_for
from fanout.dispatch.lanes import RunningLane
from fanout.dispatch.line import Gate
from fanout.dispatch.line_route import CallRoute, MailRoute, Supplier
from fanout.dispatch.mailer import Mailer
from fanout.dispatch.plain_calls import PlainCaller
from fanout.dispatch.routes import Route
from fanout.dispatch.row_route import RowRoute, Way
from fanout.dispatch.service_route import PUSH_SERVICES_MAX, ServiceRoute, service_of
from fanout.dispatch.terms import NEAREST_BURST, NEAREST_RATE, PUSH, nearest_apart
from fanout.errors import Refused
from fanout.limits import BATCH_ROWS_MAX
from fanout.settings import Settings, is_loopback
from fanout.store.protocol import Share
from fanout.wire import CHANNELS

SIMULATED = "Bearer simulated"
TOKEN_CALLS = 2  # to a token's own endpoint: one is renewed at a time


async def open_routes(
    settings: Settings,
    clock_ms: Callable[[], int],
    nursery: trio.Nursery,
    *,
    channels: Sequence[str] = CHANNELS,
    warm: bool = True,
    share: Share = Share.ALL,
) -> dict[str, Route]:
    """Routes for those of the channels that are switched on, by name. Lanes and renewals run in `nursery`."""
    opening = _Opening(settings, clock_ms, nursery, share)
    routes: dict[str, Route] = {}
    for name in channels:
        provider = getattr(settings.providers, name)
        if not provider.enabled:
            continue
        if name in PUSH:
            routes[name] = await opening.rows(name)
        elif name == "webpush":
            routes[name] = await opening.services()
        elif name == "email":
            routes[name] = opening.mail()
        else:
            routes[name] = opening.calls(name)
    if warm:
        async with trio.open_nursery() as heaters:
            for way, url in opening.cold:
                heaters.start_soon(way.warm, url)
            for name, credential in opening.strangers.items():
                heaters.start_soon(greet, name, settings, credential)
    return routes


class _Opening:
    """What the routes of one process are made of."""

    def __init__(self, settings: Settings, clock_ms: Callable[[], int], nursery: trio.Nursery, share: Share) -> None:
        self.share = share
        self.settings, self.clock_ms, self.nursery = settings, clock_ms, nursery
        self.cold: list[tuple[RunningLane | HttpCaller | PlainCaller, str]] = []
        self.strangers: dict[str, Credential] = {}

    def now_s(self) -> float:
        return self.clock_ms() / 1000

    def bucket(self, name: str) -> Bucket:
        """This process's share of a provider's quota."""
        provider = getattr(self.settings.providers, name)
        rate, burst = self._parts(name)
        return Bucket(
            rate_per_s=provider.rate_per_s * rate,
            burst=max(1.0, provider.burst * burst),
            reserve=self.settings.dispatch.reserve,
            now_s=trio.current_time(),
        )

    def _parts(self, name: str) -> tuple[float, float]:
        """Which part of a provider's rate, and of what it takes at once, is this process's."""
        if name not in PUSH:
            return 1.0, 1.0
        if self.share is Share.NEAREST:
            return NEAREST_RATE, NEAREST_BURST
        processes = max(1, self.settings.senders.processes)
        if self.share is Share.ALL or not nearest_apart(self.settings, name):
            return 1 / processes, 1 / processes
        return (1 - NEAREST_RATE) / processes, (1 - NEAREST_BURST) / processes

    def gate(self, name: str, *, call_rows: int = 1) -> Gate:
        """What a provider of single calls lets through."""
        provider = getattr(self.settings.providers, name)
        return Gate(
            breaker=Breaker(now_s=trio.current_time()),
            bucket=self.bucket(name),
            places=provider.calls_at_once,
            reserve=self.settings.dispatch.reserve,
            call_rows=call_rows,
            weight=getattr(provider, "weight", 1.0),
        )

    async def lane(self, name: str, bucket: Bucket) -> RunningLane:
        """A lane that runs."""
        provider = getattr(self.settings.providers, name)
        lane = lane_for(
            name,
            url=provider.url,
            ca=provider.ca,
            dispatch=self.settings.dispatch,
            bucket=bucket,
            clock_ms=self.clock_ms,
        )
        await self.nursery.start(lane.run)
        return lane

    async def rows(self, name: str) -> RowRoute:
        bucket = self.bucket(name)
        lane = await self.lane(name, bucket)
        self.cold.append((lane, getattr(self.settings.providers, name).url))
        credential = self.credential(name)
        await self.nursery.start(credential.keep)
        self.strangers[name] = credential
        channel = catalogue.row_channel(name, self.settings)
        return RowRoute(channel, lane, breaker=Breaker(now_s=trio.current_time()), bucket=bucket, credential=credential)

    async def services(self) -> ServiceRoute:
        """Web Push: a lane, a quota and a breaker for each push service that the settings name."""
        provider = self.settings.providers.webpush
        hosts = catalogue.push_hosts(self.settings) or ["localhost"]  # of none there is one, which gets nothing
        channel = catalogue.row_channel("webpush", self.settings)
        credential = self.credential("webpush")
        await self.nursery.start(credential.keep)
        ways = []
        for number, _ in enumerate(hosts[:PUSH_SERVICES_MAX]):
            bucket = self.bucket("webpush")
            lane = await self.lane("webpush", bucket)
            if number == service_of(hosts, provider.url):
                self.cold.append((lane, provider.url))
            breaker = Breaker(now_s=trio.current_time())
            ways.append(Way(channel, lane, breaker=breaker, bucket=bucket, credential=credential))
        return ServiceRoute(channel, hosts, ways, credential=credential)

    def calls(self, name: str) -> CallRoute:
        names = [name]
        if name == "sms" and self.settings.providers.sms_second.enabled:
            names.append("sms_second")
        suppliers = []
        for one in names:
            provider = getattr(self.settings.providers, one)
            caller = self.plain_caller(provider.url, provider.ca, provider.calls_at_once)
            self.cold.append((caller, provider.url))
            gate = self.gate(one, call_rows=MESSAGES_PER_CALL_MAX if name == "sms" else 1)
            suppliers.append(Supplier(catalogue.call_channel(one, self.settings), caller, gate))
        return CallRoute(suppliers, clock_ms=self.clock_ms)

    def mail(self) -> MailRoute:
        provider = self.settings.providers.email
        mailer = Mailer(
            url=provider.url,
            user=provider.user,
            password=provider.password,
            sender=provider.sender,
            ca=provider.ca,
            timeout_s=self.settings.dispatch.request_timeout_s,
        )
        gate = self.gate("email", call_rows=BATCH_ROWS_MAX)
        return MailRoute(catalogue.email(self.settings), mailer, gate, clock_ms=self.clock_ms)

    def caller(self, ca: str, connections: int) -> HttpCaller:
        timeout_s = self.settings.dispatch.request_timeout_s
        return HttpCaller(ca=ca, timeout_s=timeout_s, connections=connections, http2=False)

    def plain_caller(self, url: str, ca: str, connections: int) -> HttpCaller | PlainCaller:
        """For the many calls of a channel: no client in between, where the provider is spoken to over TLS."""
        if not url.startswith("https://"):
            return self.caller(ca, connections)
        return PlainCaller(ca=ca, timeout_s=self.settings.dispatch.request_timeout_s, connections=connections)

    def credential(self, name: str) -> Credential:
        """Who we are to a push service. Errors: `Refused("settings_invalid" | "fence")`."""
        providers = self.settings.providers
        if name == "fcm" and providers.fcm.service_account:
            account = read_account("providers.fcm.service_account", providers.fcm.service_account)
            if self.settings.engine.fence == "loopback" and not is_loopback(account.token_uri):
                raise Refused("fence", "token_uri", setting="token_uri", address=account.token_uri)
            return AccessToken(account, self.caller(providers.fcm.ca, TOKEN_CALLS), now_s=self.now_s)
        if name == "apns" and providers.apns.key_file:
            key = read_key("providers.apns.key_file", providers.apns.key_file)
            return ProviderToken(key, key_id=providers.apns.key_id, team_id=providers.apns.team_id, now_s=self.now_s)
        if name == "webpush":
            file = providers.webpush.key_file
            key = read_key("providers.webpush.key_file", file) if file else ece.new_key()
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise Refused("settings_invalid", file, count=1, problems=f"{file}: VAPID wants a P-256 key")
            return Vapid(key, subject=providers.webpush.subject, now_s=self.now_s)
        return Fixed(SIMULATED if is_loopback(getattr(providers, name).url) else "")
