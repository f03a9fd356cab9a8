"""A connection of the simulators' server, met by the `h2` library and by frames written by hand.

What a kernel answers must be what reading answers: `test_plain_and_read` sends the same to both ways.
"""

from __future__ import annotations

import json
from functools import partial

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.simulators.http2 import kernels as k
from fanout.simulators.http2.blocks.writing import block_of
from fanout.simulators.http2.connection import PREFACE, Connection, Request
from fanout.simulators.http2.known import Known
from fanout.simulators.replies import Headers
from fanout.simulators.rough import Respond
from fanout.simulators.seen import Record

FCM_PATH = "/v1/projects/p/messages:send"
TAKEN = b'{"name":"m"}'
JSON = [("content-type", "application/json")]


class App:
    """Takes pushes as the providers do, and counts tokens."""

    def __init__(self, taken: bytes = TAKEN) -> None:
        self.taken = taken
        self.record = Record()
        self.read = 0
        self.kernel = 0
        self.late: list[Respond] = []
        answers = block_of(200, JSON, len(taken)) + taken, len(taken), block_of(200, [], 0)
        self.known = Known(answers, self._count)

    def _count(self, channel: str, count: int) -> None:
        self.kernel += count

    def asked(self, request: Request, respond: Respond) -> None:
        self.read += 1
        if request.path == "/late":
            self.late.append(respond)
        elif request.path == "/echo":
            respond(207, [("x-seen", request.headers.get("x-a", "")), ("x-query", request.query)], request.body)
        elif request.path.startswith("/3/device/"):
            self.known.keep_form(k.APNS, request.body, "apns", self.record)
            self._taken(request.path[10:].encode(), respond, [], b"")
        else:
            token = json.loads(request.body)["message"]["token"].encode()
            head = b'{"message":{"token":"' + token + b'"'
            if request.body.startswith(head):
                self.known.keep_form(k.FCM, request.body[len(head) - 1 :], "fcm", self.record)
            self._taken(token, respond, JSON, self.taken)

    def _taken(self, token: bytes, respond: Respond, headers: Headers, body: bytes) -> None:
        if token.startswith((b"dead", b"bad0")):
            respond(410, [], b"gone")
        else:
            self.record.add(token)
            respond(200, headers, body)


class Client:
    """`h2`, and the connection under test, joined by bytes cut as one likes."""

    def __init__(self, app: App, *, streams: int = 100, cut: int = 65_536) -> None:
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.server = Connection(app.known, app.asked, streams=streams, woken=lambda: None)
        self.events: list[h2.events.Event] = []
        self._cut = cut
        self.http.initiate_connection()
        self.exchange()

    def exchange(self, *, acknowledge: bool = True) -> None:
        """Bytes go to and fro until there are none."""
        while True:
            out = self.http.data_to_send()
            for at in range(0, len(out), self._cut):
                piece = out[at : at + self._cut]
                self.server.room()[: len(piece)] = piece
                self.server.receive(len(piece))
            back = bytes(self.server.out)
            self.server.out.clear()
            if not out and not back:
                return
            for event in self.http.receive_data(back):
                self.events.append(event)
                if acknowledge and isinstance(event, h2.events.DataReceived):
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def ask(self, path: str, body: bytes = b"", *, method: str = "POST", padded: bool = False, **headers: str) -> int:
        stream: int = self.http.get_next_available_stream_id()
        fields = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "h")]
        fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.http.send_headers(stream, fields, end_stream=not body)
        for at in range(0, len(body), 16_000):
            last = at + 16_000 >= len(body)
            self.http.send_data(stream, body[at : at + 16_000], end_stream=last, pad_length=9 if padded else None)
        return stream

    def answer(self, stream: int) -> tuple[int, dict[str, str], bytes]:
        mine = [event for event in self.events if getattr(event, "stream_id", None) == stream]
        assert any(isinstance(event, h2.events.StreamEnded) for event in mine), mine
        heads = [dict(event.headers or ()) for event in mine if isinstance(event, h2.events.ResponseReceived)]
        fields = {str(name): str(value) for name, value in heads[0].items()}
        body = b"".join(event.data or b"" for event in mine if isinstance(event, h2.events.DataReceived))
        return int(fields.pop(":status")), fields, body


def fcm(token: str, ttl: int = 1) -> bytes:
    return b'{"message":{"token":"%b","android":{"ttl":"%ds"}}}' % (token.encode(), ttl)


TOKENS = st.sampled_from(["one", "two", "dead1", "bad0x", "a\\\\u0062", "x" * 600, "with space", "é", "t"])
PUSHES = st.lists(
    st.tuples(st.sampled_from(["fcm", "apns", "spaced"]), TOKENS, st.integers(0, 2), st.booleans()), max_size=40
)


