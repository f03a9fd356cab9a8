"""Answers at the door of receipts, as bytes: what the API says to the same, in JSON."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fanout import wire
from fanout.errors import Refused

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


def taken(answer: wire.ReceiptsAccepted, *, date: str, last: bool) -> bytes:
    """Receipts were taken in. `date` as `email.utils.formatdate` has it; `last`: the connection ends with it."""
    return _written(200, answer, f"Date: {date}\r\n", last=last)


def refused(error: Refused, *, date: str, last: bool, bare: bool = False) -> bytes:
    """An error of the catalogue. `bare`: without the body that its head tells of, as HEAD asks for."""
    lines = f"Date: {date}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
    if error.code == "method_not_allowed":
        lines += "Allow: POST\r\n"
    body = wire.ErrorBody(code=error.code, message=error.message, where=error.where)
    whole = _written(error.status, body, lines, last=last)
    return whole[: whole.index(b"\r\n\r\n") + 4] if bare else whole


def _written(status: int, answer: Any, lines: str, *, last: bool) -> bytes:
    body = wire.encode_json(answer)
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{lines}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{'Connection: close' if last else 'Connection: keep-alive'}\r\n\r\n"
    )
    return head.encode() + body
