"""Encryption of Web Push messages: RFC 8291 over RFC 8188 (`aes128gcm`), one record each, for a batch of subscriptions.

Per subscription: a key pair of our own, ECDH with the browser's key, HKDF twice, AES-128-GCM once. That is about a
tenth of a millisecond, nearly all of it in P-256, so this is what bounds Web Push and not the network.

    ikm    = HKDF(salt = auth, ECDH(ours, theirs), "WebPush: info" 0 theirs ours, 32)
    key    = HKDF(salt, ikm, "Content-Encoding: aes128gcm" 0, 16)      nonce = HKDF(salt, ikm, "... nonce" 0, 12)
    record = salt | record size | 65 | ours | AES-GCM(key, nonce, text 2)

Our key pair is new for each message, as the RFC wants it: two messages under one pair and one salt would share a key
stream. The two HKDF outputs are at most 32 bytes, so each expansion is one HMAC; they are written out, because calling
the general function costs more than the hashing.

There are two ways to the same bytes. `seal` goes through libcrypto for a whole batch (`libcrypto.py`, `kernels.py`),
without the interpreter; `encrypt` and `decrypt` are one message by `cryptography`: what `seal` does where Python is not
linked with a libcrypto that has what we call, and what its first message is compared with.

Randomness is an argument, so that the RFC's own example is a test and rendering stays a function.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from fanout.channels import kernels, libcrypto
from fanout.channels.jwt import POINT_BYTES, point
from fanout.channels.kernels import AUTH_BYTES, HEAD_BYTES, RECORD_BYTES, SALT_BYTES, SECRET_BYTES, TAG_BYTES

PLAIN_BYTES_MAX: Final = (
    RECORD_BYTES - TAG_BYTES - 1 - HEAD_BYTES
)  # less tag, delimiter and header, so that all is one record of 4,096, what every push service takes

_CURVE: Final = ec.SECP256R1()
_ECDH: Final = ec.ECDH()
_KEY_INFO: Final = b"Content-Encoding: aes128gcm\x00\x01"
_NONCE_INFO: Final = b"Content-Encoding: nonce\x00\x01"
_DELIMITER: Final = b"\x02"  # of the last record


class Subscriber(NamedTuple):
    """A browser's keys: its public point (65 bytes) and its secret (16 bytes)."""

    point: bytes
    auth: bytes


class Sealed(NamedTuple):
    """Encrypted bodies: `bodies` uint8[n, length]; `usable` bool[n], False where a point is not on the curve."""

    bodies: NDArray[np.uint8]
    usable: NDArray[np.bool_]


def seal(
    plain: bytes,
    points: NDArray[np.uint8],
    auths: NDArray[np.uint8],
    *,
    salts: NDArray[np.uint8],
    secrets: NDArray[np.uint8],
) -> Sealed:
    """One text for n subscriptions. `points` uint8[n, 65], `auths` uint8[n, 16], `salts` uint8[n, 16], `secrets`
    uint8[n, 32] of `private_numbers`, each used once. Errors: `RuntimeError` if OpenSSL fails, as without memory."""
    if batch_library() == "libcrypto":
        return _seal_by_libcrypto(plain, points, auths, salts, secrets)
    return _seal_one_by_one(plain, points, auths, salts, secrets)


@cache
def batch_library() -> str:
    """What seals batches: `libcrypto`, or `cryptography` where there is none or where the two do not agree."""
    if not libcrypto.FUNCTIONS:
        return "cryptography"
    secret, browser = np.arange(1, 33, dtype=np.uint8)[None], ec.derive_private_key(1, _CURVE)
    points = np.frombuffer(point(browser), np.uint8)[None]
    rows = points, secret[:, :AUTH_BYTES], secret[:, AUTH_BYTES:], secret
    try:
        same = np.array_equal(_seal_by_libcrypto(b"x", *rows).bodies, _seal_one_by_one(b"x", *rows).bodies)
    except RuntimeError:  # its policy forbids one of the algorithms
        same = False
    return "libcrypto" if same else "cryptography"


def warm() -> None:
    """Compile or load the kernel, and know which library it is."""
    batch_library()


def private_numbers(entropy: Callable[[int], bytes], rows: int) -> NDArray[np.uint8]:
    """uint8[rows, 32]: private numbers of key pairs, evenly from those below the curve's order.

    The order begins with 32 ones and 32 noughts; a draw that begins with the ones, one of 2**32, is drawn again.
    """
    secrets = np.frombuffer(bytearray(entropy(SECRET_BYTES * rows)), np.uint8).reshape(rows, SECRET_BYTES)
    while len(over := np.flatnonzero((secrets[:, :4] == 0xFF).all(axis=1))):
        secrets[over] = np.frombuffer(entropy(SECRET_BYTES * len(over)), np.uint8).reshape(-1, SECRET_BYTES)
    return secrets


def _seal_by_libcrypto(
    plain: bytes,
    points: NDArray[np.uint8],
    auths: NDArray[np.uint8],
    salts: NDArray[np.uint8],
    secrets: NDArray[np.uint8],
) -> Sealed:
    """All rows in one run. The kernel goes by addresses, so shapes and layouts are made sure of here."""
    sealed = _room(plain, points)
    rows = []
    for array, width in ((points, POINT_BYTES), (auths, AUTH_BYTES), (salts, SALT_BYTES), (secrets, SECRET_BYTES)):
        assert array.shape == (len(points), width), "a row has one of each"
        assert array.dtype == np.uint8
        rows.append(np.ascontiguousarray(array).view())
        rows[-1].flags.writeable = False  # or numba would compile for each of both kinds
    text = np.frombuffer(plain + _DELIMITER, np.uint8)
    scratch = kernels.new_scratch()
    with libcrypto.objects() as objects:
        try:
            done = kernels.seal_rows(objects, text, *rows, scratch, sealed.bodies, sealed.usable)
        finally:
            scratch[:] = 0
    if done < len(points):
        raise RuntimeError(f"libcrypto failed at row {done} of {len(points)}")
    return sealed


def _seal_one_by_one(
    plain: bytes,
    points: NDArray[np.uint8],
    auths: NDArray[np.uint8],
    salts: NDArray[np.uint8],
    secrets: NDArray[np.uint8],
) -> Sealed:
    sealed = _room(plain, points)
    for row in range(len(points)):
        ours = ec.derive_private_key(int.from_bytes(secrets[row].tobytes(), "big"), _CURVE)
        to = Subscriber(points[row].tobytes(), auths[row].tobytes())
        try:
            body = encrypt(plain, to, salt=salts[row].tobytes(), ours=ours)
        except ValueError:
            continue
        sealed.bodies[row], sealed.usable[row] = np.frombuffer(body, np.uint8), True
    return sealed


def _room(plain: bytes, points: NDArray[np.uint8]) -> Sealed:
    assert len(plain) <= PLAIN_BYTES_MAX
    length = HEAD_BYTES + len(plain) + len(_DELIMITER) + TAG_BYTES
    return Sealed(np.zeros((len(points), length), np.uint8), np.zeros(len(points), np.bool_))


def encrypt(plain: bytes, to: Subscriber, *, salt: bytes, ours: ec.EllipticCurvePrivateKey) -> bytes:
    """One encrypted body. Errors: `ValueError` if the subscriber's point is not on the curve."""
    assert len(plain) <= PLAIN_BYTES_MAX
    mine = point(ours)
    key, nonce = _keys(ours, ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, to.point), to, mine, salt)
    sealed = AESGCM(key).encrypt(nonce, plain + _DELIMITER, None)
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
