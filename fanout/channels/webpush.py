"""Web Push (RFC 8030, 8291, 8292): browsers, each at the address its own push service gave it.

Lore:

* The address is the subscription as the browser hands it out: `{"endpoint", "keys": {"p256dh", "auth"}}`. The endpoint
  comes from outside, so it is a way to make us call anybody: only https, and only hosts of the push services named in
  the settings (`*.notify.windows.com` names all below it).
* The body is encrypted for each subscription (`ece.py`), a batch at once; rendering one is work for a thread, not the
  loop.
* `Authorization: vapid` is a JWT per origin, so there is a template per origin; headers stay constant below it, and the
  address is the origin and a path. An origin is written as RFC 6454 has it, in small letters and without 443: push
  services compare it with their own.
* `TTL` ends with the action. `Urgency: high` wakes a sleeping phone; a resend is `normal` and marked silent inside.
* `Topic` (32 characters at most) is the phase's: a resend takes the place of the first while it waits at the service.
  On the screen the notification's `tag`, inside the body, is the action's: an update replaces what is shown.
* 201 is taken (RFC 8030 section 5), 202 taken with a receipt to come or for a phone that is off. 200 is taken as well:
  Mozilla's answered it for phones that it reaches by Google's, and others do. 404 and 410 are gone for good; 413 too
  large; 429 slow down; 401 and 403 are our key; 500 may have been taken. What may have been taken is sent once more,
  silently.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fanout import limits
from fanout.channels import ece
from fanout.channels.answers import decoded
from fanout.channels.jwt import POINT_BYTES, rows_from_base64url
from fanout.channels.kernels import AUTH_BYTES, SALT_BYTES
from fanout.channels.protocol import (
    Authorize,
    Column,
    Message,
    Outcome,
    Requests,
    Template,
    column,
    deadline_s,
    look_up,
    meanings,
)
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

TTL_S_MAX: Final = 4 * 7 * 86_400
ORIGINS_MAX: Final = 1_000  # in one batch; push services are a handful, Microsoft's some dozens

_MEANINGS: Final = meanings(
    {
        403: (Event.RETRY, Reason.CREDENTIALS),
        404: (Event.REJECT, Reason.TOKEN_DEAD),  # RFC 8030 section 7.3: the subscription is gone
        410: (Event.REJECT, Reason.TOKEN_DEAD),
        400: (Event.REJECT, Reason.PAYLOAD),
    }
)
_ENDPOINT: Final = re.compile(
    r"https://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::([0-9]{0,5}))?(/[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]*)"
    r"(?:#[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?"
)
_PORT_MAX: Final = 65_535


class _Keys(msgspec.Struct):
    p256dh: str
    auth: str


class _Subscription(msgspec.Struct):
    endpoint: Annotated[str, Meta(max_length=limits.ADDRESS_CHARS_MAX)]
    keys: _Keys


_SUBSCRIPTION: Final = msgspec.json.Decoder(_Subscription)


class WebPush:
    """Renders and interprets for the push services of `hosts`; `entropy(n)` gives n random bytes."""

    name = "webpush"
    number = CHANNELS.index("webpush")

    def __init__(self, *, hosts: Sequence[str], entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._exact = frozenset(host for host in hosts if not host.startswith("*."))
        self._below = tuple(host[1:] for host in hosts if host.startswith("*."))
        self._entropy = entropy

    def fits(self, message: Message) -> str | None:
        if (length := max(len(_plain(message, quiet=quiet)) for quiet in (False, True))) > ece.PLAIN_BYTES_MAX:
            return f"the message has {length:,} bytes of {ece.PLAIN_BYTES_MAX:,}"
        return None

    def render(
        self, message: Message, addresses: Column, again: NDArray[np.bool_], *, now_ms: int, authorize: Authorize
    ) -> Requests:
        """Column 0 is the path, column 1 the sealed body; one template per origin, loud and quiet."""
        ttl_s = deadline_s(message.end_ms, now_ms, most_s=TTL_S_MAX)
        templates: list[Template] = []
        numbers: dict[tuple[str, bool], int] = {}
        rows = len(again)
        which, usable = np.zeros(rows, np.uint16), np.zeros(rows, np.bool_)
        paths, points, auths = [b""] * rows, [""] * rows, [""] * rows
        for row, (address, quiet) in enumerate(zip(addresses.rows(), again.tolist(), strict=True)):
            found = self._read(address)
            if found is None:
                continue
            path, origin, keys = found
            number = numbers.get((origin, quiet))
            if number is None:
                if len(numbers) == 2 * ORIGINS_MAX:
                    continue
                number = numbers[origin, quiet] = len(templates)
                templates.append(_template(message, origin, authorize(origin), ttl_s, quiet=quiet))
            paths[row], points[row], auths[row] = path.encode(), keys.p256dh, keys.auth
            which[row], usable[row] = number, True
        bodies = self._bodies(message, points, auths, again, usable)
        return Requests(templates=tuple(templates), columns=(column(paths), bodies), which=which, usable=usable)

    def _bodies(
        self,
        message: Message,
        points: Sequence[str],
        auths: Sequence[str],
        again: NDArray[np.bool_],
        usable: NDArray[np.bool_],
    ) -> Column:
        """The sealed bodies; a row whose keys cannot be used gets none, and is none of the `usable` any more."""
        theirs, sound = rows_from_base64url(points, POINT_BYTES)
        secret, whole = rows_from_base64url(auths, AUTH_BYTES)
        usable &= sound & whole
        lengths, sealed = np.zeros(len(usable), np.int64), []
        for quiet in (False, True):
            at = np.flatnonzero(usable & (again == quiet))
            if not len(at):
                continue
            salts = np.frombuffer(self._entropy(SALT_BYTES * len(at)), np.uint8).reshape(-1, SALT_BYTES)
            numbers = ece.private_numbers(self._entropy, len(at))
            plain = _plain(message, quiet=quiet)
            bodies, good = ece.seal(plain, theirs[at], secret[at], salts=salts, secrets=numbers)
            usable[at] = good
            sealed.append((at[good], bodies[good]))
            lengths[at[good]] = bodies.shape[1]
        offsets = np.zeros(len(usable) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        data = np.empty(offsets[-1], np.uint8)
        for at, bodies in sealed:
            data[offsets[at, None] + np.arange(bodies.shape[1])] = bodies
        return Column(data, offsets)

    def interpret(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> Outcome:
        return look_up(_MEANINGS, codes)

    def dead_since_ms(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> Mapping[int, int]:
        return {}

    def _read(self, address: bytes) -> tuple[str, str, _Keys] | None:
        """(path, origin, keys as they are written) of a subscription to somebody who may be called."""
        subscription = decoded(_SUBSCRIPTION, address)
        if subscription is None or (parts := _ENDPOINT.fullmatch(subscription.endpoint)) is None:
            return None
        named, port, path = parts[1].lower(), int(parts[2] or 443), parts[3]
        host = named.strip("[]")
        if port > _PORT_MAX or not (host in self._exact or host.endswith(self._below)):
            return None
        return path, f"https://{named}" + ("" if port == 443 else f":{port}"), subscription.keys


def _template(message: Message, origin: str, authorization: str, ttl_s: int, *, quiet: bool) -> Template:
    headers = (
        "content-type: application/octet-stream",
        "content-encoding: aes128gcm",
        f"authorization: {authorization}",
        f"ttl: {ttl_s}",
        f"urgency: {'normal' if quiet else 'high'}",
        f"topic: a{message.action}p{message.phase}",
    )
    return Template(method="POST", url=(origin.encode(), 0), headers=headers, body=(1,))


def _plain(message: Message, *, quiet: bool) -> bytes:
    """What the service worker gets."""
    whole = {
        "title": message.title,
        "body": message.text,
        "tag": f"action-{message.action}",
        "action": str(message.action),
        "phase": str(message.phase),
        "name": message.name,
        "end_ms": message.end_ms,
        "silent": quiet,
    } | ({"image": message.image} if message.image else {})
    return msgspec.json.encode(whole)
