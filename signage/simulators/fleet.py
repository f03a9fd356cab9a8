"""Thousands of simulated boards in one process: real MQTT over real sockets, behind as many connections as asked for.

Rules:

1. A connection is a controller: it carries its boards' topics, and its will speaks for all of them under its own id.
2. One task makes and mends each connection; what comes in is read by one task for all, straight from a selector: a
   wake of trio per message and connection would cost more than everything a board does with it. Messages of one read
   are answered with one write.
3. `film` is a file of JSON lines, written as it happens: `{"at_ms", "board", "why", "shown": [[action, stage], …],
   "pages"}`. It says what boards *really* showed; reports say what they claim.
4. A connection that ends is made anew, with a pause that doubles; boards go on by their own rules meanwhile.
"""

from __future__ import annotations

import contextlib
import csv
import heapq
import itertools
import json
import logging
import random
import selectors
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec
import trio

from signage.dialects import native
from signage.dialects.native import State
from signage.simulators import packets
from signage.simulators.display import MOODS, Display, Mood, Out
from signage.simulators.matrix import Matrix
from signage.simulators.models import DEFAULT, MODELS, areas_for, caps_for
from signage.simulators.passenger import PassengerDisplay

KINDS: Final = ("PID-LED", "PID-LED", "PID-LCD", "PID-TFT")
Machine: TypeAlias = Display | PassengerDisplay

log = logging.getLogger("signage.simulators")

KEEPALIVE_S: Final = 60
CONNECTING_MAX: Final = 64  # connections being made at once
FLAP_S: Final = (3.0, 10.0)
FILM_S: Final = 0.5


class Placed(msgspec.Struct, frozen=True):
    """One row of a boards file: `id,lon,lat,place,model,areas` (area topics, with blanks between)."""

    id: str
    lon: float | None
    lat: float | None
    place: str = ""
    model: str = DEFAULT
    areas: tuple[str, ...] = ()


def read_boards(path: Path) -> list[Placed]:
    """A CSV or JSON file of boards. `ValueError` names the row that is wrong."""
    rows: list[dict[str, Any]]
    if path.suffix == ".json":
        rows = json.loads(path.read_text())
    else:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    boards = []
    for number, row in enumerate(rows, start=1):
        try:
            placed = Placed(
                str(row["id"]),
                float(row["lon"]),
                float(row["lat"]),
                row.get("place") or "",
                row.get("model") or DEFAULT,
                tuple((row.get("areas") or "").split()),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"row {number} of {path}: {error!r}") from None
        if placed.model not in MODELS:
            raise ValueError(f"row {number} of {path}: no model {placed.model!r}; there are {', '.join(MODELS)}")
        boards.append(placed)
    return boards


def spread_boards(count: int, seed: int, *, areas: bool = False) -> list[Placed]:
    """Boards at synthetic stops, all over a box about the Netherlands, of all models in turn; with area topics or
    without.
    """
    dice = random.Random(seed)
    boards = []
    for at, model in zip(range(count), itertools.cycle(MODELS), strict=False):
        lon, lat = dice.uniform(3.6, 7.1), dice.uniform(50.9, 53.4)
        names = tuple(areas_for(model, lon, lat)) if areas else ()
        boards.append(Placed(f"sim-{at:06d}", lon, lat, "synthetic", model, names))
    return boards


def parse_moods(text: str) -> list[tuple[Mood, float]]:
    """`flapping=0.05,mute=0.01`: shares of boards; the rest is well. `ValueError` names what is wrong."""
    shares: list[tuple[Mood, float]] = []
    for part in filter(None, text.split(",")):
        name, _, share = part.partition("=")
        mood = next((mood for mood in MOODS if mood == name.strip()), None)
        if mood is None:
            raise ValueError(f"no mood {name!r}; there are {', '.join(MOODS)}")
        shares.append((mood, float(share or 1.0)))
    if sum(share for _, share in shares) > 1.0 + 1e-9:
        raise ValueError("the shares of moods add up to more than 1")
    return shares


def make_displays(
    boards: Sequence[Placed], connections: int, moods: Sequence[tuple[Mood, float]], seed: int
) -> list[list[Machine]]:
    """Displays by connection. A mood that breaks connections takes whole connections."""
    connections = max(1, min(connections, len(boards)))
    dice = random.Random(f"moods/{seed}")
    groups: list[list[Machine]] = []
    for number in range(connections):
        mood = _mood(dice, moods)
        mine = boards[number::connections]
        controller = f"ctl-{mine[0].id}" if len(mine) > 1 else ""
        groups.append(
            [
                Matrix(
                    caps_for(one.id, one.model, one.lon, one.lat, one.place, controller, one.areas),
                    mood=mood,
                    seed=seed,
                )
                for one in mine
            ]
        )
    return groups


