"""Delivery receipts: what a provider posts to us, checked and turned into arrays for the ledger. Pure.

Receipts come later, out of order, more than once, for actions long closed, or never; one a request or thousands. What
they change is `Ledger.apply_receipts`, which is idempotent, so here nothing is remembered. Rules:

1. Nothing is read before the signature holds: HMAC-SHA-256 of the body under the provider's secret, compared in
   constant time. Meta sends it as `X-Hub-Signature-256: sha256=<hex>`; for the others we ask for the same form in
   `X-Signature-256`, which their consoles let us configure or a gateway adds.
2. A receipt finds its row by the reference that went out with the message (`action-phase-row`), never by the number.
3. A reference that is not ours, or a status that settles nothing (`sent`, `buffered`), is counted and left out; a body
   that is no receipt at all is refused.
4. Of several receipts for one row in a body the good one counts: late news is good news (`store/states.py`).

Grouped by (action, phase, channel), a body of thousands is a handful of calls to the ledger.
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

from fanout.errors import Refused
from fanout.store.protocol import Rows
from fanout.wire import CHANNELS

SIGNATURES: Final = {"whatsapp": "x-hub-signature-256"}
SIGNATURE: Final = "x-signature-256"

_REFERENCE: Final = re.compile(r"([0-9]{1,16})-([0-9]{1,4})-([0-9]{1,10})")
_ROW_MAX: Final = 2**32 - 1

Report: TypeAlias = tuple[str, bool | None]
"""A reference, and whether it was delivered; None: not settled yet."""


class Receipts(NamedTuple):
    """Receipts of one (action, phase, channel): `rows` uint32[n], each once, and `delivered` bool[n]."""

    action: int
    phase: int
    channel: int
    rows: Rows
    delivered: NDArray[np.bool_]


class Read(NamedTuple):
    """What a body held. `ignored`: reports that settle nothing, or are not ours."""

    receipts: list[Receipts]
    reports: int
    ignored: int


def sign(body: bytes, secret: str) -> str:
    """The signature of a body, as it stands in the header."""
    return "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()


def read(provider: str, headers: Mapping[str, str], body: bytes, *, secret: str) -> Read:
    """Check and read one body.

    `headers` by lower-case name. Errors: `Refused("not_found")` for a provider that sends no receipts,
    `Refused("key_invalid")` for a wrong signature, `Refused("body_malformed")`.
    """
    form = _FORMS.get(provider)
    if form is None:
        raise Refused("not_found", what=f"provider {provider!r} that sends receipts")
    given = headers.get(SIGNATURES.get(provider, SIGNATURE), "")
    if not secret or not hmac.compare_digest(given.encode(), sign(body, secret).encode()):
        raise Refused("key_invalid")
    try:
        reports = form.reports(form.decoder.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("body_malformed", format="JSON", detail=str(error)) from None
    return _grouped(reports, form.channel)


def _grouped(reports: list[Report], channel: int) -> Read:
    groups: dict[tuple[int, int], dict[int, bool]] = {}
    ignored = 0
    for reference, delivered in reports:
        found = _REFERENCE.fullmatch(reference)
        if found is None or delivered is None or (row := int(found[3])) > _ROW_MAX:
            ignored += 1
            continue
        group = groups.setdefault((int(found[1]), int(found[2])), {})
        group[row] = group.get(row, False) or delivered
    receipts = [
        Receipts(
            action,
            phase,
            channel,
            np.fromiter(group, np.uint32, len(group)),
            np.fromiter(group.values(), np.bool_, len(group)),
        )
        for (action, phase), group in groups.items()
    ]
    return Read(receipts, len(reports), ignored)


# --- forms ----------------------------------------------------------------------------------------------------------


class _CmStatus(msgspec.Struct):
    code: int = -1


class _CmMessage(msgspec.Struct):
    reference: str = ""
    status: _CmStatus = msgspec.field(default_factory=_CmStatus)


class _CmMessages(msgspec.Struct):
    msg: list[_CmMessage] | _CmMessage


class _CmBody(msgspec.Struct):
    messages: _CmMessages


_CM_CODES: Final = {1: False, 2: True, 3: False}  # rejected, delivered, failed; 0 is only "with the operator"


def _cm(body: _CmBody) -> list[Report]:
    """CM.com status reports: one, or many in one call."""
    messages = body.messages.msg
    found = messages if isinstance(messages, list) else [messages]
    return [(one.reference, _CM_CODES.get(one.status.code)) for one in found]


class _VoiceEvent(msgspec.Struct):
    reference: str = ""
    status: str = ""


class _VoiceBody(msgspec.Struct):
    events: list[_VoiceEvent]


_VOICE: Final = {"answered": True, "busy": False, "no-answer": False, "failed": False, "rejected": False}


def _voice(body: _VoiceBody) -> list[Report]:
    """Ends of calls. A machine that answered is answered."""
    return [(one.reference, _VOICE.get(one.status)) for one in body.events]


class _WhatsAppStatus(msgspec.Struct):
    status: str = ""
    biz_opaque_callback_data: str = ""


class _WhatsAppValue(msgspec.Struct):
    statuses: list[_WhatsAppStatus] = []


class _WhatsAppChange(msgspec.Struct):
    value: _WhatsAppValue = msgspec.field(default_factory=_WhatsAppValue)


class _WhatsAppEntry(msgspec.Struct):
    changes: list[_WhatsAppChange] = []


class _WhatsAppBody(msgspec.Struct):
    entry: list[_WhatsAppEntry]


_WHATSAPP: Final = {"delivered": True, "read": True, "failed": False}


def _whatsapp(body: _WhatsAppBody) -> list[Report]:
    """Meta's webhook; what is no status (a message to us) has none."""
    return [
        (one.biz_opaque_callback_data, _WHATSAPP.get(one.status))
        for entry in body.entry
        for change in entry.changes
        for one in change.value.statuses
    ]


class _Form(NamedTuple):
    channel: int
    decoder: msgspec.json.Decoder[Any]
    reports: Callable[[Any], list[Report]]


_FORMS: Final[dict[str, _Form]] = {
    "sms": _Form(CHANNELS.index("sms"), msgspec.json.Decoder(_CmBody), _cm),
    "voice": _Form(CHANNELS.index("voice"), msgspec.json.Decoder(_VoiceBody), _voice),
    "whatsapp": _Form(CHANNELS.index("whatsapp"), msgspec.json.Decoder(_WhatsAppBody), _whatsapp),
}
