"""E-mail: one message a recipient, in plain text, for a submission server (RFC 6409).

Lore:

* A mail rings once more when sent twice, though softly; it counts among the channels that ring twice. `Message-ID` is
  made from action, phase and row, so that a doubled mail is one mail to readers that look at it.
* One recipient a mail: no address is shown to another, and each has its own state.
* `Expires` and `Auto-Submitted` are set; a mail has no deadline the network would keep, so what is over is not sent.
  `X-Auto-Response-Suppress` says the same to Exchange, which would else answer thousandfold that somebody is away.
* News and the result are replies to the first mail (`References`), so that readers show them together.
* `List-Unsubscribe` where the settings name a way: large mail providers ask it of whoever writes to many.
* The body is quoted-printable, so that no server on the way needs 8BITMIME.
* A reply code speaks of one recipient: 250 is taken, 4xx was not taken and may be later, 550 5.1.1 is nobody. What was
  cut off after the final dot may have been taken.
* Header injection: titles and addresses go through `email.message`, which refuses line breaks; addresses are checked
  first against the plain form that mail providers have (no quotes, no comments).
"""

from __future__ import annotations

import datetime
import re
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.channels.protocol import CODE_MAX, CODE_MIN, Column, Message, Outcome, look_up
from fanout.channels.telephone import reference
from fanout.store.protocol import Rows
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

ADDRESS_CHARS_MAX: Final = 254  # RFC 5321, less the angle brackets
TEXT_CHARS_MAX: Final = 20_000

_ADDRESS: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)


class Mail(NamedTuple):
    """One mail: its row's place in the batch, its recipient, and the whole message as it goes on the wire."""

    place: int
    recipient: str
    data: bytes


class Mails(NamedTuple):
    """The mails of a batch. `usable` bool[n]: rows that have one."""

    mails: tuple[Mail, ...]
    usable: NDArray[np.bool_]


class Email:
    """Renders and interprets for one sender address."""

    name = "email"
    number = CHANNELS.index("email")

    def __init__(self, *, sender: str, unsubscribe: str = "") -> None:
        self.sender = sender
        self._unsubscribe = unsubscribe
        self._domain = sender.rpartition("@")[2]

    def fits(self, message: Message) -> str | None:
        if (length := len(message.text)) > TEXT_CHARS_MAX:
            return f"it has {length:,} characters of {TEXT_CHARS_MAX:,}"
        return None

    def render(self, message: Message, addresses: Column, rows: Rows, *, now_ms: int) -> Mails:
        texts = [address.decode("ascii", "replace") for address in addresses.rows()]
        usable = np.array([len(a) <= ADDRESS_CHARS_MAX and bool(_ADDRESS.fullmatch(a)) for a in texts], np.bool_)
        prefix = reference(message.action, message.phase)
        whole = self._message(message, now_ms)
        mails = []
        for place in np.flatnonzero(usable).tolist():
            whole.replace_header("To", texts[place])
            whole.replace_header("Message-ID", f"<{prefix}{rows[place]}@{self._domain}>")
            if message.phase:
                first = f"<{reference(message.action, 0)}{rows[place]}@{self._domain}>"
                whole.replace_header("In-Reply-To", first)
                whole.replace_header("References", first)
            mails.append(Mail(place, texts[place], whole.as_bytes(policy=SMTP)))
        return Mails(tuple(mails), usable)

    def interpret(self, codes: NDArray[np.int16]) -> Outcome:
        """`codes` int16[n]: SMTP reply codes, or the negative ones of lanes."""
        return look_up(_MEANINGS, codes)

    def _message(self, message: Message, now_ms: int) -> EmailMessage:
        whole = EmailMessage(policy=SMTP)
        whole["From"] = self.sender
        whole["To"] = self.sender
        whole["Subject"] = " ".join((message.title or message.text.partition("\n")[0][:78]).split())
        whole["Date"] = _date(now_ms)
        whole["Expires"] = _date(message.end_ms)
        whole["Message-ID"] = "<x@localhost>"
        if message.phase:
            whole["In-Reply-To"] = whole["References"] = "<x@localhost>"
        whole["Auto-Submitted"] = "auto-generated"
        whole["X-Auto-Response-Suppress"] = "All"
        if message.lane == 0:
            whole["Importance"] = "high"
        if self._unsubscribe:
            whole["List-Unsubscribe"] = f"<{self._unsubscribe}>"
        whole["Content-Language"] = message.language
        whole.set_content(message.text, cte="quoted-printable")
        return whole


def _date(at_ms: int) -> str:
    return format_datetime(datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC))


def _meanings() -> NDArray[np.uint8]:
    """As `protocol.meanings`, for SMTP: there a 4xx says "not now" and a 5xx "never"."""
    table = np.empty((CODE_MAX - CODE_MIN + 1, 2), np.uint8)
    table[:] = (Event.TIME_OUT, Reason.GARBAGE)
    for code in range(200, 300):
        table[code - CODE_MIN] = (Event.ACCEPT, Reason.NONE)
    for code in range(400, 500):
        table[code - CODE_MIN] = (Event.RETRY, Reason.PROVIDER)
    for code in range(500, 600):
        table[code - CODE_MIN] = (Event.REJECT, Reason.PROVIDER)
    for code, meaning in {
        -1: (Event.RETRY, Reason.NONE),
        -2: (Event.RETRY, Reason.NETWORK),
        -3: (Event.TIME_OUT, Reason.TIME_OUT),
        421: (Event.RETRY, Reason.QUOTA),
        450: (Event.RETRY, Reason.QUOTA),
        452: (Event.RETRY, Reason.QUOTA),
        530: (Event.RETRY, Reason.CREDENTIALS),
        535: (Event.RETRY, Reason.CREDENTIALS),
        550: (Event.REJECT, Reason.TOKEN_DEAD),
        551: (Event.REJECT, Reason.TOKEN_DEAD),
        552: (Event.REJECT, Reason.PAYLOAD),
        553: (Event.REJECT, Reason.TOKEN_INVALID),
        554: (Event.REJECT, Reason.PAYLOAD),
    }.items():
        table[code - CODE_MIN] = meaning
    table.setflags(write=False)
    return table


_MEANINGS: Final = _meanings()
