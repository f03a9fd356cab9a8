"""Typed settings from TOML and the environment. `config/default.toml` is their only manual.

Rules:

1. Every setting has its default in `config/default.toml`, with unit, reason and consequence beside it. This module has
   the types and ranges, and no second set of defaults.
2. A file given by the user overlays the defaults, the environment overlays the file: `FANOUT__API__PORT=8080` is
   `api.port`. An unknown key is a problem, not a silence.
3. All problems are found before the first is told: `Refused("settings_invalid")` lists each with its key.
4. The fence: with `engine.fence = "loopback"` every setting of type `Url` or `HostPort` must name a loopback address.
   Because the type carries the mark, a new provider cannot be forgotten.

Why no settings library: one msgspec struct a section gives types, ranges and sentences; the rest is this file.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from fanout.errors import Refused
from fanout.wire import ChannelName, Lane, readable

DEFAULT_FILE: Final = Path(__file__).resolve().parent.parent / "config" / "default.toml"
ENVIRONMENT_PREFIX: Final = "FANOUT__"

AUTHORITY: Final = {"file": "authority"}
FILE: Final = {"file": "any"}
"""Marks of settings that name a file; `named_files.py` looks for them before anything starts."""
Authority = Annotated[str, Meta(extra=AUTHORITY)]
"""A PEM of those whose certificates are believed; empty: the system's."""
File = Annotated[str, Meta(extra=FILE)]
"""A file that is there; empty: none."""

