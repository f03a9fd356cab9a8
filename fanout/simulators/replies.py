"""Answers as the providers word them: errors of FCM and APNs, and what a delivery that was taken is told."""

from __future__ import annotations

import time
from typing import Final

import msgspec

Headers = list[tuple[str, str]]
Reply = tuple[int, Headers, bytes]

JSON: Final[Headers] = [("content-type", "application/json; charset=UTF-8")]
NONE: Final[Headers] = []


def reference_of(reference: str) -> tuple[str, int]:
    """(action, phase) of `action-phase-row`."""
    action, _, rest = reference.partition("-")
    phase = rest.partition("-")[0]
    return action, int(phase) if phase.isdigit() else 0


def fcm_error(code: int, error: str, message: str, field: str) -> Reply:
    details: list[dict[str, object]] = [
        {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": error}
    ]
    if field:
        violation = {"field": field, "description": message}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    status = "NOT_FOUND" if code == 404 else error
    whole = {"error": {"code": code, "message": message, "status": status, "details": details}}
    return code, JSON, msgspec.json.encode(whole)


def apns_error(code: int, reason: str) -> Reply:
    whole: dict[str, object] = {"reason": reason}
    if code == 410:
        whole["timestamp"] = time.time_ns() // 1_000_000
    return code, JSON, msgspec.json.encode(whole)


def refusal(channel: str, code: int, fcm: str, apns: str) -> bytes:
    if channel == "fcm":
        return fcm_error(code, fcm, fcm, "")[2]
    return msgspec.json.encode({"reason": apns})


FCM_TAKEN: Final[Reply] = (200, JSON, b'{"name":"projects/fanout/messages/0:1500415314455276%31bd1c9631bd1c96"}')
APNS_TAKEN: Final[Reply] = (200, NONE, b"")
