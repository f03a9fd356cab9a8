"""The others that can send push messages, each as its makers mean it to be used: what `push` compares our lane with.

* `httpx` over HTTP/2, on trio: the general client that we use for everything else.
* `aiohttp` over HTTP/1.1, on asyncio, 64 connections: what FCM takes as well, and the fastest general client in Python.
* `aioapns` over HTTP/2, on asyncio: made for APNs.
* `h2load`, in C, one thread, one constant request: not a competitor but the ceiling of HTTP/2 over TLS on this machine.

Each function sends `rows` messages and returns how many were taken. Those that are not installed raise `ImportError`.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fanout.channels.protocol import Requests

CONNECTIONS, STREAMS = 4, 128
HTTP1_CONNECTIONS: Final = 64
AIOAPNS_AT_ONCE: Final = 100  # it uses one connection, and with more at once it gives up for want of a window


def filled(requests: Requests, token: bytes) -> tuple[str, bytes]:
    """(address, body) of one row."""
    template = requests.templates[0]
    url, body = (
        b"".join(piece if isinstance(piece, bytes) else token for piece in side)
        for side in (template.url, template.body)
    )
    return url.decode(), body


def headers_of(requests: Requests) -> dict[str, str]:
    return dict(header.split(": ", 1) for header in requests.templates[0].headers)


async def httpx_sends(requests: Requests, ca: Path) -> int:
    """httpx over HTTP/2, as many at once as one connection takes."""
    headers = headers_of(requests)
    taken = 0
    async with httpx.AsyncClient(
        http2=True, verify=ssl.create_default_context(cafile=str(ca)), trust_env=False, timeout=60
    ) as client:
        free = trio.CapacityLimiter(100)

        async def one(token: bytes) -> None:
            nonlocal taken
            url, body = filled(requests, token)
            async with free:
                answer = await client.post(url, content=body, headers=headers)
            taken += answer.status_code == 200

        async with trio.open_nursery() as nursery:
            for token in requests.columns[0].rows():
                nursery.start_soon(one, token)
    return taken


def aiohttp_sends(requests: Requests, ca: Path) -> int:
    """aiohttp over HTTP/1.1, which is all it speaks."""
    import aiohttp

    async def send() -> int:
        headers, taken = headers_of(requests), 0
        tokens = iter(requests.columns[0].rows())
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(ca)), limit=HTTP1_CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def worker() -> None:
                nonlocal taken
                for token in tokens:
                    url, body = filled(requests, token)
                    async with session.post(url, data=body, headers=headers) as answer:
                        await answer.read()
                        taken += answer.status == 200

            await asyncio.gather(*(worker() for _ in range(HTTP1_CONNECTIONS)))
        return taken

    return asyncio.run(send())


def aioapns_sends(requests: Requests, ca: Path, *, url: str, payload: dict[str, Any]) -> int:
    """aioapns with a key, pointed at the sink."""
    from aioapns import APNs, NotificationRequest
    from aioapns.connection import APNsProductionClientProtocol

    class Here(APNsProductionClientProtocol):
        """Where it connects to is a constant of its class."""

        APNS_SERVER = "127.0.0.1"
        APNS_PORT = int(url.rpartition(":")[2])

    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    async def send() -> int:
        client = APNs(key=pem, key_id="K", team_id="T", topic="bench", max_connections=CONNECTIONS)
        client.pool.protocol_class = Here
        client.pool.ssl_context = ssl.create_default_context(cafile=str(ca))
        client.pool.ssl_context.set_alpn_protocols(["h2"])
        tokens, taken = iter(requests.columns[0].rows()), 0

        async def worker() -> None:
            nonlocal taken
            for token in tokens:
                asked = NotificationRequest(device_token=token.decode(), message=payload)
                answer = await client.send_notification(asked)
                taken += answer.is_successful

        await asyncio.gather(*(worker() for _ in range(AIOAPNS_AT_ONCE)))
        client.pool.close()
        return taken

    return asyncio.run(send())


def h2load(requests: Requests, rows: int) -> float | None:
    """Requests a second of h2load, or None if it is not on this machine."""
    program = shutil.which("h2load")
    if program is None:
        return None
    url, body = filled(requests, requests.columns[0].rows()[0])
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        headers = [part for header in requests.templates[0].headers for part in ("-H", header)]
        command = [program, f"-n{rows}", f"-c{CONNECTIONS}", f"-m{STREAMS}", "-t1", "-d", file.name, *headers, url]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in printed.splitlines() if line.startswith("finished in"))
    return float(line.split(", ")[1].split()[0])
