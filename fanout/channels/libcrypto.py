"""OpenSSL's libcrypto, the one Python's own `ssl` is linked with, for a kernel that seals many messages in a run.

Why beside `cryptography`: it makes three key objects a message, OpenSSL copies each into its provider before first use,
and the interpreter is held throughout. Half of what a message costs goes there. The algorithms are the same code either
way; here the objects are made once a batch, and the thread lets the interpreter go.

Rules:

1. Only calls that OpenSSL documents and has not deprecated since 3.0. Where Python is linked otherwise, or one name is
   missing, there is no library (`FUNCTIONS` is empty), and `ece.py` does without.
2. `objects` belong to one batch in one thread: nothing is shared, and all are freed at its end, whatever ends it.
3. Secrets are cleared as they are freed: numbers and points by `clear_free`, contexts by their own.
4. OpenSSL keeps a list of errors for each thread, and `ssl` believes what it finds there: it is left empty.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

GROUP, NUMBERS, SECRET, OURS, THEIRS, SHARED, MAC, CIPHER = range(8)  # the places of `objects`

CALLED_BY_ROW: Final = (
    "BN_bin2bn",
    "EC_POINT_mul",
    "EC_POINT_oct2point",
    "EC_POINT_point2oct",
    "EVP_CIPHER_CTX_ctrl",
    "EVP_EncryptFinal_ex",
    "EVP_EncryptInit_ex",
    "EVP_EncryptUpdate",
    "EVP_MAC_final",
    "EVP_MAC_init",
    "EVP_MAC_update",
)
_CALLED_BY_BATCH: Final = (
    "BN_CTX_free",
    "BN_CTX_new",
    "BN_clear_free",
    "BN_new",
    "BN_set_flags",
    "EC_GROUP_free",
    "EC_GROUP_new_by_curve_name",
    "EC_POINT_clear_free",
    "EC_POINT_new",
    "ERR_clear_error",
    "EVP_CIPHER_CTX_free",
    "EVP_CIPHER_CTX_new",
    "EVP_MAC_CTX_free",
    "EVP_MAC_CTX_new",
    "EVP_MAC_CTX_set_params",
    "EVP_MAC_fetch",
    "EVP_MAC_free",
    "EVP_aes_128_gcm",
)
_P256: Final = 415  # NID_X9_62_prime256v1
_CONSTANT_TIME: Final = 4  # BN_FLG_CONSTTIME
_UTF8_STRING: Final = 4  # OSSL_PARAM_UTF8_STRING


class _Param(ctypes.Structure):
    """OSSL_PARAM, as core.h publishes it."""

    _fields_ = (
        ("key", ctypes.c_char_p),
        ("data_type", ctypes.c_uint),
        ("data", ctypes.c_char_p),
        ("data_size", ctypes.c_size_t),
        ("return_size", ctypes.c_size_t),
    )


def library() -> ctypes.CDLL:
    """The library that `ssl` is linked with: names that `ssl`'s own module does not have resolve to it.

    *Errors*: `ImportError`, `AttributeError`, `OSError` where `ssl` is missing or no module of its own.
    """
    import _ssl

    return ctypes.CDLL(_ssl.__file__)


def _functions() -> Mapping[str, Any]:
    """The calls by name; none where one of them is missing."""
    try:
        openssl = library()
        found = {name: getattr(openssl, name) for name in CALLED_BY_ROW + _CALLED_BY_BATCH}
    except (ImportError, AttributeError, OSError):
        return {}
    for name, function in found.items():
        function.restype = ctypes.c_void_p if name.endswith(("new", "new_by_curve_name", "fetch", "gcm")) else None
    for name in ("EVP_MAC_CTX_set_params", "EVP_EncryptInit_ex"):
        found[name].restype = ctypes.c_int
    return found


FUNCTIONS: Final = _functions()


def address(name: str) -> int:
    """Where a call begins."""
    return ctypes.cast(FUNCTIONS[name], ctypes.c_void_p).value or 0


@contextmanager
def objects() -> Iterator[NDArray[np.int64]]:
    """What the calls of one batch work with: int64[8] addresses, in the order of the places above.

    *Errors*: `RuntimeError` if OpenSSL cannot make them, as without memory or where its policy forbids one.
    """
    with ExitStack() as stack:

        def made(new: str, free: str, *arguments: object) -> ctypes.c_void_p:
            handle = FUNCTIONS[new](*arguments)
            if not handle:
                raise RuntimeError(f"{new} gave nothing")
            stack.callback(FUNCTIONS[free], ctypes.c_void_p(handle))
            return ctypes.c_void_p(handle)

        stack.callback(FUNCTIONS["ERR_clear_error"])
        group = made("EC_GROUP_new_by_curve_name", "EC_GROUP_free", _P256)
        numbers = made("BN_CTX_new", "BN_CTX_free")
        secret = made("BN_new", "BN_clear_free")
        FUNCTIONS["BN_set_flags"](secret, _CONSTANT_TIME)
        points = [made("EC_POINT_new", "EC_POINT_clear_free", group) for _ in range(3)]
        algorithm = made("EVP_MAC_fetch", "EVP_MAC_free", None, b"HMAC", None)
        mac = made("EVP_MAC_CTX_new", "EVP_MAC_CTX_free", algorithm)
        cipher = made("EVP_CIPHER_CTX_new", "EVP_CIPHER_CTX_free")
        digest = (_Param * 2)(_Param(b"digest", _UTF8_STRING, b"SHA256", len(b"SHA256"), 0))  # the second ends it
        aes = ctypes.c_void_p(FUNCTIONS["EVP_aes_128_gcm"]())
        if (
            FUNCTIONS["EVP_MAC_CTX_set_params"](mac, digest) != 1
            or FUNCTIONS["EVP_EncryptInit_ex"](cipher, aes, None, None, None) != 1
        ):
            raise RuntimeError("OpenSSL has no HMAC with SHA-256, or no AES-128-GCM")
        handles = (group, numbers, secret, *points, mac, cipher)
        yield np.array([handle.value for handle in handles], np.int64)
