"""What was delivered is counted by digests as it would be by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.simulators import seen
from fanout.simulators.seen import Seen, answer

TOKENS = st.sampled_from([b"", b"a", b"b", b"aa", b"ab", b"x" * 200, b"\xff"])
DELIVERIES = st.lists(st.tuples(st.sampled_from(["fcm", "sms"]), st.integers(0, 1), TOKENS, st.booleans()), max_size=40)


@given(DELIVERIES)
def test_counts_are_those_of_a_plain_count(deliveries: list[tuple[str, int, bytes, bool]]) -> None:
    workers = Seen(), Seen()
    for channel, phase, token, second in deliveries:
        workers[second].record("7", channel, phase).add(token)
    told = answer("7", [part for one in workers for part in one.part("7")], tokens=True)
    plain = Counter((channel, phase, token) for channel, phase, token, _ in deliveries)
    assert (told["total"], told["distinct"]) == (plain.total(), len(plain))
    assert told["doubled_count"] == sum(count > 1 for count in plain.values())
    channels = told["channels"]
    assert isinstance(channels, dict)
    for channel, counted in channels.items():
        mine = {token.decode("latin-1") for of, _, token in plain if of == channel}
        assert counted["tokens"] == sorted(mine)
        twice = [token.decode("latin-1") for (of, _, token), count in plain.items() if of == channel and count > 1]
        assert sorted(counted["doubled"]) == sorted(twice)


def test_digests_that_agree_are_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen.kernels, "digests", lambda texts, ends, out: out.fill(1))
    record = (kept := Seen()).record("7", "fcm", 0)
    record.add_many(b"onetwoonethree", np.array([3, 3, 3, 5], np.uint32), 5_000_000)
    told = answer("7", kept.part("7"))
    assert (told["total"], told["distinct"], told["doubled"], told["first_ms"]) == (4, 3, ["one"], 5)
