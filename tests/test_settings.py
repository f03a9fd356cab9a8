"""Settings: all problems at once, overlays in their order, and the fence."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.errors import Refused
from fanout.settings import Settings, dump, is_loopback, load, parse


def test_defaults_are_whole_and_fenced() -> None:
    settings = load(None, {})
    assert settings.engine.fence == "loopback"
    assert parse(dump(settings)) == settings


def test_file_overlays_defaults_and_environment_overlays_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[senders]\nprocesses = 3\n[api]\nlisten = "127.0.0.1:1"\n')
    settings = load(file, {"FANOUT__API__LISTEN": "127.0.0.1:2", "FANOUT__SENDERS__LEASE_S": "5.5", "HOME": "/x"})
    assert settings.senders.processes == 3
    assert settings.api.listen == "127.0.0.1:2"
    assert settings.senders.lease_s == 5.5


def test_all_problems_are_told_at_once_by_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        '[api]\nport = 3\ndrain_s = -1\n[senders]\nprocesses = "two"\n[kinds.riot]\nlane = "fast"\n[nowhere]\nx = 1\n'
    )
    with pytest.raises(Refused) as caught:
        load(file, {})
    assert caught.value.code == "settings_invalid"
    lines = caught.value.message.splitlines()[1:]
    assert [line.partition(":")[0] for line in lines] == [
        "api.drain_s", "api.port", "kinds.riot.boards", "kinds.riot.lane", "nowhere", "senders.processes",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["[api", "\xff\x00", "[api]\nlisten = 'a:1'\nlisten = 'b:2'\n"])
def test_a_broken_file_is_one_problem(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(Refused) as caught:
        load(file, {})
    assert caught.value.code == "settings_invalid"
    assert "broken.toml" in caught.value.message


@pytest.mark.parametrize(
    ("overlay", "setting"),
    [
        ({"api": {"listen": "0.0.0.0:8080"}}, "api.listen"),
        ({"api": {"listen": "10.1.2.3:8080"}}, "api.listen"),
        ({"store": {"redis": "redis://redis.example:6379/0"}}, "store.redis"),
    ],
)
def test_the_fence_refuses_every_address_that_is_not_loopback(
    overlay: dict[str, dict[str, object]], setting: str
) -> None:
    with pytest.raises(Refused) as caught:
        load(None, {}, **overlay)
    assert (caught.value.code, caught.value.where) == ("fence", setting)
    with_tls = {"tls_certificate": "cert.pem", "tls_key": "key.pem"}
    assert load(None, {}, **overlay | {"engine": {"fence": "open"}, "api": overlay.get("api", {}) | with_tls})


def test_the_fence_covers_every_provider_and_broker() -> None:
    """Point each address of the defaults elsewhere, one by one: each time the engine refuses to start."""
    import msgspec

    fenced = []

    def walk(tree: object, path: tuple[str, ...]) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                walk(value, (*path, key))
        elif isinstance(tree, str) and (is_loopback(tree) and ":" in tree):
            fenced.append((path, tree))

    walk(msgspec.to_builtins(load(None, {})), ())
    assert len(fenced) >= 2
    for path, address in fenced:
        overlay: dict[str, object] = {}
        table = overlay
        for key in path[:-1]:
            inner: dict[str, object] = {}
            table[key] = inner
            table = inner
        table[path[-1]] = address.replace("127.0.0.1", "192.0.2.7").replace("localhost", "192.0.2.7")
        with pytest.raises(Refused) as caught:
            load(None, {}, **overlay)
        assert caught.value.code == "fence", path


@pytest.mark.parametrize("name", ["listen", "receipts_listen"])
@pytest.mark.parametrize("address", ["0.0.0.0:8080", "10.1.2.3:8080", "[::]:8080", "engine.example:8080"])
def test_beyond_loopback_somebody_speaks_tls(name: str, address: str) -> None:
    def loaded(**api: object) -> Settings:
        return load(None, {}, engine={"fence": "open"}, api={name: address} | api)

    with pytest.raises(Refused, match="tls_by_proxy") as caught:
        loaded()
    assert (caught.value.code, caught.value.where) == ("plain_http", f"api.{name}")
    for api in ({"tls_certificate": "cert.pem", "tls_key": "key.pem"}, {"tls_by_proxy": True}):
        assert loaded(**api)
    assert loaded(**{name: "127.0.0.1:8080"})


def test_a_child_holds_the_fence_again() -> None:
    text = dump(load(None, {}, engine={"fence": "open"}, api={"listen": "192.0.2.7:1", "tls_by_proxy": True}))
    with pytest.raises(Refused):
        parse(text.replace('"fence":"open"', '"fence":"loopback"'))


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("127.0.0.1:1", True), ("127.8.9.1:1", True), ("localhost:1", True), ("[::1]:1", True),
        ("https://127.0.0.1:9/x", True),
        ("https://127.0.0.1.example.com", False), ("https://127.0.0.1@example.com/", False), ("example.com:1", False),
        ("0.0.0.0:1", False), ("localhost.example:1", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_loopback(address: str, inside: bool) -> None:
    assert is_loopback(address) is inside


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ({"api": {"listen": "127.0.0.1:65536"}}, "api.listen: '127.0.0.1:65536' is no host:port"),
        ({"api": {"receipts_listen": "8080"}}, "api.receipts_listen: '8080' is no host:port"),
        ({"api": {"listen": 8080}}, "api.listen: Expected `str`, got `int`"),
        ({"store": {"redis": "127.0.0.1"}}, "store.redis: '127.0.0.1' is no address with a scheme"),
        (
            {"providers": {"voice": {"caller": "us"}}},
            "providers.voice.caller: Expected `str` matching regex '^\\\\+?[0",
        ),
    ],
)
def test_a_text_of_another_form_is_told_in_words(overlay: dict[str, object], words: str) -> None:
    with pytest.raises(Refused) as caught:
        load(None, {}, **overlay)
    assert words in caught.value.message
    assert "(?!" not in caught.value.message


def test_every_port_there_is_may_be_named() -> None:
    for port in (0, 1, 8080, 59_999, 60_000, 65_535):
        assert load(None, {}, api={"listen": f"[::1]:{port}"}).api.listen == f"[::1]:{port}"
