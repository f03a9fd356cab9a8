"""Boards: from the call that shows an action to the last board that confirmed it, on a real mosquitto; and what it is
made of.

Cases: the layout of one text for 200 models; the publish rate of our link beside plain paho and `mosquitto_pub -l`;
10,000 boards behind 1,000 connections of another process: shown and taken down, on MQTT 5 and 3.1.1, each on its own
topic (signed and not) or together on area topics; 1,000 boards that come back at once while an action is on; 100,000
boards without a broker (memory and time of the engine's own part).

Times of the end-to-end cases count from `show` or `result` (what the API does before that is `life`'s) to the board's
report in the engine; `engine_cpu_ms` is what this process, which is the engine, spent of a core meanwhile: broker and
boards have processes of their own, and on two cores the three are in each other's way. `--quick` has the same boards
and fewer repeats.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paho.mqtt.client as paho
import trio
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bench.harness import Options, Row, measure, note
from fanout import geo, memory, settings, wire
from fanout.geo import EVERYONE
from signage import layout
from signage.broker import Broker, find_mosquitto, start_broker
from signage.dialects import native
from signage.layout import Model, Pace, Unfit, lay_out
from signage.mqtt import Link, LinkOptions, Packet
from signage.reconcile import Reconciler
from signage.service import Signage, open_signage
from signage.showing import Record
from signage.simulators.fleet import spread_boards
from signage.simulators.models import caps_for

TEXT = (
    "Vermist: jongen, 6 jaar, 1.15 m, kort donker haar, gele regenjas, blauwe laarzen. Laatst gezien 15.40 uur "
    "speeltuin Wilhelminapark. Gezien? Bel 112."
)
BOARDS, CONNECTIONS, BACK = 10_000, 1_000, 1_000
PATIENCE_S = 120.0


def run(options: Options) -> Iterator[Row]:
    """Every case."""
    geo.warm()
    layout.warm()
    yield _layouts(options)
    yield from _core(options)
    if find_mosquitto() is None:
        note("no mosquitto on this machine: the cases with a broker are left out")
        return
    with tempfile.TemporaryDirectory() as folder:
        broker = start_broker(Path(folder) / "rate", kind="mosquitto")
        try:
            yield from _rates(broker, 10_000 if options.quick else 40_000, 1 if options.quick else 3)
        finally:
            broker.stop()
        for number, way in enumerate(WAYS[:3] if options.quick else WAYS):
            own = Path(folder) / str(number)
            own.mkdir()
            gc.collect()  # a hundred thousand boards of the case before are not this one's to clear away
            yield from trio.run(_end_to_end, options, own, way)


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


# --- without a broker -------------------------------------------------------------------------------------------------


def _layouts(options: Options) -> Row:
    """One text, 200 different models; each repeat with another text, as nothing may be remembered."""
    models = [
        Model(
            name=f"m{at}",
            kind=("characters", "pixels", "image")[at % 3],
            lines=1 + at % 6,
            characters=16 + at,
            width_px=120 + 4 * at,
            height_px=24 + 2 * at,
            charset=("ascii", "latin-1", "utf-8")[at % 3],
            pages=8,
        )
        for at in range(200)
    ]
    fitted = repeats = 0

    def all_of_them() -> None:
        nonlocal fitted, repeats
        fitted, repeats = 0, repeats + 1
        text = f"{TEXT} {repeats}"
        for model in models:
            with contextlib.suppress(Unfit):
                lay_out([(("nl", text),)], model, Pace())
                fitted += 1

    timing = measure([all_of_them], seconds=0.5 if options.quick else 3.0)
    return {"case": "layout of one text", "system": "fanout", "models": 200, "fitted": fitted} | timing.row()


def _core(options: Options) -> Iterator[Row]:
    """The engine's own part for 100,000 boards: births taken in, an action chosen, every document composed and
    encoded.
    """
    for boards in (10_000, 100_000):
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        core = Reconciler(settings.load(None, {}).signage, clock_ms)
        core.up()
        births = [
            (native.board_topic(one.id, "caps"), native.encode(caps_for(one.id, one.model, one.lon, one.lat, "")))
            for one in spread_boards(boards, options.seed)
        ]
        start_s = time.perf_counter()
        for topic, payload in births:
            core.received(topic, payload, False)
        born_s = time.perf_counter() - start_s
        start_s = time.perf_counter()
        what = _action(clock_ms() + 3_600_000)
        chosen = [board.id for board in core.boards.within(EVERYONE)]
        core.add(Record(action=1, request=what, priority=0, start_ms=0, end_ms=what.end_ms, boards=chosen), EVERYONE)
        taken = sum(1 for _ in iter(core.take, None))
        took_s = time.perf_counter() - start_s
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
        yield {
            "case": "the engine's own part",
            "system": "fanout",
            "boards": boards,
            "documents": taken,
            "births_per_s": round(boards / born_s),
            "documents_per_s": round(taken / took_s),
            "rss_grown_mb": round(grown_mb),
        }


# --- the publish rate -------------------------------------------------------------------------------------------------


class _Pour:
    """A source of so many documents, and when the last was acknowledged."""

    def __init__(self, count: int, payload: bytes) -> None:
        self.left, self.open = count, count
        self.payload = payload
        self.done = trio.Event()

    def take(self) -> Packet | None:
        if not self.left:
            return None
        self.left -= 1
        return Packet(native.desired_topic(f"b{self.left}"), self.payload, True, 3_600, "application/msgpack")

    def sent(self, packet: Packet, heard: bool) -> None:
        self.open -= 1
        if not self.open:
            self.done.set()

    def refused(self, packet: Packet, reason: int) -> None:
        raise AssertionError(f"the broker refuses {packet.topic}: 0x{reason:02x}")

    def lost(self, packets: Sequence[Packet]) -> None:
        raise AssertionError("the bench's broker went away")

    def received(self, topic: str, payload: bytes, retained: bool) -> None: ...

    def up(self) -> None: ...

    def down(self, reason: str) -> None: ...


def _rates(broker: Broker, count: int, repeats: int) -> Iterator[Row]:
    """Retained documents of 500 bytes at QoS 1, each to a topic of its own, until the last is acknowledged."""
    payload = b"x" * 500
    systems: list[tuple[str, Callable[[], float]]] = [
        ("fanout", lambda: trio.run(_ours, broker, count, payload, "5")),
        ("fanout, MQTT 3.1.1", lambda: trio.run(_ours, broker, count, payload, "3.1.1")),
        ("paho, window 20", lambda: _plain_paho(broker, count, payload, 20)),
        ("paho, window 2000", lambda: _plain_paho(broker, count, payload, 2_000)),
    ]
    if shutil.which("mosquitto_pub"):
        systems.append(("mosquitto_pub -l", lambda: _mosquitto_pub(broker, count, payload)))
    else:
        note("no mosquitto_pub on this machine: it is left out")
    for name, system in systems:
        took_s = min(system() for _ in range(repeats))
        yield {"case": "publish rate", "system": name, "documents": count, "rate_per_s": round(count / took_s)}


async def _ours(broker: Broker, count: int, payload: bytes, protocol: str) -> float:
    pour = _Pour(count, payload)
    options = LinkOptions(brokers=[broker.address], client_id="bench", subscriptions=["x/y"], protocol=protocol)
    link = Link(options, pour)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await link.wait_up()
        start_s = time.perf_counter()
        link.kick()
        await pour.done.wait()
        took_s = time.perf_counter() - start_s
        nursery.cancel_scope.cancel()
    return took_s


def _plain_paho(broker: Broker, count: int, payload: bytes, window: int) -> float:
    """paho as its manual has it: its own thread, one `publish` a document."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(window)
    client.max_queued_messages_set(0)
    connected, done, left = threading.Event(), threading.Event(), [count]
    client.on_connect = lambda *_: connected.set()

    def published(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            done.set()

    client.on_publish = published
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    connected.wait(PATIENCE_S)
    start_s = time.perf_counter()
    for at in range(count):
        client.publish(native.desired_topic(f"b{at}"), payload, qos=1, retain=True)
    done.wait(PATIENCE_S)
    took_s = time.perf_counter() - start_s
    client.disconnect()
    client.loop_stop()
    return took_s


def _mosquitto_pub(broker: Broker, count: int, payload: bytes) -> float:
    """One line a message, all to one topic: it cannot do otherwise. Its start is part of the time."""
    lines = (payload + b"\n") * count
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.port), "-q", "1", "-r", "-t", "bench/one", "-l"]
    start_s = time.perf_counter()
    subprocess.run(command, input=lines, check=True, timeout=PATIENCE_S)
    return time.perf_counter() - start_s


