"""OAuth 1.0a against the example that X's documentation works out."""

from __future__ import annotations

from fanout.channels.oauth1 import Keys, authorization, signed

KEYS = Keys(
    "xvz1evFS4wEEPTGEFPHBog",
    "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw",
    "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
    "LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE",
)


def test_the_platforms_own_example() -> None:
    header = signed(
        KEYS,
        "post",
        "https://api.twitter.com/1.1/statuses/update.json?include_entities=true",
        nonce="kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg",
        timestamp_s=1318622958,
        form={"status": "Hello Ladies + Gentlemen, a signed OAuth request!"},
    )
    assert 'oauth_signature="hCtSmYh%2BiHYCEqBWrE7C7hYmtUk%3D"' in header


def test_each_call_has_a_nonce_of_its_own() -> None:
    def nonce(url: str, body: bytes, now_ms: int) -> str:
        return authorization(KEYS, "POST", url, body=body, now_ms=now_ms).partition('oauth_nonce="')[2][:32]

    calls = [("https://x/a", b"1", 1), ("https://x/b", b"1", 1), ("https://x/a", b"2", 1), ("https://x/a", b"1", 2)]
    assert len({nonce(*call) for call in calls}) == 4
