"""Waves: never more than free operators can answer, never fewer than they ask for, and every wave in the end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fanout.plan.batches import Cutting, cut
from fanout.plan.waves import begin, step

MINUTE_MS = 60_000
MOST = {0: 2_048, 3: 500}


def test_free_operators_get_a_wave_each_and_no_more_until_it_was_answered() -> None:
    waves = begin(free=3, of=10, now_ms=0)
    assert waves.let_go == 3
    waves = step(waves, free=3, now_ms=1_000, answer_ms=MINUTE_MS)
    assert waves.let_go == 3, "the three are spoken for"
    waves = step(waves, free=5, now_ms=2_000, answer_ms=MINUTE_MS)
    assert waves.let_go == 5, "two came free"
    waves = step(waves, free=2, now_ms=30_000, answer_ms=MINUTE_MS)
    assert waves.let_go == 5, "calls came in"
    waves = step(waves, free=2, now_ms=61_500, answer_ms=MINUTE_MS)
    assert waves.let_go == 5, "of the two that are free, two were spoken for later"
    waves = step(waves, free=2, now_ms=62_000, answer_ms=MINUTE_MS)
    assert waves.let_go == 7
    waves = step(waves, free=9, now_ms=200_000, answer_ms=MINUTE_MS)
    assert waves.let_go == 10, "all are told"


def test_nobody_free_stops_it_and_silence_is_no_news() -> None:
    waves = begin(free=0, of=4, now_ms=0)
    for now_ms in range(0, 10 * MINUTE_MS, 1_000):
        waves = step(waves, free=0, now_ms=now_ms, answer_ms=MINUTE_MS)
    assert waves.let_go == 0
    for now_ms in range(10 * MINUTE_MS, 13 * MINUTE_MS, 1_000):
        waves = step(waves, free=1, now_ms=now_ms, answer_ms=MINUTE_MS)
    assert waves.let_go == 3, "one a minute"


def test_a_clock_that_jumps_back_stops_nothing() -> None:
    waves = begin(free=2, of=9, now_ms=10 * MINUTE_MS)
    assert step(waves, free=2, now_ms=0, answer_ms=MINUTE_MS).let_go == 4


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 90_000)), max_size=60))
def test_within_any_answer_time_no_more_waves_than_were_ever_free(of: int, reports: list[tuple[int, int]]) -> None:
    now_ms, let_go = 0, [(0, 0)]
    waves = begin(free=0, of=of, now_ms=0)
    frees = [0]
    for free, pause_ms in reports:
        now_ms += pause_ms
        before = waves.let_go
        waves = step(waves, free=free, now_ms=now_ms, answer_ms=MINUTE_MS)
        assert before <= waves.let_go <= of
        frees.append(free)
        let_go.append((now_ms, waves.let_go - before))
        within = sum(count for at_ms, count in let_go if now_ms - at_ms < MINUTE_MS)
        assert within <= max(frees)
        assert within >= min(free, of - before), "nobody who is free is left without a wave"


@given(st.integers(0, 3_000), st.integers(1, 800), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_waves_are_cut_nearest_first_over_all_channels(people: int, size: int, at_once: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.permutation(people).astype(np.uint32)
    channels = random.choice(np.array([0, 3], np.uint8), people)
    languages = random.choice(np.arange(2, dtype=np.uint8), people)
    generations = np.arange(people).astype(np.uint16)
    batches = cut(rows, generations, channels, languages, ("nl", "en"), MOST, Cutting(size, at_once, 99))
    rank = {int(row): place for place, row in enumerate(rows)}
    told = []
    for batch in batches:
        ranks = [rank[int(row)] for row in batch.rows]
        assert ranks == sorted(ranks)
        assert {place // size for place in ranks} == {batch.seq}
        assert {int(channels[place]) for place in ranks} == {batch.channel}
        assert {("nl", "en")[languages[place]] for place in ranks} == {batch.language}
        assert batch.not_before_ms == (0 if batch.seq < at_once else 99)
        told += ranks
    assert sorted(told) == list(range(people))
