"""OAuth 1.0a (RFC 5849), HMAC-SHA1: how a server signs for one account of X with keys that do not end.

Only what is needed: no callbacks, no bodies in the signature (JSON and multipart bodies are not signed, by the RFC).
The nonce is derived from what is signed and the moment, so that nothing here is random; two calls in one millisecond
have different addresses or bodies, and those are in the nonce.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit


class Keys(NamedTuple):
    """Of the application (`consumer`) and of the account (`token`)."""

    consumer_key: str
    consumer_secret: str
    token: str
    token_secret: str


def authorization(keys: Keys, method: str, url: str, *, body: bytes, now_ms: int) -> str:
    """The `Authorization` header of one call whose body is not signed."""
    nonce = hashlib.sha256(f"{method} {url} {now_ms} ".encode() + body).hexdigest()[:32]
    return signed(keys, method, url, nonce=nonce, timestamp_s=now_ms // 1000)


def signed(
    keys: Keys, method: str, url: str, *, nonce: str, timestamp_s: int, form: Mapping[str, str] | None = None
) -> str:
    """As `authorization`, with a given nonce; `form`: fields of an urlencoded body."""
    ours = {
        "oauth_consumer_key": keys.consumer_key,
        "oauth_nonce": nonce,
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": str(timestamp_s),
        "oauth_token": keys.token,
        "oauth_version": "1.0",
    }
    parts = urlsplit(url)
    pairs = [*ours.items(), *parse_qsl(parts.query, keep_blank_values=True), *(form or {}).items()]
    words = "&".join(f"{key}={value}" for key, value in sorted((_escaped(k), _escaped(v)) for k, v in pairs))
    bare = f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"
    text = "&".join((method.upper(), _escaped(bare), _escaped(words)))
    key = f"{_escaped(keys.consumer_secret)}&{_escaped(keys.token_secret)}"
    ours["oauth_signature"] = base64.b64encode(hmac.digest(key.encode(), text.encode(), "sha1")).decode()
    return "OAuth " + ", ".join(f'{_escaped(name)}="{_escaped(value)}"' for name, value in sorted(ours.items()))


def _escaped(text: str) -> str:
    return quote(text, safe="-._~")
