"""What strangers say at the door: whole, in pieces, in a row, and what is no request at all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout import limits
from fanout.errors import Refused
from fanout.inbound.conversation import Conversation, Heard, Request

POST = b"POST /v1/receipts/sms HTTP/1.1\r\nHost: x\r\n"
SHORT = POST + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;a=b\r\n}\r\n0\r\nX-Signature-256: late\r\n\r\n"
OFFER = (
    POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: 2\r\n\r\n{}"
)
GET = b"GET / HTTP/1.1\r\n\r\n"
HUGE = limits.RECEIPTS_BYTES_MAX


def heard(*pieces: bytes) -> tuple[Conversation, list[Heard]]:
    talk = Conversation()
    return talk, [one for piece in pieces for one in talk.hear(piece)]


def told(found: Iterable[Heard]) -> list[str | bytes]:
    """Bodies of what is whole, and codes of what is refused."""
    return [one.code if isinstance(one, Refused) else one.body for one in found]


def in_pieces(whole: bytes, size: int) -> list[bytes]:
    return [whole[begin : begin + size] for begin in range(0, len(whole), size)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("one", [SHORT, CHUNKED, OFFER], ids=["length", "chunks", "offers h2c"])
def test_a_request_is_handed_out_whole(one: bytes, size: int) -> None:
    talk, found = heard(*in_pieces(one + SHORT, size))
    assert told(found) == [b"{}", b"{}"]
    for request in found:
        assert isinstance(request, Request)
        assert (request.method, request.target, request.last) == ("POST", "/v1/receipts/sms", False)
        assert request.headers["host"] == "x"
        assert "x-signature-256" not in request.headers, "a trailer is no header"
    assert (talk.inside, talk.over) == (False, False)


@given(st.lists(st.sampled_from([SHORT, CHUNKED, OFFER, GET]), max_size=20), st.integers(1, 200))
def test_requests_in_a_row_however_they_are_cut(requests: list[bytes], size: int) -> None:
    _, found = heard(*in_pieces(b"".join(requests), size))
    assert told(found) == [b"" if one is GET else b"{}" for one in requests]


@given(st.binary(max_size=300), st.integers(0, len(CHUNKED)))
def test_nothing_is_raised_whatever_comes(noise: bytes, begin: int) -> None:
    talk, found = heard(CHUNKED[:begin] + noise, noise)
    assert all(isinstance(one, Request) for one in found[:-1])
    assert talk.over or not (found and isinstance(found[-1], Refused))


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"CONNECT there:443 HTTP/1.1\r\nHost: there\r\n\r\n",
        b"CONNECT there:443 HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["1.0", "close", "connect", "connect and more"],
)
def test_after_the_last_nothing_is_heard(head: bytes) -> None:
    talk, found = heard(head + SHORT, SHORT)
    assert told(found) == [b""]
    assert isinstance(found[0], Request)
    assert found[0].last
    assert talk.over


def test_of_a_header_that_comes_twice_the_first_counts() -> None:
    _, found = heard(POST + b"X-Signature-256: first\r\nx-signature-256: second\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(found[0], Request)
    assert found[0].headers["x-signature-256"] == "first"


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([b"\x16\x03\x01\x02\x00\x01"], "request_malformed"),
        ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], "request_malformed"),
        ([b"POST / a HTTP/1.1\r\n\r\n"], "request_malformed"),
        ([POST + b"X : y\r\n\r\n"], "request_malformed"),
        ([POST + b"X: y\r\n folded\r\n\r\n"], "request_malformed"),
        ([POST + b"X: a\x00b\r\n\r\n"], "request_malformed"),
        ([POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"], "request_malformed"),
        ([POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], "request_malformed"),
        ([POST + b"Transfer-Encoding: gzip\r\n\r\n"], "request_malformed"),
        ([POST + b"Content-Length: 99999999999999999999\r\n\r\n"], "request_malformed"),
        ([POST + b"Content-Length: -1\r\n\r\n"], "request_malformed"),
        ([POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n"], "request_malformed"),
        ([POST + b"Content-Length: %d\r\n\r\n" % (HUGE + 1)], "body_too_large"),
        ([POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (2 * HUGE), *[bytes(10_000)] * 200], "body_too_large"),
        ([POST + b"Transfer-Encoding: chunked\r\n\r\n1;", *[b"x" * 10_000] * 200], "body_too_large"),
        ([POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *[b"x" * 10_000] * 200], "body_too_large"),
        ([POST, *[b"x" * 10_000] * 200], "head_too_large"),
        ([POST, *[b"x: y\r\n" * 1_000] * 200], "head_too_large"),
        ([b"POST /", *[b"x" * 10_000] * 200], "head_too_large"),
    ],
)
def test_what_is_refused(pieces: list[bytes], code: str) -> None:
    talk, found = heard(SHORT, *pieces, SHORT)
    assert told(found) == [b"{}", code], "what was whole before it is answered, what comes after is not heard"
    assert talk.over


def test_who_waits_for_a_word_gets_it_once_and_before_the_body() -> None:
    asks = POST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    talk, found = heard(asks)
    assert (found, talk.wants_to_go_on(), talk.wants_to_go_on()) == ([], True, False)
    assert told(talk.hear(b"{}")) == [b"{}"]
    talk, found = heard(asks + b"{}")
    assert (told(found), talk.wants_to_go_on()) == ([b"{}"], False)
    talk, found = heard(asks.replace(b": 2", b": %d" % (HUGE + 1)))
    assert (told(found), talk.wants_to_go_on()) == (["body_too_large"], False)


def test_how_it_tells_of_itself() -> None:
    assert repr(heard(SHORT)[0]) == "<Conversation between requests>"
    assert repr(heard(SHORT[:-1])[0]) == "<Conversation inside a request>"
    assert repr(heard(b"?")[0]) == "<Conversation over>"
