"""Writing to a ledger that may not take it now: a disk that is full, a Redis that fails over.

What came back from a provider must not be lost for want of a disk: an accepted SMS whose result is not written is
unknown for ever. So such writes are tried again, `PAUSE_S` apart, until they are taken; the lease holds meanwhile,
since it is a matter of its token, not of the clock (rule 9 of `store/protocol.py`). Rules:

1. `for_certain` returns when it is written. While anything waits in it `stuck` says so, and a sender claims nothing
   more: what cannot be recorded shall not go out.
2. It gives up only with its caller's cancellation: the time a sender has to end. Then the ledger resolves the rows.
3. What a refusal says is logged when it begins and every `SAY_EVERY_S`, not at every attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from fanout.errors import Refused

log = logging.getLogger("fanout.dispatch")

Ask = Callable[..., Awaitable[Any]]

PAUSE_S: Final = 0.25
SAY_EVERY_S: Final = 10.0


class Complaints:
    """Refusals of the ledger, said now and then."""

    def __init__(self) -> None:
        self._said_s = -SAY_EVERY_S

    def say(self, what: str, error: Refused) -> None:
        """Log it, unless one was logged a moment ago."""
        now_s = trio.current_time()
        if now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            log.error("%s: %s", what, error.message)


class Writing:
    """The ledger as a sender writes to it; `write` and `ask` as in `sender.py`."""

    def __init__(self, ask: Ask, write: Ask) -> None:
        self.ask, self.write = ask, write
        self.complaints = Complaints()
        self._waiting = 0

    @property
    def stuck(self) -> bool:
        """Whether something that has happened cannot be written now."""
        return self._waiting > 0

    async def for_certain(self, way: Ask, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """`call` by `way` (`ask` or `write`), however often it takes."""
        tries = 0
        try:
            while True:
                try:
                    return await way(call, *args, **options)
                except Refused as error:
                    self._waiting += not tries
                    tries += 1
                    self.complaints.say("what came back is not written yet", error)
                    await trio.sleep(PAUSE_S)
        finally:
            self._waiting -= bool(tries)
