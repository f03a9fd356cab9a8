"""The link on real brokers: it falls back, tries the next broker, gives back what was in flight, and is bounded."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from fanout.limits import BOARD_DOCUMENT_BYTES_MAX
from signage.broker import find_mosquitto, free_port, start_broker
from signage.mqtt import Link, LinkOptions, Packet
from signage.wires import PACKET_BYTES_MAX
from tests.signage.test_service import BROKERS, until


class Letters:
    """A source that counts."""

    def __init__(self, count: int) -> None:
        self.left = [Packet(f"letters/{at}", b"x" * 200, token=at) for at in reversed(range(count))]
        self.acknowledged: list[int] = []
        self.unheard: list[int] = []
        self.no: list[tuple[int, int]] = []
        self.back: list[int] = []
        self.got: dict[str, bytes] = {}
        self.ups = 0
        self.downs: list[str] = []

    def take(self) -> Packet | None:
        return self.left.pop() if self.left else None

    def sent(self, packet: Packet, heard: bool) -> None:
        self.acknowledged.append(packet.token)
        self.unheard += [] if heard else [packet.token]

    def refused(self, packet: Packet, reason: int) -> None:
        self.no.append((packet.token, reason))

    def lost(self, packets: Sequence[Packet]) -> None:
        self.back += [packet.token for packet in packets]
        self.left += packets

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        if payload == b"trip":
            raise RuntimeError("tripped")
        self.got[topic] = payload

    def up(self) -> None:
        self.ups += 1

    def down(self, reason: str) -> None:
        self.downs.append(reason)


def options(*brokers: str, **more: object) -> LinkOptions:
    return LinkOptions(
        brokers=list(brokers), client_id="test", subscriptions=["letters/#"], backoff_min_s=0.05, **more  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_everything_is_published_and_heard(kind: str, protocol: str, tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path, kind=kind))
    source = Letters(500)
    try:
        async with trio.open_nursery() as nursery:
            link = Link(options(broker.address, protocol=protocol, window=50), source)
            nursery.start_soon(link.run)
            await link.wait_up()
            link.kick()
            await until(lambda: len(source.acknowledged) == 500 and len(source.got) == 500, "all sent and heard")
            assert link.statistics().in_flight == 0
            assert link.statistics().protocol == ("5" if (kind, protocol) == ("mosquitto", "auto") else "3.1.1")
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(broker.stop)


async def test_the_next_broker_is_tried(tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path, kind="amqtt"))
    source = Letters(3)
    try:
        async with trio.open_nursery() as nursery:
            link = Link(options(f"mqtt://127.0.0.1:{free_port()}", broker.address), source)
            nursery.start_soon(link.run)
            await until(lambda: len(source.acknowledged) == 3, "sent by the second broker")
            assert source.downs
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(broker.stop)


@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto")
@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_a_huge_message_that_the_broker_keeps_ends_no_connection(protocol: str, tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path))
    stranger, source = Letters(2), Letters(0)
    stranger.left = [Packet("letters/small", b"x", token=1), Packet("letters/huge", b"x" * 3_000_000, token=0)]
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Link(options(broker.address, protocol=protocol), stranger).run)
            await until(lambda: len(stranger.acknowledged) == 2, "both kept")
            heard = LinkOptions(brokers=[broker.address], client_id="us", subscriptions=["letters/#"])
            nursery.start_soon(Link(heard, source).run)
            await until(lambda: source.got.keys() == {"letters/small", "letters/huge"}, "both heard")
            await until(lambda: stranger.got.keys() == source.got.keys(), "also by whoever sent them")
            assert BOARD_DOCUMENT_BYTES_MAX < len(source.got["letters/huge"]) <= PACKET_BYTES_MAX
            assert (source.ups, source.downs, stranger.ups, stranger.downs) == (1, [], 1, [])
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(broker.stop)


@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto")
async def test_a_broker_that_takes_few_at_once_is_given_few(tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path))
    conf = tmp_path / "broker.conf"
    text = conf.read_text().replace("max_inflight_messages 2000", "max_inflight_messages 7")
    await trio.to_thread.run_sync(broker.stop)
    conf.write_text(text)
    few = await trio.to_thread.run_sync(subprocess.Popen, [find_mosquitto() or "", "-c", str(conf)])
    source, most = Letters(300), 0
    try:
        async with trio.open_nursery() as nursery:
            link = Link(options(broker.address, window=1_000), source)

            def sent(packet: Packet, heard: bool) -> None:
                nonlocal most
                most = max(most, link.statistics().in_flight)
                source.acknowledged.append(packet.token)

            source.sent = sent  # type: ignore[method-assign]
            nursery.start_soon(link.run)
            await until(lambda: len(source.acknowledged) == 300, "all sent")
            assert 0 < most < 7
            assert source.ups == 1, "it was never thrown out"
            nursery.cancel_scope.cancel()
    finally:
        few.terminate()
        await trio.to_thread.run_sync(few.wait)


@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto")
async def test_a_broker_that_dies_loses_nothing_of_ours(tmp_path: Path) -> None:
    port = free_port()
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path, port=port))
    source = Letters(20_000)
    try:
        async with trio.open_nursery() as nursery:
            link = Link(options(broker.address, window=300), source)
            nursery.start_soon(link.run)
            await until(lambda: len(source.acknowledged) > 500, "on its way")
            await trio.to_thread.run_sync(broker.stop)
            await until(lambda: bool(source.downs), "the loss is noticed")
            assert len(source.back) <= 300
            broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path, port=port))
            await until(lambda: len(set(source.acknowledged)) == 20_000, "all acknowledged in the end")
            assert source.ups == 2
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(broker.stop)


async def test_a_message_that_trips_the_source_is_passed_over(tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(lambda: start_broker(tmp_path, kind="amqtt"))
    source = Letters(0)
    source.left = [Packet("letters/2", b"fine", token=2), Packet("letters/1", b"trip", token=1)]
    try:
        async with trio.open_nursery() as nursery:
            link = Link(options(broker.address), source)
            nursery.start_soon(link.run)
            await until(lambda: "letters/2" in source.got, "the one after it")
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(broker.stop)


async def test_a_server_that_is_no_broker_is_given_up(tmp_path: Path) -> None:
    async def babble(stream: trio.SocketStream) -> None:
        await stream.send_all(b"\x30\xff\xff\xff\xff\xffHTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.receive_some(100)

    source = Letters(0)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, babble, listeners)
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(Link(options(f"mqtt://127.0.0.1:{port}"), source).run)
        await until(lambda: len(source.downs) >= 2, "it gives up, and tries again")
        assert not source.ups
        nursery.cancel_scope.cancel()


async def test_our_packet_ids_are_never_those_of_the_session() -> None:
    """Round the whole space, with one packet that the broker never acknowledges."""
    link = Link(options("mqtt://127.0.0.1:1"), Letters(0))
    outgoing = bytearray()
    link._put(outgoing, Packet("letters/held", b""))
    (held,) = link._flight
    seen = set()
    for _ in range(66_000):
        link._put(outgoing, Packet("letters/1", b""))
        (mine,) = link._flight.keys() - {held}
        del link._flight[mine]
        seen.add(mine)
        outgoing.clear()
    assert (min(seen), max(seen), held in seen) == (257, 65_535, False)


class Script:
    """A broker by the word: answers each CONNECT with the next of `answers`; None hangs up, b"" says nothing."""

    def __init__(self, *answers: bytes | None, pubacks: bytes = b"") -> None:
        self.answers = list(answers)
        self.pubacks = pubacks
        self.levels: list[int] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        connect = await stream.receive_some(4_096)
        self.levels.append(connect[8])  # fixed header of two bytes, "MQTT" with its length, then the level
        turn = min(len(self.levels), len(self.answers))
        answer = self.answers[turn - 1]
        if answer is None:
            return
        if answer == b"":
            await trio.sleep_forever()
        await stream.send_all(answer)
        if answer[3] != 0:
            return
        subscribe = await stream.receive_some(4_096)
        five = connect[8] == 5
        await stream.send_all(b"\x90" + (b"\x04" if five else b"\x03") + subscribe[2:4] + b"\x00" * five + b"\x01")
        for reason in self.pubacks:
            publish = await stream.receive_some(4_096)
            at = 2 + (publish[1] > 0x7F)
            size = publish[at] << 8 | publish[at + 1]
            await stream.send_all(b"\x40\x03" + publish[at + 2 + size : at + 4 + size] + bytes([reason]))
        if turn == len(self.answers):
            await trio.sleep_forever()


YES_5, YES_3 = b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x00"
BUSY_5, UNKNOWN_5 = b"\x20\x03\x00\x88\x00", b"\x20\x03\x00\x84\x00"
UNKNOWN_3, BUSY_3 = b"\x20\x02\x00\x01", b"\x20\x02\x00\x03"


@pytest.mark.parametrize(
    ("answers", "levels"),
    [
        pytest.param([BUSY_5, BUSY_5, YES_5], [5, 5, 5], id="a server that is full knows MQTT 5"),
        pytest.param([UNKNOWN_5, YES_3], [5, 4], id="one that says it does not is believed"),
        pytest.param([UNKNOWN_3, YES_3], [5, 4], id="also in the words of 3.1.1"),
        pytest.param([BUSY_3, YES_3], [5, 4], id="who answers 5 in the form of 3.1.1 knows no other"),
        pytest.param([None, YES_3], [5, 4], id="who hangs up may not know it"),
        pytest.param([None, None, YES_5], [5, 4, 5], id="or may just not have started yet"),
        pytest.param([UNKNOWN_5, YES_3, YES_5], [5, 4, 5], id="after a connection that was, 5 is tried again"),
    ],
)
async def test_only_who_does_not_know_mqtt_5_is_spoken_to_in_3_1_1(
    answers: list[bytes | None], levels: list[int]
) -> None:
    script, source = Script(*answers), Letters(0)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, script.serve, listeners)
        link = Link(options(f"mqtt://127.0.0.1:{listeners[0].socket.getsockname()[1]}"), source)
        nursery.start_soon(link.run)
        await until(lambda: len(script.levels) == len(levels), "all answers were given")
        await link.wait_up()
        assert script.levels == levels
        assert link.statistics().protocol == ("5" if levels[-1] == 5 else "3.1.1")
        nursery.cancel_scope.cancel()


async def test_who_says_nothing_may_know_mqtt_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signage.mqtt.CONNECT_TIMEOUT_S", 0.5)
    script, source = Script(b"", YES_5), Letters(0)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, script.serve, listeners)
        link = Link(options(f"mqtt://127.0.0.1:{listeners[0].socket.getsockname()[1]}"), source)
        nursery.start_soon(link.run)
        await link.wait_up()
        assert script.levels == [5, 5]
        nursery.cancel_scope.cancel()


async def test_what_the_broker_refuses_is_not_sent() -> None:
    """And what nobody listens to is, with that said."""
    script, source = Script(YES_5, pubacks=b"\x00\x10\x87"), Letters(3)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, script.serve, listeners)
        link = Link(options(f"mqtt://127.0.0.1:{listeners[0].socket.getsockname()[1]}", window=1), source)
        nursery.start_soon(link.run)
        await until(lambda: bool(source.no), "the third is refused")
        assert (source.acknowledged, source.unheard, source.no) == ([0, 1], [1], [(2, 0x87)])
        numbers = link.statistics()
        assert (numbers.acknowledged, numbers.unheard, numbers.refused, numbers.in_flight) == (2, 1, 1, 0)
        nursery.cancel_scope.cancel()
