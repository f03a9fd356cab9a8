"""Mails of a batch over one SMTP session, by the standard library's client, in a thread. The only smtplib import.

A session a batch: connect, TLS, log in, then a mail a recipient. Rules:

1. Each mail has its own code: the server's reply, or a lane's negative code. What was not begun when the session ended
   was not taken; what was cut off between the final dot and the reply may have been.
2. TLS is verified: `smtps` from the first byte, `smtp` by STARTTLS, except to loopback, where a test server has none.
3. `may_go` is asked before every mail.

Why smtplib: it is kept with Python, and mail is no hot path. Why one session: greylisting and limits count connections.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fanout.channels.mail import Mail
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT
from fanout.settings import is_loopback


class Mailer:
    """One submission server."""

    def __init__(self, *, url: str, user: str, password: str, sender: str, ca: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._scheme = parts.hostname or "", parts.port, parts.scheme
        self._user, self._password, self._sender, self._timeout_s = user, password, sender, timeout_s
        self._context = ssl.create_default_context(cafile=ca or None)
        self._plain = is_loopback(url) and not ca

    def send(self, mails: Sequence[Mail], may_go: Callable[[], bool]) -> NDArray[np.int16]:
        """Codes int16[k], one a mail, in order. Blocking. Errors: none of the outside world."""
        codes = np.full(len(mails), NOT_SENT, np.int16)
        try:
            session = self._open()
        except (OSError, smtplib.SMTPException) as error:
            codes[:] = error.smtp_code if isinstance(error, smtplib.SMTPResponseException) else NO_CONNECTION
            return codes
        try:
            for number, mail in enumerate(mails):
                if not may_go():
                    break
                codes[number] = self._one(session, mail)
                if codes[number] in (NO_ANSWER, NO_CONNECTION, 421):
                    codes[number + 1 :] = NO_CONNECTION
                    break
        finally:
            try:
                session.quit()
            except (OSError, smtplib.SMTPException):
                session.close()
        return codes

    def _open(self) -> smtplib.SMTP:
        if self._scheme == "smtps":
            session: smtplib.SMTP = smtplib.SMTP_SSL(
                self._host, self._port or 465, timeout=self._timeout_s, context=self._context
            )
        else:
            session = smtplib.SMTP(self._host, self._port or 587, timeout=self._timeout_s)
            if not self._plain:
                session.starttls(context=self._context)
        if self._user:
            session.login(self._user, self._password)
        return session

    def _one(self, session: smtplib.SMTP, mail: Mail) -> int:
        """The server's reply to one mail. Until its data is under way, a lost connection took nothing."""
        begun = False
        try:
            for code, _ in (session.mail(self._sender), session.rcpt(mail.recipient)):
                if code >= 300:
                    session.rset()
                    return code
            begun = True
            code, _ = session.data(mail.data)
        except smtplib.SMTPDataError as error:
            return error.smtp_code
        except (OSError, smtplib.SMTPException):
            return NO_ANSWER if begun else NO_CONNECTION
        return code
