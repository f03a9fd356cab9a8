"""One MQTT connection that is kept alive: paho 2 on trio. The only import of paho outside simulators, tests and
benches.

Rules:

1. **The link pulls.** It owns no queue of messages. Whenever its window has room it asks its `Source` for the next
   packet, so a document is encoded at the moment it goes out, a newer one replaces an older one by itself, and nothing
   is held in memory for a broker that is down. That is the back-pressure: who publishes faster than the broker
   acknowledges simply is not asked. A broker of MQTT 5 that takes fewer at once (Receive Maximum) is given fewer.
2. **Each connection starts clean.** A new paho client per connection and a clean session: paho's own queue is never
   replayed, packets in flight are given back to the source (`lost`), and the source publishes from its state on `up`.
3. **Nothing blocks the loop.** Name look-up, TCP and TLS are done by trio with one time-out; paho gets a socket that is
   connected already and reads and writes memory (`Wire`), so one system call carries many packets. Inbound work is
   cut into pieces of `READ_BYTES`, with a checkpoint after each.
4. PUBLISH and PUBACK are written and read here, both ways: paho makes objects with tables of properties of each, walks
   its own queue, and takes several times as long as all that is done with them; half of a second for ten thousand
   boards. paho has every other packet and keeps the session. It numbers its packets from 1, and there are a handful on
   a connection; ours begin at `PACKET_ID_FIRST`, since ids of all kinds are one space.
5. Brokers are a list: the next is tried when one fails, with back-off that doubles to a ceiling and is spread by the
   client's id, not by chance. MQTT 5 is tried first, at each connection anew. Only a broker that does not know it (it
   says so, answers in another form, or hangs up without an answer) is spoken to in 3.1.1, in the connection after that:
   one that is full, starting or silent may well know it, and on 3.1.1 documents have no expiry.
6. What the link will *not* do: keep time-outs for acknowledgements (MQTT resends on reconnect only, never on a timer).
   Whether a board lags is the shadow's business. Nor does it repeat what the broker refuses (`refused`): it would be
   refused again.

Why not paho's own loop: its thread would hand every message across threads, its window is found by walking all
messages in flight at each acknowledgement, and its connect blocks. Why not write the protocol: paho knows it.
"""

from __future__ import annotations

import logging
import math
import ssl
import zlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
import paho.mqtt.client as paho
import trio
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from signage.wires import PUBLISH, Down, Unanswered, Wire, open_wire, parse_broker, tls_context, varint

_log = logging.getLogger(__name__)

PUBACK: Final = 4
NOBODY_LISTENS: Final = 0x10  # reasons in a PUBACK of MQTT 5; failures are 0x80 and above
FAILURE: Final = 0x80
OTHER_PROTOCOL: Final = 0x84  # in a CONNACK: the broker does not know this version
REFUSALS: Final = {
    0x80: "unspecified error",
    0x83: "implementation specific error",
    0x87: "not authorised",
    0x90: "topic name invalid",
    0x97: "quota exceeded",
    0x99: "payload format invalid",
}
PACKET_ID_FIRST: Final = 256
SEND_BYTES_MAX: Final = 256 * 1024  # above this the pump waits for the socket before it asks for more packets
CONNECT_TIMEOUT_S: Final = 10.0


class Packet(msgspec.Struct, frozen=True, gc=False):
    """One message, published at QoS 1. `expiry_s` counts on MQTT 5 only; `token` comes back in `sent` or `lost`."""

    topic: str
    payload: bytes
    retain: bool = True
    expiry_s: int | None = None
    content_type: str | None = None
    token: Any = None


