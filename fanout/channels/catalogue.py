"""All channels of this engine in one place: which are switched on, how fast they go, and what they would carry.

Everything that asks "which channels are there" asks here: the API's preview and validation, the plan's estimate and the
sender. Measuring a text needs no address and no key, so it needs no settings either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from fanout import wire
from fanout.channels import gsm
from fanout.channels import sms as sms_module
from fanout.channels.apns import Apns
from fanout.channels.fcm import Fcm
from fanout.channels.protocol import Message, Pace
from fanout.channels.sms import Sms
from fanout.settings import Settings

Channel: TypeAlias = Fcm | Apns | Sms

_MEASURES: Final[dict[str, Channel]] = {
    "fcm": Fcm(url="https://localhost", project="measure"),
    "apns": Apns(url="https://localhost", topic="measure"),
    "sms": Sms(url="https://localhost", product_token="", sender="measure"),
}
_LONGEST_ID: Final = 2**53  # an id as long as any the ledger will give, so that what fits once fits for ever


def channels(settings: Settings) -> dict[str, Channel]:
    """The channels that are switched on, by name, in the order of `wire.CHANNELS`."""
    providers = settings.providers
    found: dict[str, Channel] = {}
    if providers.fcm.enabled:
        found["fcm"] = Fcm(url=providers.fcm.url, project=providers.fcm.project)
    if providers.apns.enabled:
        found["apns"] = Apns(url=providers.apns.url, topic=providers.apns.topic)
    if providers.sms.enabled:
        found["sms"] = Sms(
            url=providers.sms.url,
            product_token=providers.sms.product_token,
            sender=providers.sms.sender,
            parts_max=providers.sms.parts_max,
        )
    return found


def paces(settings: Settings) -> dict[str, Pace]:
    """How fast each channel goes that is switched on, in the order of `wire.CHANNELS`."""
    return {
        name: Pace(rate_per_s=provider.rate_per_s, burst=float(provider.burst))
        for name in wire.CHANNELS
        if (provider := getattr(settings.providers, name, None)) is not None and provider.enabled
    }


def unfit(channel: str, text: str, title: str) -> str | None:
    """None, or why `channel` cannot carry this text: the `detail` of `text_too_long`."""
    return _MEASURES[channel].fits(_sample(text, title, "und"))


def renderings(action: wire.Action, names: Sequence[str]) -> list[wire.Rendering]:
    """What each channel would carry, in each language of the action."""
    found = []
    for name in names:
        for language, text in action.texts.items():
            message = _sample(text, action.titles.get(language, ""), language)
            shown, parts = _shown(name, message)
            found.append(wire.Rendering(channel=name, language=language, text=shown, parts=parts))
    return found


def _shown(name: str, message: Message) -> tuple[str, int]:
    if name == "sms":
        shown = sms_module.content(message)
        return shown, gsm.size(shown).parts
    return f"{message.title}\n{message.text}" if message.title else message.text, 1


def _sample(text: str, title: str, language: str) -> Message:
    return Message(
        action=_LONGEST_ID,
        phase=999,
        name="result",
        kind="x" * 40,
        lane=0,
        language=language,
        title=title,
        text=text,
        end_ms=_LONGEST_ID,
    )