# --- end to end -------------------------------------------------------------------------------------------------------


class _Documents:
    """Memory for the service: what durability costs is measured where the store is."""

    def __init__(self) -> None:
        self.spaces: dict[str, dict[str, bytes]] = {}

    def put(self, space: str, values: object) -> None:
        self.spaces.setdefault(space, {}).update(values)  # type: ignore[call-overload]

    def scan(self, space: str) -> list[tuple[str, bytes]]:
        return sorted((key, value) for key, value in self.spaces.get(space, {}).items() if value is not None)


def _action(end_ms: int) -> wire.Action:
    return wire.Action(kind="missing_child", area=wire.Everyone(), texts={"nl": TEXT}, end_ms=end_ms)


class Way(NamedTuple):
    """One way from the engine to boards: the system's name in a row, and how engine and boards are set up for it."""

    name: str
    protocol: str
    areas: bool = False
    signed: bool = False


WAYS = (
    Way("fanout, MQTT 5", "5"),
    Way("fanout, MQTT 3.1.1", "3.1.1"),
    Way("fanout, MQTT 5, area topics, signed", "5", areas=True, signed=True),
    Way("fanout, MQTT 5, signed", "5", signed=True),
)


async def _end_to_end(options: Options, folder: Path, way: Way) -> list[Row]:
    rows: list[Row] = []
    overlay = {"embedded": "mosquitto", "protocol": way.protocol}
    if way.signed:
        overlay["signing_key"] = str(folder / "key.pem")
    section = settings.load(None, {}, signage=overlay).signage
    back_too = way is WAYS[0]
    async with open_signage(section, _Documents(), clock_ms, folder=folder / "own") as signage:
        with contextlib.ExitStack() as running:
            _simulate(running, folder, signage, way, "main", BOARDS, CONNECTIONS, options.seed)
            await _until(lambda: signage.presence()["ready"] == BOARDS)
            await _quiet(signage)
            memory.settle()  # as an engine does that is ready
            for number in range(1, 2 if options.quick else 4):
                note(f"{way.name}: action {number}")
                rows += await _once(signage, number, way)
            if back_too:
                rows.append(await _comes_back(signage, folder, way, options))
    return rows


