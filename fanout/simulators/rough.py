"""What a mood does to a connection, beside or instead of an answer: GOAWAY, streams refused or reset, half answers.

Which request a fault strikes is decided once it is whole, before it is taken; what was not taken (`goaway`, `shed`) is
not seen, so whoever asks `/_seen` is told the truth. What was taken is answered as ever, and the answer is what breaks.
Over HTTP/1.1 there are no streams: `goaway` and `shed` end the connection before the request is taken, `reset` and
`drop` after it, and `streams` says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from fanout.simulators import social
from fanout.simulators.moods import ROUGH, Dice, Moods
from fanout.simulators.replies import Headers

_NOT_TAKEN: Final = ("goaway", "shed")
_STRIKES: Final = tuple(name for name in ROUGH if name != "streams")


class Reply(Protocol):
    """How a request is answered, once: by calling it, or by one of its faults."""

    def __call__(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer."""

    def go_away(self) -> bool:
        """This request and what comes after it are not taken; False if that can no longer be said."""

    def shed(self) -> None:
        """This request is not taken."""

    def reset(self) -> None:
        """No answer: the stream ends with an error."""

    def drop(self) -> None:
        """No answer: the connection ends without a word."""

    def half(self, status: int, headers: Headers) -> None:
        """A head that promises a body, then the connection ends."""

    def endless(self, status: int, headers: Headers) -> None:
        """A body without an end."""

    def streams(self, most: int) -> None:
        """So many requests may be open from now on; 0: as many as usual."""


Respond = Callable[[int, Headers, bytes], None]


def channel_of(path: str, headers: dict[str, str]) -> str | None:
    """Whose request it is, None for a question about the simulators."""
    if (network := social.network_of(path)) is not None:
        return network
    if path.startswith("/3/device/"):
        return "apns"
    if path.endswith("/messages:send"):
        return "fcm"
    if path.startswith("/push/"):
        return "webpush"
    if path == "/v1.0/message":
        return "sms_second" if headers.get("x-cm-producttoken", "").endswith("second") else "sms"
    if path.startswith("/voiceapi/"):
        return "voice"
    return "whatsapp" if path.endswith("/messages") else None


def struck(moods: Moods, dice: dict[str, Dice], channel: str, reply: Reply) -> Respond | None:
    """How a request is to be answered as its channel's mood has it; None if it is not to be taken."""
    mood = getattr(moods, channel)
    faults = [name for name in _STRIKES if dice[channel].hit(name, getattr(mood, name))]
    fault = faults[0] if faults else None
    reply.streams(mood.streams)
    if fault == "goaway" and not reply.go_away():
        fault = None
    elif fault == "shed":
        reply.shed()
    return None if fault in _NOT_TAKEN else _broken(fault, reply)


def _broken(fault: str | None, reply: Reply) -> Respond:
    """Answers, but for the fault."""

    def respond(status: int, headers: Headers, body: bytes) -> None:
        match fault:
            case "reset":
                reply.reset()
            case "drop":
                reply.drop()
            case "half":
                reply.half(status, headers)
            case "endless":
                reply.endless(status, headers)
            case _:
                reply(status, headers, body)

    return respond
