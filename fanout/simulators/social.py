"""X, Mastodon and Telegram as they answer: posts, pictures, replies, deletions; one part of the simulated providers.

Paths, bodies and statuses are the networks' own, each behind any credential; an account is known by its credential (on
Telegram by its channel). What was posted, on which post it hangs, which picture came with it and when it was removed is
told by `GET /_posts`, in the order of arrival.

* X refuses the text that the same account posted before (403, duplicate content); its 429 has `x-rate-limit-reset`.
* Mastodon answers a key it has seen with the status of then; a picture is at work (202, 206) until asked twice.
* Telegram's 429 says in its body how long; it deletes its own messages only.

Moods are those of `moods.py`, by network. `hang` and `garbage` are taken and posted all the same; `broken` is a 500
that did nothing. Posts of several workers are put together when somebody asks; a deletion may reach another worker than
the post did.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Sequence
from email import message_from_bytes
from email.policy import HTTP
from typing import Any, Final

import msgspec

from fanout.simulators.moods import Dice, Mood

Headers = list[tuple[str, str]]
Reply = tuple[int, Headers, bytes]

CAPTION_UNITS_MAX: Final = 1_024
TEXT_UNITS_MAX: Final = 4_096
CHARS_MAX: Final = 500
X_CHARS_MAX: Final = 280

_JSON: Final[Headers] = [("content-type", "application/json")]
_PATHS: Final = re.compile(r"/(?:(2/(?:tweets|media/upload))|(api/v[12]/(?:statuses|media))|(bot[^/]+/\w+))(?:/(\w+))?")
_OAUTH_TOKEN: Final = re.compile(r'oauth_token="([^"]*)"')
_NETWORKS: Final = ("x", "mastodon", "telegram")


class Entry(msgspec.Struct, kw_only=True):
    """One post. `photo`: the SHA-256 of its picture; `again`: how often the network was asked for it again."""

    network: str
    account: str
    id: str
    text: str
    at_ms: int
    reply_to: str = ""
    photo: str = ""
    again: int = 0
    removed_ms: int | None = None


class Part(msgspec.Struct):
    """What one worker knows: its posts, and removals of posts by id."""

    posts: list[Entry]
    removals: dict[str, int]


def network_of(path: str) -> str | None:
    """Which network an address belongs to."""
    found = _PATHS.fullmatch(path)
    return None if found is None else _NETWORKS[next(n for n in range(3) if found[n + 1])]


def together(parts: Sequence[Part]) -> list[Entry]:
    """All posts of all workers, in the order of arrival."""
    removals = {post: at_ms for part in parts for post, at_ms in part.removals.items()}
    posts = [entry for part in parts for entry in part.posts]
    for entry in posts:
        entry.removed_ms = removals.get(f"{entry.network} {entry.id}")
    return sorted(posts, key=lambda entry: entry.at_ms)


class Networks:
    """One worker's part of the three networks. `alone`: there is no other worker whose posts it might not know."""

    def __init__(self, *, number: int = 0, alone: bool = True) -> None:
        self._next = 1_000_000 * (number + 1)
        self._alone = alone
        self._dice = {name: Dice() for name in _NETWORKS}
        self.totals: Counter[str] = Counter()
        self.clear()

    def clear(self) -> None:
        """Forget everything but which ids were given."""
        self._posts: dict[str, Entry] = {}
        self._removals: dict[str, int] = {}
        self._keys: dict[str, Entry] = {}
        self._pictures: dict[str, str] = {}
        self._asked: Counter[str] = Counter()

    def part(self) -> Part:
        """What this worker knows."""
        return Part(list(self._posts.values()), dict(self._removals))

    def answer(self, method: str, path: str, query: str, headers: Any, body: bytes, mood: Mood) -> Reply:
        """One request of a network; a negative status is answered late, or never, as `Providers` does."""
        found = _PATHS.fullmatch(path)
        assert found is not None
        network = network_of(path)
        assert network is not None
        self.totals[network] += 1
        dice = self._dice[network]
        if mood.quota_per_s and dice.over(mood.quota_per_s, time.monotonic()):
            return _slow_down(network, mood.retry_after_s)
        for name, share, status in (("storm", mood.storm, 503), ("broken", mood.broken, 500)):
            if dice.hit(name, share):
                return status, _JSON, _error(network, status, "Something went wrong")
        if dice.hit("redirect", mood.redirect):
            return 302, [("location", "https://example.invalid/")], b""
        if dice.hit("refuse", mood.refuse):
            return 403, _JSON, _error(network, 403, "Forbidden")
        content = headers.get("content-type") or ""
        shown = headers.get("authorization") or ""
        token = _OAUTH_TOKEN.search(shown)
        who = hashlib.sha256((token[1] if token else shown).encode()).hexdigest()[:8]
        try:
            if network == "x":
                reply = self._x(method, found[1], found[4], who, content, body)
            elif network == "mastodon":
                reply = self._mastodon(method, found[2], found[4], who, headers, content, body)
            else:
                reply = self._telegram(found[3].partition("/")[2], content, body)
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            return 400, _JSON, _error(network, 400, "Bad Request: it makes no sense")
        if dice.hit("garbage", mood.garbage):
            return 200, _JSON, b"\x00\xff not json {"
        if dice.hit("hang", mood.hang):
            return -1, [], b""
        return (-mood.slow_ms - 1, reply[1], reply[2]) if dice.hit("slow", mood.slow) else reply

    # --- the three --------------------------------------------------------------------------------------------------

    def _x(self, method: str, what: str, which: str | None, who: str, content: str, body: bytes) -> Reply:
        if method == "DELETE" and which:
            return (200, _JSON, b'{"data":{"deleted":true}}') if self._remove("x", which) else _missing("x")
        if what == "2/media/upload":
            picture = self._keep(_fields(content, body)["media"])
            return 200, _JSON, msgspec.json.encode({"data": {"id": picture, "media_key": f"3_{picture}"}})
        asked = msgspec.json.decode(body, type=dict[str, Any])
        text = str(asked["text"])
        if not text or len(text) > X_CHARS_MAX * 2:
            return 400, _JSON, _error("x", 400, "Your post is empty or too long")
        if any(e.text == text and (e.network, e.account) == ("x", who) for e in self._posts.values()):
            return 403, _JSON, _error("x", 403, "You are not allowed to create a Tweet with duplicate content.")
        pictures = asked.get("media", {}).get("media_ids", [""])
        reply_to = str(asked.get("reply", {}).get("in_reply_to_tweet_id", ""))
        entry = self._post("x", who, text, reply_to, pictures[0])
        return 201, _JSON, msgspec.json.encode({"data": {"id": entry.id, "text": text}})

    def _mastodon(
        self, method: str, what: str, which: str | None, who: str, headers: Any, content: str, body: bytes
    ) -> Reply:
        if what.endswith("media"):
            if method == "POST":
                picture = self._keep(_fields(content, body)["file"])
                return 202, _JSON, msgspec.json.encode({"id": picture, "type": "image", "url": None})
            if not self._knows(str(which)):
                return _missing("mastodon")
            self._asked[str(which)] += 1
            return 206 if self._asked[str(which)] < 2 else 200, _JSON, msgspec.json.encode({"id": which, "url": None})
        if method == "DELETE" and which:
            return (200, _JSON, b"{}") if self._remove("mastodon", which) else _missing("mastodon")
        asked = msgspec.json.decode(body, type=dict[str, Any])
        key = f"{who} {headers.get('idempotency-key')}"
        entry = self._keys.get(key) if headers.get("idempotency-key") else None
        if entry is not None:
            entry.again += 1
        else:
            pictures = asked.get("media_ids", [""])
            if pictures[0] and self._alone and self._asked[pictures[0]] < 2:
                return 422, _JSON, _error("mastodon", 422, "Cannot attach files that have not finished processing")
            if len(asked["status"]) > CHARS_MAX * 2:
                return 422, _JSON, _error("mastodon", 422, "Validation failed: Text character limit exceeded")
            entry = self._post("mastodon", who, asked["status"], str(asked.get("in_reply_to_id", "")), pictures[0])
            self._keys[key] = entry
        url = f"https://mastodon.invalid/@{who}/{entry.id}"
        return 200, _JSON, msgspec.json.encode({"id": entry.id, "url": url, "content": entry.text})

    def _telegram(self, method: str, content: str, body: bytes) -> Reply:
        if method == "sendPhoto":
            fields = _fields(content, body)
            asked = {name: fields[name].decode() for name in ("chat_id", "caption") if name in fields}
            reply = msgspec.json.decode(fields.get("reply_parameters", b"{}"), type=dict[str, Any])
            text, most, picture = asked.get("caption", ""), CAPTION_UNITS_MAX, self._keep(fields["photo"])
            chat = asked["chat_id"]
        else:
            whole = msgspec.json.decode(body, type=dict[str, Any])
            chat, reply = str(whole["chat_id"]), whole.get("reply_parameters", {})
            if method == "deleteMessage":
                if self._remove("telegram", str(whole["message_id"])):
                    return 200, _JSON, b'{"ok":true,"result":true}'
                return 400, _JSON, _error("telegram", 400, "Bad Request: message to delete not found")
            text, most, picture = str(whole["text"]), TEXT_UNITS_MAX, ""
        if len(text.encode("utf-16-le")) // 2 > most:
            return 400, _JSON, _error("telegram", 400, "Bad Request: message is too long")
        entry = self._post("telegram", chat, text, str(reply.get("message_id", "")), picture)
        message = {"message_id": int(entry.id), "chat": {"username": chat.lstrip("@")}, "text": text}
        return 200, _JSON, msgspec.json.encode({"ok": True, "result": message})

    # --- what is known ------------------------------------------------------------------------------------------------

    def _number(self) -> str:
        self._next += 1
        return str(self._next)

    def _keep(self, picture: bytes) -> str:
        if not picture.startswith(b"\xff\xd8"):
            raise ValueError("no JPEG")
        name = self._number()
        self._pictures[name] = hashlib.sha256(picture).hexdigest()
        return name

    def _knows(self, picture: str) -> bool:
        return picture in self._pictures or not self._alone

    def _post(self, network: str, account: str, text: str, reply_to: str, picture: str) -> Entry:
        if picture and not self._knows(picture):
            raise ValueError("no such picture")
        entry = Entry(
            network=network,
            account=account,
            id=self._number(),
            text=text,
            at_ms=time.time_ns() // 1_000_000,
            reply_to=reply_to,
            photo=self._pictures.get(picture, ""),
        )
        self._posts[f"{network} {entry.id}"] = entry
        return entry

    def _remove(self, network: str, post: str) -> bool:
        key = f"{network} {post}"
        known = key in self._posts or not self._alone
        if not known or key in self._removals:
            return False
        self._removals[key] = time.time_ns() // 1_000_000
        return True


