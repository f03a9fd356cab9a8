"""Receipts one a request, over HTTP: part of the bench `receipts`.

`POST /v1/receipts/sms` at the door of receipts (`fanout/inbound/door.py`), and as the API has it (hypercorn on trio,
routing, signature, the writer's group commit), asked by a process of its own over connections that stay open, as a
supplier's server does. At the API what comes out is mostly the price of an HTTP request in Python.
"""

from __future__ import annotations

import gc
import pickle
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from bench.harness import Row
from fanout import memory, wire
from fanout.api import bodies, routes
from fanout.api.auth import Keys
from fanout.inbound.door import Door
from fanout.inbound.receipts import SIGNATURE, read
from fanout.store.protocol import Store
from fanout.store.writer import open_writer

CONNECTIONS: Final = 128
"""At 5,000 a second and a commit of 20 ms as many wait for one."""

Signed: TypeAlias = list[tuple[bytes, dict[str, str]]]
Serving: TypeAlias = Callable[[Store, str], AbstractAsyncContextManager[int]]
"""Takes receipts signed with this key in, for the time of the block; the port."""


def measured(store: Store, signed: Signed, key: str, serving: Serving) -> Row:
    """Post these bodies, each a request; `cpu_us`: of the serving process, a request."""
    return trio.run(_measured, store, signed, key, serving)


async def _measured(store: Store, signed: Signed, key: str, serving: Serving) -> Row:
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        requests = Path(folder) / "requests"
        requests.write_bytes(pickle.dumps([_request(*one) for one in signed]))
        async with serving(store, key) as port:
            command = [sys.executable, "-m", __spec__.name, str(port), str(requests)]
            gc.collect()
            memory.settle()  # as every process of the engine does; what the bench holds is not the server's
            cpu_s = time.process_time()
            told = await trio.run_process(command, capture_stdout=True)
            cpu_s = time.process_time() - cpu_s
            gc.unfreeze()
    good, seconds = told.stdout.split()
    assert int(good) == len(signed), f"{len(signed) - int(good)} requests were refused"
    return {
        "receipts": len(signed),
        "rate_per_s": round(len(signed) / float(seconds)),
        "rate_per_core_s": round(len(signed) / cpu_s),
        "cpu_us": round(1e6 * cpu_s / len(signed), 1),
    }


@asynccontextmanager
async def at_the_door(store: Store, key: str) -> AsyncIterator[int]:
    """The door of receipts."""
    door = Door(partial(read, secret=key), store.apply_receipts)
    listener, stop = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(door.serve, listener, stop, drain_s=1.0))
        yield listener.getsockname()[1]
        stop.set()


@asynccontextmanager
async def at_the_api(store: Store, key: str) -> AsyncIterator[int]:
    """The call of the API."""
    async with open_writer(store) as writer, trio.open_nursery() as nursery:

        async def post(call: routes.Call) -> wire.ReceiptsAccepted:
            found = read(call.path["provider"], call.request.headers, await bodies.read_bytes(call.request), secret=key)
            changed = await writer.share(store.apply_receipts, found.receipts) if found.receipts else []
            return wire.ReceiptsAccepted(reports=found.reports, changed=sum(changed), ignored=found.ignored)

        path = "/v1/receipts/{provider}"
        row = routes.Row("POST", path, None, None, wire.ReceiptsAccepted, post, "Delivery receipts.")
        nobody = Keys(store, time.monotonic)
        application: Any = routes.build([row], [], nobody, in_flight_max=2 * CONNECTIONS)
        config = Config()
        config.bind, config.loglevel, config.keep_alive_max_requests = ["127.0.0.1:0"], "WARNING", 1_000_000
        stop = trio.Event()
        bound = await nursery.start(partial(serve, application, config, shutdown_trigger=stop.wait))
        yield int(bound[0].rpartition(":")[2])
        stop.set()


def _request(body: bytes, headers: dict[str, str]) -> bytes:
    head = (
        "POST /v1/receipts/sms HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"{SIGNATURE}: {headers[SIGNATURE]}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _ask(port: int, requests: list[bytes]) -> tuple[int, float]:
    """Post everything, one request at a time on each connection; how many were taken, and in how many seconds.

    An answer has come whole when its last byte is there: all of them are small objects of JSON.
    """
    waiting, good, open_now = iter(requests), 0, 0
    start_s = time.perf_counter()
    with selectors.DefaultSelector() as ready:
        for request in (first for _, first in zip(range(CONNECTIONS), waiting, strict=False)):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(request)
            ready.register(connection, selectors.EVENT_READ, [b""])
            open_now += 1
        while open_now:
            for event, _ in ready.select():
                connection, answer = event.fileobj, event.data  # type: ignore[assignment]
                more = connection.recv(65536)
                answer[0] += more
                if more and not more.endswith(b"}"):
                    continue
                good += answer[0].startswith(b"HTTP/1.1 200")
                answer[0] = b""
                request = next(waiting, b"")
                if request and more:
                    connection.sendall(request)
                else:
                    ready.unregister(connection)
                    connection.close()
                    open_now -= 1
    return good, time.perf_counter() - start_s


if __name__ == "__main__":
    print(*_ask(int(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes())))
