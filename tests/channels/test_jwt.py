"""Tokens we sign, verified as a provider would."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.ece import new_key
from fanout.channels.jwt import base64url, from_base64url, load_key, point, rows_from_base64url, sign


def parts(token: str) -> tuple[dict[str, object], dict[str, object], bytes, bytes]:
    head, claims, signature = token.split(".")
    return (
        json.loads(from_base64url(head)),
        json.loads(from_base64url(claims)),
        f"{head}.{claims}".encode(),
        from_base64url(signature),
    )


def test_es256() -> None:
    key = new_key()
    head, claims, signed, signature = parts(sign(key, {"iss": "TEAM", "iat": 7}, kid="KEY"))
    assert head == {"alg": "ES256", "typ": "JWT", "kid": "KEY"}
    assert claims == {"iss": "TEAM", "iat": 7}
    assert len(signature) == 64
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.public_key().verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))


def test_rs256() -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    head, _, signed, signature = parts(sign(key, {"iss": "a"}))
    assert head["alg"] == "RS256"
    key.public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())


@given(st.binary(max_size=70))
def test_base64url_there_and_back(data: bytes) -> None:
    assert from_base64url(base64url(data)) == data
    assert from_base64url(base64url(data) + "=" * (-len(base64url(data)) % 4)) == data


@given(st.integers(1, 70).flatmap(lambda size: st.lists(st.binary(min_size=size, max_size=size), min_size=1)))
def test_many_at_once_there_and_back(rows: list[bytes]) -> None:
    texts = [base64url(row) + "=" * (place % 3) for place, row in enumerate(rows)]
    found, sound = rows_from_base64url(texts, len(rows[0]))
    assert sound.all()
    assert [row.tobytes() for row in found] == rows


@given(st.lists(st.text(alphabet="AZaz09-_+/=é ,\x00\ud800", max_size=24), max_size=8), st.integers(1, 16))
def test_many_at_once_are_read_as_one_is(texts: list[str], size: int) -> None:
    found, sound = rows_from_base64url(texts, size)
    for place, text in enumerate(texts):
        try:
            alone: bytes | None = from_base64url(text)
        except ValueError:
            alone = None
        assert sound[place] == (alone is not None and len(alone) == size), text
        assert not sound[place] or found[place].tobytes() == alone


def test_only_keys_we_can_sign_with() -> None:
    private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    assert load_key(new_key().private_bytes(*private))
    for wrong in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        with pytest.raises(ValueError):
            load_key(wrong.private_bytes(*private))
    with pytest.raises(ValueError):
        load_key(b"no pem")


def test_a_point_is_uncompressed() -> None:
    assert point(new_key())[0] == 4
    assert len(point(new_key())) == 65
