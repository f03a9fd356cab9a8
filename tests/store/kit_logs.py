"""The part of the kit that is not about deliveries: logs, documents, groups of commits, and waiting for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fanout.errors import Refused
from fanout.store.states import State
from tests.store.makings import SMS, Place, action, batch, claim, everything, opened, phase

PATIENCE_S = 30.0


def logs_number_their_entries(place: Place) -> None:
    first, second = place(), place()
    assert first.last("changes") == first.append("changes", []) == 0
    assert first.append("changes", [b"a", b"", b"c"]) == 3
    assert second.append("changes", [b"d" * 100_000]) == 4
    assert second.append("audit", [b"x"]) == 1
    assert first.read("changes", after=1, most=2) == [(2, b""), (3, b"c")]
    first.trim("changes", upto=3)
    first.trim("nothing", upto=3)
    assert second.read("changes", after=0, most=9) == [(4, b"d" * 100_000)]
    second.trim("changes", upto=9)
    assert (first.last("changes"), first.append("changes", [b"e"])) == (4, 5)
    assert first.read("changes", after=0, most=9) == [(5, b"e")]


def documents_are_written_together(place: Place) -> None:
    first, second = place(), place()
    first.put("keys", [("b", b"2"), ("a", b"1"), ("ä/ 1", b"")])
    assert second.get("keys", "a") == b"1"
    assert second.get("keys", "c") is second.get("other", "a") is None
    assert second.scan("keys") == [("a", b"1"), ("b", b"2"), ("ä/ 1", b"")]
    second.put("keys", [("a", None), ("b", b"3"), ("nothing", None)])
    assert first.scan("keys") == [("b", b"3"), ("ä/ 1", b"")]
    assert first.scan("other") == []

    def half() -> Iterator[tuple[str, bytes | None]]:
        yield "b", b"4"
        raise LookupError

    with pytest.raises(LookupError):
        first.put("keys", half())
    assert second.get("keys", "b") == b"3"


def a_group_shares_a_commit_and_no_failure(place: Place) -> None:
    store, other = place(), place()
    with store.group():
        number = opened(store, reference="a")
        assert store.action(number) is not None
        with pytest.raises(Refused):
            store.open_action(action("a", digest=b"other"), phase(), [])
        assert store.append("changes", [b"1"]) == 1
    assert other.last("changes") == 1
    assert other.action(number) is not None


def waiting_learns_of_every_commit(place: Place) -> None:
    store, other = place(), place()
    while store.wait(0.0):
        pass
    assert not store.wait(0.0)
    other.append("changes", [b"1"])
    assert store.wait(5.0)
    assert not store.wait(0.0)
    store.append("changes", [b"2"])
    assert store.wait(5.0)
    later = threading.Timer(0.02, other.append, ("changes", [b"3"]))
    later.start()
    assert store.wait(30.0)
    later.join()  # it hears of its commit after all others do: no store is closed under it


def senders_are_woken_by_what_gives_work_or_stops_it(place: Place) -> None:
    store, other = place(), place()

    def wakes(tell: Callable[[], object]) -> bool:
        """Whether `tell` ends a wait that would outlast every patience."""
        while store.wait_for_work(0.0):
            pass
        waiting = threading.Thread(target=store.wait_for_work, args=(PATIENCE_S * 10,), daemon=True)
        waiting.start()
        tell()
        waiting.join(PATIENCE_S)
        return not waiting.is_alive()

    number = opened(other, batch(range(3)), batch(range(3, 6)), batch(range(6, 9), seq=9, not_before_ms=900))
    assert wakes(lambda: opened(other, reference="another"))
    assert wakes(lambda: other.set_paused(number, True))
    assert wakes(lambda: other.set_paused(number, False))
    assert wakes(lambda: other.hasten(number, below_seq=10))
    claim(other, "gone")
    assert wakes(lambda: other.release("gone"))
    (lease,) = claim(other)
    assert other.intend(lease, everything(lease), now_ms=11)
    on_sms = batch(lease.rows.tolist(), channel=SMS)
    moved = np.full(len(lease.rows), State.MOVED, np.uint8)
    assert wakes(
        lambda: other.settle(
            lease, status=moved, reason=lease.reason, first_ms=None, last_ms=None, done=True, moved=[on_sms]
        )
    )
    assert wakes(lambda: other.close(number, state="cancelled", now_ms=12))
    assert wakes(lambda: opened(store, reference="by itself"))


def senders_hear_of_all_else_at_the_end_of_their_time(place: Place) -> None:
    store, other = place(), place()
    opened(other)
    (lease,) = claim(other)
    while store.wait_for_work(0.0):
        pass
    assert other.intend(lease, everything(lease), now_ms=12)
    assert store.wait_for_work(0.0)
    assert not store.wait_for_work(0.0)


def a_claim_that_finds_nothing_writes_nothing(place: Place) -> None:
    store, other = place(), place()
    number = opened(store)
    (lease,) = claim(store)
    assert claim(other) == []
    while store.wait(0.0):
        pass
    assert claim(other) == []
    assert store.close(number, state="cancelled", now_ms=12)
    assert not other.intend(lease, everything(lease), now_ms=12)
    while store.wait(0.0):
        pass
    assert claim(other) == []
    assert not other.intend(lease, everything(lease), now_ms=13)
    assert not store.wait(0.0)


LOG_CHECKS = (
    a_claim_that_finds_nothing_writes_nothing,
    a_group_shares_a_commit_and_no_failure,
    documents_are_written_together,
    logs_number_their_entries,
    waiting_learns_of_every_commit,
    senders_are_woken_by_what_gives_work_or_stops_it,
    senders_hear_of_all_else_at_the_end_of_their_time,
)
