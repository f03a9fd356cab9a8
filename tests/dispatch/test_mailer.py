"""Mail over a real SMTP session with a small server that can misbehave."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fanout.channels.mail import Mail
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT
from fanout.dispatch.mailer import Mailer
from signage.broker import free_port


class _Session(socketserver.StreamRequestHandler):
    """Enough of RFC 5321 for one client. Recipients steer it: `dead@`, `later@`, `cut@` (ends at DATA), `gone@` (ends
    after the final dot), `mute@` (what it says is no reply), `hasty@` (250 to DATA), `twice@` (two replies to the final
    dot), `odd@` (354 to it)."""

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def handle(self) -> None:
        taken: list[str] = self.server.taken  # type: ignore[attr-defined]
        self.say("220 here")
        recipient = ""
        while line := self.rfile.readline().decode().strip():
            word = line[:4].upper()
            if word in ("EHLO", "HELO"):
                self.say("250 here")
            elif word == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
                replies = {"dead": "550 5.1.1 nobody", "later": "450 later", "mute": "what?"}
                self.say(replies.get(recipient.partition("@")[0], "250 ok"))
            elif word == "DATA":
                if recipient.startswith("cut@"):
                    return
                if recipient.startswith("hasty@"):
                    self.say("250 ok")
                    continue
                self.say("354 go on")
                while self.rfile.readline() != b".\r\n":
                    pass
                taken.append(recipient)
                if recipient.startswith("gone@"):
                    return
                self.say("354 go on" if recipient.startswith("odd@") else "250 taken")
                if recipient.startswith("twice@"):
                    self.say("250 taken")
            elif word == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


class _Stranger(socketserver.StreamRequestHandler):
    """Something else on the port."""

    def handle(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


@contextmanager
def server() -> Iterator[tuple[str, list[str]]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Session) as listening:
        listening.daemon_threads = True
        listening.taken = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"smtp://127.0.0.1:{listening.server_address[1]}", listening.taken  # type: ignore[attr-defined]
        finally:
            listening.shutdown()
            thread.join()


def send(url: str, *recipients: str, allowed: int = 99) -> list[int]:
    mailer = Mailer(url=url, user="", password="", sender="alert@example.org", ca="", timeout_s=20)
    left = iter(range(allowed))
    mails = [Mail(n, recipient, b"Subject: x\r\n\r\nRode fiets\r\n.\r\n") for n, recipient in enumerate(recipients)]
    return mailer.send(mails, lambda: next(left, None) is not None).tolist()


def test_each_recipient_has_its_reply() -> None:
    with server() as (url, taken):
        assert send(url, "a@x.nl", "dead@x.nl", "later@x.nl", "b@x.nl") == [250, 550, 450, 250]
        assert taken == ["a@x.nl", "b@x.nl"]


@pytest.mark.parametrize(("recipient", "code"), [("cut@x.nl", NO_ANSWER), ("gone@x.nl", NO_ANSWER)])
def test_a_session_that_ends_leaves_one_unknown_and_the_rest_untaken(recipient: str, code: int) -> None:
    with server() as (url, taken):
        assert send(url, "a@x.nl", recipient, "b@x.nl") == [250, code, NO_CONNECTION]
        assert "b@x.nl" not in taken


@pytest.mark.parametrize(
    ("recipient", "codes"),
    [
        ("mute@x.nl", [250, NO_CONNECTION, NO_CONNECTION]),
        ("hasty@x.nl", [250, NO_CONNECTION, NO_CONNECTION]),
        ("twice@x.nl", [250, 250, NO_CONNECTION]),
        ("odd@x.nl", [250, NO_ANSWER, NO_CONNECTION]),
    ],
)
def test_only_a_reply_to_the_whole_mail_says_that_it_was_taken(recipient: str, codes: list[int]) -> None:
    """A 250 to something else did: mails counted as taken that no server ever had."""
    with server() as (url, taken):
        assert send(url, "a@x.nl", recipient, "b@x.nl") == codes
        assert all(name in taken for name, code in zip(("a@x.nl", recipient), codes, strict=False) if code == 250)
        assert "b@x.nl" not in taken


def test_who_does_not_speak_smtp_has_had_its_attempt() -> None:
    """It was called unsent, as rows are that were stopped: they went again at once, until the end of the action."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Stranger) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            assert send(f"smtp://127.0.0.1:{listening.server_address[1]}", "a@x.nl") == [NO_CONNECTION]
        finally:
            listening.shutdown()
            thread.join()


def test_a_stop_between_two_mails() -> None:
    with server() as (url, taken):
        assert send(url, "a@x.nl", "b@x.nl", allowed=1) == [250, NOT_SENT]
        assert taken == ["a@x.nl"]


def test_nobody_there() -> None:
    assert send(f"smtp://127.0.0.1:{free_port()}", "a@x.nl") == [NO_CONNECTION]
