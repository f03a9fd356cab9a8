"""Delivery receipts: what a provider posts to us, checked and turned into arrays for the ledger. Pure.

Receipts come later, out of order, more than once, for actions long closed, or never; one a request or thousands. What
they change is `Ledger.apply_receipts`, which is idempotent, so here nothing is remembered. Rules:

1. Nothing is read before the signature holds: HMAC-SHA-256 of the body under the provider's secret, compared in
   constant time. Meta sends it as `X-Hub-Signature-256: sha256=<hex>`; for the others we ask for the same form in
   `X-Signature-256`, which their consoles let us configure or a gateway adds.
2. A receipt finds its row by the reference that went out with the message (`action-phase-row`), never by the number.
3. A reference that is not ours, a status that settles nothing (`sent`, `buffered`), and an entry that makes no sense
   (a null, a number where words belong) are counted and left out, each by itself: the others in its body count. Only a
   body that is no receipt at all is refused.
4. Of several receipts for one row in a body the good one counts: late news is good news (`store/states.py`).
5. Bad news moves a person to the next channel only where the provider is certain that nothing arrived. That is WhatsApp
   with the code of a message it never sent. A failed SMS is not: a long one is reported part by part, and a telephone
   that was off may have had it. Nor is a call that nobody took: the telephone rang, and its owner may call back.

Both suppliers of SMS send the same form, each to an address of its own (`sms`, `sms_second`) and under its own secret.
Grouped by (action, phase, channel), a body of thousands is one call to the ledger, and so are a hundred bodies of one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout.channels.answers import decoded, each, number_of
from fanout.channels.whatsapp import NEVER_SENT
from fanout.errors import Refused
from fanout.settings import ProvidersSettings
from fanout.store.protocol import Receipts
from fanout.wire import CHANNELS

SIGNATURES: Final = {"whatsapp": "x-hub-signature-256"}
SIGNATURE: Final = "x-signature-256"

_REFERENCE: Final = re.compile(r"([0-9]{1,16})-([0-9]{1,4})-([0-9]{1,10})")
_ROW_MAX: Final = 2**32 - 1

FAILED, BOUNCED, DELIVERED = range(3)
"""What became of a message: it did not arrive, as far as its provider can tell; it certainly did not; it did. Of
several told for one row the highest counts. Plain numbers: an `Enum` made a body of one take twice as long."""

Report: TypeAlias = tuple[str, int | None]
"""A reference, and what became of it; None: not settled yet."""

Told: TypeAlias = tuple[list[Report], int]
"""The reports of a body, and how many of its entries make no sense."""


class Read(NamedTuple):
    """What a body held: `receipts`, in each a row once. `ignored`: reports that settle nothing, are not ours, or make
    no sense."""

    receipts: list[Receipts]
    reports: int
    ignored: int


def sign(body: bytes, secret: str) -> str:
    """The signature of a body, as it stands in the header."""
    return "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()


def secret_of(providers: ProvidersSettings, provider: str) -> str:
    """What a provider signs its receipts with; empty for one that sends none."""
    return str(getattr(getattr(providers, provider, None), "receipt_secret", ""))


def read(provider: str, headers: Mapping[str, str], body: bytes, *, secret: str) -> Read:
    """Check and read one body.

    `headers` by lower-case name. Errors: `Refused("not_found")` for a provider that sends no receipts,
    `Refused("key_invalid")` for a wrong signature, `Refused("body_malformed")`.
    """
    form = _FORMS.get(provider)
    if form is None:
        raise Refused("not_found", "provider", what=f"provider {provider!r} that sends receipts")
    header = SIGNATURES.get(provider, SIGNATURE)
    if not secret or not hmac.compare_digest(headers.get(header, "").encode(), sign(body, secret).encode()):
        raise Refused("key_invalid", header)
    try:
        reports, broken = form.told(form.decoder.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("body_malformed", "body", format="JSON", detail=str(error)) from None
    return _grouped(reports, broken, form.channel)


def _grouped(reports: list[Report], broken: int, channel: int) -> Read:
    groups: dict[tuple[int, int], dict[int, int]] = {}
    ignored = broken
    for reference, fate in reports:
        found = _REFERENCE.fullmatch(reference)
        if found is None or fate is None or (row := int(found[3])) > _ROW_MAX:
            ignored += 1
            continue
        group = groups.setdefault((int(found[1]), int(found[2])), {})
        group[row] = max(fate, group.get(row, fate))
    receipts = []
    for (action, phase), group in groups.items():
        rows = np.fromiter(group, np.uint32, len(group))
        delivered = _those_that(group, DELIVERED)
        bounced = _those_that(group, BOUNCED) if BOUNCED in group.values() else None
        receipts.append(Receipts(action, phase, channel, rows, delivered, bounced))
    return Read(receipts, len(reports) + broken, ignored)


def _those_that(group: Mapping[int, int], fate: int) -> NDArray[np.bool_]:
    """bool[n]: rows with this fate."""
    return np.fromiter((one == fate for one in group.values()), np.bool_, len(group))


# --- forms ----------------------------------------------------------------------------------------------------------


class _CmStatus(msgspec.Struct):
    code: int | str | None = None


class _CmMessage(msgspec.Struct):
    reference: str | None = None
    status: _CmStatus | None = None


class _CmMessages(msgspec.Struct):
    msg: msgspec.Raw


class _CmBody(msgspec.Struct):
    messages: _CmMessages


_CM_CODES: Final = {1: FAILED, 2: DELIVERED, 3: FAILED}  # 1: rejected; 0: with the operator as yet
_CM_MESSAGE: Final = msgspec.json.Decoder(_CmMessage)


def _cm(body: _CmBody) -> Told:
    """CM.com status reports: one, or many in one call; codes are numbers, or numbers in words."""
    lines = decoded(_LINES, body.messages.msg)
    messages, broken = ([_CM_MESSAGE.decode(body.messages.msg)], 0) if lines is None else each(_CM_MESSAGE, lines)
    return [
        (one.reference or "", None if one.status is None else _CM_CODES.get(_code_of(one.status))) for one in messages
    ], broken


def _code_of(status: _CmStatus) -> int:
    code = number_of(status.code)
    return -1 if code is None else code


class _VoiceEvent(msgspec.Struct):
    reference: str | None = None
    status: str | None = None


class _VoiceResult(msgspec.Struct):
    code: int | str | None = None


class _VoiceEnd(msgspec.Struct, rename="kebab"):
    """The end of one call as CM.com tells it at `callback-url`; the reference is its `instruction-id`."""

    instruction_id: str
    result: _VoiceResult | None = None


class _VoiceBody(msgspec.Struct):
    """Ends of calls gathered by a gateway."""

    events: list[msgspec.Raw]


_VOICE: Final = {"answered": DELIVERED} | dict.fromkeys(("busy", "no-answer", "failed", "rejected"), FAILED)
_VOICE_RESULTS: Final = {10: DELIVERED} | dict.fromkeys((9, 11, 12), FAILED)  # no answer, failed, refused
_VOICE_EVENT: Final = msgspec.json.Decoder(_VoiceEvent)
_VOICE_END: Final = msgspec.json.Decoder(_VoiceEnd)
_VOICE_BODY: Final = msgspec.json.Decoder(_VoiceBody)


def _voice(body: msgspec.Raw) -> Told:
    """Ends of calls, one or many. A machine that answered is answered."""
    end = decoded(_VOICE_END, body)
    if end is not None:
        code = None if end.result is None else number_of(end.result.code)
        return [(end.instruction_id, None if code is None else _VOICE_RESULTS.get(code))], 0
    events, broken = each(_VOICE_EVENT, _VOICE_BODY.decode(body).events)
    return [(one.reference or "", _VOICE.get(one.status or "")) for one in events], broken


class _WhatsAppError(msgspec.Struct):
    code: int | str | None = None


class _WhatsAppStatus(msgspec.Struct):
    status: str | None = None
    biz_opaque_callback_data: str | None = None
    errors: msgspec.Raw = msgspec.Raw()


class _WhatsAppValue(msgspec.Struct):
    statuses: list[msgspec.Raw] | None = None


class _WhatsAppChange(msgspec.Struct):
    value: _WhatsAppValue | None = None


class _WhatsAppEntry(msgspec.Struct):
    changes: list[msgspec.Raw] | None = None


class _WhatsAppBody(msgspec.Struct):
    entry: list[msgspec.Raw]


_WHATSAPP: Final = {"delivered": DELIVERED, "read": DELIVERED, "failed": FAILED}
_WHATSAPP_ENTRY: Final = msgspec.json.Decoder(_WhatsAppEntry)
_WHATSAPP_CHANGE: Final = msgspec.json.Decoder(_WhatsAppChange)
_WHATSAPP_STATUS: Final = msgspec.json.Decoder(_WhatsAppStatus)
_WHATSAPP_ERRORS: Final = msgspec.json.Decoder(list[_WhatsAppError])


def _whatsapp(body: _WhatsAppBody) -> Told:
    """Meta's webhook; what is no status (a message to us) has none."""
    found, broken = each(_WHATSAPP_ENTRY, body.entry)
    changes, more = each(_WHATSAPP_CHANGE, [change for entry in found for change in entry.changes or ()])
    values = [change.value for change in changes if change.value is not None]
    statuses, most = each(_WHATSAPP_STATUS, [status for value in values for status in value.statuses or ()])
    told = [(one.biz_opaque_callback_data or "", _whatsapp_fate(one)) for one in statuses]
    return told, broken + more + most


def _whatsapp_fate(one: _WhatsAppStatus) -> int | None:
    fate = _WHATSAPP.get(one.status or "")
    if fate != FAILED:
        return fate
    errors = decoded(_WHATSAPP_ERRORS, one.errors) or ()
    never = any(number_of(error.code) in NEVER_SENT for error in errors)
    return BOUNCED if never else FAILED


class _Form(NamedTuple):
    channel: int
    decoder: msgspec.json.Decoder[Any]
    told: Callable[[Any], Told]


_LINES: Final = msgspec.json.Decoder(list[msgspec.Raw])
_CM: Final = _Form(CHANNELS.index("sms"), msgspec.json.Decoder(_CmBody), _cm)
_FORMS: Final[dict[str, _Form]] = {
    "sms": _CM,
    "sms_second": _CM,
    "voice": _Form(CHANNELS.index("voice"), msgspec.json.Decoder(msgspec.Raw), _voice),
    "whatsapp": _Form(CHANNELS.index("whatsapp"), msgspec.json.Decoder(_WhatsAppBody), _whatsapp),
}
