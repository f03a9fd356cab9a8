"""Mails of a batch over one SMTP session, by the standard library's client, in a thread. The only smtplib import.

A session a batch: connect, TLS, log in, then a mail a recipient. Rules:

1. Each mail has its own code: the server's reply, or a lane's negative code. What was not begun when the session ended
   was not taken; what was cut off between the final dot and the reply may have been.
2. TLS is verified: `smtps` from the first byte, `smtp` by STARTTLS, except to loopback, where a test server has none. A
   server that offers no TLS gets no mail and no password.
3. `may_go` is asked before every mail.
4. A refusal is over when it is told: the transaction is reset, so that it is not the next recipient's.
5. What is no reply to what was said ends the session: a mail counts as taken by the reply to its final dot alone.
6. A reply has one time-out and one size for all of it, not one for each line: a server that sends a byte a second, or
   lines without end, holds nobody. smtplib's own limit counts per read, so replies are read by a reader of ours.

Why smtplib: it is kept with Python, and mail is no hot path. Why one session: greylisting and limits count connections.
"""

from __future__ import annotations

import contextlib
import smtplib
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fanout.channels.mail import Mail
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT
from fanout.settings import is_loopback

REPLY_BYTES_MAX: Final = 64 * 1024  # an EHLO with everything in it has one or two thousand


class Mailer:
    """One submission server."""

    def __init__(self, *, url: str, user: str, password: str, sender: str, ca: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._scheme = parts.hostname or "", parts.port, parts.scheme
        self._user, self._password, self._sender, self._timeout_s = user, password, sender, timeout_s
        self._our_name = sender.rpartition("@")[2]
        self._context = ssl.create_default_context(cafile=ca or None)
        self._plain = is_loopback(url) and not ca

    def send(self, mails: Sequence[Mail], may_go: Callable[[], bool]) -> NDArray[np.int16]:
        """Codes int16[k], one a mail, in order. Blocking. Errors: none of the outside world."""
        codes = np.full(len(mails), NOT_SENT, np.int16)
        try:
            session = self._open()
        except (OSError, smtplib.SMTPException) as error:
            said = error.smtp_code if isinstance(error, smtplib.SMTPResponseException) else 0
            codes[:] = said if said >= 400 else NO_CONNECTION
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
            session: smtplib.SMTP = _TlsSession(
                self._host,
                self._port or 465,
                local_hostname=self._our_name,
                timeout=self._timeout_s,
                context=self._context,
            )
        else:
            session = _Session(self._host, self._port or 587, local_hostname=self._our_name, timeout=self._timeout_s)
        try:
            if self._scheme != "smtps" and not self._plain:
                session.starttls(context=self._context)
            if self._user:
                session.login(self._user, self._password)
            session.ehlo_or_helo_if_needed()  # also anew after STARTTLS: servers refuse a mail without it
        except BaseException:
            session.close()
            raise
        return session

    def _one(self, session: smtplib.SMTP, mail: Mail) -> int:
        """The server's reply to one mail. Until its data is under way, a lost connection took nothing."""
        begun = False
        try:
            for step, about in ((session.mail, self._sender), (session.rcpt, mail.recipient)):
                code, _ = step(about)
                if code < 200:  # no reply: nobody knows what the next one is to
                    return NO_CONNECTION
                if code >= 300:
                    _reset(session)
                    return code
            begun = True
            code, _ = session.data(mail.data)
        except smtplib.SMTPDataError as error:  # it did not let the data begin
            if error.smtp_code < 400:  # nor refused it: replies and commands are out of step
                return NO_CONNECTION
            _reset(session)
            return error.smtp_code
        except (OSError, smtplib.SMTPException):
            return NO_ANSWER if begun else NO_CONNECTION
        return NO_ANSWER if code < 200 or 300 <= code < 400 else code  # smtplib calls a reply without a number -1


def _reset(session: smtplib.SMTP) -> None:
    """End a refused transaction; if the server is gone, the next mail finds out."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        session.rset()


class _Replies:
    """Where a session reads its replies from: each has until `until_s`, and so many bytes."""

    def __init__(self, sock: Any) -> None:
        self._sock, self._buffer = sock, bytearray()
        self.until_s, self.left = 0.0, 0

    def readline(self, limit: int) -> bytes:
        """A line, or the first `limit` bytes of one; empty when the server is gone. Errors: `OSError`."""
        while (end := self._buffer.find(b"\n") + 1) == 0 and len(self._buffer) < limit:
            left_s = self.until_s - time.monotonic()
            if left_s <= 0 or self.left <= 0:
                raise TimeoutError("a reply without an end")
            self._sock.settimeout(left_s)
            chunk = self._sock.recv(4_096)
            if not chunk:
                end = len(self._buffer)
                break
            self.left -= len(chunk)
            self._buffer += chunk
        line = bytes(self._buffer[: end or limit])
        del self._buffer[: len(line)]
        return line

    def close(self) -> None:
        """The socket is the session's."""


class _Session(smtplib.SMTP):
    """A client whose replies end."""

    file: Any
    sock: Any
    timeout: Any

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            self.file = _Replies(self.sock)
        timeout_s: float = self.timeout
        self.file.until_s, self.file.left = time.monotonic() + timeout_s, REPLY_BYTES_MAX
        try:
            return super().getreply()
        finally:
            if self.sock is not None:
                self.sock.settimeout(timeout_s)


class _TlsSession(_Session, smtplib.SMTP_SSL):
    """The same, with TLS from the first byte."""