_FENCED: Final = {"fenced": True}
_PORT: Final = r":([0-5]?\d{1,4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
_NO_URL: Final = "is no address with a scheme, as https://example.org"
_NO_HOST_PORT: Final = "is no host:port"
Url = Annotated[
    str,
    Meta(pattern=r"^(https?|mqtts?|rediss?|smtps?|smtp)://[^\s]+$(?!\n)", description=_NO_URL, extra=_FENCED),
]
"""An address with its scheme; inside the fence it must be loopback."""
HostPort = Annotated[str, Meta(pattern=rf"^\S+{_PORT}$(?!\n)", description=_NO_HOST_PORT, extra=_FENCED)]
"""`host:port`; inside the fence it must be loopback."""
HostPortOrNone = Annotated[str, Meta(pattern=rf"^(\S+{_PORT})?$(?!\n)", description=_NO_HOST_PORT, extra=_FENCED)]
"""The same, or empty."""
Port = Annotated[int, Meta(ge=0, le=65_535)]
"""0: any free port, written to the log and to `run/` in the data folder."""
Fraction = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
AtOnce = Annotated[int, Meta(ge=1, le=1_000)]
"""Calls, or sessions, in flight at one provider."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class EngineSettings(Section, frozen=True, kw_only=True):
    """[engine]"""

    data: str
    fence: Literal["loopback", "open"]
    log_level: Literal["debug", "info", "warning", "error"]


class ApiSettings(Section, frozen=True, kw_only=True):
    """[api]"""

    listen: HostPort
    receipts_listen: HostPortOrNone
    tls_certificate: str
    tls_key: str
    tls_by_proxy: bool
    client_ca: str
    requests_in_flight_max: Count
    drain_s: Seconds


class StoreSettings(Section, frozen=True, kw_only=True):
    """[store]"""

    kind: Literal["sqlite", "redis"]
    synchronous: Literal["FULL", "NORMAL"]
    redis: Url


class SenderSettings(Section, frozen=True, kw_only=True):
    """[senders]"""

    processes: Annotated[int, Meta(ge=0, le=64)]
    nearest: bool
    lease_s: Seconds
    restart_pause_s: Seconds


class RegistrySettings(Section, frozen=True, kw_only=True):
    """[registry]"""

    compact_after_changes: Count
    position_ttl_s: Seconds


class FcmSettings(Section, frozen=True, kw_only=True):
    """[providers.fcm]"""

    enabled: bool
    url: Url
    ca: Authority
    project: str
    service_account: File
    rate_per_s: Annotated[float, Meta(gt=0)]
    burst: Count


class ApnsSettings(Section, frozen=True, kw_only=True):
    """[providers.apns]"""

    enabled: bool
    url: Url
    ca: Authority
    topic: str
    key_file: File
    key_id: str
    team_id: str
    rate_per_s: Annotated[float, Meta(gt=0)]
    burst: Count


class SmsSettings(Section, frozen=True, kw_only=True):
    """[providers.sms]"""

    enabled: bool
    url: Url
    ca: Authority
    product_token: str
    sender: Annotated[str, Meta(pattern=r"^([A-Za-z0-9 ]{1,11}|\+?[0-9]{1,16})$(?!\n)")]
    parts_max: Annotated[int, Meta(ge=1, le=8)]
    price_per_part: Annotated[float, Meta(ge=0)]
    receipt_secret: str
    rate_per_s: Annotated[float, Meta(gt=0)]
    burst: Count
    calls_at_once: AtOnce
    weight: Annotated[float, Meta(gt=0)]


class WebPushSettings(Section, frozen=True, kw_only=True):
    """[providers.webpush]"""

    enabled: bool
    url: Url
    hosts: list[Annotated[str, Meta(pattern=r"^(\*\.)?[A-Za-z0-9.:-]+$(?!\n)")]]
    ca: Authority
    key_file: File
    subject: str
    rate_per_s: Annotated[float, Meta(gt=0)]
    burst: Count


class VoiceSettings(Section, frozen=True, kw_only=True):
    """[providers.voice]"""

    enabled: bool
    url: Url
    ca: Authority
    key: str
    caller: Annotated[str, Meta(pattern=r"^\+?[0-9]{3,16}$(?!\n)")]
    callback_url: str
    receipt_secret: str
    rate_per_s: Annotated[float, Meta(gt=0)]
    burst: Count
    calls_at_once: AtOnce


class EmailSettings(Section, frozen=True, kw_only=True):
    """[providers.email]"""

    enabled: bool
    url: Url
    ca: Authority
    user: str
    password: str
    sender: Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+$(?!\n)")]
    unsubscribe: Annotated[str, Meta(pattern=r"^((mailto:|https://)[^\s<>]+)?$(?!\n)")]
    rate_per_s: Annotated[float, Meta(gt=0)]
    burst: Count
    calls_at_once: AtOnce


class WhatsAppSettings(Section, frozen=True, kw_only=True):
    """[providers.whatsapp]"""

    enabled: bool
    url: Url
    ca: Authority
    token: str
    phone: Annotated[str, Meta(pattern=r"^[0-9]{3,20}$(?!\n)")]
    template: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,512}$(?!\n)")]
    receipt_secret: str
    rate_per_s: Annotated[float, Meta(gt=0)]
    burst: Count
    calls_at_once: AtOnce


class ProvidersSettings(Section, frozen=True, kw_only=True):
    """[providers]"""

    fcm: FcmSettings
    apns: ApnsSettings
    webpush: WebPushSettings
    sms: SmsSettings
    sms_second: SmsSettings
    voice: VoiceSettings
    email: EmailSettings
    whatsapp: WhatsAppSettings


class MediaSettings(Section, frozen=True, kw_only=True):
    """[media]"""

    public_url: Annotated[str, Meta(pattern=r"^(https?://[^\s]+)?$(?!\n)")]
    keep_h: Annotated[int, Meta(ge=1, le=24 * 366)]

    def link(self, photo: str | None) -> str:
        """Where a picture is fetched from outside; empty for none, and where nobody can fetch."""
        return f"{self.public_url.rstrip('/')}/v1/media/{photo}" if photo and self.public_url else ""


class AccountSettings(Section, frozen=True, kw_only=True):
    """[social.accounts.NAME]: one account at a network."""

    network: Literal["x", "mastodon", "telegram"]
    url: Url
    ca: Authority = ""
    credential: str
    target: str = ""
    language: Annotated[str, Meta(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})?$(?!\n)")] = "nl"
    area_kind: str = ""
    area_name: str = ""
    kinds: list[str] = []
    tenants: list[str] = []
    rate_per_s: Annotated[float, Meta(gt=0)] = 0.05
    burst: Count = 50


class SocialSettings(Section, frozen=True, kw_only=True):
    """[social]"""

    remove_after_h: Annotated[float, Meta(ge=0, le=24 * 366)]
    accounts: dict[str, AccountSettings]


class DispatchSettings(Section, frozen=True, kw_only=True):
    """[dispatch]"""

    lane: Literal["frames", "libcurl"]
    connections: Annotated[int, Meta(ge=1, le=64)]
    streams: Annotated[int, Meta(ge=1, le=1_000)]
    request_timeout_s: Seconds
    reserve: Annotated[float, Meta(ge=0, le=0.9)]
    batches_in_hand: Annotated[int, Meta(ge=1, le=64)]
    attempts_max: Annotated[int, Meta(ge=1, le=100)]
    pause_first_s: Seconds
    pause_most_s: Seconds
    fall_back: list[ChannelName]


class SignageSettings(Section, frozen=True, kw_only=True):
    """[signage]"""

    brokers: list[Url]
    embedded: Literal["auto", "mosquitto", "amqtt"]
    embedded_port: Port
    client_id: Annotated[str, Meta(min_length=1, max_length=64)]
    username: str
    password: str
    ca: Authority
    certificate: File
    key: File
    protocol: Literal["auto", "5", "3.1.1"]
    window: Annotated[int, Meta(ge=1, le=60_000)]
    keepalive_s: Annotated[int, Meta(ge=5, le=600)]
    lag_s: Seconds
    grace_s: Seconds
    result_show_s: Seconds
    rank_search: Annotated[int, Meta(ge=1, le=99)]
    rank_information: Annotated[int, Meta(ge=1, le=99)]
    rank_result: Annotated[int, Meta(ge=1, le=99)]
    target_search: Literal["full", "over", "bottom line"]
    target_information: Literal["full", "over", "bottom line"]
    on_comm_loss: Literal["blank", "hold"]
    comm_loss_s: Annotated[int, Meta(ge=10, le=86_400)]
    page_seconds_min: Seconds
    characters_per_second: Annotated[float, Meta(gt=0, le=100)]
    signing_key: str
    lists: list[str]


class KindSettings(Section, frozen=True, kw_only=True):
    """[kinds.NAME]: one kind of action."""

    lane: Lane
    boards: bool


class TenantSettings(Section, frozen=True, kw_only=True):
    """[tenants.NAME]: what a tenant may do."""

    kinds: list[str]
    people_max: Annotated[int, Meta(ge=0)]
    area_km2_max: Annotated[float, Meta(ge=0)]


class Settings(Section, frozen=True, kw_only=True):
    """All settings."""

    engine: EngineSettings
    api: ApiSettings
    store: StoreSettings
    senders: SenderSettings
    registry: RegistrySettings
    providers: ProvidersSettings
    dispatch: DispatchSettings
    media: MediaSettings
    social: SocialSettings
    signage: SignageSettings
    kinds: dict[str, KindSettings]
    tenants: dict[str, TenantSettings]

    @property
    def data(self) -> Path:
        """The data folder."""
        return Path(self.engine.data)


# --- loading --------------------------------------------------------------------------------------------------------


def load(file: Path | None = None, environment: Mapping[str, str] | None = None, /, **overlay: Any) -> Settings:
    """Defaults, then `file`, then the environment, then `overlay` (a nested mapping), checked whole.

    Errors: `Refused("settings_invalid")` with every problem by its key, one a line; `Refused("fence" | "plain_http")`.
    """
    tree = _read(DEFAULT_FILE)
    if file is not None:
        tree = _merge(tree, _read(file))
    tree = _merge(tree, _from_environment(os.environ if environment is None else environment))
    tree = _merge(tree, overlay)
    problems: list[str] = []
    _check(tree, Settings, "", problems)
    if problems:
        raise Refused("settings_invalid", str(file or ""), count=len(problems), problems="\n".join(problems))
    settings = msgspec.convert(tree, Settings)
    if settings.engine.fence == "loopback":
        _hold_fence(tree, Settings, "")
    _hold_tls(settings.api)
    return settings


def dump(settings: Settings) -> str:
    """The settings as JSON, to hand them to a process of our own; `parse` reads them back."""
    return msgspec.json.encode(settings).decode()


def parse(text: str) -> Settings:
    """What `dump` wrote. The fence is held again: a process trusts nobody but itself."""
    settings = msgspec.json.decode(text, type=Settings)
    if settings.engine.fence == "loopback":
        _hold_fence(msgspec.to_builtins(settings), Settings, "")
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused("settings_invalid", str(file), count=1, problems=f"{file}: {error}") from None


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, dict) and isinstance(value, Mapping) else value
    return merged


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        *path, last = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        table = tree
        for key in path:
            table = table.setdefault(key, {})
        try:
            table[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[last] = text
    return tree


def _check(value: Any, kind: Any, key: str, problems: list[str]) -> None:
    """Collect every problem of `value` as a `kind`; struct fields and tables of structs are visited one by one."""
    table = _table_of(kind)
    if table is not None and isinstance(value, dict):
        for name, row in value.items():
            _check(row, table, f"{key}.{name}", problems)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        hints = get_type_hints(kind, include_extras=True)
        required = {field.name for field in msgspec.structs.fields(kind) if field.required}
        prefix = f"{key}." if key else ""
        problems.extend(f"{prefix}{name}: there is no such setting" for name in value.keys() - hints.keys())
        problems.extend(f"{prefix}{name}: missing" for name in sorted(required - value.keys()))
        for name in hints.keys() & value.keys():
            _check(value[name], hints[name], f"{prefix}{name}", problems)
        if not key:
            problems.sort()
    else:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            problems.append(f"{key}: {_told(error, value, kind)}")


def _told(error: msgspec.ValidationError, value: Any, kind: Any) -> str:
    """In words where the kind has them for a text of another form."""
    words = [meta.description for meta in getattr(kind, "__metadata__", ()) if getattr(meta, "description", None)]
    return f"{value!r} {words[0]}" if words and isinstance(value, str) else readable(str(error))


def _table_of(kind: Any) -> Any:
    """The value type of `dict[str, SomeStruct]`, else None."""
    if get_origin(kind) is not dict:
        return None
    value = get_args(kind)[1]
    return value if isinstance(value, type) and issubclass(value, msgspec.Struct) else None


# --- the fence ------------------------------------------------------------------------------------------------------


def is_loopback(address: str) -> bool:
    """Whether an URL, `host:port` or host names the loopback range. A name other than `localhost` does not."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_fenced(kind: Any) -> bool:
    return any(getattr(meta, "extra", None) == _FENCED for meta in getattr(kind, "__metadata__", ()))


def _hold_tls(api: ApiSettings) -> None:
    """Errors: `Refused("plain_http")` for an address that others reach, where nobody encrypts what is said there."""
    if api.tls_certificate or api.tls_by_proxy:
        return
    for name in ("listen", "receipts_listen"):
        address = getattr(api, name)
        if address and not is_loopback(address):
            raise Refused("plain_http", f"api.{name}", setting=f"api.{name}", address=address)


def _hold_fence(value: Any, kind: Any, key: str) -> None:
    table = _table_of(kind)
    if table is not None:
        for name, row in value.items():
            _hold_fence(row, table, f"{key}.{name}")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if name in value:
                _hold_fence(value[name], hint, f"{key}.{name}" if key else name)
    elif get_origin(kind) is list:
        for index, item in enumerate(value):
            _hold_fence(item, get_args(kind)[0], f"{key}[{index}]")
    elif value and _is_fenced(kind) and not is_loopback(value):
        raise Refused("fence", key, setting=key, address=value)
