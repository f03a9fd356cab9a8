"""X, API v2: one account, posts with a picture, replies, deletions.

Lore:

* `POST /2/tweets {"text", "media": {"media_ids"}, "reply": {"in_reply_to_tweet_id"}}`, 201 with `data.id`.
* 280 weighted characters (twitter-text, config v3): Latin and its neighbours count 1, everything else 2, an emoji 2
  however many code points it has, a link 23 however long it is (`links.py` says where one ends). A bare domain may
  become a link too, so it counts 23 where that is more.
* A picture goes first: `POST /2/media/upload` as a form with `media_category=tweet_image`, at most 5 MB, good for a
  day. The chunked way (initialize, append, finalize) is for video. An answer with `processing_info` is asked about
  until it says `succeeded`.
* 100 posts in 15 minutes and user, and a quota a day on top. 429 has no Retry-After: `x-rate-limit-reset` says when the
  window ends, and `x-user-limit-24hour-reset` counts when the day is used up (`retry_after.py` reads both).
* There is no idempotency key. The same text twice is refused (403, `duplicate content`), but not told which post it is,
  and not for long: what may have been taken is never posted again, it stays unknown.
* Keys: OAuth 1.0a with four words does not end. One word is taken for an OAuth 2 user token, which ends after two hours
  unless somebody outside renews it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fanout.channels import links, oauth1
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

WEIGHT_MAX: Final = 280

_LIGHT: Final = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))  # code points that count 1
_EMOJI: Final = re.compile(
    "[\U0001f1e6-\U0001f1ff]{2}"
    "|[0-9#*]\ufe0f?\u20e3"
    "|(?:[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff][\ufe0f\U0001f3fb-\U0001f3ff]?)"
    "(?:\u200d[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff][\ufe0f\U0001f3fb-\U0001f3ff]?)*"
)
_MEANINGS: Final = meanings({400: (Event.REJECT, Reason.PAYLOAD), 404: (Event.REJECT, Reason.PROVIDER)})


class _Processing(msgspec.Struct):
    state: str = "pending"
    check_after_secs: Annotated[float, Meta(ge=0, le=3_600)] = 1.0


class _Data(msgspec.Struct):
    id: PostId
    processing_info: _Processing | None = None


class _Body(msgspec.Struct):
    data: _Data


_ANSWER: Final = msgspec.json.Decoder(_Body)


class X:
    """Renders and interprets for one account."""

    network = "x"
    same_key_s = 0

    def __init__(self, *, url: str, credential: str) -> None:
        self._url = url.rstrip("/")
        words = credential.split()
        self._bearer = f"Bearer {words[0]}" if len(words) == 1 else ""
        self._keys = oauth1.Keys(*words) if len(words) == 4 else None

    def fits(self, text: str, *, picture: bool) -> str | None:
        if (length := weight(text)) > WEIGHT_MAX:
            return f"it has {length} weighted characters of {WEIGHT_MAX}"
        return None

    def upload(self, post: Post, so_far: Upload, *, now_ms: int) -> Call | None:
        if not post.picture or so_far.ready:
            return None
        if so_far.media:
            return self._call("GET", f"/2/media/upload?command=STATUS&media_id={so_far.media}", "", b"", now_ms)
        content, body = form({"media_category": "tweet_image", "media_type": "image/jpeg"}, "media", post.picture)
        return self._call("POST", "/2/media/upload", content, body, now_ms)

    def uploaded(self, so_far: Upload, answer: Answer) -> Upload:
        said = decoded(_ANSWER, answer.body) if 200 <= answer.code < 300 else None
        if said is None:
            return so_far._replace(refused=_refusal(answer))
        processing = said.data.processing_info
        if processing is None or processing.state == "succeeded":
            return Upload(media=said.data.id, ready=True)
        if processing.state == "failed":
            return so_far._replace(refused=(Event.REJECT, Reason.PAYLOAD))
        return Upload(media=said.data.id, wait_s=processing.check_after_secs)

    def render(self, post: Post, media: str, *, now_ms: int) -> Call:
        whole: dict[str, object] = {"text": post.text}
        if media:
            whole["media"] = {"media_ids": [media]}
        if post.reply_to:
            whole["reply"] = {"in_reply_to_tweet_id": post.reply_to}
        return self._call("POST", "/2/tweets", "application/json", msgspec.json.encode(whole), now_ms)

    def interpret(self, answer: Answer) -> Posted:
        event, reason = _meaning(answer)
        if event is not Event.ACCEPT:
            return Posted(event, reason)
        said = decoded(_ANSWER, answer.body)
        if said is None:
            return Posted(Event.TIME_OUT, Reason.GARBAGE)
        return Posted(event, reason, said.data.id, f"https://x.com/i/status/{said.data.id}")

    def withdraw(self, post: str, *, now_ms: int) -> Call:
        return self._call("DELETE", f"/2/tweets/{post}", "", b"", now_ms)

    def withdrawn(self, answer: Answer) -> Meaning:
        return deleted(_meaning(answer), answer.code)

    def _call(self, method: str, path: str, content: str, body: bytes, now_ms: int) -> Call:
        url = self._url + path
        shown = self._bearer
        if self._keys is not None:
            shown = oauth1.authorization(self._keys, method, url, body=body, now_ms=now_ms)
        headers = {"authorization": shown} | ({"content-type": content} if content else {})
        return Call(method=method, url=url, headers=headers, body=body, index=NO_ROWS)


def weight(text: str) -> int:
    """The weighted length of a text."""
    return links.length(unicodedata.normalize("NFC", text), links.X, _without_schemes)


def _without_schemes(text: str) -> int:
    """The weight of a text without links that say they are some; a bare name counts as a link where that is more."""
    names = [_letters(text[one.begin : one.end]) for one in links.bare(text, links.X)]
    return _letters(text) + sum(max(0, links.LINK_CHARS - one) for one in names)


def _letters(text: str) -> int:
    rest, emoji = _EMOJI.subn("", text)
    light = sum(any(low <= ord(letter) <= high for low, high in _LIGHT) for letter in rest)
    return 2 * emoji + 2 * len(rest) - light


def _meaning(answer: Answer) -> Meaning:
    if answer.code == 403 and b"duplicate content" in answer.body:
        return Event.REJECT, Reason.PAYLOAD
    return meaning_of(_MEANINGS, answer.code)


def _refusal(answer: Answer) -> Meaning:
    """Of an upload: what is unknown may be done again."""
    event, reason = _meaning(answer)
    if event is Event.REJECT:
        return event, reason
    return Event.RETRY, reason if event is not Event.ACCEPT else Reason.GARBAGE
