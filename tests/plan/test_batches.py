"""Batches: every row once, nearest first, small ones first, none too large."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout import limits
from fanout.plan.batches import cut
from fanout.store.states import REPLACES_IN_PLACE
from fanout.wire import CHANNELS

LANGUAGES = ("nl", "en", "de")


@given(st.integers(0, 6_000), st.integers(0, 2**32 - 1))
def test_every_row_is_in_one_batch_in_the_order_of_hearing(people: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.permutation(people * 2)[:people].astype(np.uint32)
    generations = random.integers(0, 9, people).astype(np.uint16)
    channels = random.choice(np.array([0, 1, 3], np.uint8), people)
    languages = random.choice(np.arange(3, dtype=np.uint8), people)
    rank = {int(row): position for position, row in enumerate(rows)}

    batches = cut(rows, generations, channels, languages, LANGUAGES)

    assert sorted(np.concatenate([rows[:0], *(batch.rows for batch in batches)]).tolist()) == sorted(rows.tolist())
    for batch in batches:
        ranks = [rank[int(row)] for row in batch.rows]
        assert ranks == sorted(ranks)
        most = limits.BATCH_ROWS_MAX if batch.channel in REPLACES_IN_PLACE else limits.SMS_BATCH_ROWS_MAX
        assert 0 < len(batch.rows) <= most
        assert {int(channels[position]) for position in ranks} == {batch.channel}
        assert {LANGUAGES[languages[position]] for position in ranks} == {batch.language}
        assert batch.generations.tolist() == [int(generations[position]) for position in ranks]
    for channel in {batch.channel for batch in batches}:
        mine = [batch for batch in batches if batch.channel == channel]
        assert [batch.seq for batch in mine] == list(range(len(mine)))
        firsts = [rank[int(batch.rows[0])] for batch in mine]
        assert firsts == sorted(firsts)
        assert len(mine[0].rows) <= limits.BATCH_ROWS_FIRST


def test_a_nation_is_cut_coarsely() -> None:
    people = 100_000
    rows = np.arange(people, dtype=np.uint32)
    zeros = np.zeros(people, np.uint8)
    batches = cut(rows, zeros.astype(np.uint16), zeros, zeros, ("nl",))
    assert CHANNELS[batches[0].channel] == "fcm"
    assert len(batches) < people / limits.BATCH_ROWS_MAX + 4
