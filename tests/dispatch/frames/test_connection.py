"""A client's connection against h2's server in memory: what it sends is what was meant, what comes is what it says.

A test is a seed: the server does what the protocol allows it to do, bytes cross in pieces, and what must hold holds.
"""

from __future__ import annotations

import random

import h2.errors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, NOT_SENT, Requests, Template
from fanout.dispatch.frames import connection as module
from fanout.dispatch.frames.connection import Connection
from fanout.dispatch.frames.uploads import UPLOADS_MAX
from tests.dispatch.frames.peer import AUTHORITY, ORIGIN, SETTINGS, Peer, frame, numbered, rendered

SEEDS = st.integers(0, 2**32)


def some_requests(dice: random.Random, rows: int, window: int) -> Requests:
    """Requests of every shape: paths and bodies with and without holes, bodies empty, small, larger than a frame."""
    sizes = dice.choice(((0, 1), (1, 300), (200, 5_000), (0, 40_000)) if window > 1_000 else ((0, 1), (0, 60)))
    bodies = [bytes(dice.randrange(32, 127) for _ in range(min(9, size))) * (size // 9 + 1) for size in
              (dice.randrange(*sizes) for _ in range(rows))]  # fmt: skip
    requests = numbered(rows, bodies=bodies, quiet=dice.choice((0, 0, 2, 5)), headers=dice.choice((0, 1, 4, 60)))
    if dice.random() < 0.3:  # a path without a hole, as FCM has it; rows are told apart by their bodies
        fixed = tuple(
            Template(method=dice.choice(("POST", "PUT")), url=(ORIGIN.encode() + b"/fixed/0",), headers=t.headers,
                     body=(b"", 0, b":", 1))
            for t in requests.templates
        )  # fmt: skip
        return Requests(templates=fixed, columns=requests.columns, which=requests.which, usable=np.ones(rows, np.bool_))
    return requests


@given(SEEDS)
def test_what_the_server_reads_is_what_was_meant(seed: int) -> None:
    dice = random.Random(seed)
    settings = {
        SETTINGS.INITIAL_WINDOW_SIZE: dice.choice((0, 1, 50, 65_535, 2**20)),
        SETTINGS.MAX_CONCURRENT_STREAMS: dice.choice((1, 2, 100)),
        SETTINGS.MAX_FRAME_SIZE: dice.choice((16_384, 20_000, 2**20)),
        SETTINGS.HEADER_TABLE_SIZE: dice.choice((0, 100, 4_096, 65_536)),
    }
    peer = Peer(seed, settings=settings)
    if settings[SETTINGS.INITIAL_WINDOW_SIZE] == 0:  # nothing may be sent until a window is opened
        peer.exchange()
        settings[SETTINGS.INITIAL_WINDOW_SIZE] = 70
        peer.server.update_settings({SETTINGS.INITIAL_WINDOW_SIZE: 70})
    count = dice.randrange(1, 25)
    requests = some_requests(dice, count, settings[SETTINGS.INITIAL_WINDOW_SIZE])
    left, answered, turns = list(range(count)), 0, 0
    while len(peer.codes) < count:
        peer.exchange()
        for stream in peer.whole[answered:]:
            peer.server.send_headers(stream, [(":status", "200")], end_stream=True)
        answered = len(peer.whole)
        left = peer.write(requests, left)
        if dice.random() < 0.1:
            table = dice.choice((0, 64, 4_096))
            peer.server.update_settings({SETTINGS.HEADER_TABLE_SIZE: table})
        turns += 1
        assert turns < 10_000, "stuck"
    assert set(peer.codes.values()) == {200}
    assert peer.streams_most <= settings[SETTINGS.MAX_CONCURRENT_STREAMS]
    read = sorted((sorted(headers), bytes(body)) for headers, body in peer.requests.values())
    meant = sorted((sorted(headers), body) for headers, body in (rendered(requests, row) for row in range(count)))
    assert read == meant
    for headers, _ in peer.requests.values():
        assert [name for name, _ in headers[:4]] == [":method", ":scheme", ":authority", ":path"]


def test_rows_of_one_template_are_a_few_bytes_of_headers() -> None:
    peer = Peer(1, streams=100)
    peer.exchange()
    requests = numbered(60, headers=4)
    assert not peer.write(requests, list(range(60)))
    size = len(peer.client.output())
    peer.exchange()
    body = 3
    assert size < 400 + 60 * (9 + 9 + body + 4 + 2 + 10 + 8), "constant headers are two bytes at most after the first"


STATUSES = (200, 200, 200, 201, 204, 302, 400, 404, 410, 429, 500, 503, 599)


@given(SEEDS)
def test_rows_end_as_the_server_said(seed: int) -> None:
    """A server that answers, resets, delays, changes its mind and says goodbye."""
    dice = random.Random(seed)
    settings = {SETTINGS.MAX_CONCURRENT_STREAMS: dice.choice((1, 3, 100))}
    peer = Peer(seed, settings=settings)
    huffman = dice.random() < 0.5
    plain_encode = peer.server.encoder.encode
    peer.server.encoder.encode = lambda headers, huffman=huffman: plain_encode(headers, huffman=huffman)  # type: ignore[method-assign]
    count = dice.randrange(1, 60)
    requests = numbered(count, quiet=dice.choice((0, 3)))
    left, decided, expected, bodies = list(range(count)), 0, dict[int, int](), dict[int, bytes]()
    gone, last = False, 0
    for _ in range(400):
        peer.exchange()
        left = peer.write(requests, left)
        peer.to_server()
        for stream in peer.whole[decided:]:
            if gone and stream > last:
                continue
            row, fate = peer.row_of(stream), dice.random()
            if fate < 0.05:
                peer.server.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
                expected[row] = NOT_SENT
            elif fate < 0.1:
                peer.server.reset_stream(stream, dice.choice(list(h2.errors.ErrorCodes)[:7]))
                expected[row] = NO_ANSWER
            elif fate < 0.15:
                expected[row] = NO_ANSWER  # it never answers
            else:
                expected[row] = status = dice.choice(STATUSES)
                bodies[row] = _answer(peer, stream, status, dice)
        decided = len(peer.whole)
        event = dice.random()
        if event < 0.05:
            peer.server.ping(b"12345678")
        elif event < 0.1:
            peer.server.update_settings({SETTINGS.MAX_CONCURRENT_STREAMS: dice.choice((0, 1, 2, 50))})
        elif event < 0.15:
            peer.server.update_settings({SETTINGS.INITIAL_WINDOW_SIZE: dice.choice((0, 10, 70_000))})
        elif event < 0.17 and not gone and peer.whole:
            last = max(peer.whole)
            peer.server._data_to_send += frame(7, 0, 0, last.to_bytes(4) + bytes(4))
            gone = True
        if not left and len(peer.codes) == count:
            break
    peer.exchange()
    assert not peer.client.broken
    assert peer.client.open == count - len(left) - len(peer.codes)
    peer.client.lose()
    peer.take()
    for row, code in peer.codes.items():
        if row in expected:
            assert code == expected[row]
        else:
            assert code in (NOT_SENT, NO_ANSWER)
            whole = {peer.row_of(stream) for stream in peer.whole}
            assert code == NOT_SENT or row in whole
        if code >= 202:
            assert peer.bodies[row] == bodies[row]
            if code in (429, 503):
                assert peer.asked[row] == "17"
    assert len(peer.codes) == count - len(left), "every row that was written has ended"


def _answer(peer: Peer, stream: int, status: int, dice: random.Random) -> bytes:
    """Answer in one of many ways; returns the body."""
    server = peer.server
    if dice.random() < 0.1:
        server.send_headers(stream, [(":status", "103"), ("link", "</x>")])
    headers = [
        (":status", str(status)),
        ("content-type", "application/json"),
        ("date", "Tue, 24 Nov 2026 04:00:00 GMT"),
    ]
    if status in (429, 503):
        headers.append(("retry-after", "17"))
    if dice.random() < 0.1:
        headers += [(f"x-filler-{number}", "y" * 100) for number in range(100)]
    trailers = dice.random() < 0.1
    body = b"" if dice.random() < 0.4 else b"z" * dice.randrange(0, 300)
    server.send_headers(stream, headers, end_stream=not body and not trailers)
    if body:
        half = dice.randrange(0, len(body))
        padding = dice.choice((None, 0, 5, 255))
        server.send_data(stream, body[:half], pad_length=padding)
        server.send_data(stream, body[half:], end_stream=not trailers, pad_length=padding)
    if trailers:
        server.send_headers(stream, [("x-trailer", "1")], end_stream=True)
    return body


def _ready() -> tuple[Peer, Connection]:
    peer = Peer(3, streams=16)
    peer.exchange()
    peer.write(numbered(4), [0, 1, 2, 3])
    peer.exchange()
    return peer, peer.client


def _feed(client: Connection, data: bytes) -> None:
    client.space()[: len(data)] = data
    client.put(len(data))
    client.read()


BREACHES: dict[str, bytes] = {
    "a frame too long": frame(0, 0, 1, bytes(16_385)),
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.2\r\n" * 10,
    "a body on no stream": frame(0, 0, 0, b"x"),
    "an answer on a stream that never was": frame(1, 5, 99, b"\x88"),
    "an answer on the server's own stream": frame(1, 5, 2, b"\x88"),
    "a push": frame(5, 4, 1, bytes(4) + b"\x82"),
    "a header block that is none": frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "a header of the dynamic table": frame(1, 5, 1, b"\xbe"),
    "padding longer than the frame": frame(0, 9, 1, b"\x09abc"),
    "a frame within a header block": frame(1, 0, 1, b"\x88") + frame(6, 0, 0, bytes(8)),
    "another stream's continuation": frame(1, 0, 1, b"\x88") + frame(9, 4, 3, b"\x88"),
    "a continuation of nothing": frame(9, 4, 1, b"\x88"),
    "headers without an end": frame(1, 0, 1, b"\x88") + frame(9, 0, 1, bytes(16_000)) * 5,
    "empty continuations": frame(1, 0, 1, b"\x88") + frame(9, 0, 1, b""),
    "a short reset": frame(3, 0, 1, bytes(3)),
    "a reset of a stream that never was": frame(3, 0, 77, bytes(4)),
    "settings on a stream": frame(4, 0, 1, bytes(6)),
    "settings of a wrong length": frame(4, 0, 0, bytes(5)),
    "a frame size out of range": frame(4, 0, 0, b"\0\5" + (100).to_bytes(4)),
    "a window out of range": frame(4, 0, 0, b"\0\4" + b"\xff\xff\xff\xff"),
    "a short ping": frame(6, 0, 0, bytes(7)),
    "a short goodbye": frame(7, 0, 0, bytes(4)),
    "a window of nothing": frame(8, 0, 0, bytes(4)),
    "a window that flows over": frame(8, 0, 0, (2**31 - 1).to_bytes(4)),
    "a short window": frame(8, 0, 0, bytes(3)),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_ends_the_connection(breach: str) -> None:
    peer, client = _ready()
    _feed(client, BREACHES[breach])
    assert client.broken
    assert client.room == 0
    assert bytes(client.output())[3] == 7, "it says why"
    client.lose()
    peer.take()
    assert set(peer.codes.values()) == {GARBAGE}
    assert len(peer.codes) == 4


ODDITIES: dict[str, tuple[bytes, int]] = {
    "a body before its headers": (frame(0, 1, 1, b"x"), GARBAGE),
    "no status": (frame(1, 5, 1, b"\x00\x01a\x01b"), GARBAGE),
    "a status that is none": (frame(1, 5, 1, b"\x08\x03abc"), GARBAGE),
    "a status out of range": (frame(1, 5, 1, b"\x08\x03999"), GARBAGE),
    "an end after a mere notice": (frame(1, 5, 1, b"\x08\x03100"), GARBAGE),
    "headers twice": (frame(1, 4, 1, b"\x88") * 2, GARBAGE),
    "refused headers twice": (frame(1, 4, 1, b"\x8d") * 2, GARBAGE),
    "an endless success": (frame(1, 4, 1, b"\x88") + frame(0, 0, 1, bytes(16_384)) * 4, GARBAGE),
    "an endless refusal": (frame(1, 4, 1, b"\x8d") + frame(0, 0, 1, bytes(16_384)) * 4, GARBAGE),
    "a window of nothing on a stream": (frame(8, 0, 1, bytes(4)), NO_ANSWER),
    "frames of a later protocol": (frame(0xAA, 0xFF, 1, b"x") + frame(1, 5, 1, b"\x88"), 200),
    "a priority": (frame(2, 0, 1, bytes(5)) + frame(1, 5, 1, b"\x88"), 200),
    "a success in plain letters": (frame(1, 5, 1, b"\x08\x03200"), 200),
    "a success after a table update": (frame(1, 5, 1, b"\x20\x88"), 200),
    "a success in Huffman's code": (frame(1, 5, 1, b"\x48\x82\x10\x01"), 200),
    "another in Huffman's code": (frame(1, 5, 1, b"\x48\x82\x10\x03"), 201),
    "headers that begin with nothing": (frame(1, 1, 1) + frame(9, 0, 1, b"\x88") + frame(9, 4, 1), 200),
    "a notice, then a success": (frame(1, 4, 1, b"\x08\x03103") + frame(1, 4, 1, b"\x88") + frame(0, 1, 1, b"x"), 200),
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_oddity_ends_its_stream_only(oddity: str) -> None:
    peer, client = _ready()
    data, code = ODDITIES[oddity]
    _feed(client, data)
    peer.take()
    assert peer.codes == {0: code}
    assert not client.broken
    assert client.open == 3
    _feed(client, frame(0, 1, 1, b"late") + frame(3, 0, 1, bytes(4)))  # what was on its way does no harm
    for stream in (3, 5, 7):
        _feed(client, frame(1, 5, stream, b"\x88"))
    peer.take()
    assert list(peer.codes.values()) == [code, 200, 200, 200]


REFUSALS: dict[str, bytes] = {
    "a reset": frame(3, 0, 1, (7).to_bytes(4)),
    "a goodbye": frame(7, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize(("status", "code"), [(b"", NOT_SENT), (b"\x88", NO_ANSWER), (b"\x8e", NO_ANSWER)])
def test_who_began_to_answer_a_request_has_looked_at_it(refusal: str, status: bytes, code: int) -> None:
    peer, client = _ready()
    _feed(client, (frame(1, 4, 1, status) if status else b"") + REFUSALS[refusal])
    peer.take()
    assert peer.codes[0] == code


def test_what_was_not_written_was_not_sent() -> None:
    peer, client = _ready()
    requests = numbered(8, bodies=[b"x" * 1_000] * 8)
    before = len(client.output())
    assert before == 0
    peer.write(requests, [4, 5, 6, 7])
    client.sent(2_000)  # one whole row, and a part of the next
    client.lose()
    peer.take()
    assert peer.codes == {row: NO_ANSWER if row < 5 else NOT_SENT for row in range(8)}


def test_late_rows_are_given_up_one_by_one() -> None:
    peer, client = _ready()
    peer.write(numbered(8), [4, 5], due_ms=2_000)
    peer.exchange()
    assert client.expire(1_500) == 4
    peer.take()
    assert peer.codes == dict.fromkeys(range(4), NO_ANSWER)
    assert client.open == 2
    peer.exchange()
    assert {type(event).__name__ for event in peer.events[-4:]} == {"StreamReset"}


def slow_reader(rows: int) -> tuple[Peer, Requests]:
    """A server that lets a byte of each message in until it says more, and what waits: messages of 100 bytes."""
    peer = Peer(4, streams=200, settings={SETTINGS.INITIAL_WINDOW_SIZE: 1})
    peer.server.acknowledge_received_data = lambda *_: None  # type: ignore[method-assign]
    peer.exchange()
    return peer, numbered(rows, bodies=[b"x" * 100] * rows)


def test_who_takes_a_byte_at_a_time_gets_few_messages_at_once_and_these_whole() -> None:
    peer, requests = slow_reader(50)
    left = list(range(50))
    while left or peer.client.open:
        left = peer.write(requests, left)
        assert len(peer.requests) - len(peer.whole) <= UPLOADS_MAX
        peer.exchange()
        for stream in [stream for stream in peer.requests if peer.row_of(stream) not in peer.codes]:
            if stream in peer.whole:
                peer.server.send_headers(stream, [(":status", "200")], end_stream=True)
            else:
                peer.server.increment_flow_control_window(1, stream)
        peer.exchange()
    assert peer.codes == dict.fromkeys(range(50), 200)


@pytest.mark.parametrize("one_goes_through", [True, False])
def test_messages_that_do_not_get_through_in_their_time(one_goes_through: bool) -> None:
    """They were not taken; a connection that carries others goes on."""
    peer, requests = slow_reader(8)
    peer.write(requests, list(range(8)), due_ms=1_000)
    peer.exchange()
    if one_goes_through:
        peer.server.increment_flow_control_window(200, 1)
        peer.exchange()
    client = peer.client
    client.expire(1_001)
    peer.exchange()
    assert bool(client.broken) == client.stuck == (not one_goes_through)
    if not one_goes_through:
        client.lose()
    peer.take()
    assert peer.codes == dict.fromkeys(range(8), NO_CONNECTION) | ({0: NO_ANSWER} if one_goes_through else {})


def test_ids_are_used_up() -> None:
    peer = Peer(5)
    peer.client = Connection(AUTHORITY, streams=4, first_stream=2**31 - 1 - 2 * 300)
    peer.exchange()
    left = list(range(300))
    requests = numbered(300)
    while left and peer.client.room:
        left = peer.write(requests, left)
        peer.exchange()
        for stream in [stream for stream in peer.whole if peer.row_of(stream) not in peer.codes]:
            peer.server.send_headers(stream, [(":status", "200")], end_stream=True)
        peer.exchange()
    assert peer.client.draining
    assert 0 < len(left) < 300
    assert max(peer.requests) < 2**31


def test_a_peer_that_asks_and_does_not_read() -> None:
    _, client = _ready()
    pings = frame(6, 0, 0, bytes(8)) * 1_000
    for _ in range(20):
        _feed(client, pings)
    assert client.broken


def test_its_answers_never_stop_for_want_of_a_window() -> None:
    peer = Peer(9, streams=64)
    peer.exchange()
    rows = module.WINDOW // 60_000 + 50
    requests, left = numbered(rows), list(range(rows))
    while len(peer.codes) < rows:
        left = peer.write(requests, left)
        peer.exchange()
        for stream in [stream for stream in peer.whole if peer.row_of(stream) not in peer.codes]:
            peer.server.send_headers(stream, [(":status", "404")])
            for part in range(4):
                peer.server.send_data(stream, bytes(15_000), end_stream=part == 3)
        peer.exchange()
    assert set(peer.codes.values()) == {404}


def test_a_repr_tells_the_state() -> None:
    _, client = _ready()
    assert repr(client) == "<Connection ready, 4 of 16 streams>"
    _feed(client, frame(7, 0, 0, (2**31 - 1).to_bytes(4) + bytes(4)))
    assert repr(client) == "<Connection draining, 4 of 16 streams>"
