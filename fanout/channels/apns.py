"""Apple Push Notification service: HTTP/2, one request a device, the token in the path.

Lore:

* `apns-expiration` is the action's end as epoch seconds, so that a phone that comes back later stays silent. Never 0
  here: 0 means one try, and a phone in a tunnel would miss the child.
* `apns-collapse-id` (64 bytes at most) is the action's: a resend or an update replaces what the phone shows.
* A phone that is off gets **one** notification per app when it comes back, the last; so a result makes sense alone.
* `apns-priority` 10 rings at once; 5 is the quiet resend, without sound and `passive` for the focus modes.
* `apns-id` is left to the service: the collapse id already makes a resend harmless, and a header that differs by row
  would cost more than the request.
* 410 `Unregistered` says since when (`timestamp`, milliseconds): a token that the app registered again since then is
  alive, and stays. 400 `BadDeviceToken` and `DeviceTokenNotForTopic` are tokens of another world
  (sandbox, another app). Other 400s are our payload or headers.
* 500 `InternalServerError` may have done its work first, so it is unknown: sent once more without a sound. 503 did
  nothing.
* 403 `ExpiredProviderToken` / `InvalidProviderToken` is our key, not the device.
* 429 `TooManyRequests` is about this one device; 429 `TooManyProviderTokenUpdates` is our key renewed too often.
* A 200 has no body, and is taken at its word; what answers 200 to anything is found before the first action
  (`greetings.py`).
* A photo is fetched by the app's service extension, which `mutable-content` wakes; it finds the address in `fanout`,
  has 30 seconds, and shows the text alone when it fails.
* The authorisation is an ES256 JWT, renewed every 20 to 60 minutes, the same for all rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout.channels.protocol import (
    Authorize,
    Column,
    Meaning,
    Message,
    Outcome,
    Requests,
    Template,
    alphabet,
    look_up,
    meanings,
    well_formed,
)
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

PAYLOAD_BYTES_MAX: Final = 4_096
TOKEN_BYTES_MAX: Final = 200  # 64 hexadecimal digits today; Apple says not to rely on it

_LETTERS: Final = alphabet(b"0123456789abcdefABCDEF")
_MEANINGS: Final = meanings(
    {
        400: (Event.REJECT, Reason.PAYLOAD),
        403: (Event.RETRY, Reason.CREDENTIALS),
        404: (Event.REJECT, Reason.PROVIDER),  # the path was wrong: never the device's fault
        410: (Event.REJECT, Reason.TOKEN_DEAD),
    }
)
_REASON: Final = re.compile(rb'"reason"\s*:\s*"([A-Za-z]{1,40})"')
_TIMESTAMP: Final = re.compile(rb'"timestamp"\s*:\s*([0-9]{1,15})\b')
_BY_REASON: Final[dict[tuple[int, bytes], Meaning]] = {
    (400, b"BadDeviceToken"): (Event.REJECT, Reason.TOKEN_INVALID),
    (400, b"DeviceTokenNotForTopic"): (Event.REJECT, Reason.TOKEN_INVALID),
    (400, b"MissingDeviceToken"): (Event.REJECT, Reason.TOKEN_INVALID),
    (400, b"IdleTimeout"): (Event.RETRY, Reason.PROVIDER),
    (410, b"ExpiredToken"): (Event.REJECT, Reason.TOKEN_DEAD),
}


class Apns:
    """Renders and interprets for one app (`topic`) at one base address (`https://api.push.apple.com`)."""

    name = "apns"
    number = CHANNELS.index("apns")

    def __init__(self, *, url: str, topic: str) -> None:
        self._origin = url.rstrip("/")
        self._url = f"{self._origin}/3/device/".encode()
        self._topic = topic

    def fits(self, message: Message) -> str | None:
        if (length := max(len(_body(message, quiet=quiet)) for quiet in (False, True))) > PAYLOAD_BYTES_MAX:
            return f"the payload has {length:,} bytes of {PAYLOAD_BYTES_MAX:,}"
        return None

    def render(
        self, message: Message, addresses: Column, again: NDArray[np.bool_], *, now_ms: int, authorize: Authorize
    ) -> Requests:
        """Column 0 is the token. Template 0 rings, template 1 is quiet."""
        templates = tuple(
            Template(
                method="POST",
                url=(self._url, 0),
                headers=(
                    "content-type: application/json",
                    f"authorization: {authorize(self._origin)}",
                    f"apns-topic: {self._topic}",
                    "apns-push-type: alert",
                    f"apns-priority: {5 if quiet else 10}",
                    f"apns-expiration: {message.end_ms // 1000}",
                    f"apns-collapse-id: action-{message.action}",
                ),
                body=(_body(message, quiet=quiet),),
            )
            for quiet in (False, True)
        )
        return Requests(
            templates=templates,
            columns=(addresses,),
            which=again.astype(np.uint16),
            usable=well_formed(addresses, _LETTERS, least=2, most=TOKEN_BYTES_MAX),
        )

    def interpret(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> Outcome:
        outcome = look_up(_MEANINGS, codes)
        for row, body in bodies.items():
            found = _REASON.search(body)
            if found and (meaning := _BY_REASON.get((int(codes[row]), found[1]))) is not None:
                outcome.event[row], outcome.reason[row] = meaning
        return outcome

    def dead_since_ms(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> Mapping[int, int]:
        said = {row: _TIMESTAMP.search(body) for row, body in bodies.items() if codes[row] == 410}
        return {row: int(found[1]) for row, found in said.items() if found is not None}


def _body(message: Message, *, quiet: bool) -> bytes:
    aps: dict[str, object] = {
        "alert": {"title": message.title, "body": message.text},
        "interruption-level": "passive" if quiet else "time-sensitive",
        "thread-id": f"action-{message.action}",
    }
    if not quiet:
        aps["sound"] = "default"
    if message.image:
        aps["mutable-content"] = 1
    action: dict[str, object] = {
        "action": str(message.action),
        "phase": str(message.phase),
        "name": message.name,
        "end_ms": message.end_ms,
    }
    if message.image:
        action["image"] = message.image
    return msgspec.json.encode({"aps": aps, "fanout": action})
