"""Encryption of Web Push, against the RFC's own example and a browser's side, by both libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fanout.channels import ece, libcrypto
from fanout.channels.ece import PLAIN_BYTES_MAX, Subscriber, decrypt, encrypt, new_key, private_numbers, seal
from fanout.channels.jwt import from_base64url, point

ORDER = 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551
B = 0x5AC635D8_AA3A93E7_B3EBBD55_769886BC_651D06B0_CC53B0F6_3BCE3C3E_27D2604B
PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1

needs_libcrypto = pytest.mark.skipif(not libcrypto.FUNCTIONS, reason="this Python is linked with no libcrypto we know")


@pytest.fixture(params=["libcrypto", "cryptography"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of the two ways to seal."""
    if request.param == "libcrypto" and not libcrypto.FUNCTIONS:
        pytest.skip("this Python is linked with no libcrypto we know")
    if request.param == "cryptography":
        monkeypatch.setattr(libcrypto, "FUNCTIONS", {})
    ece.batch_library.cache_clear()
    assert ece.batch_library() == request.param
    yield request.param
    ece.batch_library.cache_clear()


def rows(*values: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)


def drawn(n: int) -> dict[str, NDArray[np.uint8]]:
    return {"salts": rows(*(os.urandom(16) for _ in range(n))), "secrets": private_numbers(os.urandom, n)}


def key_of(number: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(from_base64url(number), "big"), ec.SECP256R1())


WATERMELON = b"When I grow up, I want to be a watermelon"
THEIRS = key_of("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")
OURS = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
AUTH = from_base64url("BTBZMqHH6r4Tts7J_aSIgg")
SALT = from_base64url("DGv6ra1nlYgDCS1FRnbzlw")
BODY = from_base64url(
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6"
    "PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def test_the_example_of_rfc_8291_section_5() -> None:
    assert encrypt(WATERMELON, Subscriber(point(THEIRS), AUTH), salt=SALT, ours=key_of(OURS)) == BODY
    assert decrypt(BODY, THEIRS, AUTH) == WATERMELON


def test_the_example_of_rfc_8291_section_5_in_a_batch(library: str) -> None:
    secrets = rows(from_base64url(OURS), bytes(31) + b"\x01")
    sealed = seal(
        WATERMELON, rows(point(THEIRS), point(THEIRS)), rows(AUTH, AUTH), salts=rows(SALT, SALT), secrets=secrets
    )
    assert sealed.usable.tolist() == [True, True]
    assert sealed.bodies[0].tobytes() == BODY
    assert decrypt(sealed.bodies[1].tobytes(), THEIRS, AUTH) == WATERMELON


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=PLAIN_BYTES_MAX))
def test_a_browser_reads_it(plain: bytes) -> None:
    theirs, auth = new_key(), os.urandom(16)
    body = encrypt(plain, Subscriber(point(theirs), auth), salt=os.urandom(16), ours=new_key())
    assert len(body) <= 4_096
    assert decrypt(body, theirs, auth) == plain
    with pytest.raises(ValueError):
        decrypt(body, theirs, os.urandom(16))


@needs_libcrypto
@settings(max_examples=50, deadline=None)
@given(
    plain=st.binary(max_size=PLAIN_BYTES_MAX),
    browsers=st.lists(st.integers(1, ORDER - 1), max_size=4),
    auth=st.binary(min_size=16, max_size=16),
    salt=st.binary(min_size=16, max_size=16),
    secret=st.integers(1, ORDER - 1),
)
def test_both_libraries_seal_the_same(plain: bytes, browsers: list[int], auth: bytes, salt: bytes, secret: int) -> None:
    n = len(browsers)
    keys = [ec.derive_private_key(number, ec.SECP256R1()) for number in browsers]
    points = np.array([list(point(key)) for key in keys], np.uint8).reshape(n, 65)
    secrets = np.array([list(((secret + i) % (ORDER - 1) + 1).to_bytes(32, "big")) for i in range(n)], np.uint8)
    common = points, rows(*([auth] * n or [b""])).reshape(n, 16), rows(*([salt] * n or [b""])).reshape(n, 16)
    quick = ece._seal_by_libcrypto(plain, *common, secrets.reshape(n, 32))
    plainly = ece._seal_one_by_one(plain, *common, secrets.reshape(n, 32))
    assert quick.usable.all()
    assert plainly.usable.all()
    np.testing.assert_array_equal(quick.bodies, plainly.bodies)
    for body, key in zip(quick.bodies, keys, strict=True):
        assert decrypt(body.tobytes(), key, auth) == plain


