"""The simulators' receipts: suppliers go on trying, at the address that holds then."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from fanout.inbound.receipts import SIGNATURE, sign
from fanout.simulators.moods import Receipts
from fanout.simulators.receipts import PostOffice

SECRET = "a secret of the supplier"


@contextmanager
def door(status: int) -> Iterator[tuple[str, list[str], threading.Event]]:
    """Where receipts go, and how that answers: its address, the references that came, and that something came."""
    came: list[str] = []
    something = threading.Event()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers[SIGNATURE] == sign(body, SECRET):
                came.extend(message["reference"] for message in json.loads(body)["messages"]["msg"])
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()
            something.set()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Door) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", came, something
        server.shutdown()
        thread.join()


def test_receipts_that_nobody_took_go_where_the_engine_is_now() -> None:
    with door(503) as (before, refused, asked), door(200) as (now, came, taken):

        async def story() -> None:
            office = PostOffice()
            office.mood = Receipts(url=before, secret=SECRET, after_ms=1)
            office.add("sms", ["7-0-1", "7-0-2"])
            assert await asyncio.to_thread(asked.wait, 60)
            office.mood = Receipts(url=now, secret=SECRET, after_ms=1)
            assert await asyncio.to_thread(taken.wait, 60)
            await office.close()

        asyncio.run(story())
    assert sorted(refused) == sorted(came) == ["7-0-1", "7-0-2"]