async def _once(signage: Signage, number: int, way: Way) -> list[Row]:
    """Show and take down on the boards that are there."""
    start_ms, cpu_s = clock_ms(), time.process_time()
    await signage.show(number, _action(start_ms + 3_600_000), EVERYONE, 0, start_ms)
    await _until(lambda: signage.counts(number).shown >= BOARDS)
    shown_cpu = {"engine_cpu_ms": round((time.process_time() - cpu_s) * 1000)}
    shown = np.array([row.shown_ms for row in signage.proof(number) if row.shown_ms], np.float64) - start_ms
    closed_ms, cpu_s = clock_ms(), time.process_time()
    await signage.result(number, {}, closed_ms)
    await _until(lambda: signage.counts(number).cleared >= BOARDS)
    gone_cpu = {"engine_cpu_ms": round((time.process_time() - cpu_s) * 1000)}
    gone = np.array([row.ended_ms for row in signage.proof(number) if row.ended_ms], np.float64) - closed_ms
    return [
        _spread("show to confirmed shown", way, shown)
        | {"boards_to_shown_in_2_s": int((shown <= 2_000).sum())}
        | shown_cpu,
        _spread("close to confirmed gone", way, gone) | {"boards_gone_in_2_s": int((gone <= 2_000).sum())} | gone_cpu,
    ]


async def _comes_back(signage: Signage, folder: Path, way: Way, options: Options) -> Row:
    """1,000 boards are known and go; an action starts; they come at once, each with a connection of its own."""
    number = 1_000
    with contextlib.ExitStack() as once:
        _simulate(once, folder, signage, way, "back", BACK, BACK, options.seed)
        await _until(lambda: signage.presence()["ready"] == BOARDS + BACK)
    await _until(lambda: signage.presence()["ready"] <= BOARDS)
    await signage.show(number, _action(clock_ms() + 3_600_000), EVERYONE, 0, clock_ms())
    await _until(lambda: signage.counts(number).shown >= BOARDS)
    with contextlib.ExitStack() as again:
        _simulate(again, folder, signage, way, "back", BACK, BACK, options.seed)
        await _until(lambda: signage.presence()["ready"] > BOARDS)
        first_ms = clock_ms()
        await _until(lambda: signage.counts(number).shown >= BOARDS + BACK)
    back = np.array([row.shown_ms for row in signage.proof(number) if row.board.startswith("back")], np.float64)
    return _spread("1,000 come back: first there to all right", way, back - first_ms)


def _spread(case: str, way: Way, times_ms: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Row:
    p50, p99 = np.percentile(times_ms, [50, 99])
    figures = {"p50_ms": round(float(p50)), "p99_ms": round(float(p99)), "last_ms": round(float(times_ms.max()))}
    return {"case": case, "system": way.name, "boards": len(times_ms)} | figures


async def _quiet(signage: Signage) -> None:
    """Wait until nothing has come in for a moment: boards that start say more than that they are there."""
    heard = -1
    while heard != signage.statistics().received:
        heard = signage.statistics().received
        await trio.sleep(0.3)


async def _until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.05)  # counting ten thousand boards is work on the cores that are measured


def _simulate(
    running: contextlib.ExitStack,
    folder: Path,
    signage: Signage,
    way: Way,
    name: str,
    boards: int,
    connections: int,
    seed: int,
) -> None:
    """Boards in a process of their own, named after it, until `running` ends."""
    file = folder / f"{name}.csv"
    rows = [
        f"{name}-{at},{one.lon},{one.lat},,{one.model},{' '.join(one.areas)}"
        for at, one in enumerate(spread_boards(boards, seed, areas=way.areas))
    ]
    file.write_text("id,lon,lat,place,model,areas\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "-m", "signage.cli", "simulate", "--boards-file", str(file)]
    command += ["--broker", signage.broker_address, "--connections", str(connections)]
    command += ["--mqtt5"] if way.protocol == "5" else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    running.callback(process.wait)
    running.callback(process.kill)
