"""The embedded store: the kit, and what only a file can do to it."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from fanout import limits
from fanout.errors import Refused
from fanout.store.protocol import Store
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import Reason, State
from tests.store import kit


@contextmanager
def place_in(folder: Path) -> Iterator[kit.Place]:
    stores: list[SqliteStore] = []

    def open_it() -> Store:
        stores.append(SqliteStore.open(folder / "ledger.db", synchronous="NORMAL"))
        return stores[-1]

    try:
        yield open_it
    finally:
        for store in stores:
            store.close_store()


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_the_store_kit(check: kit.Check, tmp_path: Path) -> None:
    with place_in(tmp_path) as place:
        check(place)


def moves(store: Store, *rows: int, not_before_ms: int = 50, joins_up_to: int = 4) -> None:
    """Have a batch of these rows on push move to SMS, all of them."""
    (lease,) = kit.claim(store)
    assert lease.rows.tolist() == list(rows)
    assert store.intend(lease, kit.everything(lease), now_ms=11)
    fresh = replace(kit.batch(rows, channel=kit.SMS, not_before_ms=not_before_ms), joins_up_to=joins_up_to)
    status = np.full(len(rows), kit.M, np.uint8)
    store.settle(
        lease, status=status, reason=lease.reason, first_ms=None, last_ms=None, done=True, moved=[fresh]
    )  # fmt: skip


def test_moved_rows_join_a_batch_that_nobody_has_had(tmp_path: Path) -> None:
    with place_in(tmp_path) as place:
        store, other = place(), place()
        push = [kit.batch(rows, seq=seq) for seq, rows in enumerate(((1, 2), (3,), (4, 5), (6,), (7,)))]
        number = kit.opened(store, *push, kit.batch((9,), channel=kit.SMS, seq=9))
        strange = kit.opened(store, kit.batch((8,), seq=9), reference="another")
        moves(store, 1, 2)
        moves(other, 3, not_before_ms=60)
        moves(store, 4, 5, not_before_ms=60)
        moves(other, 6, not_before_ms=40)
        moves(store, 7, not_before_ms=70, joins_up_to=1)
        (planned,) = kit.claim(store)
        assert planned.rows.tolist() == [9], "what is planned for its time stays as it is"
        moves(other, 8, not_before_ms=70)
        found = kit.claim(store, now_ms=100, most=9)
        assert [(lease.action, lease.rows.tolist(), lease.generations.tolist()) for lease in found] == [
            (number, [1, 2, 3], [0, 1, 0]),
            (number, [4, 5], [0, 1]),
            (number, [6], [0]),
            (number, [7], [0]),
            (strange, [8], [0]),
        ]
        assert all((lease.status == kit.P).all() and not lease.reason.any() for lease in found)
        assert sum(sum(one.states) for one in store.counts(number)) == 7 + 8


def test_a_receipt_finds_rows_that_joined_a_batch_after_others_were_looked_for(tmp_path: Path) -> None:
    with place_in(tmp_path) as place:
        store = place()
        number = kit.opened(store, kit.batch((1,)), kit.batch((2,), seq=1), kit.batch((3,), seq=2))
        moves(store, 1)
        assert kit.received(store, number, [1], [True]) == 0, "nobody has sent it yet"
        moves(store, 2)
        (lease,) = kit.claim(store, now_ms=60, lease_ms=5)
        (late,) = kit.claim(store, now_ms=60)
        assert late.rows.tolist() == [3]
        assert store.intend(late, kit.everything(late), now_ms=61)
        fresh = replace(kit.batch((3,), channel=kit.SMS, not_before_ms=90), joins_up_to=4)
        status = np.full(1, kit.M, np.uint8)
        store.settle(late, status=status, reason=late.reason, first_ms=None, last_ms=None, done=True, moved=[fresh])
        assert store.intend(lease, kit.everything(lease), now_ms=62)
        kit.report(store, lease, kit.AC, kit.AC)
        assert kit.received(store, number, [1, 2, 3], [True, False, True]) == 2
        (last,) = kit.claim(store, now_ms=100)
        assert last.rows.tolist() == [3], "a batch that somebody had takes nobody in"
        assert store.intend(last, kit.everything(last), now_ms=101)
        kit.report(store, last, kit.AC)
        assert kit.received(store, number, [3], [True]) == 1


def test_what_was_closed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "ledger.db")
    number = kit.opened(store)
    store.close_store()
    again = SqliteStore.open(tmp_path / "ledger.db")
    assert kit.states(again, number) == [[kit.P] * 3]
    again.close_store()


def test_a_file_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    SqliteStore.open(path).close_store()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 77")
    db.close()
    with kit.refused("file_version"):
        SqliteStore.open(path)


def test_an_earlier_file_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = SqliteStore.open(path)
    number = kit.opened(store)
    store.close_store()
    with closing(sqlite3.connect(path)) as db:
        now = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'batches_by_turn'").fetchone()
        db.execute("DROP INDEX batches_by_turn")
        db.execute("CREATE INDEX batches_by_turn ON batches (lane, seq, id, channel, due_ms) WHERE stage < 2")
        tally = np.zeros(10 + len(Reason), np.uint32)  # of ten states
        tally[[State.PENDING, 10 + Reason.QUOTA]] = 3, 258
        db.execute("UPDATE batches SET tally = ?", (tally.tobytes(),))
        db.execute("PRAGMA user_version = 2")
        db.commit()
    store = SqliteStore.open(path)
    (counted,) = store.counts(number)
    assert counted.states == (3, *[0] * (len(State) - 1))
    assert (counted.reasons[Reason.QUOTA], sum(counted.reasons)) == (258, 258)
    assert [lease.action for lease in kit.claim(store)] == [number]
    store.close_store()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT sql FROM sqlite_schema WHERE name = 'batches_by_turn'").fetchone() == now
    SqliteStore.open(path).close_store()


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    with kit.refused("file_version"):
        SqliteStore.open(path)


def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no ledger at all" * 1000)
    with pytest.raises(Refused, match="put back a backup") as caught:
        SqliteStore.open(path)
    assert caught.value.code == "store_unavailable"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with kit.refused("store_unavailable"):
        SqliteStore.open(tmp_path / "nowhere" / "ledger.db")


def test_a_program_that_holds_the_file_is_named_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore.open(tmp_path / "ledger.db")
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(limits, "STORE_WAIT_S_MAX", 0.02)
    with pytest.raises(Refused, match="another program has held"):
        kit.opened(store)
    holder.execute("ROLLBACK")
    holder.close()
    assert kit.opened(store)
    store.close_store()


# --- a full disk ----------------------------------------------------------------------------------------------------


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def big(seq: int) -> list[int]:
    return list(range(seq * 2048, (seq + 1) * 2048))


@pytest.mark.parametrize("spare", [0, 5_000, 40_000, 150_000])
def test_a_disk_that_takes_no_more_loses_nothing_old_and_does_nothing_by_halves(tmp_path: Path, spare: int) -> None:
    store = SqliteStore.open(tmp_path / "ledger.db")
    old = kit.opened(store, kit.batch(big(0)), reference="old")
    (lease,) = kit.claim(store)
    batches = [kit.batch(big(seq), seq=seq) for seq in range(20)]
    log_bytes = (tmp_path / "ledger.db-wal").stat().st_size
    with files_up_to(log_bytes + spare), pytest.raises(Refused) as caught:
        store.open_action(kit.action("new"), kit.phase(), batches)
    assert caught.value.code == "store_unavailable"
    assert str(tmp_path / "ledger.db") in caught.value.message
    assert [record.id for record in store.actions()] == [old]
    assert store.intend(lease, kit.everything(lease), now_ms=11)
    record, new = store.open_action(kit.action("new"), kit.phase(), batches)
    assert new
    assert len(kit.states(store, record.id)) == 20
    store.close_store()


def test_a_full_database_fails_the_whole_group_and_says_so(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "ledger.db")
    old = kit.opened(store, reference="old")
    (pages,) = store._file._writer.execute("PRAGMA page_count").fetchone()
    store._file._writer.execute(f"PRAGMA max_page_count = {pages + 4}")

    def overfill() -> None:
        with store.group():
            store.append("changes", [b"small"])
            store.open_action(kit.action("new"), kit.phase(), [kit.batch(big(seq), seq=seq) for seq in range(9)])

    with pytest.raises(Refused, match=r"disk of .* is full") as caught:
        overfill()
    assert caught.value.code == "store_unavailable"
    assert store.last("changes") == 0
    store._file._writer.execute("PRAGMA max_page_count = 100000")
    assert kit.opened(store, reference="new") > old
    store.close_store()


def test_ready_says_no_where_a_claim_finds_nothing(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "ledger.db")
    kit.opened(store, kit.batch(range(3), channel=kit.FCM), kit.batch(range(3), channel=kit.SMS, not_before_ms=50))

    def ready(channel: int, lane: int, now_ms: int) -> bool:
        return store.ready(channels=(channel,), lanes=(lane,), now_ms=now_ms)

    assert [ready(kit.FCM, lane, 10) for lane in (0, 1, 2)] == [True, False, False]
    assert [ready(kit.SMS, 0, now_ms) for now_ms in (49, 50)] == [False, True]
    kit.claim(store, now_ms=10, lease_ms=100)
    assert [ready(kit.FCM, 0, now_ms) for now_ms in (109, 110)] == [False, True], "when its lease runs out"
    assert ready(kit.SMS, 2, kit.END_MS), "what is over is settled by whoever claims anything"
    store.close_store()


def test_only_a_claim_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "ledger.db")
    level, commits = 2, []

    def heard(statement: str) -> None:
        nonlocal level
        if statement.startswith("PRAGMA synchronous = "):
            level = {"NORMAL": 1, "FULL": 2}[statement.rpartition(" ")[2]]
        elif statement == "COMMIT":
            commits.append(level)

    store._file._writer.set_trace_callback(heard)
    kit.opened(store, kit.batch(range(10)), kit.batch(range(10, 20), seq=1))
    (lease,) = kit.claim(store, most=1)
    assert store.intend(lease, kit.everything(lease), now_ms=11)
    kit.claim(store, most=1)
    with store.group():
        store.release("somebody")
    assert commits == [2, 1, 2, 1, 2]
    assert store._file._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close_store()
