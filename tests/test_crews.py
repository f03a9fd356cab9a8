"""Which senders there are: every enabled channel in one of them, and what rings not behind what encrypts."""

from __future__ import annotations

from fanout.crews import crews
from fanout.settings import load
from fanout.store.protocol import Share


def senders(processes: int, *channels: str, nearest: bool = False) -> list[tuple[str, Share, tuple[str, ...]]]:
    enabled = {name: {"enabled": name in channels} for name in ("fcm", "apns", "webpush", "sms", "voice", "email")}
    return crews(load(None, {}, providers=enabled, senders={"processes": processes, "nearest": nearest}))


def test_what_rings_has_a_process_beside_what_encrypts() -> None:
    found = senders(2, "fcm", "webpush", "sms", "voice")
    push = [(f"push-{number}", Share.ALL, ("fcm", "apns")) for number in range(2)]
    assert found == [*push, ("webpush", Share.ALL, ("webpush",)), ("calls", Share.ALL, ("sms", "voice"))]


def test_the_nearest_have_a_process_and_all_others_leave_them_to_it() -> None:
    found = senders(1, "fcm", "sms", nearest=True)
    push = [("nearest", Share.NEAREST, ("fcm", "apns")), ("push-0", Share.OTHERS, ("fcm", "apns"))]
    assert found == [*push, ("calls", Share.ALL, ("sms",))]
    assert senders(0, "fcm", nearest=True) == []


def test_where_the_quota_is_small_the_nearest_go_with_all_others() -> None:
    def found(**fcm: float) -> list[tuple[str, Share, tuple[str, ...]]]:
        return crews(load(None, {}, providers={"fcm": fcm}, senders={"nearest": True}))[:2]

    both = [("nearest", Share.NEAREST, ("fcm", "apns")), ("push-0", Share.OTHERS, ("fcm", "apns"))]
    assert found(rate_per_s=1_280.0, burst=256) == both, "64 at once, and 64 a second"
    for fcm in ({"rate_per_s": 1_279.0, "burst": 256}, {"rate_per_s": 1_280.0, "burst": 255}):
        assert found(**fcm) == [("nearest", Share.NEAREST, ("apns",)), ("push-0", Share.OTHERS, ("fcm", "apns"))]


def test_a_channel_that_is_off_has_no_process() -> None:
    assert [name for name, *_ in senders(1, "fcm", "sms")] == ["push-0", "calls"]
    assert [name for name, *_ in senders(1, "fcm", "webpush")] == ["push-0", "webpush"]
    assert senders(0, "fcm", "webpush", "sms") == []