def off_the_curve() -> dict[str, bytes]:
    good = point(THEIRS)
    x, y = good[1:33], good[33:]
    parity = y[-1] & 1
    y_of_nought = pow(B, (PRIME + 1) // 4, PRIME).to_bytes(32, "big")  # (0, √b) is on the curve
    return {
        "another curve": b"\x04" + b"\x01" * 64,
        "nought": b"\x04" + bytes(64),
        "infinity": bytes(65),
        "hybrid": bytes((6 + parity,)) + x + y,
        "compressed": bytes((2 + parity,)) + x + bytes(32),
        "nought written as the prime": b"\x04" + PRIME.to_bytes(32, "big") + y_of_nought,
        "all ones": b"\x04" + b"\xff" * 64,
        "y of another point": b"\x04" + x + y[:-1] + bytes((y[-1] ^ 1,)),
    }


@pytest.mark.parametrize("why", off_the_curve())
def test_a_point_off_the_curve_is_refused(library: str, why: str) -> None:
    bad, good = off_the_curve()[why], point(THEIRS)
    sealed = seal(b"x", rows(good, bad, good), rows(AUTH, AUTH, AUTH), **drawn(3))
    assert sealed.usable.tolist() == [True, False, True]
    assert decrypt(sealed.bodies[2].tobytes(), THEIRS, AUTH) == b"x", "its neighbour is none the worse"
    with pytest.raises(ValueError):
        encrypt(b"x", Subscriber(bad, AUTH), salt=SALT, ours=new_key())


@needs_libcrypto
def test_what_openssl_says_of_a_bad_point_is_not_left_for_others() -> None:
    sealed = seal(b"x", rows(b"\x04" + b"\x01" * 64), rows(AUTH), **drawn(1))
    assert not sealed.usable.any()
    peek = libcrypto.library().ERR_peek_error
    assert peek() == 0


@needs_libcrypto
def test_a_number_that_is_none_is_no_message() -> None:
    """The product would be infinity, which has no coordinates: an error of a call in the midst of a batch."""
    numbers = rows(bytes(31) + b"\x01", bytes(32))
    with pytest.raises(RuntimeError, match="row 1 of 2"):
        seal(b"x", rows(point(THEIRS), point(THEIRS)), rows(AUTH, AUTH), salts=rows(SALT, SALT), secrets=numbers)


@needs_libcrypto
def test_threads_seal_at_once() -> None:
    n = 200
    keys = [new_key() for _ in range(n)]
    points, auths = rows(*map(point, keys)), rows(*([AUTH] * n))

    def one(number: int) -> bool:
        sealed = seal(b"%d" % number, points, auths, **drawn(n))
        read = [decrypt(body.tobytes(), key, AUTH) for body, key in zip(sealed.bodies, keys, strict=True)]
        return bool(sealed.usable.all()) and read == [b"%d" % number] * n

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(8)))


@needs_libcrypto
def test_a_library_that_seals_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ece._seal_by_libcrypto

    def wrong(*arguments: object) -> ece.Sealed:
        sealed = right(*arguments)  # type: ignore[arg-type]
        sealed.bodies[:, -1] ^= 1
        return sealed

    monkeypatch.setattr(ece, "_seal_by_libcrypto", wrong)
    ece.batch_library.cache_clear()
    try:
        assert ece.batch_library() == "cryptography"
        sealed = seal(b"x", rows(point(THEIRS)), rows(AUTH), **drawn(1))
        assert decrypt(sealed.bodies[0].tobytes(), THEIRS, AUTH) == b"x"
    finally:
        ece.batch_library.cache_clear()


def test_nought_itself_is_a_coordinate(library: str) -> None:
    y = pow(B, (PRIME + 1) // 4, PRIME).to_bytes(32, "big")
    assert seal(b"x", rows(b"\x04" + bytes(32) + y), rows(AUTH), **drawn(1)).usable.all()


def test_numbers_above_the_order_are_drawn_again() -> None:
    draws = [b"\xff" * 32 + b"\x07" * 32, b"\xff" * 32, b"\x05" * 32]
    lengths = []

    def entropy(n: int) -> bytes:
        lengths.append(n)
        return draws.pop(0)

    assert private_numbers(entropy, 2).tobytes() == b"\x05" * 32 + b"\x07" * 32
    assert lengths == [64, 32, 32]
