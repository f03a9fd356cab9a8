"""The kernel that seals Web Push messages (`ece.py` has the format): a batch in one run, without the interpreter.

All cryptography in it is libcrypto's (`libcrypto.py`): P-256, HMAC and AES-GCM. The kernel carries bytes from one call
to the next. Secrets take no branch here, and OpenSSL multiplies a point by one number in constant time, as for its own
key exchange, which makes the same call.

Names are bound when machine code is loaded, from numba's cache too. So LLVM is told of them when this module is loaded,
under a prefix of ours: a process may hold several libcryptos, and these are calls of one. Without a library `seal_rows`
must not be called.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from numba import njit
from numba.types import ExternalFunction, int32, intp
from numpy.typing import NDArray

from fanout.channels import libcrypto
from fanout.channels.jwt import POINT_BYTES
from fanout.channels.libcrypto import CIPHER, GROUP, MAC, NUMBERS, OURS, SECRET, SHARED, THEIRS

SALT_BYTES, AUTH_BYTES, SECRET_BYTES, TAG_BYTES = 16, 16, 32, 16
RECORD_BYTES = 4_096
HEAD_BYTES = SALT_BYTES + 4 + 1 + POINT_BYTES

_UNCOMPRESSED = 4  # also POINT_CONVERSION_UNCOMPRESSED
_GET_TAG = 0x10  # EVP_CTRL_AEAD_GET_TAG
_HASH_BYTES = 32

# what each message's keys are derived in: uint8[SCRATCH_BYTES]
_SHARED_POINT, _EXTRACTED, _IKM, _KEY, _NONCE, _COUNT, _INFO = 0, 80, 112, 144, 176, 208, 224
_PUSH_INFO, _KEY_INFO, _NONCE_INFO = (
    b"WebPush: info\x00",
    b"Content-Encoding: aes128gcm\x00\x01",
    b"Content-Encoding: nonce\x00\x01",
)
_INFO_BYTES = len(_PUSH_INFO) + 2 * POINT_BYTES + 1
_KEY_INFO_AT = _INFO + _INFO_BYTES
_NONCE_INFO_AT = _KEY_INFO_AT + len(_KEY_INFO)
_PUSH_INFO_BYTES, _KEY_INFO_BYTES, _NONCE_INFO_BYTES = len(_PUSH_INFO), len(_KEY_INFO), len(_NONCE_INFO)
SCRATCH_BYTES = _NONCE_INFO_AT + _NONCE_INFO_BYTES

for _name in libcrypto.FUNCTIONS:
    llvmlite.binding.add_symbol(f"fanout_libcrypto_{_name}", libcrypto.address(_name))


def _call(name: str, result: Any, *arguments: Any) -> Any:
    """A call of libcrypto, as its header declares it; pointers and `size_t` are `intp`."""
    assert name in libcrypto.CALLED_BY_ROW, name
    return ExternalFunction(f"fanout_libcrypto_{name}", result(*arguments))


_BN_bin2bn = _call("BN_bin2bn", intp, intp, int32, intp)
_EC_POINT_mul = _call("EC_POINT_mul", int32, intp, intp, intp, intp, intp, intp)
_EC_POINT_oct2point = _call("EC_POINT_oct2point", int32, intp, intp, intp, intp, intp)
_EC_POINT_point2oct = _call("EC_POINT_point2oct", intp, intp, intp, int32, intp, intp, intp)
_EVP_CIPHER_CTX_ctrl = _call("EVP_CIPHER_CTX_ctrl", int32, intp, int32, int32, intp)
_EVP_EncryptFinal_ex = _call("EVP_EncryptFinal_ex", int32, intp, intp, intp)
_EVP_EncryptInit_ex = _call("EVP_EncryptInit_ex", int32, intp, intp, intp, intp, intp)
_EVP_EncryptUpdate = _call("EVP_EncryptUpdate", int32, intp, intp, intp, intp, int32)
_EVP_MAC_final = _call("EVP_MAC_final", int32, intp, intp, intp, intp)
_EVP_MAC_init = _call("EVP_MAC_init", int32, intp, intp, intp, intp)
_EVP_MAC_update = _call("EVP_MAC_update", int32, intp, intp, intp)

_jit = njit(cache=True, nogil=True)


def new_scratch() -> NDArray[np.uint8]:
    """Room for the keys of one message at a time, with the constants they are derived with; to be cleared after use."""
    scratch = np.zeros(SCRATCH_BYTES, np.uint8)
    for at, text in ((_INFO, _PUSH_INFO), (_KEY_INFO_AT, _KEY_INFO), (_NONCE_INFO_AT, _NONCE_INFO)):
        scratch[at : at + len(text)] = np.frombuffer(text, np.uint8)
    scratch[_KEY_INFO_AT - 1] = 1
    return scratch


@_jit
def _hmac(mac, key, key_bytes, text, text_bytes, out, count):
    """HMAC-SHA-256 of bytes at an address, to an address; whether it worked."""
    return (
        _EVP_MAC_init(mac, key, key_bytes, 0) == 1
        and _EVP_MAC_update(mac, text, text_bytes) == 1
        and _EVP_MAC_final(mac, out, count, _HASH_BYTES) == 1
    )


@_jit
def _derive(mac, auth, salt, room):
    """Key and nonce of a message from the secret both sides have, all in the scratch at `room`; whether it worked."""
    count, extracted, ikm = room + _COUNT, room + _EXTRACTED, room + _IKM
    return (
        _hmac(mac, auth, AUTH_BYTES, room + _SHARED_POINT + 1, 32, extracted, count)
        and _hmac(mac, extracted, _HASH_BYTES, room + _INFO, _INFO_BYTES, ikm, count)
        and _hmac(mac, salt, SALT_BYTES, ikm, _HASH_BYTES, extracted, count)
        and _hmac(mac, extracted, _HASH_BYTES, room + _KEY_INFO_AT, _KEY_INFO_BYTES, room + _KEY, count)
        and _hmac(mac, extracted, _HASH_BYTES, room + _NONCE_INFO_AT, _NONCE_INFO_BYTES, room + _NONCE, count)
    )


@_jit
def seal_rows(objects, plain, points, auths, salts, secrets, scratch, out, usable):
    """Seal `plain` for every row; returns how many rows were done: fewer than all if libcrypto failed at the next.

    `objects` int64[8]; `plain` uint8[m], delimiter included; `points` uint8[n, 65], `auths` uint8[n, 16], `salts`
    uint8[n, 16], `secrets` uint8[n, 32] big-endian below the order; `scratch` of `new_scratch`; `out` all nought,
    uint8[n, HEAD_BYTES + m + 16]; `usable` bool[n], False where the point is none of the curve. All contiguous.
    """
    group, numbers, secret = objects[GROUP], objects[NUMBERS], objects[SECRET]
    ours, theirs, shared = objects[OURS], objects[THEIRS], objects[SHARED]
    mac, cipher = objects[MAC], objects[CIPHER]
    room, size, width = scratch.ctypes.data, plain.shape[0], out.shape[1]
    count, body, info = room + _COUNT, out.ctypes.data, _INFO + _PUSH_INFO_BYTES
    for row in range(points.shape[0]):
        at = body + row * width
        mine, sealed = at + SALT_BYTES + 5, at + HEAD_BYTES
        if (
            points[row, 0] != _UNCOMPRESSED
            or _EC_POINT_oct2point(group, theirs, points.ctypes.data + row * POINT_BYTES, POINT_BYTES, numbers) != 1
        ):
            usable[row] = False
            continue
        if (
            _BN_bin2bn(secrets.ctypes.data + row * SECRET_BYTES, SECRET_BYTES, secret) == 0
            or _EC_POINT_mul(group, ours, secret, 0, 0, numbers) != 1
            or _EC_POINT_point2oct(group, ours, _UNCOMPRESSED, mine, POINT_BYTES, numbers) != POINT_BYTES
            or _EC_POINT_mul(group, shared, 0, theirs, secret, numbers) != 1
            or _EC_POINT_point2oct(group, shared, _UNCOMPRESSED, room + _SHARED_POINT, POINT_BYTES, numbers)
            != POINT_BYTES
        ):
            return row
        for i in range(SALT_BYTES):
            out[row, i] = salts[row, i]
        out[row, SALT_BYTES + 2] = RECORD_BYTES >> 8  # big-endian, four bytes, of which the others are nought
        out[row, SALT_BYTES + 4] = POINT_BYTES
        for i in range(POINT_BYTES):
            scratch[info + i] = points[row, i]
            scratch[info + POINT_BYTES + i] = out[row, SALT_BYTES + 5 + i]
        if not (
            _derive(mac, auths.ctypes.data + row * AUTH_BYTES, salts.ctypes.data + row * SALT_BYTES, room)
            and _EVP_EncryptInit_ex(cipher, 0, 0, room + _KEY, room + _NONCE) == 1
            and _EVP_EncryptUpdate(cipher, sealed, count, plain.ctypes.data, size) == 1
            and _EVP_EncryptFinal_ex(cipher, sealed + size, count) == 1
            and _EVP_CIPHER_CTX_ctrl(cipher, _GET_TAG, TAG_BYTES, sealed + size) == 1
        ):
            return row
        usable[row] = True
    return points.shape[0]
