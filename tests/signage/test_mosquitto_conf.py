"""`config/mosquitto.conf` on a real mosquitto: TLS with client certificates, and nobody reads or writes another's
topics.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import queue
import socket
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fanout.geo import EVERYONE
from signage.broker import find_mosquitto, free_port
from signage.dialects import native
from signage.simulators.display import Display, Out
from signage.simulators.models import caps_for
from signage.simulators.passenger import PassengerDisplay
from tests.signage.test_service import clock_ms, hour, running, until
from tests.signage.worlds import Documents, action

CONFIG = Path(__file__).resolve().parents[2] / "config"
pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine")
WAIT_S = 60.0


class Authority:
    """A certificate authority for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._write("ca", self._make(self.name, self.key, True), self.key)

    def _make(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, common_name: str, file: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        self._write(file, self._make(subject, key, False), key)

    def _write(self, file: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        pem = serialization.Encoding.PEM
        (self.folder / f"{file}.pem").write_bytes(certificate.public_bytes(pem))
        plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / f"{file}.key").write_bytes(plain)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """The shipped files with their paths and port put in place, on a real mosquitto."""
    authority = Authority(tmp_path)
    names = [("localhost", "server"), ("fanout-engine", "engine"), ("b1", "b1"), ("b2", "b2")]
    for name, file in [*names, ("maker-0815", "display")]:
        authority.issue(name, file)
    rules = (CONFIG / "mosquitto.acl").read_text()
    plain, _, example = rules.partition("# user maker-0815")  # the example of a display, as an operator would enable it
    (tmp_path / "mosquitto.acl").write_text(plain + "user maker-0815" + example.replace("\n# topic", "\ntopic"))
    port = free_port()
    text = (CONFIG / "mosquitto.conf").read_text()
    text = text.replace("/etc/mosquitto/certs/", f"{tmp_path}/").replace("/etc/mosquitto/", f"{tmp_path}/")
    text = text.replace("/var/lib/mosquitto/", f"{tmp_path}/").replace("listener 8883", f"listener {port} 127.0.0.1")
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(text + ("\nuser root\n" if os.geteuid() == 0 else ""))
    program = find_mosquitto()
    assert program is not None
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(conf)], stdout=log, stderr=log)
    try:
        pause = threading.Event()
        for _ in range(1_200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, (tmp_path / "log").read_text()
            pause.wait(0.05)
        yield tmp_path, port
    finally:
        process.terminate()
        process.wait()


class Client:
    """A stranger's MQTT client: paho as its makers meant it."""

    def __init__(self, folder: Path, port: int, file: str, name: str = "") -> None:
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.subscribed: queue.Queue[list[bool]] = queue.Queue()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name or file, protocol=MQTTProtocolVersion.MQTTv5
        )
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        if file:
            context.load_cert_chain(folder / f"{file}.pem", folder / f"{file}.key")
        self.client.tls_set_context(context)
        self.client.on_message = lambda _c, _u, message: self.got.put((message.topic, message.payload))
        self.client.on_subscribe = self._on_subscribe
        self.ups = 0
        self.client.on_connect = self._on_connect
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.ups += not reason.is_failure

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        self.subscribed.put([not reason.is_failure for reason in reasons])

    def subscribe(self, topic: str) -> bool:
        self.client.subscribe(topic, 1)
        return self.subscribed.get(timeout=WAIT_S)[0]

    def publish(self, topic: str, payload: bytes) -> None:
        self.client.publish(topic, payload, qos=1).wait_for_publish(WAIT_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


async def test_a_board_reads_and_writes_only_its_own(broker: tuple[Path, int]) -> None:
    folder, port = broker
    files = {"ca": str(folder / "ca.pem"), "certificate": str(folder / "engine.pem"), "key": str(folder / "engine.key")}
    mine = Display(caps_for("b1", "led-3x26", 5.0, 52.0, "here"))
    mine.power_on()
    async with running(folder / "own", Documents(), f"mqtts://127.0.0.1:{port}", **files) as signage:
        one = await trio.to_thread.run_sync(Client, folder, port, "b1")
        two = await trio.to_thread.run_sync(Client, folder, port, "b2")
        try:
            await trio.to_thread.run_sync(one.subscribe, native.desired_topic("b1"))
            await trio.to_thread.run_sync(two.subscribe, native.desired_topic("b1"))
            await trio.to_thread.run_sync(two.subscribe, "signage/1/boards/#")
            for out in mine.connect(clock_ms()):
                await trio.to_thread.run_sync(one.publish, out.topic, out.payload)
            await until(lambda: len(signage.views()) == 1, "the board's own birth is heard")
            forged = native.encode(native.State(state="lost", boot=mine.boot))
            await trio.to_thread.run_sync(two.publish, "signage/1/boards/b1/state", forged)
            await trio.to_thread.run_sync(two.publish, "signage/1/boards/b1/desired", b"forged")
            await signage.show(1, action(end_ms=hour()), EVERYONE, 0, clock_ms())
            topic, payload = await trio.to_thread.run_sync(lambda: one.got.get(timeout=WAIT_S))
            for out in mine.receive(topic, payload, clock_ms()):
                await trio.to_thread.run_sync(one.publish, out.topic, out.payload)
            await until(lambda: signage.counts(1).shown == 1, "shown, over TLS")
            view = signage.view("b1")
            assert view is not None
            assert (view.state, view.problems) == ("ready", [])
            assert two.got.empty(), "another board's topics are not to be read"
        finally:
            await trio.to_thread.run_sync(one.close)
            await trio.to_thread.run_sync(two.close)


async def test_nobody_throws_another_out_by_its_name(broker: tuple[Path, int]) -> None:
    """An account has one connection, its own, whatever the client calls itself."""
    folder, port = broker
    files = {"ca": str(folder / "ca.pem"), "certificate": str(folder / "engine.pem"), "key": str(folder / "engine.key")}
    mine = Display(caps_for("b1", "led-3x26", 5.0, 52.0, "here"))
    mine.power_on()
    async with running(folder / "own", Documents(), f"mqtts://127.0.0.1:{port}", **files) as signage:
        await until(lambda: signage.statistics().connected, "the engine is there")
        one = await trio.to_thread.run_sync(Client, folder, port, "b1")
        two = await trio.to_thread.run_sync(Client, folder, port, "b2", "fanout-engine")
        three = await trio.to_thread.run_sync(Client, folder, port, "display", "b1")
        try:
            await trio.to_thread.run_sync(one.subscribe, native.desired_topic("b1"))
            for out in mine.connect(clock_ms()):
                await trio.to_thread.run_sync(one.publish, out.topic, out.payload)
            await until(lambda: len(signage.views()) == 1, "the engine still hears")
            await signage.show(1, action(end_ms=hour()), EVERYONE, 0, clock_ms())
            topic, _ = await trio.to_thread.run_sync(lambda: one.got.get(timeout=WAIT_S))
            assert topic == native.desired_topic("b1"), "the board that was there is there"
            assert (signage.statistics().connections, signage.statistics().failures) == (1, 0)
            assert one.ups == 1
            await until(lambda: (two.ups, three.ups) == (1, 1), "who calls itself another is let in as itself")
        finally:
            for client in (one, two, three):
                await trio.to_thread.run_sync(client.close)


async def test_a_display_of_the_standard_reads_content_and_writes_none(broker: tuple[Path, int]) -> None:
    folder, port = broker
    files = {"ca": str(folder / "ca.pem"), "certificate": str(folder / "engine.pem"), "key": str(folder / "engine.key")}
    display = PassengerDisplay("maker", "0815", ("UTR", "cs", "a1"), position=(5.1, 52.1))
    async with running(folder / "own", Documents(), f"mqtts://127.0.0.1:{port}", **files) as signage:
        client = await trio.to_thread.run_sync(Client, folder, port, "display")
        try:
            for topic in [*display.topics, native.desired_topic("b1"), "signage/1/areas/all/desired"]:
                await trio.to_thread.run_sync(client.subscribe, topic)

            async def say(out: list[Out]) -> None:
                for each in out:
                    await trio.to_thread.run_sync(client.publish, each.topic, each.payload)

            async def listen() -> None:
                with contextlib.suppress(queue.Empty):
                    topic, payload = client.got.get_nowait()
                    await say(display.receive(topic, payload, clock_ms()))

            await say(display.connect(clock_ms()))
            await until_doing(listen, lambda: signage.view("maker:0815") is not None, "discovered")
            await say([Out("CMS/informationMessage/content/UTR", b"{}", False)])
            await say([Out("signage/1/boards/b1/desired", b"forged", False)])
            await signage.show(1, action(end_ms=hour()), EVERYONE, 0, clock_ms())
            await until_doing(listen, lambda: signage.counts(1).shown == 1, "shown, over TLS, by its account")
            assert display.violations == [], "nor did its own forgery come back to it"
            assert not [topic for topic in display.heard if topic.startswith("signage/")]
        finally:
            await trio.to_thread.run_sync(client.close)


async def until_doing(act: Callable[[], Awaitable[None]], holds: Callable[[], bool], what: str) -> None:
    with trio.move_on_after(WAIT_S * 2) as scope:
        while not holds():
            await act()
            await trio.sleep(0.02)
    assert not scope.cancelled_caught, what


def say_hello(context: ssl.SSLContext, port: int) -> bytes:
    """CONNECT over TLS, and what comes back."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.settimeout(WAIT_S)
        secure.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")
        return secure.recv(4)


def test_without_a_certificate_there_is_no_connection(broker: tuple[Path, int]) -> None:
    folder, port = broker
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    try:
        answer = say_hello(context, port)
    except OSError:
        answer = b""
    assert answer == b""
