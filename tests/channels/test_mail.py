"""E-mail: one recipient a mail, and no header but ours."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default

import numpy as np
import pytest

from fanout.channels.mail import Email
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, column
from fanout.store.states import Event, Reason
from tests.channels.kit import HOSTILE, NOW_MS, message


def make() -> Email:
    return Email(sender="alert@example.org")


def test_each_recipient_has_a_mail_of_its_own() -> None:
    addresses = column([b"a.b+c@example.nl", b"d@sub.example.com"])
    mails = make().render(message(), addresses, np.array([41, 42], np.uint32), now_ms=NOW_MS).mails
    for mail, row in zip(mails, (41, 42), strict=True):
        read = message_from_bytes(mail.data, policy=default)
        assert read["To"] == mail.recipient
        assert read["From"] == "alert@example.org"
        assert read["Message-ID"] == f"<7-1-{row}@example.org>"
        assert read["Subject"] == "Vermist kind"
        assert read.get_content().strip() == message().text  # type: ignore[attr-defined]
        assert read["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize("address", [*HOSTILE, b"a@b", b"a b@example.nl", b'"a"@example.nl', b"a@example.nl,b@x.nl"])
def test_addresses_that_are_not_used(address: bytes) -> None:
    found = make().render(message(), column([address]), np.zeros(1, np.uint32), now_ms=NOW_MS)
    assert not found.usable.any()
    assert not found.mails


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (250, (Event.ACCEPT, Reason.NONE)),
        (421, (Event.RETRY, Reason.QUOTA)),
        (451, (Event.RETRY, Reason.PROVIDER)),
        (550, (Event.REJECT, Reason.TOKEN_DEAD)),
        (554, (Event.REJECT, Reason.PAYLOAD)),
        (NO_CONNECTION, (Event.RETRY, Reason.NETWORK)),
        (NO_ANSWER, (Event.TIME_OUT, Reason.TIME_OUT)),
        (354, (Event.TIME_OUT, Reason.GARBAGE)),
    ],
)
def test_replies(code: int, meaning: tuple[Event, Reason]) -> None:
    outcome = make().interpret(np.array([code], np.int16))
    assert (outcome.event[0], outcome.reason[0]) == meaning


def headers(**changes: object) -> dict[str, str]:
    channel = Email(sender="alert@example.org", unsubscribe="mailto:stop@example.org")
    (mail,) = channel.render(
        message(**changes), column([b"a@example.nl"]), np.array([41], np.uint32), now_ms=NOW_MS
    ).mails
    return dict(message_from_bytes(mail.data, policy=default).items())


def test_news_and_the_result_are_replies_to_the_first_mail() -> None:
    assert headers(phase=0)["Message-ID"] == headers(phase=2)["In-Reply-To"] == headers(phase=2)["References"]
    assert "In-Reply-To" not in headers(phase=0)
    assert headers(phase=2)["Message-ID"] == headers(phase=2)["Message-ID"], "the same row is the same mail"


def test_what_machines_read() -> None:
    found = headers()
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["X-Auto-Response-Suppress"] == "All"
    assert found["List-Unsubscribe"] == "<mailto:stop@example.org>"
    assert found["Importance"] == "high"
    assert "Importance" not in headers(lane=1)
    assert found["Content-Transfer-Encoding"] == "quoted-printable"
    assert "List-Unsubscribe" not in dict(
        message_from_bytes(
            make().render(message(), column([b"a@example.nl"]), np.zeros(1, np.uint32), now_ms=NOW_MS).mails[0].data
        ).items()
    )


@pytest.mark.parametrize("title", ["a\nb", "a\r\nBcc: all@example.nl", "\x00", "é ١ 🚲", ""])
def test_a_title_is_one_line_of_one_header(title: str) -> None:
    found = headers(title=title, text="Rode fiets.\nBlauwe jas.")
    assert "Bcc" not in found
    assert found["Subject"] in (" ".join(title.split()), "Rode fiets.") or "\x00" in title


def test_lines_are_short_and_seven_bit() -> None:
    text = "Vermist: meisje — rode jas. " * 60 + "\n.\n..\nFrom here"
    (mail,) = make().render(message(text=text), column([b"a@example.nl"]), np.zeros(1, np.uint32), now_ms=NOW_MS).mails
    assert mail.data.isascii()
    assert max(map(len, mail.data.split(b"\r\n"))) <= 78
    read = message_from_bytes(mail.data, policy=default).get_content()  # type: ignore[attr-defined]
    assert read.splitlines() == text.splitlines()
