"""Only forwards, only the certain, each once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.dispatch.fallback import (
    GATHER_END_S,
    GATHER_FROM,
    GATHER_S,
    MOVABLE,
    NOWHERE,
    batches,
    failed_now,
    gathered_by_ms,
    targets,
)
from fanout.registry.columns import preference_of
from fanout.store.protocol import Lease
from fanout.store.states import Reason, State
from fanout.wire import CHANNELS


def test_only_what_failed_for_certain_and_just_now() -> None:
    cases = [(before, after, reason) for before in State for after in State for reason in Reason]
    before, after, reason = (np.array(column, np.uint8) for column in zip(*cases, strict=True))
    found = {cases[i] for i in failed_now(before, after, reason).tolist()}
    assert found == {
        (b, a, r)
        for b, a, r in cases
        if a is State.FAILED and b is not State.FAILED and (r in MOVABLE or b is State.BOUNCED)
    }
    assert {Reason.UNDELIVERED, Reason.TIME_OUT, Reason.CRASH}.isdisjoint(MOVABLE), "these may have been received"
    assert {Reason.PAYLOAD, Reason.GARBAGE} < set(MOVABLE), "a wrong project or a redirect would miss everyone"


def naive_target(choices: list[int], channel: int, order: list[int]) -> int:
    later = choices[choices.index(channel) + 1 :] if channel in choices else order[order.index(channel) + 1 :]
    return next((one for one in later if one in order and one in choices), NOWHERE)


@settings(max_examples=2_000)
@given(st.integers(0, 2**32 - 1))
def test_the_next_of_their_own_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = [random.permutation(7)[: random.integers(8)].tolist() for _ in range(random.integers(10))]
    order = random.permutation(7)[: random.integers(1, 8)].tolist()
    channel = int(random.choice(order))
    words = np.array([preference_of(choices) for choices in rows], np.uint32)
    assert targets(words, channel, order).tolist() == [naive_target(choices, channel, order) for choices in rows]


def test_own_order_goes_before_that_of_the_settings() -> None:
    fcm, apns, sms, voice = (CHANNELS.index(name) for name in ("fcm", "apns", "sms", "voice"))
    words = np.array([preference_of(own) for own in ([voice, fcm, sms], [sms, fcm], [apns, sms, voice])], np.uint32)
    assert targets(words, fcm, [fcm, voice, sms]).tolist() == [sms, NOWHERE, voice]


def leased(*, lane: int = 1, seq: int = 7) -> Lease:
    rows, zeros = np.arange(100, 200, dtype=np.uint32), np.zeros(100, np.uint8)
    return Lease(
        batch=1, token=1, action=1, phase=0, lane=lane, channel=0, language="nl", attempt=0, until_ms=0, rows=rows,
        generations=np.arange(100, dtype=np.uint16), status=zeros, reason=zeros, seq=seq,
    )  # fmt: skip


def test_moved_rows_are_cut_as_their_new_channel_wants() -> None:
    lease = leased()
    rows = lease.rows
    index = np.arange(1, 100)
    to = np.where(index % 4 == 0, np.uint8(3), np.uint8(4))
    found = batches(lease, index, to, {3: 500, 4: 30})
    assert [(one.channel, len(one.rows), one.seq) for one in found] == [
        (3, 24, 7),
        (4, 30, 7),
        (4, 30, 7),
        (4, 15, 7),
    ], "in their turn by distance: the first of another action do not wait for the last of this"
    assert sorted(np.concatenate([one.rows for one in found]).tolist()) == rows[index].tolist()
    assert all((one.rows - 100 == one.generations).all() for one in found)
    assert {(one.not_before_ms, one.joins_up_to) for one in found} == {(0, 0)}
    waiting = batches(lease, index, to, {3: 500, 4: 30}, not_before_ms=9)
    assert {(one.channel, one.not_before_ms, one.joins_up_to) for one in waiting} == {(3, 9, 500), (4, 9, 30)}


def test_moved_rows_of_a_large_action_wait_for_those_who_come_after_them() -> None:
    late = 10_000 + int(1000 * GATHER_END_S)
    assert gathered_by_ms(leased(seq=GATHER_FROM), 10_000, late + 1) == 10_000 + int(1000 * GATHER_S)
    assert gathered_by_ms(leased(seq=GATHER_FROM - 1), 10_000, late + 1) == 0, "the nearest, and all of a local action"
    assert gathered_by_ms(leased(seq=GATHER_FROM, lane=0), 10_000, late + 1) == 0, "lives are at risk"
    assert gathered_by_ms(leased(seq=GATHER_FROM), 10_000, late) == 0, "it is nearly over"
