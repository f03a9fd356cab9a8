"""A provider in memory for a `Connection`: h2's server, made to do everything the protocol allows, by a seed.

`Peer` owns both ends of the wire. Bytes cross it in pieces of any size; on their way to the client HEADERS frames are
padded, given a priority or cut into CONTINUATIONs. What was read of each request is kept as h2 decoded it.
"""

from __future__ import annotations

import random
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import numpy as np

from fanout.channels.protocol import Column, Requests, Template, column
from fanout.dispatch.frames.connection import Connection
from fanout.dispatch.frames.plans import columns_of, text_of

ORIGIN: Final = "https://push.example:8443"
AUTHORITY: Final = "push.example:8443"
SETTINGS: Final = h2.settings.SettingCodes

Headers = list[tuple[str, str]]


def rendered(requests: Requests, row: int) -> tuple[Headers, bytes]:
    """What row `row` must be on the wire: the slow and obvious way."""
    template = requests.templates[int(requests.which[row])]

    def fill(pieces: tuple[bytes | int, ...]) -> bytes:
        return b"".join(p if isinstance(p, bytes) else value(requests.columns[p], row) for p in pieces)

    body = fill(template.body)
    path = fill(template.url).decode().removeprefix(ORIGIN) or "/"
    headers = [(":method", template.method), (":scheme", "https"), (":authority", AUTHORITY), (":path", path)]
    headers += [(line.partition(":")[0].lower(), line.partition(":")[2].strip()) for line in template.headers]
    if template.method not in ("GET", "HEAD"):
        headers.append(("content-length", str(len(body))))
    return headers, body


def value(column: Column, row: int) -> bytes:
    return column.data[column.offsets[row] : column.offsets[row + 1]].tobytes()


class Peer:
    """Client and server, and the wire between them."""

    def __init__(
        self, seed: int, *, streams: int = 16, settings: dict[h2.settings.SettingCodes, int] | None = None
    ) -> None:
        self.random = random.Random(seed)
        self.client = Connection(AUTHORITY, streams=streams)
        self.server = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=True)
        )
        self.server.local_settings = h2.settings.Settings(client=False, initial_values=settings or {})
        self.server.max_inbound_frame_size = self.server.local_settings.max_frame_size
        self.server.initiate_connection()
        self.requests: dict[int, tuple[Headers, bytearray]] = {}
        self.whole: list[int] = []
        self.events: list[h2.events.Event] = []
        self.codes: dict[int, int] = {}
        self.bodies: dict[int, bytes] = {}
        self.asked: dict[int, str] = {}
        self.streams_most = 0

    # --- the wire -------------------------------------------------------------------------------------------------

    def to_server(self, most: int | None = None) -> int:
        """Carry what the client has to say, at most `most` bytes of it; returns how many."""
        output = self.client.output()
        data = bytes(output if most is None else output[:most])
        self.client.sent(len(data))
        for event in self.server.receive_data(data) if data else ():
            self._heard(event)
        return len(data)

    def to_client(self) -> None:
        """Carry what the server has to say, in pieces."""
        data = disguised(self.server.data_to_send(), self.random)
        at = 0
        while at < len(data):
            space = self.client.space()
            size = min(len(data) - at, len(space), self.random.choice((1, 9, 17, 100, 5_000, 60_000)))
            space[:size] = data[at : at + size]
            self.client.put(size)
            self.client.read()
            at += size
        self.take()

    def exchange(self) -> None:
        """Until neither has anything to say."""
        while self.to_server(self.random.choice((None, None, 3, 1_000))) or self.server._data_to_send:
            self.to_client()
        self.take()

    def take(self) -> None:
        ended = self.client.take()
        if ended is None:
            return
        for job, place, code in ended.rows.tolist():
            assert job == 7
            assert place not in self.codes, "a row ends once"
            self.codes[place] = code
        for note in ended.notes:
            self.bodies[note.place], self.asked[note.place] = note.body, note.retry_after

    # --- the client -----------------------------------------------------------------------------------------------

    def write(self, requests: Requests, rows: list[int], due_ms: int = 1_000) -> list[int]:
        """Write as many of these rows as there is room for; returns those left."""
        columns = columns_of(requests)
        while rows and self.client.room:
            template = int(requests.which[rows[0]])
            run = 1
            while run < min(len(rows), self.client.room) and int(requests.which[rows[run]]) == template:
                run += 1
            index = np.array(rows[:run], np.int64)
            text = text_of(requests.templates[template], ORIGIN)
            wrote = self.client.write(7, text, columns, index, index, due_ms=due_ms)
            rows = rows[wrote:]
            if wrote < run:
                break
        return rows

    # --- the server -----------------------------------------------------------------------------------------------

    def _heard(self, event: h2.events.Event) -> None:
        self.events.append(event)
        if isinstance(event, h2.events.RequestReceived):
            self.requests[event.stream_id] = ([(str(n), str(v)) for n, v in event.headers], bytearray())
            self.streams_most = max(self.streams_most, self.server.open_inbound_streams)
        elif isinstance(event, h2.events.DataReceived):
            self.requests[event.stream_id][1].extend(event.data)
            self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.whole.append(event.stream_id)

    def row_of(self, stream: int) -> int:
        """The row a request was for: rows are numbered in a header or the path."""
        return int(dict(self.requests[stream][0])[":path"].rpartition("/")[2].partition("?")[0])


def disguised(data: bytes, dice: random.Random) -> bytes:
    """The same frames, with padding, priorities and header blocks in parts, as the dice fall."""
    out, at = bytearray(), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 3])
        kind, flags, stream = data[at + 3], data[at + 4], data[at + 5 : at + 9]
        payload = data[at + 9 : at + 9 + length]
        at += 9 + length
        if kind != 1:
            out += frame(kind, flags, stream, payload)
            continue
        parts = [payload]
        if dice.random() < 0.2 and len(payload) > 1:
            cut = dice.randrange(1, len(payload))
            parts = [payload[:cut], payload[cut:]]
        first = parts[0]
        if dice.random() < 0.2:
            first, flags = bytes(5) + first, flags | 0x20
        if dice.random() < 0.2:
            pad = dice.randrange(0, 200)
            first, flags = bytes((pad,)) + first + bytes(pad), flags | 0x8
        out += frame(1, flags if len(parts) == 1 else flags & ~0x4, stream, first)
        for part in parts[1:]:
            out += frame(9, 0x4, stream, part)
    return bytes(out)


def frame(kind: int, flags: int, stream: bytes | int, payload: bytes = b"") -> bytes:
    """One frame's bytes."""
    number = stream if isinstance(stream, bytes) else stream.to_bytes(4)
    return len(payload).to_bytes(3) + bytes((kind, flags)) + number + payload


def numbered(rows: int, *, bodies: list[bytes] | None = None, quiet: int = 0, headers: int = 2) -> Requests:
    """POST /<x>/<row> with bodies of their own; every `quiet`-th row by a second template."""
    names = tuple(f"x-constant-{number}: value of {number}" for number in range(headers))
    templates = tuple(
        Template(method="POST", url=(f"{ORIGIN}/{kind}/".encode(), 0), headers=(*names, f"x-kind: {kind}"), body=body)
        for kind, body in (("ring", (b"<", 1, b">")), ("quiet", (1, b"-", 0, b"-", 1)))
    )
    which = np.zeros(rows, np.uint16)
    if quiet:
        which[::quiet] = 1
    return Requests(
        templates=templates,
        columns=(column([b"%d" % row for row in range(rows)]), column(bodies or [b"b"] * rows)),
        which=which,
        usable=np.ones(rows, np.bool_),
    )