class Source(Protocol):
    """What the link asks and tells. All calls come from the link's own task and must not block."""

    def take(self) -> Packet | None:
        """The next packet to publish, or None when there is none now (then `Link.kick` says when there is)."""

    def sent(self, packet: Packet, heard: bool) -> None:
        """The broker has it. `heard` is False when it said that nobody subscribes (MQTT 5, reason 0x10)."""

    def refused(self, packet: Packet, reason: int) -> None:
        """The broker will not have it (MQTT 5; `REFUSALS` has the words)."""

    def lost(self, packets: Sequence[Packet]) -> None:
        """The connection ended before the broker acknowledged these."""

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message of one of the subscriptions."""

    def up(self) -> None:
        """Connected and subscribed; everything may have been missed since `down`."""

    def down(self, reason: str) -> None:
        """Not connected any more, or could not connect."""


class LinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how to connect. `brokers`: `mqtt://host:port` or `mqtts://host:port`, tried in turn."""

    brokers: list[str]
    client_id: str
    subscriptions: list[str]
    username: str = ""
    password: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    protocol: str = "auto"  # auto · 5 · 3.1.1
    window: int = 2_000
    keepalive_s: int = 30
    backoff_min_s: float = 0.25
    backoff_max_s: float = 15.0


class Statistics(msgspec.Struct, kw_only=True):
    """What the link did so far; `in_flight` packets wait for the broker."""

    connected: bool = False
    broker: str = ""
    protocol: str = ""
    connections: int = 0
    failures: int = 0
    published: int = 0
    acknowledged: int = 0
    unheard: int = 0
    refused: int = 0
    received: int = 0
    in_flight: int = 0


class _Client(paho.Client):
    """paho with a wire that is connected already. The one private method it overrides makes the socket."""

    wire: Wire

    def _create_socket(self) -> Any:
        return self.wire