def sent(app: App, pushes: list[tuple[str, str, int, bool]], cut: int) -> list[tuple[int, bytes]]:
    client = Client(app, cut=cut)
    streams = []
    for kind, token, ttl, padded in pushes:
        if kind == "apns":
            path = "/3/device/" + token.replace(" ", "").encode("ascii", "ignore").decode().replace("\\", "")
            streams.append(client.ask(path, b'{"ttl":%d}' % ttl, padded=padded, apns_topic="t"))
        else:
            body = fcm(token, ttl) if kind == "fcm" else fcm(token, ttl).replace(b":", b": ")
            streams.append(client.ask(FCM_PATH, body, padded=padded, content_length=str(len(body))))
        if len(streams) % 7 == 0:
            client.exchange()
    client.exchange()
    assert client.server.broken is None
    return [client.answer(stream)[::2] for stream in streams]


@given(PUSHES, st.integers(1, 400))
@settings(deadline=None)
def test_plain_and_read(pushes: list[tuple[str, str, int, bool]], cut: int) -> None:
    plain, read = App(), App()
    read.known.plain = False
    assert sent(plain, pushes, cut) == sent(read, pushes, 65_536)
    assert sorted(tokens_of(plain.record)) == sorted(tokens_of(read.record))
    assert (plain.read + plain.kernel, read.kernel) == (len(pushes), 0)


def tokens_of(record: Record) -> list[bytes]:
    found, begin = [], 0
    for length in record.lengths:
        found.append(bytes(record.tokens[begin : begin + length]))
        begin += length
    assert sum(record.counts) == len(record.lengths)
    return found


def test_kernels_answer_what_was_read_once() -> None:
    app = App()
    client = Client(app)
    streams = [client.ask(FCM_PATH, fcm(f"token{number}")) for number in range(50)]
    streams += [client.ask(f"/3/device/{number:064x}", b"{}") for number in range(50)]
    client.exchange()
    assert [client.answer(stream)[0] for stream in streams] == [200] * 100
    assert client.answer(streams[3]) == (200, dict(JSON) | {"content-length": "12"}, TAKEN)
    assert (app.read, app.kernel) == (2, 98)


def test_a_wrong_length_is_not_plain() -> None:
    """The kernel leaves it to be read; whether it is an error is not a push service's first worry."""
    app = App()
    client = Client(app)
    client.ask(FCM_PATH, fcm("one"))
    client.exchange()
    body = fcm("two")
    raw = block_bytes([(":method", "POST"), (":path", FCM_PATH), ("content-length", str(len(body) + 1))])
    push(client.server, frame(k.HEADERS, k.END_HEADERS, 101, raw) + frame(k.DATA, k.END_STREAM, 101, body))
    assert app.kernel == 0
    assert app.read == 2


def block_bytes(fields: list[tuple[str, str]]) -> bytes:
    return b"".join(
        b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode() for name, value in fields
    )


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def push(server: Connection, data: bytes) -> bytes:
    """Bytes to the connection; what it has to say."""
    server.room()[: len(data)] = data
    server.receive(len(data))
    back = bytes(server.out)
    server.out.clear()
    return back


def fresh(app: App | None = None, **options: int) -> Connection:
    """A connection that has heard the preface."""
    server = Connection(
        (app or App()).known, (app or App()).asked, streams=options.get("streams", 9), woken=lambda: None
    )
    push(server, PREFACE + frame(4, 0, 0, b""))
    return server


@pytest.mark.parametrize("size", [0, 1, 16_384, 200_000])
def test_bodies_both_ways_within_windows(size: int) -> None:
    client = Client(App())
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    stream = client.ask("/echo?q=1", body, x_a="seen")
    client.exchange()
    assert client.answer(stream) == (
        207,
        {"x-seen": "seen", "x-query": "q=1"} | ({"content-length": str(size)} if size else {}),
        body,
    )


def test_an_answer_waits_for_its_window() -> None:
    client = Client(App())
    client.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    client.exchange()
    stream = client.ask("/echo", b"y" * 25)
    client.exchange(acknowledge=False)
    assert sum(len(event.data or b"") for event in client.events if isinstance(event, h2.events.DataReceived)) == 10
    client.http.increment_flow_control_window(15, stream)
    client.exchange(acknowledge=False)
    assert client.answer(stream)[2] == b"y" * 25


def test_plain_answers_wait_for_the_connections_window() -> None:
    """Who does not give the window back gets no more answers than it holds, and nobody is lost."""
    taken = b"x" * 1_000
    app = App(taken)
    client = Client(app)
    streams = [client.ask(FCM_PATH, fcm(f"t{number}")) for number in range(90)]
    client.exchange(acknowledge=False)
    ended = {event.stream_id for event in client.events if isinstance(event, h2.events.StreamEnded)}
    assert len(ended) == 65_535 // len(taken)
    client.http.increment_flow_control_window(65_535)
    client.exchange(acknowledge=False)
    assert [client.answer(stream)[2] for stream in streams] == [taken] * 90
    assert len(app.record.lengths) == 90