def _mood(dice: random.Random, moods: Sequence[tuple[Mood, float]]) -> Mood:
    """One mood by its share; the rest is well."""
    share = dice.random()
    for mood, part in moods:
        if share < part:
            return mood
        share -= part
    return "well"


def make_passengers(count: int, seed: int, moods: Sequence[tuple[Mood, float]] = ()) -> list[list[Machine]]:
    """Displays of RTIG T047, one connection each, four of a type at a stop, spread as `spread_boards` does. At every
    third stop the house has a line for itself.
    """
    dice, chance = random.Random(f"t047/{seed}"), random.Random(f"t047 moods/{seed}")
    groups: list[list[Machine]] = []
    spot, at_stop = (5.0, 52.0), ("null", "null", "null")
    for at in range(count):
        if at % 4 == 0:
            spot = (dice.uniform(3.6, 7.1), dice.uniform(50.9, 53.4))
            at_stop = (f"L{int(spot[0] * 2)}-{int(spot[1] * 2)}", f"C{at // 16}", f"S{at // 4}")
        display = PassengerDisplay(
            "sim",
            f"p{at:05d}",
            at_stop,
            position=spot,
            exact=bool(at % 2),
            legacy=at % 3 == 0,
            kind=KINDS[at // 4 % len(KINDS)],
            header="Halte          12:04" if at // 4 % 3 == 2 else "",
            mood=_mood(chance, moods),
            seed=seed,
        )
        groups.append([display])
    return groups


def address_of(broker: str) -> tuple[str, int]:
    """Host and port of `mqtt://host:port`. Errors: `ValueError`."""
    parts = urlsplit(broker)
    if parts.scheme != "mqtt" or not parts.hostname:
        raise ValueError(f"{broker!r} is no mqtt://host:port")
    return parts.hostname, parts.port or 1883


class Fleet:
    """All simulated boards of this process. Make it, then `run`."""

    def __init__(
        self,
        groups: Sequence[Sequence[Machine]],
        broker: str,
        clock_ms: Callable[[], int],
        *,
        film: Path | None = None,
        version: int = 4,
        seed: int = 0,
    ) -> None:
        self._host, self._port = address_of(broker)
        self._silent = False
        self._version = version
        self._clock_ms = clock_ms
        self._groups = [_Connection(self, number, list(group), seed) for number, group in enumerate(groups)]
        self._connecting = trio.CapacityLimiter(CONNECTING_MAX)
        self._wakes: list[tuple[int, int, Machine, _Connection]] = []
        self._planned: dict[Machine, int] = {}
        self._selector = selectors.DefaultSelector()
        self._order = itertools.count()
        self._soonest = trio.Event()
        self._film_path = film
        self._frames: list[tuple[Machine, Any]] = []
        self._keep_frames = film is not None
        self.connected = 0
        self.received = 0
        self.sent = 0
        for group in groups:
            for display in group:
                display.on_frame = self._note_frame

    @property
    def displays(self) -> list[Machine]:
        return [display for connection in self._groups for display in connection.displays]

    async def run(self) -> None:
        """Until cancelled. What was filmed is on disk then."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_time)
                nursery.start_soon(self._serve)
                nursery.start_soon(self._ping)
                if self._film_path is not None:
                    nursery.start_soon(self._write_film, self._film_path)
                for connection in self._groups:
                    nursery.start_soon(connection.run)
        finally:
            if self._film_path is not None:
                with self._film_path.open("a") as file:
                    self._flush_film(file)

    def unreached(self, error: Exception) -> None:
        """A connection could not be made: the first since there was one is told, if there is none."""
        if not self.connected and not self._silent:
            log.warning("no board has a connection to %s:%d: %s; trying on", self._host, self._port, error)
            self._silent = True

    def cut_all(self) -> None:
        """Every connection breaks at once, as when a network dies; they come back by themselves."""
        for connection in self._groups:
            connection.cut()

    def clock_jumped(self) -> None:
        """The clock that was handed in has jumped: whatever is due is done now."""
        self._soonest.set()

    # --- time ---------------------------------------------------------------------------------------------------------

    def plan_wake(self, display: Machine, connection: _Connection, now_ms: int) -> None:
        at_ms = display.next_wake_ms(now_ms)
        if at_ms is not None and self._planned.get(display) != at_ms:
            self._planned[display] = at_ms
            heapq.heappush(self._wakes, (at_ms, next(self._order), display, connection))
            if self._wakes[0][0] == at_ms:
                self._soonest.set()

    async def _pass_time(self) -> None:
        while True:
            self._soonest = trio.Event()
            now_ms = self._clock_ms()
            due: dict[_Connection, list[Out]] = {}
            while self._wakes and self._wakes[0][0] <= now_ms:
                at_ms, _, display, connection = heapq.heappop(self._wakes)
                if self._planned.get(display) == at_ms:
                    del self._planned[display]
                due.setdefault(connection, []).extend(display.wake(now_ms))
                self.plan_wake(display, connection, now_ms + 1)
            for connection, out in due.items():
                connection.send(out)
            pause_s = (self._wakes[0][0] - now_ms) / 1000 if self._wakes else 3600.0
            with trio.move_on_after(max(0.005, pause_s)):
                await self._soonest.wait()

    # --- the sockets --------------------------------------------------------------------------------------------------

    def watch(self, connection: _Connection, sock: socket.socket, *, writes: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)
        if sock.fileno() in self._selector.get_map():
            self._selector.modify(sock, events, connection)
        else:
            self._selector.register(sock, events, connection)

    def writes(self, sock: socket.socket) -> bool:
        """Whether it is watched for room to write."""
        return bool(self._selector.get_key(sock).events & selectors.EVENT_WRITE)

    def unwatch(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    async def _serve(self) -> None:
        """Whatever any connection has to read or to write."""
        assert hasattr(self._selector, "fileno"), "a selector that can be waited for: epoll or kqueue"
        try:
            while True:
                await trio.lowlevel.wait_readable(self._selector.fileno())
                for key, events in self._selector.select(0):
                    key.data.ready(events)
        finally:
            self._selector.close()

    async def _ping(self) -> None:
        while True:
            await trio.sleep(KEEPALIVE_S * 0.7)
            for connection in self._groups:
                connection.send((), packets.PING)

    # --- the film -----------------------------------------------------------------------------------------------------

    def _note_frame(self, display: Machine, frame: Any) -> None:
        if self._keep_frames:
            self._frames.append((display, frame))

    async def _write_film(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            while True:
                await trio.sleep(FILM_S)
                self._flush_film(file)

    def _flush_film(self, file: IO[str]) -> None:
        frames, self._frames = self._frames, []
        for display, frame in frames:
            row = display.film_row(frame)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()


class _Connection:
    """One connection and its boards."""

    def __init__(self, fleet: Fleet, number: int, displays: list[Machine], seed: int) -> None:
        self.fleet = fleet
        self.displays = displays
        self.id = displays[0].controller or displays[0].id
        self._by_topic: dict[str, list[Machine]] = {}
        for display in displays:
            for topic in display.topics:
                self._by_topic.setdefault(topic, []).append(display)
        self._listening = [display for display in displays if isinstance(display, PassengerDisplay)]
        self._random = random.Random(f"{seed}/connection/{number}")
        self._sock: socket.socket | None = None
        self._parser = packets.Parser()
        self._unsent = bytearray()
        self._ended = trio.Event()
        self._packet_id = 0
        self._scope: trio.CancelScope | None = None
        self._boots = 0

    def cut(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        mood = self.displays[0].mood
        if mood == "off":
            await trio.sleep_forever()
        pause_s = 0.2
        while True:
            try:
                with trio.CancelScope() as self._scope:
                    if mood == "flapping":
                        self._scope.deadline = trio.current_time() + self._random.uniform(*FLAP_S)
                    await self._session()
                pause_s = 0.2
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError) as error:
                pause_s = min(pause_s * 2, 5.0)
                if self._sock is None:
                    self.fleet.unreached(error)
            finally:
                self._gone()
            pause_s = self._random.uniform(*FLAP_S) / 4 if mood == "flapping" else pause_s
            await trio.sleep(pause_s * (0.5 + self._random.random()))
            if mood == "amnesia":
                for display in self.displays:
                    display.power_off(self.fleet._clock_ms())

    def _gone(self) -> None:
        now_ms = self.fleet._clock_ms()
        if self._sock is not None:
            self.fleet.unwatch(self._sock)
            self._sock.close()
            self._sock = None
            self.fleet.connected -= 1
        for display in self.displays:
            if display.connected:
                display.cut(now_ms)
                self.fleet.plan_wake(display, self, now_ms)

    def _will(self) -> tuple[str, bytes] | None:
        first = self.displays[0]
        if not first.controller:
            return first.will()
        lost = State(state="lost", boot=f"{self.id}-{self._boots}")
        return native.board_topic(self.id, "state"), native.encode(lost)

    async def _session(self) -> None:
        fleet, version = self.fleet, self.fleet._version
        self._boots += 1
        for display in self.displays:
            display.power_on()
        async with fleet._connecting:
            stream = await trio.open_tcp_stream(fleet._host, fleet._port)
            self._parser = packets.Parser()
            try:
                await stream.send_all(
                    packets.connect(self.id, version=version, keepalive_s=KEEPALIVE_S, will=self._will())
                )
                await self._expect(stream, self._parser, packets.CONNACK)
                await stream.send_all(packets.subscribe(list(self._by_topic), 1, version))
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        self._sock = socket.socket(fileno=stream.socket.detach())
        self._sock.setblocking(False)
        self._unsent.clear()
        self._ended = trio.Event()
        fleet.watch(self, self._sock, writes=False)
        fleet.connected += 1
        fleet._silent = False
        now_ms = fleet._clock_ms()
        out: list[Out] = []
        if self.displays[0].controller:
            ready = State(state="ready", boot=f"{self.id}-{self._boots}")
            out.append(Out(native.board_topic(self.id, "state"), native.encode(ready), True))
        for display in self.displays:
            out += display.connect(now_ms)
            fleet.plan_wake(display, self, now_ms)
        self.send(out)
        await self._ended.wait()  # then `run` makes the next

    async def _expect(self, stream: trio.SocketStream, parser: packets.Parser, wanted: int) -> None:
        with trio.fail_after(20):
            while data := await stream.receive_some(4096):
                for kind, _, body in parser.feed(data):
                    if kind == wanted and (kind != packets.CONNACK or packets.connack_code(body) == 0):
                        return
                    raise ConnectionError(f"the broker answered {kind} {body!r}")
        raise ConnectionError("the broker closed the connection")

    def ready(self, events: int) -> None:
        """The socket has something to read, or room to write."""
        sock = self._sock
        if sock is None:
            return
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(sock)
            if events & selectors.EVENT_READ:
                data = sock.recv(65_536)
                if not data:
                    raise ConnectionError("the broker closed the connection")
                self._take(data)
        except BlockingIOError:
            return
        except OSError:
            self._end(sock)

    def _take(self, data: bytes) -> None:
        fleet = self.fleet
        out: list[Out] = []
        acks = bytearray()
        now_ms = fleet._clock_ms()
        for kind, flags, body in self._parser.feed(data):
            if kind != packets.PUBLISH:
                continue
            message = packets.read_publish(flags, body, fleet._version)
            fleet.received += 1
            if message.packet_id:
                acks += packets.puback(message.packet_id)
            for display in self._by_topic.get(message.topic, self._listening):
                out += display.receive(message.topic, message.payload, now_ms)
                fleet.plan_wake(display, self, now_ms)
        self.send(out, bytes(acks))

    def send(self, out: Sequence[Out], first: bytes = b"") -> None:
        """One write for all of it; nothing when there is no connection. What the socket does not take is sent later."""
        sock = self._sock
        if sock is None or not (out or first):
            return
        idle = not self._unsent
        self._unsent += first
        for topic, payload, retain in out:
            self._packet_id = self._packet_id % 65_535 + 1
            self._unsent += packets.publish(
                topic, payload, retain=retain, qos=1, packet_id=self._packet_id, version=self.fleet._version
            )
        self.fleet.sent += len(out)
        if idle:
            try:
                self._flush(sock)
            except BlockingIOError:
                self.fleet.watch(self, sock, writes=True)
            except OSError:
                self._end(sock)

    def _flush(self, sock: socket.socket) -> None:
        while self._unsent:
            del self._unsent[: sock.send(self._unsent)]
        if self.fleet.writes(sock):
            self.fleet.watch(self, sock, writes=False)

    def _end(self, sock: socket.socket) -> None:
        self.fleet.unwatch(sock)
        self._ended.set()
