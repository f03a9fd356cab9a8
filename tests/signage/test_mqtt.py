"""The link on real brokers: it falls back, tries the next broker, gives back what was in flight, and is bounded."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from fanout.errors import Refused
from signage.broker import find_mosquitto, free_port, start_broker
from signage.mqtt import Link, LinkOptions, Packet, parse_broker
from tests.signage.test_service import BROKERS, until


class Letters:
    """A source that counts."""

    def __init__(self, count: int) -> None:
        self.left = [Packet(f"letters/{at}", b"x" * 200, token=at) for at in reversed(range(count))]
        self.acknowledged: list[int] = []
        self.back: list[int] = []
        self.got: dict[str, bytes] = {}
        self.ups = 0
        self.downs: list[str] = []

    def take(self) -> Packet | None:
        return self.left.pop() if self.left else None

    def sent(self, packet: Packet, heard: bool) -> None:
        self.acknowledged.append(packet.token)

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


@pytest.mark.parametrize("address", ["http://x", "mqtt://", "mqtt://host:99999", "host:1883", "mqtt://h/path"])
def test_a_broker_address_that_is_none(address: str) -> None:
    with pytest.raises(Refused):
        parse_broker(address)


def test_broker_addresses() -> None:
    assert parse_broker("mqtt://h") == ("h", 1883, False)
    assert parse_broker("mqtts://h") == ("h", 8883, True)
    assert parse_broker("mqtts://[::1]:7") == ("::1", 7, True)
