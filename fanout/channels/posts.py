"""What a social network is: pure functions from a post to a call, and from its answer to an outcome.

A post reaches nobody in particular: it is one per *account* and action, with an id of its own that a reply or a
deletion needs later. So it has a protocol of its own beside those of `protocol.py`, with the same rules (pure; a
definite event for every answer; what may have been taken is `TIME_OUT`, never `RETRY`; nothing is cut), and these:

1. A picture is uploaded first, in as many calls as the network wants: `upload` gives the next call, `uploaded` takes
   its answer. An upload shows nothing to anybody, so it may be done again. A network that takes picture and text in one
   call uploads nothing.
2. `render` makes the one call that is seen. Between it and its answer the outcome is unknown; only a network that knows
   `Post.key` again (`same_key_s` above 0: for so many seconds) may be asked a second time.
3. What a network says of itself (ids, addresses) goes into later calls and into answers of ours, so it is checked when
   it is read; an id that could change a path is garbage.
4. A deletion may be repeated without harm, so it is never unknown; what is gone already is deleted.

Credentials stand in headers, or in the path where the network wants them there: calls are never logged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple, Protocol

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fanout.channels.protocol import Answer, Call, Meaning, look_up
from fanout.store.states import Event, Reason

PostId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
NO_ROWS: Final = np.zeros(0, np.intp)


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """One post. `key` is its own for ever; `reply_to`: an id of the network; `picture`: a JPEG; `alt` describes it."""

    key: str
    text: str
    language: str
    reply_to: str = ""
    picture: bytes = b""
    alt: str = ""


class Upload(NamedTuple):
    """How far a picture is. `media`: its id at the network; `refused`: why it got no further, and for how long."""

    media: str = ""
    ready: bool = False
    refused: Meaning | None = None
    wait_s: float = 0.0


class Posted(NamedTuple):
    """What became of a post; `post` and `url` when it was taken, `url` empty where the network tells none."""

    event: Event
    reason: Reason
    post: str = ""
    url: str = ""


class PostChannel(Protocol):
    """One account of one network."""

    network: str
    same_key_s: int

    def fits(self, text: str, *, picture: bool) -> str | None:
        """None, or why the network cannot carry the text."""

    def upload(self, post: Post, so_far: Upload, *, now_ms: int) -> Call | None:
        """The next call for the picture, None when there is nothing (more) to upload."""

    def uploaded(self, so_far: Upload, answer: Answer) -> Upload: ...

    def render(self, post: Post, media: str, *, now_ms: int) -> Call: ...

    def interpret(self, answer: Answer) -> Posted: ...

    def withdraw(self, post: str, *, now_ms: int) -> Call: ...

    def withdrawn(self, answer: Answer) -> Meaning:
        """`ACCEPT`: it is gone; `RETRY`: ask again; `REJECT`: it stays."""


def said(title: str, text: str) -> str:
    """The text of a post: the title stands above it."""
    return f"{title}\n{text}" if title else text


def meaning_of(table: NDArray[np.uint8], code: int) -> Meaning:
    """One code by a table of `protocol.meanings`."""
    outcome = look_up(table, np.array([code], np.int16))
    return Event(int(outcome.event[0])), Reason(int(outcome.reason[0]))


def deleted(meaning: Meaning, code: int) -> Meaning:
    """What the answer to a deletion means, which may be repeated: gone is good, unknown is asked again."""
    event, reason = meaning
    if code in (404, 410):
        return Event.ACCEPT, Reason.NONE
    return (Event.RETRY, reason) if event is Event.TIME_OUT else (event, reason)


def form(fields: Mapping[str, str], name: str, file: bytes) -> tuple[str, bytes]:
    """(content type, body) of a form with a JPEG in it (RFC 7578). The boundary is made from what it parts."""
    whole = hashlib.sha256(file)
    whole.update(repr(sorted(fields.items())).encode())
    boundary = f"fanout{whole.hexdigest()[:40]}"
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"; filename="photo.jpg"\r\n'
        "content-type: image/jpeg\r\n\r\n"
    )
    body = b"".join((*parts, head.encode(), file, f"\r\n--{boundary}--\r\n".encode()))
    return f"multipart/form-data; boundary={boundary}", body
