"""What every channel must keep, whatever its provider: `check_row_channel(make)` and `check_call_channel(make)`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fanout.channels.protocol import (
    CODE_MAX,
    CODE_MIN,
    GARBAGE,
    NO_ANSWER,
    NO_CONNECTION,
    NOT_SENT,
    Answer,
    CallChannel,
    Message,
    Outcome,
    Requests,
    RowChannel,
    Template,
    column,
)
from fanout.store.states import ILLEGAL, REPLACES_IN_PLACE, TABLE, Event, Reason, State

PAYLOAD_BYTES_MAX = 4_096  # of FCM, APNs and Web Push alike
NOW_MS = 1_800_000_000_000
HOSTILE = (
    b"",
    b'a"b',
    b"a\nb",
    b"a\r\nx-evil: 1",
    b"a/../b",
    b"a b",
    b"a%00b",
    b"\x00",
    b"\xff\xfe",
    "é".encode(),
    b"a\\u0022",
    b"0" * 5_000,
)
DEEP = b"[" * 60_000
NONSENSE = (
    b"",
    DEEP,
    b'{"z":' + DEEP,
    b'{"error":{"details":' + DEEP,
    b'{"messages":[' + DEEP,
    b'{"data":{"id":' + DEEP,
    b'{"result":' + DEEP,
    b'{"z":' * 60_000 + b"1" + b"}" * 60_000,
    b'{"messages":[{"reference":"1-2-3"',
    b'{"messages":{},"data":[],"id":{},"result":7,"ok":"yes","success":"no","call-id":[]}',
    b'{"messages":[null,7,[],"x"],"errorCode":{}}',
    b'{"messages":null,"error":null,"data":null,"id":null,"result":null,"ok":null}',
    b'{"error":{"code":1e999}}',
    b'{"id":"\xff\xfe"}',
    b'{"a":"' + b"x" * 2_000_000,
    b"{",
    b"null",
    b"[]",
    b"[[[[",
    b"\x00\xff",
    b'{"error":{"code":"x"}}',
    b'{"messages":[{"reference":7}]}',
    b'{"messages":[{"reference":"1-2-99999999999999999999"}]}',
    b"<html>captive portal</html>",
    b'{"reason":null}',
    b"9" * 100_000,
)


def message(**changes: object) -> Message:
    """An ordinary message, with changes."""
    fields: dict[str, object] = {
        "action": 7,
        "phase": 1,
        "name": "start",
        "kind": "missing_child",
        "lane": 0,
        "language": "nl",
        "title": "Vermist kind",
        "text": 'Assen: meisje, 8 jaar, "rode" fiets \\ blauwe jas. Bel 0800-0011.',
        "end_ms": NOW_MS + 3_600_000,
    }
    return Message(**(fields | changes))  # type: ignore[arg-type]


def written(requests: Requests, row: int) -> tuple[Template, bytes, bytes]:
    """A row's template, address and body as a lane would write them."""
    template = requests.templates[requests.which[row]]
    columns = [column.rows() for column in requests.columns]

    def fill(pieces: Sequence[bytes | int]) -> bytes:
        return b"".join(piece if isinstance(piece, bytes) else columns[piece][row] for piece in pieces)

    return template, fill(template.url), fill(template.body)


def check_row_channel(
    make: Callable[[], RowChannel], good: Sequence[bytes], *, gone: Sequence[int] = (), per_row_body: bool = False
) -> None:
    """Rules of channels that take one request a row; `good` are addresses the provider would take.

    `gone`: statuses that alone mean a dead address. `per_row_body`: bodies are sealed for each row.
    """
    channel = make()
    assert channel.number in REPLACES_IN_PLACE, "the bulk lane may send twice: only for channels that replace in place"
    addresses = column([*good, *HOSTILE])
    again = np.zeros(len(good) + len(HOSTILE), np.bool_)
    again[0] = True

    def render(words: Message) -> Requests:
        return channel.render(words, addresses, again, now_ms=NOW_MS, authorize=lambda _: "Bearer x")

    requests = render(message())
    assert requests.usable.tolist() == [True] * len(good) + [False] * len(HOSTILE)
    assert len(requests.which) == len(again)
    assert requests.which.dtype == np.uint16
    _same(requests, render(message()))
    for row, address in enumerate(good):
        template, url, body = written(requests, row)
        assert body
        assert per_row_body or address in url + body
        assert url.startswith(b"https://")
        assert not any("\n" in header or "\r" in header for header in template.headers)
    if len(good) > 1:
        quiet, _, quiet_body = written(requests, 0)
        loud, _, loud_body = written(requests, 1)
        assert (quiet.headers, quiet_body) != (loud.headers, loud_body), "what went out before is sent quietly"
    _check_codes(channel.number, lambda codes: channel.interpret(codes, {}))
    for code in (200, 400, 404, 410, 429, 500):
        for nonsense in NONSENSE:
            outcome = channel.interpret(np.array([code], np.int16), {0: nonsense} if code != 200 else {})
            _definite(outcome, 1)
            assert channel.dead_since_ms(np.array([code], np.int16), {0: nonsense}) == {}
            assert outcome.reason[0] != Reason.TOKEN_DEAD or code in gone, "dead on the provider's own word only"
    assert channel.fits(message()) is None
    assert channel.fits(message(text="x" * 5_000)) is not None
    _check_payload(channel, good)
    _check_life(render)


