"""All channels of this engine in one place: which are switched on, how fast they go, and what they would carry.

Everything that asks "which channels are there" asks here: the API's preview and validation, the plan's estimate and the
sender. Measuring a text needs no address and no key, so it needs no settings either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fanout import wire
from fanout.channels import gsm
from fanout.channels import sms as sms_texts
from fanout.channels import voice as voice_texts
from fanout.channels.apns import Apns
from fanout.channels.fcm import Fcm
from fanout.channels.mail import Email
from fanout.channels.protocol import CallChannel, Message, Pace, RowChannel, TextChannel
from fanout.channels.sms import Sms
from fanout.channels.voice import Voice
from fanout.channels.webpush import WebPush
from fanout.channels.whatsapp import WhatsApp
from fanout.settings import Settings, is_loopback

_NOWHERE: Final = "https://localhost"
_MEASURES: Final[dict[str, TextChannel]] = {
    "fcm": Fcm(url=_NOWHERE, project="measure"),
    "apns": Apns(url=_NOWHERE, topic="measure"),
    "webpush": WebPush(hosts=[]),
    "sms": Sms(url=_NOWHERE, product_token="", sender="measure"),
    "voice": Voice(url=_NOWHERE, key="", caller="0"),
    "email": Email(sender="measure@localhost"),
    "whatsapp": WhatsApp(url=_NOWHERE, token="", phone="0", template="measure"),
}
_LONGEST_ID: Final = 2**53  # an id as long as any the ledger will give, so that what fits once fits for ever


def row_channel(name: str, settings: Settings) -> RowChannel:
    """A push channel as the settings have it."""
    providers = settings.providers
    if name == "fcm":
        return Fcm(url=providers.fcm.url, project=providers.fcm.project)
    if name == "apns":
        return Apns(url=providers.apns.url, topic=providers.apns.topic)
    assert name == "webpush"
    return WebPush(hosts=push_hosts(settings))


def push_hosts(settings: Settings) -> list[str]:
    """Hosts of push services that subscriptions may name; inside the fence only loopback ones."""
    hosts = settings.providers.webpush.hosts
    return [host for host in hosts if settings.engine.fence != "loopback" or is_loopback(host)]


def call_channel(name: str, settings: Settings) -> CallChannel:
    """A channel of single calls as the settings have it; `sms_second` is the second supplier."""
    providers = settings.providers
    if name == "voice":
        voice = providers.voice
        return Voice(url=voice.url, key=voice.key, caller=voice.caller, callback=voice.callback_url)
    if name == "whatsapp":
        whatsapp = providers.whatsapp
        return WhatsApp(url=whatsapp.url, token=whatsapp.token, phone=whatsapp.phone, template=whatsapp.template)
    assert name in ("sms", "sms_second")
    sms = providers.sms if name == "sms" else providers.sms_second
    return Sms(url=sms.url, product_token=sms.product_token, sender=sms.sender, parts_max=sms.parts_max)


def email(settings: Settings) -> Email:
    """E-mail as the settings have it."""
    return Email(sender=settings.providers.email.sender, unsubscribe=settings.providers.email.unsubscribe)


def paces(settings: Settings) -> dict[str, Pace]:
    """How fast each channel goes that is switched on, in the order of `wire.CHANNELS`."""
    found = {
        name: Pace(rate_per_s=provider.rate_per_s, burst=float(provider.burst))
        for name in wire.CHANNELS
        if (provider := getattr(settings.providers, name)).enabled
    }
    second = settings.providers.sms_second
    if "sms" in found and second.enabled:
        first = found["sms"]
        found["sms"] = Pace(first.rate_per_s + second.rate_per_s, first.burst + second.burst)
    return found


def unfit(channel: str, text: str, title: str, image: str = "") -> str | None:
    """None, or why `channel` cannot carry this text, with a photo at `image`: the `detail` of `text_too_long`."""
    return _MEASURES[channel].fits(_sample(text, title, "und", image))


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
        shown = sms_texts.content(message)
        return shown, gsm.size(shown).parts
    if name == "voice":
        return voice_texts.speech(message), 1
    return f"{message.title}\n{message.text}" if message.title else message.text, 1


def _sample(text: str, title: str, language: str, image: str = "") -> Message:
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
        image=image,
    )
