"""The bytes of one connection that wait for its socket: frames in, by kernel or by Python, and records out.

Python appends here what is rare (settings, pings, resets); rows are written by the kernel straight into `buffer`, from
`state[TAIL]` on. `state[POSITION]` counts all bytes ever put in, so that a row knows by one number when it is out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.dispatch.frames.kernels import FRAME_HEAD, POSITION, TAIL

OUT_BYTES: Final = 256 * 1024


class Outbox:
    """A buffer of fixed size. `full` once something did not fit: the peer makes us answer, and does not read."""

    def __init__(self, state: NDArray[np.int64]) -> None:
        self._state = state
        self.buffer: NDArray[np.uint8] = np.empty(OUT_BYTES, np.uint8)
        self._view = self.buffer.data
        self._at = 0  # what the socket has taken
        self.full = False

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return int(self._state[TAIL]) - self._at

    @property
    def space(self) -> int:
        """Bytes of payload that a frame may have now."""
        return OUT_BYTES - int(self._state[TAIL]) - FRAME_HEAD

    @property
    def written(self) -> int:
        """The position up to which all bytes are out."""
        return int(self._state[POSITION]) - self.unsent

    def output(self) -> memoryview:
        """What is to be written next."""
        return self._view[self._at : int(self._state[TAIL])]

    def sent(self, count: int) -> None:
        """The socket took so many bytes of `output`."""
        self._at += count
        if not self.unsent:
            self._at = self._state[TAIL] = 0

    def compact(self) -> None:
        """Make room at the end."""
        if self._at:
            unsent = self.unsent
            self.buffer[:unsent] = self.buffer[self._at : self._at + unsent]
            self._at, self._state[TAIL] = 0, unsent

    def frame(self, kind: int, flags: int, stream: int, payload: bytes | memoryview) -> None:
        """Append a frame."""
        self.put(len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload)

    def put(self, data: bytes) -> None:
        """Append bytes, whole or not at all."""
        if self.space + FRAME_HEAD < len(data):
            self.compact()
        if self.space + FRAME_HEAD < len(data):
            self.full = True
            return
        tail = int(self._state[TAIL])
        self._view[tail : tail + len(data)] = data
        self._state[TAIL] += len(data)
        self._state[POSITION] += len(data)
