"""Encryption of Web Push, against the RFC's own example and a browser's side."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.channels.ece import PLAIN_BYTES_MAX, Subscriber, decrypt, encrypt, new_key
from fanout.channels.jwt import from_base64url, point


def key_of(number: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(from_base64url(number), "big"), ec.SECP256R1())


def test_the_example_of_rfc_8291_section_5() -> None:
    theirs = key_of("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")
    auth = from_base64url("BTBZMqHH6r4Tts7J_aSIgg")
    body = encrypt(
        b"When I grow up, I want to be a watermelon",
        Subscriber(point(theirs), auth),
        salt=from_base64url("DGv6ra1nlYgDCS1FRnbzlw"),
        ours=key_of("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
    )
    assert body == from_base64url(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6"
        "PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    assert decrypt(body, theirs, auth) == b"When I grow up, I want to be a watermelon"


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=PLAIN_BYTES_MAX))
def test_a_browser_reads_it(plain: bytes) -> None:
    theirs, auth = new_key(), os.urandom(16)
    body = encrypt(plain, Subscriber(point(theirs), auth), salt=os.urandom(16), ours=new_key())
    assert len(body) <= 4_096
    assert decrypt(body, theirs, auth) == plain
    with pytest.raises(ValueError):
        decrypt(body, theirs, os.urandom(16))


def test_a_point_off_the_curve_is_refused() -> None:
    with pytest.raises(ValueError):
        encrypt(b"x", Subscriber(b"\x04" + b"\x01" * 64, b"a" * 16), salt=b"s" * 16, ours=new_key())
