"""JSON Web Tokens, signed: what APNs (ES256), Web Push (VAPID, ES256) and Google (RS256) want to see of us.

Only signing; nobody sends us one. Pure but for the nonce inside ECDSA: time is an argument, and who keeps a token for
how long is `dispatch/credentials.py`. `cryptography` gives ECDSA signatures as DER; JWS (RFC 7518 section 3.4) wants
the two numbers side by side, 32 bytes each.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import numpy as np
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from numpy.typing import NDArray

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

POINT_BYTES: Final = 65  # uncompressed P-256

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_NO_LETTER: Final = 64
_SIX_BITS: Final = np.full(256, _NO_LETTER, np.uint8)  # what each letter stands for, in both alphabets
for _number, _letter in enumerate(_LETTERS + b"-_"):
    _SIX_BITS[_letter] = _number
_SIX_BITS[list(b"+/")] = 62, 63
_SIX_BITS.setflags(write=False)


def base64url(data: bytes) -> str:
    """Without padding, as JOSE and Web Push write it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The inverse; padding may be there or not. Errors: `ValueError`."""
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)


def rows_from_base64url(texts: Sequence[str], size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The inverse for n texts of `size` bytes each, at once: uint8[n, size], and bool[n], which of them are that."""
    groups = -(-size // 3)
    letters, rest = (4 * size + 2) // 3, "A" * (4 * groups - (4 * size + 2) // 3)
    bare = [text.rstrip("=") for text in texts]
    sound = np.array([len(text) == letters and text.isascii() for text in bare], np.bool_)
    whole = "".join(
        text + rest if fits else "A" * (4 * groups) for text, fits in zip(bare, sound.tolist(), strict=True)
    )
    bits = _SIX_BITS[np.frombuffer(whole.encode(), np.uint8)].reshape(len(texts), groups, 4)
    sound &= (bits != _NO_LETTER).all(axis=(1, 2))
    found = np.empty((len(texts), groups, 3), np.uint8)
    for place, (left, right) in enumerate(((2, 4), (4, 2), (6, 0))):
        found[:, :, place] = (bits[:, :, place] << left) | (bits[:, :, place + 1] >> right)
    return found.reshape(len(texts), 3 * groups)[:, :size], sound


def load_key(pem: bytes) -> Key:
    """A private key from PEM (PKCS 8, as providers hand them out). Errors: `ValueError`."""
    key = serialization.load_pem_private_key(pem, password=None)
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError("the key is neither P-256 nor RSA")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as an uncompressed point, 65 bytes: VAPID's `k`."""
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def sign(key: Key, claims: Mapping[str, object], **header: str) -> str:
    """A compact JWS with the key's own algorithm."""
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    head = base64url(msgspec.json.encode({"alg": algorithm, "typ": "JWT"} | header))
    signed = f"{head}.{base64url(msgspec.json.encode(dict(claims)))}".encode()
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{signed.decode()}.{base64url(signature)}"
