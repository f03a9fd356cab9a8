"""Firebase Cloud Messaging, HTTP v1: Android, and whoever else has a registration token.

Lore, from the platform's reference and from those who run it at scale:

* One message per request; the token stands in the body, so the path and all headers are constant.
* `ttl` ends with the action: a phone that was off must not ring for something that is over.
* `collapse_key` and the notification's `tag` are the action's: an update or a resend replaces what the phone shows, and
  a phone that comes back gets the last message only. A phone keeps four collapse keys at most.
* Sound belongs to the notification channel on Android 8 and later, so quiet is another `channel_id`, not a flag.
* `data` values are strings. The app finds `action` and `phase` there, and drops a phase it has shown already.
* 404 means that the token is dead only with `UNREGISTERED` in its details; a bare 404 is a wrong address or project.
* 400 names the field it dislikes: `message.token` is a bad token, everything else is our payload.
* 500 INTERNAL may have done its work first, so it is unknown: sent once more without a sound, and whoever never answers
  better still counts as perhaps told, and gets the result. 503 UNAVAILABLE says that it did nothing.
* 401 with `THIRD_PARTY_AUTH_ERROR` is not our token: the project's key at Apple or for browsers is wrong, so this
  device cannot be reached by FCM until somebody mends that. Another attempt would meet the same.
* 429 and 503 may carry Retry-After; 4xx other than 429 count against the quota, so dead tokens cost.
* A 200 is taken at its word: the lane drops what follows it, since reading it would cost more than sending. What
  answers 200 to anything is found before the first action (`greetings.py`).
* `image` is an address that the phone fetches itself, up to 1 MB, and leaves out when it cannot.
* Payload at most 4,096 bytes. We count the whole message without its token, which is the stricter reading, loud and
  quiet, whichever is longer.
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
    Message,
    Outcome,
    Requests,
    Template,
    alphabet,
    deadline_s,
    look_up,
    meanings,
    well_formed,
)
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

PAYLOAD_BYTES_MAX: Final = 4_096
TTL_S_MAX: Final = 4 * 7 * 86_400  # four weeks, the platform's maximum
TOKEN_BYTES_MAX: Final = 1_024  # tokens have about 163 today; the platform promises no length

_LETTERS: Final = alphabet(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_:")
_MEANINGS: Final = meanings({})
_MARK: Final = "\u0000"  # stands for the token while the body is made; JSON escapes it, so no text can hold it
_ERROR_CODE: Final = re.compile(rb'"(?:errorCode|status)"\s*:\s*"([A-Z_]{1,40})"')


class Fcm:
    """Renders and interprets for one project at one base address (`https://fcm.googleapis.com`)."""

    name = "fcm"
    number = CHANNELS.index("fcm")

    def __init__(self, *, url: str, project: str) -> None:
        self._origin = url.rstrip("/")
        self._url = f"{self._origin}/v1/projects/{project}/messages:send".encode()

    def fits(self, message: Message) -> str | None:
        whole = (_body(message, quiet=quiet, ttl_s=TTL_S_MAX) for quiet in (False, True))
        if (length := max(len(before) + len(after) for before, after in whole)) > PAYLOAD_BYTES_MAX:
            return f"the payload has {length:,} bytes of {PAYLOAD_BYTES_MAX:,}"
        return None

    def render(
        self, message: Message, addresses: Column, again: NDArray[np.bool_], *, now_ms: int, authorize: Authorize
    ) -> Requests:
        """Column 0 is the token. Template 0 rings, template 1 is quiet."""
        ttl_s = deadline_s(message.end_ms, now_ms, most_s=TTL_S_MAX)
        headers = ("content-type: application/json", f"authorization: {authorize(self._origin)}")
        templates = []
        for quiet in (False, True):
            before, after = _body(message, quiet=quiet, ttl_s=ttl_s)
            templates.append(Template(method="POST", url=(self._url,), headers=headers, body=(before, 0, after)))
        return Requests(
            templates=tuple(templates),
            columns=(addresses,),
            which=again.astype(np.uint16),
            usable=well_formed(addresses, _LETTERS, least=1, most=TOKEN_BYTES_MAX),
        )

    def interpret(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> Outcome:
        outcome = look_up(_MEANINGS, codes)
        for row, body in bodies.items():
            if (meaning := _particular(int(codes[row]), body)) is not None:
                outcome.event[row], outcome.reason[row] = meaning
        return outcome

    def dead_since_ms(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> Mapping[int, int]:
        return {}


def _particular(code: int, body: bytes) -> tuple[Event, Reason] | None:
    """What an error's body adds to its status."""
    words = set(_ERROR_CODE.findall(body))
    if code == 404 and b"UNREGISTERED" in words:
        return Event.REJECT, Reason.TOKEN_DEAD
    if code == 400 and b"INVALID_ARGUMENT" in words:
        bad_token = b"message.token" in body or b"registration token" in body
        return Event.REJECT, Reason.TOKEN_INVALID if bad_token else Reason.PAYLOAD
    if code == 401 and b"THIRD_PARTY_AUTH_ERROR" in words:
        return Event.REJECT, Reason.CREDENTIALS
    if code == 403 and b"SENDER_ID_MISMATCH" in words:
        return Event.REJECT, Reason.TOKEN_INVALID
    return None


def _body(message: Message, *, quiet: bool, ttl_s: int) -> tuple[bytes, bytes]:
    """The JSON body before and after the token."""
    collapse = f"action-{message.action}"
    shown = {"title": message.title, "body": message.text} | ({"image": message.image} if message.image else {})
    android = {
        "priority": "NORMAL" if quiet else "HIGH",
        "ttl": f"{ttl_s}s",
        "collapse_key": collapse,
        "notification": {"tag": collapse, "channel_id": "quiet" if quiet else message.kind},
    }
    data = {
        "action": str(message.action),
        "phase": str(message.phase),
        "name": message.name,
        "end_ms": str(message.end_ms),
        "quiet": "1" if quiet else "0",
    }
    whole = {"message": {"token": _MARK, "notification": shown, "data": data, "android": android}}
    before, mark, after = msgspec.json.encode(whole).partition(b'"\\u0000"')
    assert mark, "the token's mark is always in the body"
    return before + b'"', b'"' + after