def _packed(packet: Packet) -> bytes:
    """The properties of a PUBLISH of MQTT 5."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if packet.expiry_s is not None:
        properties.MessageExpiryInterval = packet.expiry_s
    if packet.content_type is not None:
        properties.ContentType = packet.content_type
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]
    return packed


class Link:
    """One connection, kept alive by `run`. `kick()` says that the source has packets; `statistics()` what happened."""

    def __init__(self, options: LinkOptions, source: Source) -> None:
        assert options.brokers, "a link needs at least one broker"
        assert 0 < options.window <= 60_000, "packet ids are 16 bit"
        self._options = options
        self._source = source
        self._addresses = [parse_broker(address) for address in options.brokers]
        self._context = (
            tls_context(options.ca_file, options.cert_file, options.key_file)
            if any(tls for _, _, tls in self._addresses)
            else None
        )
        self._old = dict.fromkeys(options.brokers, options.protocol == "3.1.1")
        self._flight: dict[int, Packet] = {}
        self._properties: dict[tuple[int | None, str | None], bytes] = {}
        self._packet_id = 0
        self._five = True  # what this connection speaks
        self._window = options.window
        self._more_to_take = False
        self._work = trio.Event()
        self._up = trio.Event()
        self._ended = ""
        self._unknown = False
        self._stats = Statistics()

    def statistics(self) -> Statistics:
        return msgspec.structs.replace(self._stats, in_flight=len(self._flight))

    @property
    def connected(self) -> bool:
        return self._stats.connected

    def kick(self) -> None:
        """Packets are there to be taken."""
        self._work.set()

    async def wait_up(self) -> None:
        """Wait until connected and subscribed. *Cancellation*: harmless."""
        await self._up.wait()

    async def run(self) -> None:
        """Connect and stay connected, for ever. Ends by cancellation only; then says goodbye to the broker."""
        attempt = 0
        spread = 1.0 + (zlib.crc32(self._options.client_id.encode()) % 1000) / 2000.0
        while True:
            index = attempt % len(self._addresses)
            name = self._options.brokers[index]
            before = self._stats.connections
            try:
                await self._session(name, *self._addresses[index])
            except Down as down:
                reason = str(down)
            except (OSError, ssl.SSLError, trio.TooSlowError) as error:
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
            self._stats.failures += 1
            attempt = 1 if self._stats.connections > before else attempt + 1
            rounds = (attempt - 1) // len(self._addresses)
            self._source.down(f"{name}: {reason}")
            await trio.sleep(
                min(self._options.backoff_max_s, self._options.backoff_min_s * 2.0 ** min(rounds, 16)) * spread
            )

    async def _session(self, name: str, host: str, port: int, tls: bool) -> None:
        """One connection, from name look-up to its end; raises `Down`, `OSError`, `ssl.SSLError` or `TooSlowError`."""
        with trio.fail_after(CONNECT_TIMEOUT_S):
            wire = await open_wire(host, port, self._context if tls else None)
        old = self._old[name]
        client = self._client(old)
        client.wire = wire
        self._ended = ""
        self._unknown = not old  # MQTT 5 is, to this broker, until it has answered
        lost: Down | None = None
        try:
            client.connect_async(host, port, keepalive=self._options.keepalive_s)
            client.reconnect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tick, client)
                nursery.start_soon(self._write, client, wire)
                await self._read(name, client, wire)
        except* (Down, OSError) as group:
            if self._options.protocol == "auto":
                self._old[name] = self._unknown and not isinstance(_first(group), Unanswered)
            lost = Down(self._ended or str(_first(group)))  # raised here it is a group until Python 3.11.3
        finally:
            await self._close(client, wire)
        if lost is not None:
            raise lost

    def _client(self, old: bool) -> _Client:
        options = self._options
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=MQTTProtocolVersion.MQTTv311 if old else MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            clean_session=True if old else None,
        )
        client.max_inflight_messages_set(0)  # the window is ours; paho would walk all messages at each acknowledgement
        client.max_queued_messages_set(0)
        client.suppress_exceptions = False
        if options.username:
            client.username_pw_set(options.username, options.password or None)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_socket_register_write = self._on_register_write
        self._stats.protocol = "3.1.1" if old else "5"
        self._five = not old
        return client

    # --- the three tasks of a connection ------------------------------------------------------------------------------

    async def _read(self, name: str, client: _Client, wire: Wire) -> None:
        self._stats.broker = name
        while True:
            try:
                wire.fill()
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(wire.sock)
                continue
            while not wire.closed and (packet := wire.packet()) is not None:
                first, body, end = packet
                if first >> 4 == PUBLISH and first & 0x06 <= 0x02:
                    self._take_publish(wire, first, body, end)
                elif first >> 4 == PUBACK and end >= body + 2:
                    self._take_puback(wire.incoming, body, end)
                else:
                    wire.limit = end
                    self._hand_over(client)
                wire.position = end
            if wire.closed:
                raise Down(self._ended or "the connection ended")
            if wire.outgoing or self._source_has_room():
                self._work.set()
            await trio.lowlevel.checkpoint()

    def _hand_over(self, client: _Client) -> None:
        """A packet that is paho's."""
        try:
            client.loop_read()
        except MQTTException as error:
            raise Down(f"the broker sent a broken packet: {error}") from None

    def _take_publish(self, wire: Wire, first: int, at: int, end: int) -> None:
        """One incoming message at QoS 0 or 1: handed to the source, and acknowledged. A message that trips us is
        logged.
        """
        data = wire.incoming
        if end < at + 2:
            raise Down("the broker sent a broken message")
        named = at + 2 + (data[at] << 8 | data[at + 1])
        name = data[at + 2 : named]
        at = named
        if first & 0x06:
            at += 2
        if self._five:
            at = _past_properties(data, at, end)
        if at > end:
            raise Down("the broker sent a broken message")
        if first & 0x06:
            wire.outgoing += b"\x40\x02" + data[named : named + 2]
        self._stats.received += 1
        try:
            self._source.received(name.decode(), data[at:end], bool(first & 1))
        except UnicodeDecodeError:
            _log.warning("a topic that is not UTF-8: %r", name[:100])
        except Exception:
            _log.exception("a message on %r tripped us; it was passed over", name[:100])

    def _take_puback(self, data: bytes, at: int, end: int) -> None:
        packet = self._flight.pop(data[at] << 8 | data[at + 1], None)
        if packet is None:
            return
        reason = data[at + 2] if end > at + 2 else 0
        if reason >= FAILURE:
            self._stats.refused += 1
            words = REFUSALS.get(reason, "unknown reason")
            _log.error("the broker refuses what we publish on %r: 0x%02x, %s", packet.topic, reason, words)
            self._source.refused(packet, reason)
            return
        self._stats.acknowledged += 1
        self._stats.unheard += reason == NOBODY_LISTENS
        self._source.sent(packet, reason != NOBODY_LISTENS)

    def _source_has_room(self) -> bool:
        return len(self._flight) < self._window

    async def _write(self, client: _Client, wire: Wire) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            if self._stats.connected:
                self._pump(wire)
            client.loop_write()
            if wire.closed:
                raise Down(self._ended or "the connection ended")
            while wire.outgoing:
                try:
                    wire.flush()
                except (BlockingIOError, ssl.SSLWantWriteError):
                    await trio.lowlevel.wait_writable(wire.sock)
            if self._stats.connected and self._source_has_room() and self._more_to_take:
                self._work.set()
                await trio.lowlevel.checkpoint()

    def _pump(self, wire: Wire) -> None:
        """Take packets while the window and the wire have room."""
        flight, window = self._flight, self._window
        self._more_to_take = True
        taken = 0
        while len(flight) < window and len(wire.outgoing) < SEND_BYTES_MAX and taken < 200:
            packet = self._source.take()
            if packet is None:
                self._more_to_take = False
                return
            taken += 1
            self._put(wire.outgoing, packet)

    def _put(self, outgoing: bytearray, packet: Packet) -> None:
        """One PUBLISH at QoS 1, under an id that is free."""
        number = self._packet_id
        while True:
            number = number + 1 if PACKET_ID_FIRST <= number < 0xFFFF else PACKET_ID_FIRST
            if number not in self._flight:
                break
        self._packet_id = number
        topic, payload = packet.topic.encode(), packet.payload
        properties = self._props(packet) if self._five else b""
        length = varint(4 + len(topic) + len(properties) + len(payload))
        head = b"\x33" if packet.retain else b"\x32"
        size, name = len(topic).to_bytes(2, "big"), number.to_bytes(2, "big")
        outgoing += b"".join((head, length, size, topic, name, properties, payload))
        self._flight[number] = packet
        self._stats.published += 1

    def _props(self, packet: Packet) -> bytes:
        key = (packet.expiry_s, packet.content_type)
        found = self._properties.get(key)
        if found is None:
            if len(self._properties) > 256:
                self._properties.clear()
            found = self._properties[key] = _packed(packet)
        return found

    async def _tick(self, client: _Client) -> None:
        """paho's keep-alive; and a broker that takes the connection but never answers is given up."""
        started = trio.current_time()
        while True:
            await trio.sleep(1.0)
            client.loop_misc()
            self._work.set()
            if not self._stats.connected and trio.current_time() - started > CONNECT_TIMEOUT_S:
                raise Unanswered("no answer to CONNECT")

    async def _close(self, client: _Client, wire: Wire) -> None:
        """Say goodbye if that is possible without waiting, give back what was in flight, close the socket."""
        was_up = self._stats.connected
        self._stats.connected = False
        if self._up.is_set():  # whoever waits, waits on
            self._up = trio.Event()
        try:
            if was_up and not wire.closed:
                client.disconnect()
                client.loop_write()
                wire.flush()
        except OSError:
            _log.debug("the broker was gone before goodbye")
        finally:
            wire.sock.close()
        lost = list(self._flight.values())
        self._flight.clear()
        if lost:
            self._source.lost(lost)

    # --- paho's callbacks, called from within loop_read and loop_write ------------------------------------------------

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._ended = f"refused: {reason}"
            self._unknown = self._unknown and reason.value == OTHER_PROTOCOL
            return
        self._unknown = False
        self._window = min(self._options.window, getattr(properties, "ReceiveMaximum", self._options.window))
        client.subscribe([(topic, 1) for topic in self._options.subscriptions])

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            _log.error("the broker refuses %d of our subscriptions: %s", len(refused), refused[0])
        self._stats.connected = True
        self._stats.connections += 1
        self._source.up()
        self._up.set()
        self._work.set()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._ended = self._ended or f"{reason}"

    def _on_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        self._work.set()


def _past_properties(data: bytes, at: int, end: int) -> int:
    """Where the payload of a PUBLISH of MQTT 5 begins; past `end` when it is broken."""
    length = shift = 0
    while at < end:
        digit = data[at]
        at += 1
        if digit < 0x80:
            return at + (length | digit << shift)
        length |= (digit & 0x7F) << shift
        shift += 7
    return end + 1


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def expiry_s(end_ms: int, now_ms: int) -> int:
    """Seconds until the end, at least 1, at most what MQTT 5 can say: for `Packet.expiry_s`."""
    return max(1, min(2**32 - 1, math.ceil((end_ms - now_ms) / 1000)))
