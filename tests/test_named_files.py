"""Files that settings name: all that are wrong are told at once, before anything starts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fanout.errors import Refused
from fanout.named_files import check_files, named
from fanout.settings import load


def problems(**overlay: object) -> list[str]:
    with pytest.raises(Refused) as caught:
        check_files(load(None, {}, **overlay))
    assert caught.value.code == "settings_invalid"
    return caught.value.message.splitlines()[1:]


def test_defaults_name_none() -> None:
    check_files(load(None, {}))


def test_all_that_are_not_there_are_told_at_once(tmp_path: Path) -> None:
    account = {"network": "telegram", "url": "https://127.0.0.1", "ca": "d", "credential": "x", "target": "@x"}
    told = problems(
        providers={
            "fcm": {"ca": "a", "service_account": "b"},
            "apns": {"key_file": f"{tmp_path}"},
            "voice": {"enabled": False, "ca": "no matter", "key": "no file"},
        },
        signage={"certificate": "c"},
        social={"accounts": {"one": account}},
    )
    assert told == [
        "providers.fcm.ca: 'a': No such file or directory",
        "providers.fcm.service_account: 'b': No such file or directory",
        f"providers.apns.key_file: '{tmp_path}': Is a directory",
        "social.accounts.one.ca: 'd': No such file or directory",
        "signage.certificate: 'c': No such file or directory",
    ]


def test_an_authority_that_is_something_else_is_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"\xff junk")
    (told,) = problems(providers={"sms": {"ca": str(junk)}})
    assert told.startswith(f"providers.sms.ca: {str(junk)!r}: ")


def test_no_provider_is_left_out() -> None:
    names = list(msgspec.structs.asdict(load(None, {}).providers))
    whole = load(None, {}, providers={name: {"enabled": True, "ca": "x"} for name in names})
    assert {key for key, _, _ in named(whole)} == {f"providers.{name}.ca" for name in names}
