"""Whether a push provider answers like itself: asked once, before the first action. Pure.

The bulk lane takes a 200 of FCM or APNs at its word: it drops what follows, since reading 35,000 bodies a second would
cost more than sending them. A wrong address, a gateway or a portal that answers 200 with a page of its own to anything
would then look like a provider that takes everything. So each is asked something it must refuse in its own words:

* FCM: a message without a recipient, `validate_only`. It answers JSON with an `error` that has a `status`.
* APNs: a device by GET. It answers JSON with a `reason` (`MethodNotAllowed`).

Neither delivers anything, nor counts against a device. What they say about our credentials is told as well.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fanout.channels.answers import decoded
from fanout.channels.posts import NO_ROWS
from fanout.channels.protocol import NO_CONNECTION, Answer, Authorize, Call

Word = Annotated[str, Meta(pattern=r"^[A-Za-z_]{1,60}\Z")]


class _FcmError(msgspec.Struct):
    status: Word


class _FcmBody(msgspec.Struct):
    error: _FcmError


class _ApnsBody(msgspec.Struct):
    reason: Word


_FCM: Final = msgspec.json.Decoder(_FcmBody)
_APNS: Final = msgspec.json.Decoder(_ApnsBody)
_OUR_KEY: Final = (401, 403)

GREETED: Final = ("fcm", "apns")
"""Channels whose 200 is taken at its word."""


def fcm_question(url: str, project: str, authorize: Authorize) -> Call:
    """A message to nobody, which FCM must refuse."""
    origin = url.rstrip("/")
    headers = {"content-type": "application/json", "authorization": authorize(origin)}
    body = b'{"validate_only":true,"message":{}}'
    return Call(
        method="POST", url=f"{origin}/v1/projects/{project}/messages:send", headers=headers, body=body, index=NO_ROWS
    )


def apns_question(url: str, authorize: Authorize) -> Call:
    """A device that is asked for, not told, which APNs must refuse."""
    origin = url.rstrip("/")
    headers = {"authorization": authorize(origin)}
    return Call(method="GET", url=f"{origin}/3/device/{'0' * 64}", headers=headers, body=b"", index=NO_ROWS)


def doubt(name: str, answer: Answer) -> str | None:
    """None where a provider answered its question like itself, or why there is doubt, as a clause."""
    if answer.code < 0:
        unreached = "it cannot be reached, or its certificate is not of the authority that `ca` names"
        return unreached if answer.code == NO_CONNECTION else "it gave no whole answer"
    word = _word(name, answer.body)
    if word is None:
        kind = answer.headers.get("content-type", "no type")[:60]
        return f"it answered {answer.code} with {kind!r}, which is not how this provider answers: is the address right?"
    if answer.code in _OUR_KEY:
        return f"it does not accept our credentials ({answer.code} {word})"
    if answer.code < 300:
        return f"it took what it must refuse ({answer.code} {word})"
    return f"it does not know the project ({answer.code} {word})" if (name, answer.code) == ("fcm", 404) else None


def _word(name: str, body: bytes) -> str | None:
    """What a provider says in its own form, None if this is not its form."""
    if name == "fcm":
        refused = decoded(_FCM, body)
        return None if refused is None else refused.error.status
    said = decoded(_APNS, body)
    return None if said is None else said.reason
