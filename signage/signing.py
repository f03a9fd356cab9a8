"""Ed25519 over documents: the engine's key, and a board's check.

The signature is taken over the encoded document itself (the envelope's `body`), which names the board and carries the
version: a document can be replayed neither to another board nor later. A board holds the public key; the id of a key
is the first 16 hex digits of the SHA-256 of its 32 bytes, so that keys can be changed while boards hold two. Boards get
it from the operator (`signage key`), never over the link it protects.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)


class Signer:
    """A private key and its id."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = key_id(self.public)

    def sign(self, body: bytes) -> bytes:
        return self._key.sign(body)


def key_id(public: bytes) -> str:
    """The id of a public key of 32 bytes."""
    return hashlib.sha256(public).hexdigest()[:16]


def public_pem(public: bytes) -> str:
    """A public key of 32 bytes as libraries read it from a file."""
    key = Ed25519PublicKey.from_public_bytes(public)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def load_signer(path: Path) -> Signer:
    """The key in a PEM file, which is made (mode 0600) when it does not exist. Blocking. `ValueError`: another kind of
    key.
    """
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds another kind of key than Ed25519")
    return Signer(key)


def verify(public: bytes, body: bytes, signature: bytes) -> bool:
    """Whether the signature over the body is of this key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, body)
    except (InvalidSignature, ValueError):
        return False
    return True
