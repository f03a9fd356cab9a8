"""Which channels there are, how fast, and what they would carry."""

from __future__ import annotations

import numpy as np

from fanout import wire
from fanout.channels import paces, renderings, unfit
from fanout.channels.catalogue import row_channel
from fanout.channels.protocol import column
from fanout.settings import load
from tests.channels.kit import NOW_MS, message


def test_a_channel_switched_off_is_nowhere() -> None:
    settings = load(None, {}, providers={"sms": {"enabled": False}})
    assert "sms" not in paces(settings)
    assert "fcm" in paces(load(None, {}))


def test_paces_stand_in_the_order_of_the_wire() -> None:
    names = list(paces(load(None, {})))
    assert names == sorted(names, key=wire.CHANNELS.index)


def test_every_channel_says_what_it_would_carry() -> None:
    action = wire.Action(
        kind="missing_child",
        area=wire.Everyone(),
        texts={"nl": "Rode fiets, €", "en": "Red bike ж" + "x" * 80},
        titles={"nl": "Vermist"},
        end_ms=1,
    )
    shown = {(one.channel, one.language): one for one in renderings(action, ["fcm", "sms"])}
    assert shown["sms", "nl"].text == "Vermist: Rode fiets, €"
    assert shown["sms", "nl"].parts == 1
    assert shown["sms", "en"].parts == 2
    assert shown["fcm", "nl"].text == "Vermist\nRode fiets, €"


def test_a_text_no_channel_cuts() -> None:
    assert unfit("sms", "x" * 100, "") is None
    assert unfit("sms", "ж" * 600, "") is not None
    assert unfit("fcm", "ж" * 2_000, "") is not None
    assert unfit("apns", "x" * 1_000, "title") is None


def test_two_suppliers_are_as_fast_as_both() -> None:
    one = paces(load(None, {}))["sms"]
    both = paces(load(None, {}, providers={"sms_second": {"enabled": True}}))
    assert both["sms"].rate_per_s == 2 * one.rate_per_s
    assert "sms_second" not in both


def test_every_channel_of_the_wire_has_its_measure() -> None:
    for name in wire.CHANNELS:
        assert unfit(name, "Rode fiets", "Vermist") is None
        assert unfit(name, "ж" * 30_000, "") is not None


def test_inside_the_fence_subscriptions_name_loopback_only() -> None:
    settings = load(None, {}, providers={"webpush": {"hosts": ["fcm.googleapis.com", "127.0.0.1"]}})
    channel = row_channel("webpush", settings)
    keys = (
        b'"keys":{"p256dh":"BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",'
    )
    keys += b'"auth":"AAAAAAAAAAAAAAAAAAAAAA"}}'
    outside, inside = (
        b'{"endpoint":"https://' + host + b'/x",' + keys for host in (b"fcm.googleapis.com", b"127.0.0.1")
    )
    again = np.zeros(2, np.bool_)
    requests = channel.render(message(), column([outside, inside]), again, now_ms=NOW_MS, authorize=lambda _: "vapid")
    assert requests.usable.tolist() == [False, True]
