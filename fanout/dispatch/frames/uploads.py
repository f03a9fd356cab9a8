"""Bodies that do not fit into the peer's windows or frames at once, and go on as it lets them.

The rare way out, in Python: a peer with a tiny window, or a message longer than a frame. Windows are the peer's word
(RFC 9113, 6.9): a change of its initial window moves those of all open streams, which may make them negative.

No more than `UPLOADS_MAX` are under way at once: a peer that takes a byte at a time would otherwise get a little of
every message and, when their time is over, none of them whole.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.dispatch.frames import kernels as k
from fanout.dispatch.frames.outbox import Outbox

UPLOADS_MAX: Final = 16


class _Upload:
    """What is left of one body, what its stream may send, and how many had gone out whole before it."""

    def __init__(self, slot: int, body: bytes, window: int, before: int) -> None:
        self.slot, self.rest, self.window, self.before = slot, memoryview(body), window, before


class Uploads:
    """The bodies under way on one connection, first come first served."""

    def __init__(self, state: NDArray[np.int64], slots: NDArray[np.int64], out: Outbox) -> None:
        self._state, self._slots, self._out = state, slots, out
        self._by_stream: dict[int, _Upload] = {}
        self._whole = 0

    def __contains__(self, stream: int) -> bool:
        return stream in self._by_stream

    def __bool__(self) -> bool:
        return bool(self._by_stream)

    @property
    def full(self) -> bool:
        """Whether no more may begin."""
        return len(self._by_stream) >= UPLOADS_MAX

    def stands_still(self, stream: int) -> bool:
        """Whether none has gone out whole since this one began, or it is none of these: all wait for the socket."""
        upload = self._by_stream.get(stream)
        return upload is None or upload.before == self._whole

    def add(self, stream: int, slot: int, body: bytes) -> None:
        """Begin with a body; its stream's headers are in the outbox."""
        self._by_stream[stream] = _Upload(slot, body, int(self._state[k.STREAM_WINDOW]), self._whole)
        self.pump()

    def drop(self, stream: int) -> None:
        """The stream has ended, whether or not all of its body went."""
        self._by_stream.pop(stream, None)

    def pump(self) -> None:
        """Send what windows, frame size and outbox allow; a row whose last byte is put out knows by then where."""
        state = self._state
        for stream, upload in list(self._by_stream.items()):
            while upload.rest:
                allowed = min(upload.window, int(state[k.WINDOW]), int(state[k.FRAME_MAX]))
                size = min(len(upload.rest), allowed, self._out.space)
                if size <= 0:
                    break
                ends = k.END_STREAM if size == len(upload.rest) else 0
                self._out.frame(k.DATA, ends, stream, upload.rest[:size])
                upload.rest = upload.rest[size:]
                upload.window -= size
                state[k.WINDOW] -= size
            if not upload.rest:
                del self._by_stream[stream]
                self._whole += 1
                self._slots[upload.slot, k.END] = state[k.POSITION]

    def shift(self, more: int) -> None:
        """The peer's initial window has changed by `more`."""
        for upload in self._by_stream.values():
            upload.window += more

    def widen(self, stream: int, more: int) -> bool:
        """The peer lets a stream send more; False if that is beyond what a window may be."""
        upload = self._by_stream.get(stream)
        if upload is None:
            return True
        upload.window += more
        return upload.window <= k.WINDOW_MAX
