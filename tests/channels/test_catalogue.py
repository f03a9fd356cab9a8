"""Which channels there are, how fast, and what they would carry."""

from __future__ import annotations

from fanout import wire
from fanout.channels import channels, paces, renderings, unfit
from fanout.settings import load


def test_a_channel_switched_off_is_nowhere() -> None:
    settings = load(None, {}, providers={"sms": {"enabled": False}})
    assert list(channels(settings)) == list(paces(settings))
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
