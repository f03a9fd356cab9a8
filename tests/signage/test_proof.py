"""Proof as columns: first times count, dark is undone, and what was stored before is read."""

from __future__ import annotations

import msgspec
import numpy as np

from signage.proof import COLUMNS, Proof


def test_the_first_time_counts_and_dark_is_undone() -> None:
    proof = Proof(["a", "b"])
    assert proof.mark("shown", "a", 5)
    assert not proof.mark("shown", "a", 6)
    assert not proof.mark("shown", "c", 6)
    assert proof.mark("dark", "a", 7)
    proof.say("a", "power")
    proof.say("a", "local", anew=False)
    proof.say("b", "rejected: key", anew=False)
    proof.say("c", "nobody")
    first, second = proof.rows()
    assert (first.shown_ms, first.dark_ms, first.why, second.why) == (5, 7, "power", "rejected: key")
    assert proof.counts(0, None).shown == 1, "shown was shown"
    proof.lit("a")
    proof.lit("c")
    first, _ = proof.rows()
    assert (first.shown_ms, first.dark_ms, first.why) == (5, None, "")
    assert proof.mark("dark", "a", 9)


def test_what_is_stored_is_read_again() -> None:
    proof = Proof(["a", "b"])
    for at, column in enumerate(COLUMNS):
        proof.mark(column, "b", at + 1)
    proof.say("b", "comm_loss")
    proof.renew()
    again = Proof.decode(proof.encode())
    assert again.rows() == proof.rows()
    assert (again.why, again.renewed, again.unended()) == ({"b": "comm_loss"}, True, 1)


def test_what_was_stored_before_boards_gave_reasons_is_read() -> None:
    column = np.array([3, 0], "<i8").tobytes()
    old = {"boards": ["a", "b"], "published": column, "received": column, "shown": column, "ended": column}
    (first, second) = Proof.decode(msgspec.msgpack.encode(old)).rows()
    assert (first.ended_ms, first.dark_ms, first.updated_ms, first.why) == (3, None, None, "")
    assert second.ended_ms is None
