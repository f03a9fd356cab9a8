"""A selection cut into batches: one channel and one language each, nearest first.

Rules:

1. Within a channel the people nearest to the centre are in the batch with the lowest `seq`. Senders claim in the order
   (lane, seq), so actions of one lane share a channel, each with its nearest people first.
2. Batches start small and grow: the first message does not wait for two thousand others to be rendered, and the bulk
   is cut coarsely, since each batch costs the ledger two commits.
3. On channels that ring twice a batch is what its provider takes in about a second (`sizes`): what a sender that dies
   was told and had not written yet is lost to it, and a batch of 500 calls at 30 a second would be 17 s of that. So a
   batch is also a short turn, and its end is news soon enough for a forecast.
4. An action told in waves (`waves.py`) has the wave's number as `seq` on every channel, and only as many waves may go
   at once as its operator lets; the others wait for `Ledger.hasten`, at the latest until the action's end.

A batch holds rows and generations, never addresses: these are read by the sender at the last moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout import limits
from fanout.channels.protocol import Pace
from fanout.store.protocol import NewBatch
from fanout.store.states import REPLACES_IN_PLACE
from fanout.wire import CHANNELS


class Cutting(NamedTuple):
    """Waves of `people` each, of which the first `at_once` may go now and the others not before `end_ms`."""

    people: int
    at_once: int
    end_ms: int


def sizes(paces: Mapping[str, Pace]) -> dict[int, int]:
    """The most rows of a batch, by channel number, for channels that go at these paces."""
    found = {}
    for name, pace in paces.items():
        channel = CHANNELS.index(name)
        second = min(limits.SMS_BATCH_ROWS_MAX, int(pace.rate_per_s * limits.BATCH_S))
        found[channel] = limits.BATCH_ROWS_MAX if channel in REPLACES_IN_PLACE else max(limits.BATCH_ROWS_LEAST, second)
    return found


def cut(
    rows: NDArray[np.uint32],
    generations: NDArray[np.uint16],
    channels: NDArray[np.uint8],
    languages: NDArray[np.uint8],
    language_names: tuple[str, ...],
    most: Mapping[int, int],
    waves: Cutting | None = None,
) -> list[NewBatch]:
    """Batches of one phase.

    All arrays have shape [n] and are in the order in which people shall hear of it (nearest first); `languages` index
    `language_names`; `most`: rows of a batch, by channel (`sizes`). Every row is in exactly one batch.
    """
    if waves is not None:
        return _cut_in_waves(rows, generations, channels, languages, language_names, most, waves)
    group = channels.astype(np.uint16) * 256 + languages
    order = np.argsort(group, kind="stable")
    groups, sizes = np.unique(group, return_counts=True)
    ends = np.cumsum(sizes)
    pieces: list[tuple[int, int, int, NDArray[np.intp]]] = []  # (channel, rank of the first row, language, members)
    for number, size, end in zip(groups, sizes, ends, strict=True):
        channel, language = divmod(int(number), 256)
        members = order[end - size : end]
        pieces += [(channel, int(piece[0]), language, piece) for piece in _grow(members, most[channel])]
    pieces.sort(key=lambda piece: piece[:2])
    batches = []
    seq, previous = 0, -1
    for channel, _, language, members in pieces:
        seq = seq + 1 if channel == previous else 0
        previous = channel
        batches.append(
            NewBatch(
                channel=channel,
                language=language_names[language],
                seq=seq,
                rows=rows[members],
                generations=generations[members],
            )
        )
    return batches


def _cut_in_waves(
    rows: NDArray[np.uint32],
    generations: NDArray[np.uint16],
    channels: NDArray[np.uint8],
    languages: NDArray[np.uint8],
    language_names: tuple[str, ...],
    most: Mapping[int, int],
    waves: Cutting,
) -> list[NewBatch]:
    number = np.arange(len(rows)) // waves.people
    group = (number << 16) + channels.astype(np.int64) * 256 + languages
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    batches = []
    for start, end in pairwise([*starts.tolist(), len(rows)]):
        wave, (channel, language) = int(group[order[start]]) >> 16, divmod(int(group[order[start]]) & 0xFFFF, 256)
        for first in range(start, end, most[channel]):
            members = order[first : min(end, first + most[channel])]
            batches.append(
                NewBatch(
                    channel=channel,
                    language=language_names[language],
                    seq=wave,
                    rows=rows[members],
                    generations=generations[members],
                    not_before_ms=0 if wave < waves.at_once else waves.end_ms,
                )
            )
    return batches


def _grow(members: NDArray[np.intp], most: int) -> list[NDArray[np.intp]]:
    pieces = []
    start, size = 0, min(limits.BATCH_ROWS_FIRST, most)
    while start < len(members):
        pieces.append(members[start : start + size])
        start += size
        size = min(size * 4, most)
    return pieces
