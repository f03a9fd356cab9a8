"""Encryption of Web Push messages: RFC 8291 over RFC 8188 (`aes128gcm`), one record, one subscription at a time.

Per subscription: a key pair of our own, ECDH with the browser's key, HKDF twice, AES-128-GCM once. That is about a
tenth of a millisecond, nearly all of it in P-256, so this is what bounds Web Push and not the network.

    ikm    = HKDF(salt = auth, ECDH(ours, theirs), "WebPush: info" 0 theirs ours, 32)
    key    = HKDF(salt, ikm, "Content-Encoding: aes128gcm" 0, 16)      nonce = HKDF(salt, ikm, "... nonce" 0, 12)
    record = salt | record size | 65 | ours | AES-GCM(key, nonce, text 2)

Our key pair is new for each message, as the RFC wants it: two messages under one pair and one salt would share a key
stream. The two HKDF outputs are at most 32 bytes, so each expansion is one HMAC; they are written out, because calling
the general function costs more than the hashing.

Randomness is an argument, so that the RFC's own example is a test and rendering stays a function.
"""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fanout.channels.jwt import point

SALT_BYTES: Final = 16
AUTH_BYTES: Final = 16
RECORD_BYTES: Final = 4_096  # what every push service takes
PLAIN_BYTES_MAX: Final = (
    RECORD_BYTES - 16 - 1 - 86
)  # less tag, delimiter and header, so that all is one record of 4,096

_CURVE: Final = ec.SECP256R1()
_ECDH: Final = ec.ECDH()
_KEY_INFO: Final = b"Content-Encoding: aes128gcm\x00\x01"
_NONCE_INFO: Final = b"Content-Encoding: nonce\x00\x01"


class Subscriber(NamedTuple):
    """A browser's keys: its public point (65 bytes) and its secret (16 bytes)."""

    point: bytes
    auth: bytes


def encrypt(plain: bytes, to: Subscriber, *, salt: bytes, ours: ec.EllipticCurvePrivateKey) -> bytes:
    """One encrypted body. Errors: `ValueError` if the subscriber's point is not on the curve."""
    assert len(plain) <= PLAIN_BYTES_MAX
    mine = point(ours)
    key, nonce = _keys(ours, ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, to.point), to, mine, salt)
    sealed = AESGCM(key).encrypt(nonce, plain + b"\x02", None)
    return salt + RECORD_BYTES.to_bytes(4, "big") + bytes((len(mine),)) + mine + sealed


def decrypt(body: bytes, theirs: ec.EllipticCurvePrivateKey, auth: bytes) -> bytes:
    """What a browser does with a body: for simulators and tests. Errors: `ValueError` for all but our one record."""
    salt, length = body[:SALT_BYTES], body[20] if len(body) > 20 else 0
    mine, sealed = body[21 : 21 + length], body[21 + length :]
    sender = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, mine)
    to = Subscriber(point(theirs), auth)
    key, nonce = _keys(theirs, sender, to, mine, salt)
    try:
        plain = AESGCM(key).decrypt(nonce, sealed, None)
    except InvalidTag:
        raise ValueError("the record was not sealed for this subscriber") from None
    return plain.rstrip(b"\x00")[:-1]


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key pair for one message."""
    return ec.generate_private_key(_CURVE)


def _keys(
    private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey, to: Subscriber, sender: bytes, salt: bytes
) -> tuple[bytes, bytes]:
    digest = hmac.digest
    shared = private.exchange(_ECDH, public)
    extracted = digest(to.auth, shared, "sha256")
    ikm = digest(extracted, b"WebPush: info\x00" + to.point + sender + b"\x01", "sha256")
    extracted = digest(salt, ikm, "sha256")
    return digest(extracted, _KEY_INFO, "sha256")[:16], digest(extracted, _NONCE_INFO, "sha256")[:12]
