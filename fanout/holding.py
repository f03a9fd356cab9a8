"""One engine a ledger: who has it says so in it, again and again.

A ledger in the data folder goes with the folder, which is locked (`start.lock_folder`). One on Redis can be reached
from anywhere, and two engines on it would do harm: each numbers the people whom it registers by itself, so the message
to one's participant would go to the other's of that number; and each would post what the other posts.

Rules:

1. The engine is known by its data folder (`run/identity`), not by its process: after a kill it has its ledger back at
   once. Another folder's engine gets it when the holder has left it, or said nothing for `HOLD_S`.
2. A holder that finds another's name there, since it said nothing for too long, ends: two are one too many.
3. Whoever finds nobody writes its name, and looks once more a moment later: of two that came together one stays.

The clocks of machines that may hold the same ledger agree within some seconds.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import trio

from fanout.errors import Refused
from fanout.store.protocol import Documents

log = logging.getLogger("fanout.app")

SPACE: Final = "engine"
KEY: Final = "holder"
HOLD_S: Final = 30.0
SAY_EVERY_S: Final = 5.0
AGAIN_S: Final = 0.5


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who has the ledger, and until when if nothing more is said."""

    identity: str
    folder: str
    host: str
    until_ms: int = 0


_HOLDER: Final = msgspec.json.Decoder(Holder)


def me(folder: Path) -> Holder:
    """Who the engine on a data folder is; made up the first time."""
    path = folder / "run" / "identity"
    if not path.exists():
        path.write_text(secrets.token_hex(16))
    return Holder(identity=path.read_text(), folder=str(folder.resolve()), host=socket.gethostname())


def look(documents: Documents, mine: Holder, now_ms: int) -> bool:
    """Whether it is ours already. Blocking. Errors: `Refused("store_in_use")` if it is another's."""
    raw = documents.get(SPACE, KEY)
    if raw is None:
        return False
    found = _HOLDER.decode(raw)
    alive = now_ms < found.until_ms <= now_ms + 2_000 * HOLD_S  # later only a clock that was wrong says
    if found.identity != mine.identity and alive:
        raise Refused("store_in_use", "store.redis", folder=found.folder, host=found.host, hold_s=int(HOLD_S))
    return found.identity == mine.identity


def say(documents: Documents, mine: Holder, now_ms: int) -> None:
    """Have it, or have it for longer. Blocking. Errors: as `look`."""
    look(documents, mine, now_ms)
    held = msgspec.structs.replace(mine, until_ms=now_ms + int(1000 * HOLD_S))
    documents.put(SPACE, [(KEY, msgspec.json.encode(held))])


def leave(documents: Documents, mine: Holder) -> None:
    """Let the next one have it at once. Blocking."""
    if look(documents, mine, 0):
        documents.put(SPACE, [(KEY, None)])


@asynccontextmanager
async def holding(documents: Documents, folder: Path, clock_ms: Callable[[], int]) -> AsyncIterator[None]:
    """Have the ledger for the time of the block. Errors: `Refused("store_in_use")`, also later, out of the block."""
    mine = await trio.to_thread.run_sync(me, folder)
    again = await trio.to_thread.run_sync(look, documents, mine, clock_ms())
    await trio.to_thread.run_sync(say, documents, mine, clock_ms())
    if not again:
        await trio.sleep(AGAIN_S)
        await trio.to_thread.run_sync(look, documents, mine, clock_ms())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep, documents, mine, clock_ms)
        yield
        nursery.cancel_scope.cancel()
    with suppress(Refused):
        await trio.to_thread.run_sync(leave, documents, mine)


async def _keep(documents: Documents, mine: Holder, clock_ms: Callable[[], int]) -> None:
    while True:
        await trio.sleep(SAY_EVERY_S)
        try:
            await trio.to_thread.run_sync(say, documents, mine, clock_ms())
        except Refused as error:
            if error.code == "store_in_use":
                raise
            log.error("the ledger does not hear that it is held: %s", error.message)
