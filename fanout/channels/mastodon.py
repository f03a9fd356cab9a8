"""Mastodon: one account on one server, statuses with a picture, replies, deletions.

Lore:

* `POST /api/v1/statuses {"status", "media_ids", "in_reply_to_id", "language", "visibility"}`; the answer has `id` and
  `url`. `Idempotency-Key` makes a repetition the same status: the server remembers a key for an hour, so that is how
  long a status whose outcome is unknown may be sent again.
* 500 characters; a link counts 23 (`links.py` says where one ends), a mention less than it is long, which we do not
  count on. Servers may allow more, and we do not ask them: what fits everywhere fits.
* The picture goes first, `POST /api/v2/media`, with its description. 202 means it is still at work: `GET
  /api/v1/media/{id}` answers 206 until it is done, and a status with an unfinished picture is refused (422).
* 300 calls in five minutes and account; 429 with `X-RateLimit-Reset`, a date.
* A deletion spreads to other servers as well as these obey; `404` is gone already.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fanout.channels import links
from fanout.channels.answers import decoded
from fanout.channels.posts import (
    NO_ROWS,
    Post,
    Posted,
    PostId,
    Upload,
    deleted,
    form,
    meaning_of,
)
from fanout.channels.protocol import Answer, Call, Meaning, meanings
from fanout.store.states import Event, Reason

CHARS_MAX: Final = 500
DESCRIPTION_CHARS_MAX: Final = 1_500
PROCESSING_S: Final = 1.0  # between two questions about a picture

_MEANINGS: Final = meanings(
    {
        400: (Event.REJECT, Reason.PAYLOAD),
        404: (Event.REJECT, Reason.PROVIDER),
        422: (Event.REJECT, Reason.PAYLOAD),
    }
)


class _Status(msgspec.Struct):
    """A status or a picture; what we do not read is left out."""

    id: PostId
    url: Annotated[str, Meta(max_length=2_048)] | None = None


_STATUS: Final = msgspec.json.Decoder(_Status)


class Mastodon:
    """Renders and interprets for one account."""

    network = "mastodon"
    same_key_s = 3_600

    def __init__(self, *, url: str, credential: str) -> None:
        self._url = url.rstrip("/")
        self._authorization = f"Bearer {credential}"

    def fits(self, text: str, *, picture: bool) -> str | None:
        if (length := links.length(text, links.MASTODON)) > CHARS_MAX:
            return f"it has {length} characters of {CHARS_MAX}"
        return None

    def upload(self, post: Post, so_far: Upload, *, now_ms: int) -> Call | None:
        if not post.picture or so_far.ready:
            return None
        if so_far.media:
            return self._call("GET", f"/api/v1/media/{so_far.media}", {}, b"")
        content, body = form({"description": post.alt[:DESCRIPTION_CHARS_MAX]}, "file", post.picture)
        return self._call("POST", "/api/v2/media", {"content-type": content}, body)

    def uploaded(self, so_far: Upload, answer: Answer) -> Upload:
        said = decoded(_STATUS, answer.body) if 200 <= answer.code < 300 else None
        if said is None:
            event, reason = meaning_of(_MEANINGS, answer.code)
            refused = (event, reason) if event is Event.REJECT else (Event.RETRY, reason or Reason.GARBAGE)
            return so_far._replace(refused=refused)
        at_work = answer.code in (202, 206)
        return Upload(media=said.id, ready=not at_work, wait_s=PROCESSING_S if at_work else 0.0)

    def render(self, post: Post, media: str, *, now_ms: int) -> Call:
        whole: dict[str, object] = {
            "status": post.text,
            "language": post.language.partition("-")[0],
            "visibility": "public",
        }
        if media:
            whole["media_ids"] = [media]
        if post.reply_to:
            whole["in_reply_to_id"] = post.reply_to
        headers = {"content-type": "application/json", "idempotency-key": post.key}
        return self._call("POST", "/api/v1/statuses", headers, msgspec.json.encode(whole))

    def interpret(self, answer: Answer) -> Posted:
        event, reason = meaning_of(_MEANINGS, answer.code)
        if event is not Event.ACCEPT:
            return Posted(event, reason)
        said = decoded(_STATUS, answer.body)
        if said is None:
            return Posted(Event.TIME_OUT, Reason.GARBAGE)
        url = said.url or ""
        return Posted(event, reason, said.id, url if url.startswith("https://") else "")

    def withdraw(self, post: str, *, now_ms: int) -> Call:
        return self._call("DELETE", f"/api/v1/statuses/{post}", {}, b"")

    def withdrawn(self, answer: Answer) -> Meaning:
        return deleted(meaning_of(_MEANINGS, answer.code), answer.code)

    def _call(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Call:
        return Call(
            method=method,
            url=self._url + path,
            headers={"authorization": self._authorization} | headers,
            body=body,
            index=NO_ROWS,
        )
