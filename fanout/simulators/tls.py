"""A certificate authority of one's own for loopback: simulators speak real TLS, clients really verify it.

`write(folder)` makes, once per folder, `ca.pem`, `cert.pem` and `key.pem`. The certificate names `localhost`, the
loopback addresses and the hosts that the simulators stand in for, so that a client may also be pointed at them by name
(`curl --connect-to`). The authority's own key is never written: nobody can sign a second certificate with it.

Why not a self-signed certificate with verification off: the code path that verifies is the one production uses, and a
provider with a wrong certificate is one of the bad days that the tests play (`write(folder, hosts=["wrong.invalid"])`).
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS: Final = (
    "localhost",
    "fcm.googleapis.com",
    "oauth2.googleapis.com",
    "api.push.apple.com",
    "api.sandbox.push.apple.com",
    "updates.push.services.mozilla.com",
    "gw.messaging.cm.com",
    "gw.cmtelecom.com",
    "api.cm.com",
    "api.x.com",
    "mastodon.social",
    "api.telegram.org",
    "graph.facebook.com",
)
ADDRESSES: Final = ("127.0.0.1", "::1")
VALID_DAYS: Final = 397  # what browsers accept at most; a simulator's folder lives for a day


class Files(NamedTuple):
    """Paths of one authority and the certificate it signed."""

    ca: Path
    cert: Path
    key: Path


def write(
    folder: Path, *, now: datetime.datetime, hosts: Sequence[str] = HOSTS, addresses: Sequence[str] = ADDRESSES
) -> Files:
    """Make the files in `folder` unless they are there; returns their paths. The key is readable by its owner only."""
    files = Files(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    if all(path.is_file() for path in files):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    begin, end = now - datetime.timedelta(hours=1), now + datetime.timedelta(days=VALID_DAYS)

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulated providers: authority for loopback")])
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    leaf_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulated providers")])
    leaf = (
        _builder(leaf_name, ca_name, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files.key.touch(mode=0o600)
    files.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    files.cert.write_bytes(leaf.public_bytes(pem))
    files.ca.write_bytes(ca.public_bytes(pem))
    return files


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
