"""What an address is served with: a certificate and a key that fit, or one sentence of why not."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from fanout.errors import Refused
from fanout.listening import tls_of
from fanout.settings import load
from fanout.simulators.tls import write


@pytest.mark.parametrize(
    ("api", "setting", "why"),
    [
        ({"tls_certificate": "{}/none.pem", "tls_key": "{}/key.pem"}, "api.tls_certificate", "No such file"),
        ({"tls_certificate": "{}/cert.pem"}, "api.tls_certificate", "No such file"),
        ({"tls_certificate": "{}/cert.pem", "tls_key": "{}/other/key.pem"}, "api.tls_certificate", "mismatch"),
        ({"tls_certificate": "{}/key.pem", "tls_key": "{}/cert.pem"}, "api.tls_certificate", "PEM"),
        ({"tls_certificate": "{}\0", "tls_key": "{}"}, "api.tls_certificate", "null"),
        ({"client_ca": "{}/ca.pem"}, "api.client_ca", "over TLS alone"),
        ({"tls_certificate": "{}/cert.pem", "tls_key": "{}/key.pem", "client_ca": "{}/no.pem"}, "api.client_ca", "No"),
        (
            {"tls_certificate": "{}/cert.pem", "tls_key": "{}/key.pem", "client_ca": "{}/key.pem"},
            "api.client_ca",
            "key",
        ),
    ],
)
def test_files_that_cannot_be_used_are_one_sentence(
    tmp_path: Path, api: dict[str, str], setting: str, why: str
) -> None:
    for folder in (tmp_path, tmp_path / "other"):
        write(folder, now=datetime.datetime.now(datetime.UTC))
    files = {name: file.replace("{}", str(tmp_path)) for name, file in api.items()}
    with pytest.raises(Refused, match=why) as caught:
        tls_of(load(None, {}, api=files).api)
    assert (caught.value.code, caught.value.where) == ("settings_invalid", setting)


def test_a_certificate_with_its_key_and_an_authority_of_callers_will_do(tmp_path: Path) -> None:
    write(tmp_path, now=datetime.datetime.now(datetime.UTC))
    files = {"tls_certificate": "cert.pem", "tls_key": "key.pem", "client_ca": "ca.pem"}
    api = load(None, {}, api={name: str(tmp_path / file) for name, file in files.items()}).api
    assert tls_of(api) is not None
    assert tls_of(load(None, {}).api) is None
