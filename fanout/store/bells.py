"""How those who wait for the ledger hear of new work at once, in whatever process they are: a bell each.

A bell is a named pipe beside the ledger's file, which its owner listens at; whoever has committed work writes a byte to
each. That takes 20 µs a listener, and a first message waits a fraction of a millisecond where a look every few
milliseconds was its share before.

Rules:

1. A bell is a hint: who missed one (a full pipe, a name that was just made) finds the same at its next look.
2. A bell whose owner is dead has nobody at its other end; whoever rings next removes it.
3. It gets its name once it is open, so that rule 2 never takes one that lives.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from fanout.errors import Refused

_NUMBERS: Final = itertools.count()
_BYTES: Final = 4_096


class Bell:
    """One listener's own, beside the file at `path`. Thread-safe; of several that wait only one is woken.

    Errors: `Refused("store_unavailable")` where there can be no named pipe.
    """

    def __init__(self, path: Path) -> None:
        mine = f"{os.getpid()}-{next(_NUMBERS)}"
        self._name = Path(f"{path}-bell-{mine}")
        nameless = Path(f"{path}-newbell-{mine}")
        nameless.unlink(missing_ok=True)
        try:
            os.mkfifo(nameless, 0o600)
        except OSError as error:
            detail = f"{path.parent} takes no named pipes ({error.strerror}); put it on a file system that has them"
            raise Refused("store_unavailable", detail=detail) from None
        self._pipe = os.open(nameless, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # to write too, or it would hang up
        nameless.rename(self._name)
        self.closed = False
        self._listening = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Until it is rung (True), or the time is over, or for nothing."""
        if not self._listening.acquire(timeout=timeout_s):
            return False
        try:
            if self.closed or not self._poll.poll(timeout_s * 1000):
                return False
            os.read(self._pipe, _BYTES)
            return True
        finally:
            self._listening.release()

    def close(self) -> None:
        """End it; one that waits is woken, and nobody waits any more."""
        self.closed = True
        _ring(self._name)
        with self._listening:
            self._name.unlink(missing_ok=True)
            os.close(self._pipe)


def ring(path: Path) -> None:
    """Wake all who wait for news of the file at `path`. Never raises for a bell that does not work."""
    start = f"{path.name}-bell-"
    with suppress(OSError), os.scandir(path.parent) as found:
        for entry in found:
            if entry.name.startswith(start):
                _ring(path.parent / entry.name)


def _ring(bell: Path) -> None:
    try:
        handle = os.open(bell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            bell.unlink(missing_ok=True)
        return
    with suppress(OSError):
        os.write(handle, b"!")
    os.close(handle)
