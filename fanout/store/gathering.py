"""Receipts that came together, sorted by the batches they are for: what of `apply_receipts` is the same in every store.

Providers send a receipt a body or thousands. What costs is not the receipt but each batch that is read, changed and
written, so a store is handed all that wait and meets a batch once, whoever's receipts are in it. Rules:

1. Receipts for one row may come in any order and any number: a delivered row stays so, and good news undoes bad
   (`states.TABLE`). So of several for a row the good one decides, as if they had come one after the other.
2. A row that changed is counted once, with the receipt that named it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.store.directory import Directory, Key
from fanout.store.protocol import Bytes8, Receipts, Rows


class News(NamedTuple):
    """What receipts say of one batch: `place` intp[n] in it, `delivered` and `bounced` bool[n], `of` intp[n]: the
    receipts they are from, ascending."""

    action: int
    batch: int
    place: NDArray[np.intp]
    delivered: NDArray[np.bool_]
    bounced: NDArray[np.bool_]
    of: NDArray[np.intp]


def news(receipts: Sequence[Receipts], directory: Callable[[Key, Rows], Directory]) -> Iterator[News]:
    """News of each batch, those of an action one after the other. `directory(key, rows)`: where these rows are."""
    keys: dict[Key, list[int]] = {}
    for number, one in enumerate(receipts):
        keys.setdefault((one.action, one.phase, one.channel), []).append(number)
    for key in sorted(keys):
        mine = [receipts[number] for number in keys[key]]
        rows = np.concatenate([one.rows for one in mine])
        where = directory(key, rows)
        known, spot = where.find(rows)
        if not len(known):
            continue
        order = np.argsort(where.batch[spot], kind="stable")
        known, spot = known[order], spot[order]
        delivered = np.concatenate([one.delivered for one in mine])[known]
        bounced = np.concatenate([_bounced(one) for one in mine])[known] & ~delivered
        of = np.repeat(keys[key], [len(one.rows) for one in mine])[known]
        batch, place = where.batch[spot], where.place[spot].astype(np.intp)
        bounds = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(batch)]
        for begin, end in pairwise(bounds):
            part = slice(begin, end)
            yield News(key[0], int(batch[begin]), place[part], delivered[part], bounced[part], of[part])


def _bounced(one: Receipts) -> NDArray[np.bool_]:
    return np.zeros(len(one.rows), np.bool_) if one.bounced is None else one.bounced


def in_action_that_is_over(one: News) -> News:
    """As if nobody was certain of anything: nothing may go to another channel any more."""
    return one._replace(bounced=np.zeros_like(one.bounced))


def end_to_end(met: Sequence[News], sizes: Sequence[int]) -> News:
    """News of several batches of so many rows as those of one in which their rows lie end to end."""
    begin = [0, *accumulate(sizes)][:-1]
    place = np.concatenate([one.place + first for one, first in zip(met, begin, strict=True)])
    delivered, bounced, of = (
        np.concatenate([getattr(one, name) for one in met]) for name in ("delivered", "bounced", "of")
    )
    return News(met[0].action, met[0].batch, place, delivered, bounced, of)


def count_changes(one: News, before: Bytes8, after: Bytes8, changed: NDArray[np.int64]) -> bool:
    """Add to `changed`, int64[receipts], the rows of a batch that changed; False if none did."""
    moved = before[one.place] != after[one.place]
    if not moved.any():
        return False
    _, first = np.unique(one.place[moved], return_index=True)
    np.add.at(changed, one.of[moved][first], 1)
    return True
