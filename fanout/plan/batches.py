"""A selection cut into batches: one channel and one language each, nearest first.

Rules:

1. Within a channel the people nearest to the centre are in the batch with the lowest `seq`. Senders claim in the order
   (lane, seq), so actions of one lane share a channel, each with its nearest people first.
2. Batches start small and grow: the first message does not wait for two thousand others to be rendered, and the bulk
   is cut coarsely, since each batch costs the ledger two commits.
3. On channels that ring twice a batch is smaller, because what is on the wire when a sender dies is lost to it.

A batch holds rows and generations, never addresses: these are read by the sender at the last moment.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fanout import limits
from fanout.store.protocol import NewBatch
from fanout.store.states import REPLACES_IN_PLACE


def cut(
    rows: NDArray[np.uint32],
    generations: NDArray[np.uint16],
    channels: NDArray[np.uint8],
    languages: NDArray[np.uint8],
    language_names: tuple[str, ...],
) -> list[NewBatch]:
    """Batches of one phase.

    All arrays have shape [n] and are in the order in which people shall hear of it (nearest first); `languages` index
    `language_names`. Every row is in exactly one batch.
    """
    group = channels.astype(np.uint16) * 256 + languages
    order = np.argsort(group, kind="stable")
    groups, sizes = np.unique(group, return_counts=True)
    ends = np.cumsum(sizes)
    pieces: list[tuple[int, int, int, NDArray[np.intp]]] = []  # (channel, rank of the first row, language, members)
    for number, size, end in zip(groups, sizes, ends, strict=True):
        channel, language = divmod(int(number), 256)
        members = order[end - size : end]
        pieces += [(channel, int(piece[0]), language, piece) for piece in _grow(members, _most(channel))]
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


def _most(channel: int) -> int:
    return limits.BATCH_ROWS_MAX if channel in REPLACES_IN_PLACE else limits.SMS_BATCH_ROWS_MAX


def _grow(members: NDArray[np.intp], most: int) -> list[NDArray[np.intp]]:
    pieces = []
    start, size = 0, min(limits.BATCH_ROWS_FIRST, most)
    while start < len(members):
        pieces.append(members[start : start + size])
        start += size
        size = min(size * 4, most)
    return pieces
