"""A real SMTP server (aiosmtpd) in a thread: TLS, log-in, and recipients that steer it.

`dead@` is nobody (550), `later@` is not now (450) until `patient` says so, `full@` is refused after its data (552),
`no@` before its data (554), `gone@` ends the connection after its data was taken, `cut@` before it began. `drip@` is
answered by a line now and then, `endless@` by lines without an end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from signage.broker import free_port

USER, PASSWORD = "fanout", "a shared secret"


class Taken:
    """What the server took: mails by recipient, and whether each came over TLS, logged in."""

    def __init__(self, *, login: bool) -> None:
        self._login = login
        self.mails: dict[str, bytes] = {}
        self.count: Counter[str] = Counter()
        self.secured: set[bool] = set()
        self.patient = False

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, _o: list[str]) -> str:
        if self._login and not session.authenticated:
            return "530 5.7.0 log in first"
        word = address.partition("@")[0].rstrip("0123456789")
        if word == "drip":
            for _ in range(50):
                await server.push("250-a")
                await asyncio.sleep(0.2)
        if word == "endless":
            while server.transport is not None and not server.transport.is_closing():
                await server.push("250-" + "x" * 400)
        if word == "dead":
            return "550 5.1.1 nobody here"
        if word == "later" and not self.patient:
            return "450 4.2.1 not now"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _s: Session, envelope: Envelope) -> str:
        (address,) = envelope.rcpt_tos
        word = address.partition("@")[0].rstrip("0123456789")
        if word == "full":
            return "552 5.3.4 too large"
        assert isinstance(envelope.content, bytes)
        self.mails[address] = envelope.content
        self.count[address] += 1
        self.secured.add(server.transport.get_extra_info("sslcontext") is not None)
        if word == "gone":
            server.transport.abort()
        return "250 OK"


class _Smtp(SMTP):
    """Lets some recipients end a transaction before their data."""

    async def smtp_DATA(self, arg: str) -> None:
        word = self.envelope.rcpt_tos[0].partition("@")[0] if self.envelope and self.envelope.rcpt_tos else ""
        if word == "no":
            await self.push("554 5.7.1 not from you")
        elif word == "cut":
            self.transport.abort()
        else:
            await super().smtp_DATA(arg)


class _Server(Controller):
    def __init__(self, taken: Taken, context: ssl.SSLContext | None, *, implicit: bool, login: bool) -> None:
        self._options: dict[str, Any] = {"decode_data": False, "enable_SMTPUTF8": False}
        if context is not None and not implicit:
            self._options |= {"tls_context": context, "require_starttls": True}
        if login:
            self._options |= {
                "authenticator": self._check,
                "auth_required": not implicit,
                "auth_require_tls": not implicit,
            }
        super().__init__(taken, hostname="127.0.0.1", port=free_port(), ssl_context=context if implicit else None)

    def factory(self) -> SMTP:
        return _Smtp(self.handler, **self._options)

    @staticmethod
    def _check(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: object) -> AuthResult:
        known = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=known, handled=False)


@contextmanager
def smtp_server(
    cert: Path | None = None, key: Path | None = None, *, implicit: bool = False, login: bool = False
) -> Iterator[tuple[str, Taken]]:
    """The address of a running server, and what it took. With a certificate it insists on TLS."""
    taken, context = Taken(login=login), None
    if cert is not None and key is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
    server = _Server(taken, context, implicit=implicit, login=login)
    server.start()
    try:
        yield f"{'smtps' if implicit else 'smtp'}://127.0.0.1:{server.port}", taken
    finally:
        server.stop()