def _fields(content: str, body: bytes) -> dict[str, bytes]:
    """The fields of a form."""
    whole = message_from_bytes(f"content-type: {content}\r\n\r\n".encode() + body, policy=HTTP)
    fields: dict[str, bytes] = {}
    for part in whole.walk():
        value = part.get_payload(decode=True)
        if isinstance(value, bytes):
            fields[str(part.get_param("name", header="content-disposition"))] = value
    return fields


def _slow_down(network: str, seconds: int) -> Reply:
    if network == "telegram":
        whole = {
            "ok": False,
            "error_code": 429,
            "description": "Too Many Requests",
            "parameters": {"retry_after": seconds},
        }
        return 429, _JSON, msgspec.json.encode(whole)
    at_s = int(time.time()) + seconds
    if network == "x":
        return 429, [*_JSON, ("x-rate-limit-reset", str(at_s))], _error(network, 429, "Too Many Requests")
    reset = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at_s))
    return 429, [*_JSON, ("x-ratelimit-reset", reset)], _error(network, 429, "Throttled")


def _missing(network: str) -> Reply:
    return 404, _JSON, _error(network, 404, "Not Found")


def _error(network: str, code: int, words: str) -> bytes:
    if network == "telegram":
        return msgspec.json.encode({"ok": False, "error_code": code, "description": words})
    return msgspec.json.encode({"error": words} if network == "mastodon" else {"detail": words, "status": code})
