"""Batches: every row once, nearest first, small ones first, none too large."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout import limits
from fanout.channels.protocol import Pace
from fanout.plan.batches import cut, sizes
from fanout.wire import CHANNELS

LANGUAGES = ("nl", "en", "de")
MOST = {0: limits.BATCH_ROWS_MAX, 1: limits.BATCH_ROWS_MAX, 3: 500, 4: 30}


@given(st.integers(0, 6_000), st.integers(0, 2**32 - 1))
def test_every_row_is_in_one_batch_in_the_order_of_hearing(people: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.permutation(people * 2)[:people].astype(np.uint32)
    generations = random.integers(0, 9, people).astype(np.uint16)
    channels = random.choice(np.array([0, 1, 3, 4], np.uint8), people)
    languages = random.choice(np.arange(3, dtype=np.uint8), people)
    rank = {int(row): position for position, row in enumerate(rows)}

    batches = cut(rows, generations, channels, languages, LANGUAGES, MOST)

    assert sorted(np.concatenate([rows[:0], *(batch.rows for batch in batches)]).tolist()) == sorted(rows.tolist())
    for batch in batches:
        ranks = [rank[int(row)] for row in batch.rows]
        assert ranks == sorted(ranks)
        assert 0 < len(batch.rows) <= MOST[batch.channel]
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
    batches = cut(rows, zeros.astype(np.uint16), zeros, zeros, ("nl",), MOST)
    assert CHANNELS[batches[0].channel] == "fcm"
    assert len(batches) < people / limits.BATCH_ROWS_MAX + 4


def test_a_batch_that_rings_is_a_second_of_its_providers_quota() -> None:
    rates = {"fcm": 1.0, "webpush": 1e4, "sms": 500.0, "voice": 30.0, "whatsapp": 1_000.0, "email": 0.5}
    found = {CHANNELS[channel]: rows for channel, rows in sizes({n: Pace(r, 1.0) for n, r in rates.items()}).items()}
    assert found == {
        "fcm": limits.BATCH_ROWS_MAX, "webpush": limits.BATCH_ROWS_MAX,  # these may be sent again, and are cut coarsely
        "sms": 500, "voice": 30, "whatsapp": limits.SMS_BATCH_ROWS_MAX, "email": limits.BATCH_ROWS_LEAST,
    }  # fmt: skip
