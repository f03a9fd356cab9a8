"""TLS by memory over a socket that takes little at a time: nothing lost, and all counted that the peer can read."""

from __future__ import annotations

import datetime
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from fanout.dispatch.tls_socket import RECORD_BYTES, TlsSocket
from fanout.simulators import tls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Files:
    return tls.write(tmp_path_factory.mktemp("tls"), now=datetime.datetime.now(datetime.UTC))


@asynccontextmanager
async def pair(
    files: tls.Files, buffer_bytes: int = 4_096
) -> AsyncIterator[tuple[TlsSocket, trio.SSLStream[trio.SocketStream]]]:
    """A client and a server that have shaken hands, over a narrow pipe."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    ours.setblocking(False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2"])
    server = trio.SSLStream(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), context, server_side=True)
    client_context = ssl.create_default_context(cafile=str(files.ca))
    client_context.set_alpn_protocols(["h2"])
    client = TlsSocket(ours, client_context, "localhost")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            await client.handshake()
        assert client.protocol == "h2"
        yield client, server
    finally:
        client.close()
        await trio.aclose_forcefully(server)


async def test_all_of_it_arrives_in_order(certificates: tls.Files) -> None:
    async with pair(certificates) as (client, server):
        data = memoryview(random.Random(1).randbytes(300_000))
        read = bytearray()
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while len(read) < len(data):
                    read.extend(await server.receive_some(3_000))

            nursery.start_soon(listen)
            out = 0
            while out < len(data) or client.waits:
                out += client.send(data[out : out + 100_000])
                if client.waits:
                    await trio.lowlevel.wait_writable(client)
        assert out == len(data)
        assert read == data
        client.close()


async def test_what_the_peer_can_read_is_counted(certificates: tls.Files) -> None:
    async with pair(certificates) as (client, server):
        data = memoryview(random.Random(2).randbytes(200_000))
        out, read = 0, 0
        for _ in range(6):
            with trio.move_on_after(0.01):
                out += client.send(data[out:])
                read += len(await server.receive_some(RECORD_BYTES))
            assert read <= out
        assert client.waits
        assert 0 < out < len(data)
        client.close()
        with suppress(trio.BrokenResourceError):
            while chunk := await server.receive_some(RECORD_BYTES):
                read += len(chunk)
        assert read <= out, "a record that is cut off cannot be read"


async def test_many_records_are_one_read(certificates: tls.Files) -> None:
    async with pair(certificates, 200_000) as (client, server):
        for number in range(50):
            await server.send_all(b"%09d" % number)
        client.fetch()
        space = memoryview(bytearray(2 * RECORD_BYTES))
        count, more = client.receive(space)
        assert bytes(space[:count]) == b"".join(b"%09d" % number for number in range(50))
        assert not more
        await trio.aclose_forcefully(server)
        client.fetch()
        with pytest.raises(OSError):
            client.receive(space)
        client.close()


async def test_what_came_before_a_breach_is_read(certificates: tls.Files) -> None:
    async with pair(certificates) as (client, server):
        await server.send_all(b"whole")
        await server.transport_stream.send_all(b"SSH-2.0-OpenSSH_9.2")
        client.fetch()
        space = memoryview(bytearray(2 * RECORD_BYTES))
        assert client.receive(space) == (5, True)
        with pytest.raises(OSError):
            client.receive(space)


async def test_a_peer_that_ends_in_the_handshake(certificates: tls.Files) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    client = TlsSocket(ours, ssl.create_default_context(cafile=str(certificates.ca)), "localhost")
    theirs.close()
    with pytest.raises(OSError):
        await client.handshake()
    client.close()
