"""What a worker has read before: heads of requests, and bodies but for their token, as arrays that kernels look things
up in.

Both are bounded. When one is full it forgets everything and begins anew, which costs each text one reading more; a body
carries a time to live, so there is a new form for each batch and second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fanout.simulators.http2 import kernels as k
from fanout.simulators.seen import Record

DEVICE: Final = "/3/device/"
TEXTS_MAX: Final = 4_096
BYTES_MAX: Final = 4 * 1024 * 1024

Arrays = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]


class Texts:
    """Known texts, numbered from 0; `arrays` is what kernels get: index, spans, bytes."""

    def __init__(self) -> None:
        self._index = np.zeros(4 * TEXTS_MAX, np.int64)
        self._spans = np.zeros((TEXTS_MAX, 4), np.int64)
        self._bytes = np.zeros(BYTES_MAX, np.uint8)
        self.count = self._filled = 0
        self.arrays: Final[Arrays] = (self._index, self._spans, self._bytes)

    def number(self, text: bytes, kind: int) -> int | None:
        """The number of a text of this kind (0: of any), None if it is not known."""
        found = int(k.find(*self.arrays, np.frombuffer(text, np.uint8), 0, len(text), kind))
        return found if found >= 0 else None

    def fits(self, text: bytes) -> bool:
        """Whether there is room for it."""
        return self.count < TEXTS_MAX and self._filled + len(text) <= BYTES_MAX

    def add(self, text: bytes, kind: int) -> int:
        """Know a text that fits and is not known yet; returns its number."""
        assert self.fits(text)
        mark = int(k.digest(np.frombuffer(text, np.uint8), 0, len(text)))
        end = self._filled + len(text)
        self._bytes[self._filled : end] = np.frombuffer(text, np.uint8)
        self._spans[self.count] = self._filled, end, kind, mark
        place = mark & (len(self._index) - 1)
        while self._index[place]:
            place = (place + 1) & (len(self._index) - 1)
        self.count, self._filled = self.count + 1, end
        self._index[place] = self.count
        return self.count - 1

    def clear(self) -> None:
        """Forget all; numbers begin anew."""
        self._index[:] = 0
        self.count = self._filled = 0


class Listener(Protocol):
    """A connection, as far as all of them are told something."""

    def promote_all(self) -> None:
        """What heads are known by changes: none may wait for its body by number."""

    def allow(self, most: int) -> None:
        """So many requests may be open; 0: as many as usual."""


class Known:
    """What all connections of a worker share: texts known, whom their tokens belong to, and room to work in."""

    def __init__(self, answers: tuple[bytes, int, bytes], counted: Callable[[str, int], None]) -> None:
        """`answers`: to FCM (block and body, bytes of the body) and to APNs (block). `counted`: (channel, pushes)."""
        self.heads, self.forms = Texts(), Texts()
        self.fields_of: list[list[tuple[str, str]]] = []  # by head
        self.records: list[tuple[str, Record]] = []  # by form: (channel, where its tokens are kept)
        self._counted = counted
        self.plain = True
        self.connections: set[Listener] = set()
        fcm, body, apns = answers
        whole = np.frombuffer(fcm, np.uint8), np.frombuffer(apns, np.uint8), np.array([body], np.int64)
        self.answers: Final = whole
        self.texts: Final = np.zeros(65_536, np.uint8), np.zeros((128, 3), np.int64), np.zeros(16_384, np.uint8)
        self.came: Final = np.zeros((1_024, 3), np.int64), np.zeros(4_096, np.uint32), np.zeros(1 << 20, np.uint8)
        self.sent: Final = np.zeros(1 << 18, np.uint8)

    def keep_form(self, kind: int, form: bytes, channel: str, record: Record) -> None:
        """Bodies that end so (FCM) or are so (APNs) are plain from now on."""
        if self.forms.number(form, kind) is None:
            if not self.forms.fits(form):
                self.forget_forms()
            self.forms.add(form, kind)
            self.records.append((channel, record))

    def forget_forms(self) -> None:
        self.forms.clear()
        self.records.clear()

    def keep_head(self, key: bytes, fields: list[tuple[str, str]]) -> None:
        """Heads that are so are known from now on."""
        if not self.heads.fits(key):
            for connection in self.connections:
                connection.promote_all()
            self.heads.clear()
            self.fields_of.clear()
        names = dict(fields)
        path, kind = names.get(":path", ""), k.OTHER
        if names.get(":method") == "POST" and "?" not in path:
            if path.endswith("/messages:send"):
                kind = k.FCM
            elif path.startswith(DEVICE) and "apns-id" not in names:
                kind = k.APNS
        self.heads.add(key, kind)
        self.fields_of.append(fields)

    def take(self, runs: list[list[int]]) -> None:
        """Pushes that a kernel has answered, by form."""
        _, lengths, tokens = self.came
        now_ns, row, begin = time.time_ns(), 0, 0
        for form, count, end in runs:
            channel, record = self.records[form]
            record.add_many(tokens[begin:end].tobytes(), lengths[row : row + count], now_ns)
            self._counted(channel, count)
            row, begin = row + count, end
