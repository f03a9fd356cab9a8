"""Requests as the providers get them, as far as the simulators read them."""

from __future__ import annotations

from typing import Any, Final

import msgspec


class FcmData(msgspec.Struct):
    action: str = ""
    phase: str = "0"


class FcmMessage(msgspec.Struct):
    token: str
    data: FcmData = msgspec.field(default_factory=FcmData)


class FcmBody(msgspec.Struct):
    message: FcmMessage


class ApnsData(msgspec.Struct):
    action: str = ""
    phase: str = "0"


class ApnsBody(msgspec.Struct):
    aps: dict[str, Any]
    fanout: ApnsData = msgspec.field(default_factory=ApnsData)


class Number(msgspec.Struct):
    number: str


class SmsMessage(msgspec.Struct):
    to: list[Number]
    reference: str = ""


class SmsMessages(msgspec.Struct):
    msg: list[SmsMessage]


class SmsBody(msgspec.Struct):
    messages: SmsMessages


class OneNumber(msgspec.Struct):
    """A voice call (`callee`, `instruction-id`) or a WhatsApp message (`to`, `biz_opaque_callback_data`)."""

    callee: str = ""
    to: str = ""
    reference: str = msgspec.field(default="", name="instruction-id")
    biz_opaque_callback_data: str = ""


FCM: Final = msgspec.json.Decoder(FcmBody)
APNS: Final = msgspec.json.Decoder(ApnsBody)
SMS: Final = msgspec.json.Decoder(SmsBody)
ONE: Final = msgspec.json.Decoder(OneNumber)
