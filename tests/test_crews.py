"""Which senders there are: every enabled channel in one of them, and what rings not behind what encrypts."""

from __future__ import annotations

from fanout.crews import crews
from fanout.settings import load


def senders(processes: int, *channels: str) -> list[tuple[str, tuple[str, ...]]]:
    enabled = {name: {"enabled": name in channels} for name in ("fcm", "apns", "webpush", "sms", "voice", "email")}
    return crews(load(None, {}, providers=enabled, senders={"processes": processes}))


def test_what_rings_has_a_process_beside_what_encrypts() -> None:
    found = senders(2, "fcm", "webpush", "sms", "voice")
    push = [("push-0", ("fcm", "apns")), ("push-1", ("fcm", "apns"))]
    assert found == [*push, ("webpush", ("webpush",)), ("calls", ("sms", "voice"))]


def test_a_channel_that_is_off_has_no_process() -> None:
    assert [name for name, _ in senders(1, "fcm", "sms")] == ["push-0", "calls"]
    assert [name for name, _ in senders(1, "fcm", "webpush")] == ["push-0", "webpush"]
    assert senders(0, "fcm", "webpush", "sms") == []
