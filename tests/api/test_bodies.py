"""Bodies as they arrive: whole, in pieces, cut short, and not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from starlette.requests import Request

from fanout import limits
from fanout.api import bodies
from fanout.errors import Refused

Piece = dict[str, Any]


def arriving(pieces: Sequence[Piece], *, every_s: float, then: Callable[[], Awaitable[Piece]]) -> Request:
    """A request whose body comes in these pieces, one in so many seconds, and goes on with what `then` says."""
    left = list(pieces)

    async def receive() -> Piece:
        await trio.sleep(every_s)
        return left.pop(0) if left else await then()

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def piece(body: bytes, *, more: bool = True) -> Piece:
    return {"type": "http.request", "body": body, "more_body": more}


async def nothing() -> Piece:
    await trio.sleep_forever()
    raise AssertionError


async def gone() -> Piece:
    return {"type": "http.disconnect"}


async def test_a_body_in_pieces(autojump_clock: trio.testing.MockClock) -> None:
    request = arriving([piece(b"a"), piece(b""), piece(b"b", more=False)], every_s=9.0, then=nothing)
    assert await bodies.read_bytes(request) == b"ab"


@pytest.mark.parametrize(
    ("every_s", "pieces", "then", "code"),
    [
        (0.0, [piece(b"a")], nothing, "body_too_slow"),
        (1.0, [piece(b"a")] * 1_000, nothing, "body_too_slow"),
        (0.0, [piece(b"a")], gone, "body_malformed"),
    ],
    ids=["a part, then silence", "a byte a second", "a part, then the end"],
)
async def test_who_does_not_finish_is_told_in_time(
    autojump_clock: trio.testing.MockClock,
    every_s: float,
    pieces: list[Piece],
    then: Callable[[], Awaitable[Piece]],
    code: str,
) -> None:
    """256 of these kept everybody else out for as long as they liked, and a receipt's body needs no key."""
    began_s = trio.current_time()
    with pytest.raises(Refused) as refused:
        await bodies.read_bytes(arriving(pieces, every_s=every_s, then=then))
    assert (refused.value.code, refused.value.where) == (code, "body")
    assert trio.current_time() - began_s <= limits.BODY_S_MAX


async def test_more_than_may_be_is_not_read(autojump_clock: trio.testing.MockClock) -> None:
    pieces = [piece(bytes(limits.BODY_BYTES_MAX)), piece(b"x")]
    with pytest.raises(Refused) as refused:
        await bodies.read_bytes(arriving(pieces, every_s=0.0, then=nothing))
    assert refused.value.code == "body_too_large"
    with pytest.raises(Refused, match="more than 9 bytes"):
        await bodies.read_bytes(arriving([piece(bytes(10))], every_s=0.0, then=nothing), most=9)
