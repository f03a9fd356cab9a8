"""Several workers that answer as one: what is asked of any of them is asked of all.

Workers are processes of one server and share its port, so a client's connections, and with them what it delivered, are
spread over them. Each listens on a socket of its own in a folder all know, and answers orders there; `ask_all` sends an
order to every worker, the own one included, and returns all answers. One order is one connection, one length and one
body each way. With one worker nothing goes over a socket.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 8
PATIENCE_S: Final = 30.0


class Siblings:
    """The workers below one folder, seen from one of them. `answer` is how this one answers an order."""

    def __init__(self, folder: Path, answer: Callable[[bytes], bytes], *, count: int) -> None:
        self._mine = folder / f"{os.getpid()}.socket"
        self._folder, self._answer, self.count = folder, answer, count

    async def listen(self) -> None:
        """Answer orders of the others from now on."""
        if self.count > 1:
            self._server = await asyncio.start_unix_server(self._serve, self._mine)

    async def ask_all(self, order: bytes) -> list[bytes]:
        """Every worker's answer, the own first. Errors: `OSError` if a worker is gone or does not answer."""
        others = [path for path in self._folder.glob("*.socket") if path != self._mine] if self.count > 1 else []
        async with asyncio.timeout(PATIENCE_S):
            while self.count > 1 and len(others) + 1 < self.count:  # one is still starting
                await asyncio.sleep(0.02)
                others = [path for path in self._folder.glob("*.socket") if path != self._mine]
            return [self._answer(order), *await asyncio.gather(*(_ask(path, order) for path in others))]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _write(writer, self._answer(await _read(reader)))
            await writer.drain()
        finally:
            writer.close()


async def _ask(path: Path, order: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        _write(writer, order)
        return await _read(reader)
    finally:
        writer.close()


def _write(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(len(body).to_bytes(HEAD_BYTES, "little") + body)


async def _read(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(HEAD_BYTES), "little"))