def _check_payload(channel: RowChannel, good: Sequence[bytes]) -> None:
    """What fits has a body in bounds on the wire, in bytes, loud and quiet; a character more is refused."""
    for letter in ("x", "é", "漢", '"', "\n", "\U0001f6b2"):
        for kind in ("missing_child", "a", "k" * 32):
            least, most = 0, 5_000
            while least < most:
                middle = (least + most + 1) // 2
                fits = channel.fits(longest(text=letter * middle, kind=kind)) is None
                least, most = (middle, most) if fits else (least, middle - 1)
            for quiet in (False, True):
                again = np.full(len(good), quiet)
                requests = channel.render(
                    longest(text=letter * least, kind=kind), column(good), again, now_ms=NOW_MS, authorize=lambda _: "x"
                )
                for row, address in enumerate(good):
                    body = written(requests, row)[2]
                    assert len(body.replace(address, b"")) <= PAYLOAD_BYTES_MAX
    assert least > 500, "an ordinary text has room"


def longest(**changes: object) -> Message:
    """A message whose numbers are as long as any the ledger gives."""
    return message(**({"action": 2**53, "phase": 9_999, "name": "update", "end_ms": NOW_MS * 10} | changes))


def _check_life(render: Callable[[Message], Requests]) -> None:
    """Whatever the end is, however long the numbers, headers and lengths of life are in the bounds of the platforms."""
    for end_ms in (0, NOW_MS, NOW_MS + 1, NOW_MS + 3_600_000, NOW_MS * 5):
        for template in render(longest(end_ms=end_ms)).templates:
            headers = dict(header.split(": ", 1) for header in template.headers)
            assert len(headers) == len(template.headers), "no header twice"
            assert all(name == name.lower() and value.isprintable() for name, value in headers.items())
            assert 0 <= int(headers.get("ttl", "0")) <= 28 * 86_400
            assert re.fullmatch(r"[A-Za-z0-9_-]{1,32}", headers.get("topic", "t")), "RFC 8030 section 5.4"
            assert len(headers.get("apns-collapse-id", "").encode()) <= 64
            assert headers.get("apns-priority", "10") in ("1", "5", "10")


def check_call_channel(make: Callable[[], CallChannel], good: Sequence[bytes]) -> None:
    """Rules of channels that take many rows a call."""
    channel = make()
    assert channel.number not in REPLACES_IN_PLACE
    addresses = column([*good, *HOSTILE])
    rows = np.arange(100, 100 + len(good) + len(HOSTILE), dtype=np.uint32)
    calls = channel.render(message(), addresses, rows, now_ms=NOW_MS)
    assert calls.usable.tolist() == [True] * len(good) + [False] * len(HOSTILE)
    indices = np.concatenate([call.index for call in calls.calls])
    assert indices.tolist() == list(range(len(good))), "each usable row is in one call, in order"
    call = calls.calls[0]
    theirs = rows[call.index]
    _check_codes(
        channel.number,
        lambda codes: Outcome(
            *map(np.concatenate, zip(*(_answered(channel, call, int(code), theirs) for code in codes), strict=True))
        ),
    )
    for code in (200, 201, 400, 429, 500):
        for nonsense in NONSENSE:
            outcome = channel.interpret(call, Answer(code=code, body=nonsense), theirs)
            _definite(outcome, len(theirs))
            assert not (outcome.event == Event.ACCEPT).any(), "nonsense accepts nobody"
    assert channel.fits(message()) is None
    assert channel.fits(message(text="x" * 5_000)) is not None


def _answered(
    channel: CallChannel, call: object, code: int, rows: NDArray[np.uint32]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    outcome = channel.interpret(call, Answer(code=code), rows)  # type: ignore[arg-type]
    assert len(set(outcome.event.tolist())) == 1, "a bare status says the same of every row"
    return outcome.event[:1], outcome.reason[:1]


def _check_codes(number: int, interpret: Callable[[NDArray[np.int16]], Outcome]) -> None:
    """Every code has a definite meaning, and those that may have been taken never lead to a second ring."""
    codes = np.arange(CODE_MIN, CODE_MAX + 1, dtype=np.int16)
    outcome = interpret(codes)
    _definite(outcome, len(codes))
    event = dict(zip(codes.tolist(), outcome.event.tolist(), strict=True))
    assert event[NOT_SENT] == event[NO_CONNECTION] == Event.RETRY
    assert event[NO_ANSWER] == event[GARBAGE] == Event.TIME_OUT
    assert event[429] == event[503] == event[401] == Event.RETRY
    assert all(event[code] == Event.REJECT for code in (301, 302, 307, 405, 413))
    assert all(event[code] == Event.TIME_OUT for code in (500, 502, 504)), "it may have been taken: never with a ring"
    reasons = dict(zip(codes.tolist(), outcome.reason.tolist(), strict=True))
    assert all(reasons[code] != Reason.NONE for code in codes.tolist() if event[code] == Event.REJECT)


def _definite(outcome: Outcome, rows: int) -> None:
    assert outcome.event.shape == outcome.reason.shape == (rows,)
    assert outcome.event.dtype == outcome.reason.dtype == np.uint8
    assert not (TABLE[State.INTENDED, outcome.event] == ILLEGAL).any()
    assert np.isin(outcome.event, (Event.ACCEPT, Event.REJECT, Event.RETRY, Event.TIME_OUT)).all()


def _same(one: Requests, other: Requests) -> None:
    assert one.templates == other.templates, "the same batch is rendered the same way"
    assert one.which.tolist() == other.which.tolist()
