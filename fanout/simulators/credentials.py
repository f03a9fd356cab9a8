"""The providers' side of credentials: keys to be handed out to a client, tokens granted, and tokens checked.

`write_keys` makes `service-account.json` (FCM) and `apns.p8` (APNs); what an `Issuer` grants says when it ends and is
signed, so that any worker knows it again. In the mood `strict` a request whose token was not granted here, has ended,
or is signed by another key is refused as the provider would refuse it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from fanout.channels.jwt import from_base64url

ACCOUNT: Final = "simulated@fanout.invalid"
KEY_ID: Final = "SIMULATED1"
TEAM_ID: Final = "TEAM000001"
PROVIDER_TOKEN_S: Final = 3_600
ASSERTION_S: Final = 3_600

_PEM: Final = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


def write_keys(folder: Path, url: str) -> None:
    """Make the keys that clients need, unless they are there; `url` is where the token endpoint will be."""
    folder.mkdir(parents=True, exist_ok=True)
    account, apns = folder / "service-account.json", folder / "apns.p8"
    if not account.exists():
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        whole = {
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key_id": KEY_ID,
            "private_key": key.private_bytes(*_PEM).decode(),
            "token_uri": f"{url}/token",
        }
        account.touch(mode=0o600)
        account.write_text(json.dumps(whole))
    if not apns.exists():
        apns.touch(mode=0o600)
        apns.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*_PEM))


class Issuer:
    """What one simulator granted, and whether what it is shown is good."""

    def __init__(self, folder: Path) -> None:
        whole = json.loads((folder / "service-account.json").read_text())
        account = serialization.load_pem_private_key(whole["private_key"].encode(), None)
        apns = serialization.load_pem_private_key((folder / "apns.p8").read_bytes(), None)
        assert isinstance(account, rsa.RSAPrivateKey)
        assert isinstance(apns, ec.EllipticCurvePrivateKey)
        self._account, self._apns, self._uri = account.public_key(), apns.public_key(), whole["token_uri"]
        self._secret = hashlib.sha256(whole["private_key"].encode()).digest()
        self._known: dict[str, float] = {}

    def grant(self, assertion: str, life_s: int, now_s: float) -> str | None:
        """An access token for an assertion (RFC 7523), or None."""
        try:
            claims, signed, signature = _parts(assertion)
            self._account.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            good = (
                claims["iss"] == ACCOUNT and claims["aud"] == self._uri and "firebase.messaging" in str(claims["scope"])
            )
            begin, end = float(str(claims["iat"])), float(str(claims["exp"]))
        except (ValueError, KeyError, InvalidSignature):
            return None
        if not good or not now_s - 60 <= end or end - begin > ASSERTION_S or begin > now_s + 60:
            return None
        end_ms = str(int(1000 * (now_s + life_s)))
        return f"ya29.simulated-{end_ms}-{self._mark(end_ms)}"

    def bearer(self, authorization: str, now_s: float) -> bool:
        """Whether an access token is one of ours and lives."""
        end_ms, _, mark = authorization.removeprefix("Bearer ya29.simulated-").partition("-")
        return hmac.compare_digest(mark.encode(), self._mark(end_ms).encode()) and 1000 * now_s < int(end_ms)

    def _mark(self, end_ms: str) -> str:
        return hmac.digest(self._secret, end_ms.encode(), hashlib.sha256).hex()

    def provider_token(self, authorization: str, now_s: float) -> str | None:
        """None if an APNs token is good, else Apple's reason."""
        token = authorization.removeprefix("bearer ")
        if not token or token == authorization:
            return "MissingProviderToken"
        if token not in self._known:
            try:
                claims, signed, signature = _parts(token)
                numbers = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                self._apns.verify(encode_dss_signature(*numbers), signed, ec.ECDSA(hashes.SHA256()))
                if claims["iss"] != TEAM_ID:
                    return "InvalidProviderToken"
                self._known[token] = float(str(claims["iat"]))
            except (ValueError, KeyError, InvalidSignature):
                return "InvalidProviderToken"
        return None if now_s - self._known[token] <= PROVIDER_TOKEN_S else "ExpiredProviderToken"


def _parts(token: str) -> tuple[dict[str, object], bytes, bytes]:
    """(claims, signed bytes, signature). Errors: `ValueError`."""
    head, claims, signature = token.split(".")
    found = json.loads(from_base64url(claims))
    if not isinstance(found, dict):
        raise ValueError("claims are an object")
    return found, f"{head}.{claims}".encode(), from_base64url(signature)
