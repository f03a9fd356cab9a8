"""The command line of boards: the public key that makers are given, and simulated boards without a broker."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from typer.testing import CliRunner

from signage.cli import app
from signage.signing import load_signer, verify
from signage.simulators.fleet import Fleet, make_displays, spread_boards


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["key", *words])
    return result.exit_code, result.output


def test_the_public_key_is_printed_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    signer = load_signer(path)
    code, text = run(str(path))
    identifier, raw, pem = text.split("\n", 2)
    assert (code, identifier, base64.b64decode(raw)) == (0, signer.key_id, signer.public)
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, Ed25519PublicKey)
    assert key.public_bytes_raw() == signer.public
    assert verify(base64.b64decode(raw), b"document", signer.sign(b"document"))
    for form, words in [("id", identifier), ("base64", raw), ("pem", pem.strip())]:
        assert run(str(path), "--form", form) == (0, words + "\n")
    assert "PRIVATE" not in text


def test_the_key_of_the_settings_is_found(tmp_path: Path) -> None:
    path, config = tmp_path / "signing.pem", tmp_path / "engine.toml"
    config.write_text(f'[signage]\nsigning_key = "{path}"\n')
    code, text = run("--config", str(config))
    assert (code, path.exists()) == (2, False), text
    code, text = run("--config", str(config), "--new", "--form", "id")
    assert (code, text) == (0, load_signer(path).key_id + "\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"nonsense", None])
def test_what_is_no_key_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.pem"
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(content or other)
    assert run(str(path))[0] == 2


def test_without_a_key_documents_are_not_signed_and_that_is_said(tmp_path: Path) -> None:
    config = tmp_path / "engine.toml"
    config.write_text("")
    code, text = run("--config", str(config))
    assert code == 2
    assert "documents are not" in text


@pytest.mark.parametrize("broker", ["nonsense", "http://127.0.0.1:1", "mqtt://"])
def test_boards_are_not_played_at_what_is_no_broker(broker: str) -> None:
    result = CliRunner().invoke(app, ["simulate", "--broker", broker])
    assert result.exit_code == 2
    assert "is no" in result.output


async def test_a_broker_that_cannot_be_reached_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(make_displays(spread_boards(3, 0), 3, [], 0), "mqtt://127.0.0.1:1", lambda: 0)
    with caplog.at_level("WARNING", "signage.simulators"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.run)
            with trio.fail_after(30):
                while not caplog.records:  # noqa: ASYNC110 - nobody tells of it
                    await trio.sleep(0.01)
            fleet.unreached(OSError("the second word of it"))
            nursery.cancel_scope.cancel()
    assert [record.message.partition(": ")[0] for record in caplog.records] == [
        "no board has a connection to 127.0.0.1:1"
    ]
