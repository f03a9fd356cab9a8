"""Telegram, Bot API: one channel (`@name`), to which a bot posts as an administrator.

Lore:

* `sendPhoto` takes picture and caption in one form (1,024 characters), `sendMessage` a text alone (4,096); both counted
  in UTF-16 code units, and sent without a parse mode, so that no character of a text is markup.
* A reply is `reply_parameters`; `allow_sending_without_reply`, since news is worth more than its place.
* The token stands in the path. Answers are `{"ok", "result": {"message_id"}}` or `{"ok": false, "error_code",
  "description", "parameters": {"retry_after"}}`, with the same number as HTTP status. 429 says how long in its body.
* No idempotency key: what may have been taken is never posted again.
* A bot may delete a message for 48 hours (`message can't be deleted` afterwards); one that is gone answers `message to
  delete not found`. The setting `social.remove_after_h` is best below that.
* About 20 messages a minute to one channel, 30 a second for a bot. A link exists for public channels only.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fanout.channels.answers import decoded
from fanout.channels.posts import NO_ROWS, Post, Posted, Upload, deleted, form, meaning_of
from fanout.channels.protocol import Answer, Call, Meaning, meanings
from fanout.store.states import Event, Reason

CAPTION_UNITS_MAX: Final = 1_024
TEXT_UNITS_MAX: Final = 4_096

_MEANINGS: Final = meanings({400: (Event.REJECT, Reason.PAYLOAD), 404: (Event.REJECT, Reason.CREDENTIALS)})
_OUR_RIGHTS: Final = (b"chat not found", b"administrator rights", b"not enough rights", b"bot is not a member")
_GONE: Final = b"message to delete not found"


class _Result(msgspec.Struct):
    message_id: Annotated[int, Meta(ge=1, le=2**53)]


class _Body(msgspec.Struct):
    ok: bool
    result: _Result


_ANSWER: Final = msgspec.json.Decoder(_Body)


class Telegram:
    """Renders and interprets for one channel."""

    network = "telegram"
    same_key_s = 0

    def __init__(self, *, url: str, credential: str, target: str) -> None:
        self._url = f"{url.rstrip('/')}/bot{credential}"
        self._target = target

    def fits(self, text: str, *, picture: bool) -> str | None:
        most = CAPTION_UNITS_MAX if picture else TEXT_UNITS_MAX
        if (length := len(text.encode("utf-16-le", "surrogatepass")) // 2) > most:
            return f"it has {length} characters of {most}" + (" beside a photo" if picture else "")
        return None

    def upload(self, post: Post, so_far: Upload, *, now_ms: int) -> Call | None:
        return None

    def uploaded(self, so_far: Upload, answer: Answer) -> Upload:
        return so_far

    def render(self, post: Post, media: str, *, now_ms: int) -> Call:
        reply: dict[str, object] = {}
        if post.reply_to:
            reply = {"message_id": int(post.reply_to), "allow_sending_without_reply": True}
        if not post.picture:
            whole: dict[str, object] = {"chat_id": self._target, "text": post.text}
            if reply:
                whole["reply_parameters"] = reply
            return self._call("sendMessage", "application/json", msgspec.json.encode(whole))
        fields = {"chat_id": self._target, "caption": post.text}
        if reply:
            fields["reply_parameters"] = msgspec.json.encode(reply).decode()
        return self._call("sendPhoto", *form(fields, "photo", post.picture))

    def interpret(self, answer: Answer) -> Posted:
        event, reason = _meaning(answer)
        if event is not Event.ACCEPT:
            return Posted(event, reason)
        said = decoded(_ANSWER, answer.body)
        if said is None or not said.ok:
            return Posted(Event.TIME_OUT, Reason.GARBAGE)
        number = said.result.message_id
        public = self._target.startswith("@")
        return Posted(event, reason, str(number), f"https://t.me/{self._target[1:]}/{number}" if public else "")

    def withdraw(self, post: str, *, now_ms: int) -> Call:
        body = msgspec.json.encode({"chat_id": self._target, "message_id": int(post)})
        return self._call("deleteMessage", "application/json", body)

    def withdrawn(self, answer: Answer) -> Meaning:
        if answer.code == 400 and _GONE in answer.body:
            return Event.ACCEPT, Reason.NONE
        meaning = _meaning(answer)
        return meaning if answer.code == 404 else deleted(meaning, answer.code)  # 404 is a wrong token here

    def _call(self, method: str, content: str, body: bytes) -> Call:
        return Call(
            method="POST", url=f"{self._url}/{method}", headers={"content-type": content}, body=body, index=NO_ROWS
        )


def _meaning(answer: Answer) -> Meaning:
    if answer.code == 400 and any(words in answer.body for words in _OUR_RIGHTS):
        return Event.REJECT, Reason.CREDENTIALS
    return meaning_of(_MEANINGS, answer.code)