def test_late_answers_and_streams_given_up() -> None:
    app = App()
    client = Client(app)
    first, second, third = (client.ask("/late") for _ in range(3))
    client.exchange()
    client.http.reset_stream(second)
    client.exchange()
    for respond in app.late:
        respond(200, [], b"now")
        respond(500, [], b"twice is once")
    client.exchange()
    assert (client.answer(first)[2], client.answer(third)[2]) == (b"now", b"now")


def test_more_streams_than_offered_are_refused() -> None:
    client = Client(App(), streams=2)
    client.http.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
    client.http.remote_settings.acknowledge()
    streams = [client.ask("/late") for _ in range(3)]
    client.exchange()
    reset = [event for event in client.events if isinstance(event, h2.events.StreamReset)]
    assert [(event.stream_id, event.error_code) for event in reset] == [
        (streams[2], h2.errors.ErrorCodes.REFUSED_STREAM)
    ]


def test_heads_in_pieces_padded_with_priority_and_trailers() -> None:
    app = App()
    server = fresh(app)
    fields = block_bytes([(":method", "POST"), (":path", "/late")])
    push(server, frame(k.HEADERS, 0, 1, fields[:5]) + frame(9, 0, 1, fields[5:8]) + frame(9, 5, 1, fields[8:]))
    push(server, frame(k.HEADERS, k.PADDED | k.END_HEADERS | k.END_STREAM, 3, b"\x02" + fields + b"\x00\x00"))
    push(server, frame(k.HEADERS, k.PRIORITIZED | k.END_HEADERS, 5, bytes(5) + fields))
    push(server, frame(k.DATA, 0, 5, b"body") + frame(k.HEADERS, 5, 5, block_bytes([("x-trailer", "1")])))
    push(server, frame(k.DATA, k.PADDED | k.END_STREAM, 1, b"\x01ab\x00"))
    assert (server.broken, app.read) == (None, 3)


def test_a_form_and_a_head_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.simulators.http2.known.TEXTS_MAX", 4)
    app = App()
    client = Client(app)
    streams = []
    for number in range(30):
        streams += [client.ask(FCM_PATH, fcm("t", number), x_a=f"h{number}") for _ in range(3)]
    client.exchange()
    assert [client.answer(stream)[0] for stream in streams] == [200] * 90
    assert app.known.heads.count <= 4 >= app.known.forms.count
    assert app.kernel >= 30


def test_a_head_that_waits_outlives_the_others() -> None:
    """What heads are known by is forgotten while one waits for its body: it is read like any other."""
    app = App()
    client = Client(app)
    client.ask(FCM_PATH, fcm("one"))
    client.exchange()
    stream: int = client.http.get_next_available_stream_id()
    client.http.send_headers(
        stream, [(":method", "POST"), (":path", FCM_PATH), (":scheme", "https"), (":authority", "h")]
    )
    client.exchange()
    client.server.promote_all()
    app.known.heads.clear()
    app.known.fields_of.clear()
    client.http.send_data(stream, fcm("two"), end_stream=True)
    client.exchange()
    assert client.answer(stream)[0] == 200
    assert sorted(tokens_of(app.record)) == [b"one", b"two"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 1),
        (PREFACE + frame(4, 0, 0, b"12345"), 6),
        (PREFACE + (20_000).to_bytes(3) + bytes(6), 6),
        (PREFACE + frame(k.HEADERS, k.END_HEADERS, 1, b"\x80"), 9),
        (PREFACE + frame(k.HEADERS, k.END_HEADERS, 2, block_bytes([(":method", "GET"), (":path", "/")])), 1),
        (PREFACE + frame(k.DATA, 0, 1, b"x"), 1),
        (PREFACE + frame(9, 4, 1, b""), 1),
        (PREFACE + frame(6, 0, 0, b"short"), 6),
        (PREFACE + frame(k.WINDOW_UPDATE, 0, 0, bytes(4)), 3),
        (PREFACE + frame(k.HEADERS, 0, 1, b"") + frame(6, 0, 0, bytes(8)), 1),
    ],
)
def test_who_breaks_the_protocol_is_told_and_left(data: bytes, code: int) -> None:
    server = Connection(App().known, App().asked, streams=9, woken=lambda: None)
    back = push(server, data)
    assert server.broken
    assert back[-17 + 3] == 7  # GOAWAY
    assert int.from_bytes(back[-4:]) == code
    assert push(server, b"more") == b""


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_noise_does_no_harm(noise: bytes) -> None:
    push(fresh(), noise)


def test_ping_is_answered() -> None:
    assert push(fresh(), frame(6, 0, 0, b"12345678")) == frame(6, 1, 0, b"12345678")


def test_who_waits_is_woken() -> None:
    app = App()
    woken: list[int] = []
    server = Connection(app.known, app.asked, streams=9, woken=partial(woken.append, 1))
    push(
        server,
        PREFACE
        + frame(k.HEADERS, k.END_HEADERS | k.END_STREAM, 1, block_bytes([(":method", "GET"), (":path", "/late")])),
    )
    assert woken == []
    app.late[0](200, [], b"x")
    assert woken == [1]
