"""The registry against a dict, through restarts, compactions and crashes at every step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanout import limits, wire
from fanout.errors import Refused
from fanout.geo import EVERYONE, circle
from fanout.registry import view as view_module
from fanout.registry.columns import choices_of
from fanout.registry.entries import DEAD_STREAM, READ_MOST, DeadAddresses, digest_of, encode_dead
from fanout.registry.registry import Registry
from fanout.registry.replica import Replica
from fanout.registry.view import View
from fanout.selection import Query, choose
from tests.registry.naive_registry import Crash, Held, MemoryLog, NaiveRegistry, address_of, person

SMS, APNS = wire.CHANNELS.index("sms"), wire.CHANNELS.index("apns")


@contextmanager
def opened(folder: Path, log: MemoryLog) -> Iterator[Registry]:
    registry = Registry.open(folder, log)
    try:
        yield registry
    finally:
        registry.close()


def check(view: View, replica: Replica, model: dict[str, int]) -> None:
    """As `check_held`, of people who have every address that `person` gives them."""
    check_held(view, replica, {name: Held(0, number) for name, number in model.items()})


def check_held(view: View, replica: Replica, model: dict[str, Held]) -> None:
    """The view and a sender's replica hold exactly what the model holds: people, places, addresses, each findable."""
    assert view.people == len(model)
    names = sorted(model)
    rows = view.row_of(names)
    assert (rows >= 0).all()
    assert view.id_of(rows.astype(np.uint32)) == names
    held = [model[name] for name in names]
    everyone = choose(view, Query(shape=EVERYONE)).rows
    reached = [row for row, one in zip(rows.tolist(), held, strict=True) if len(one.dropped) < 2]
    assert sorted(everyone.tolist()) == sorted(reached)
    lon, lat = view.homes()
    at = view.take("generation", rows)
    assert np.rint(lon[rows] * 1_000).tolist() == [4_000 + one.number for one in held]
    assert (lat[rows] == 52.0).all()
    replica.refresh()
    rows32 = rows.astype(np.uint32)
    for channel in (SMS, APNS):
        wanted = ["" if channel in one.dropped else address_of(channel, one.number) for one in held]
        assert replica.addresses(channel, rows32, at).texts() == wanted
    assert replica.addresses(SMS, rows32, at + np.uint16(1)).data.size == 0, "another generation gets nothing"
    choices = [[channel for channel in (SMS, APNS) if channel not in one.dropped] for one in held]
    assert [choices_of(word) for word in view.take("preference", rows).tolist()] == choices
    assert [choices_of(word) for word in replica.preferences(rows32, at).tolist()] == choices
    assert view.take("channels", rows).tolist() == [sum(1 << channel for channel in one) for one in choices]
    assert not replica.preferences(rows32, at + np.uint16(1)).any()


# --- against a dict ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([f"p{n}" for n in range(6)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.dictionaries(NAMES, st.integers(0, 1), min_size=1, max_size=4)),
        st.tuples(st.just("erase"), st.lists(NAMES, max_size=3)),
        st.tuples(st.just("read"), st.lists(NAMES, min_size=1, max_size=4, unique=True)),
        st.tuples(
            st.sampled_from(["dead", "dead", "dead and taken in"]),
            st.tuples(st.sampled_from([SMS, APNS]), st.integers(0, 4)),
        ),
        st.tuples(st.sampled_from(["take", "take and crash"]), st.none()),
        st.tuples(st.sampled_from(["compact", "compact", "rebuild", "reuse", "sender restarts"]), st.none()),
        st.tuples(st.just("restart"), st.none()),
    ),
    min_size=2,
    max_size=13,
)


@settings(max_examples=2_000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(STEPS)
def test_any_history_gives_what_a_dict_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    """Registered, erased, read by a sender, declared dead, registered again, in any order, with crashes between."""
    folder, log, model = tmp_path_factory.mktemp("registry"), MemoryLog(), NaiveRegistry()

    def open_it() -> Registry:
        return Registry.open(folder, log, clock_ms=lambda: model.now_ms)

    registry, replica = open_it(), Replica.open(folder, log)
    held: list[tuple[View, int, list[str]]] = []
    for what, given_ in steps:
        view = registry.view()
        model.now_ms += 1
        held.append((view, view.people, view.id_of(np.arange(view.rows, dtype=np.uint32))))
        match what:
            case "upsert":
                registry.upsert([person(name, number) for name, number in given_.items()])
                model.upsert(given_)
            case "erase":
                assert registry.erase(given_) == model.erase(given_)
            case "read":
                model.note_rows(view)
                model.read([name for name in given_ if name in model.people])
            case "dead":
                tell_dead(log, model, *given_)
            case "dead and taken in":
                model.note_rows(view)
                model.read(sorted(model.people)[:3])
                tell_dead(log, model, *given_)
                assert registry.take_dead() == model.take()
            case "take":
                assert registry.take_dead() == model.take()
            case "take and crash":
                log.crashes = True  # after the registry's own entry, before the news is forgotten
                with suppress(Crash):
                    registry.take_dead()
                log.crashes = False
                model.take()
                registry.close()
                registry = open_it()
            case "compact":
                registry.compact()
            case "rebuild":
                registry.rebuild()
            case "reuse":
                registry.reuse(np.empty(0, np.uint32))
            case "sender restarts":
                replica = Replica.open(folder, log)
            case _:
                registry.close()
                registry = open_it()
        if what not in ("upsert", "read", "dead"):  # what these did is seen after the next step, and at the end
            check_held(registry.view(), replica, model.people)
        assert registry.dropped() == {(wire.CHANNELS[at], "token_dead"): n for at, n in model.counts.items()}
    check_held(registry.view(), replica, model.people)
    for view, people, ids in held:
        assert view.people == people
        assert view.id_of(np.arange(view.rows, dtype=np.uint32)) == ids, "a view that is held does not change"
    registry.close()


def tell_dead(log: MemoryLog, model: NaiveRegistry, channel: int, ago_ms: int) -> None:
    """A sender says that the addresses it read last are dead: those of people who had one, by their rows then.

    `ago_ms`: so long before they were read, the provider says; 0: it does not say.
    """
    tried = [(name, one) for name, one in model.tried if channel not in one.dropped]
    if not tried:
        return
    places = [model.place_of(name, one) for name, one in tried]
    rows, generations = [row for row, _ in places], [generation for _, generation in places]
    digests = [digest_of(address_of(channel, one.number).encode()) for _, one in tried]
    since_ms = model.tried_ms - ago_ms
    dead = DeadAddresses(
        channel=channel, at_ms=model.tried_ms, rows=rows, generations=generations, digests=digests,
        since_ms=[since_ms] * len(rows) if ago_ms else [],
    )  # fmt: skip
    log.append(DEAD_STREAM, [encode_dead(dead)])
    model.dead += [(channel, name, one, since_ms) for name, one in tried]


def test_what_was_registered_again_since_stays_also_after_a_snapshot(tmp_path: Path) -> None:
    """The registration is a column of the snapshot, so that a provider may name a moment long ago."""
    log, now_ms = MemoryLog(), 100
    registry = Registry.open(tmp_path, log, clock_ms=lambda: now_ms)
    registry.upsert([person("a", 1), person("b", 2)])
    now_ms = 200
    registry.upsert([person("a", 1)])
    registry.compact()
    registry.close()
    registry = Registry.open(tmp_path, log, clock_ms=lambda: now_ms)
    row_a, row_b = registry.view().row_of(["a", "b"]).tolist()
    digests = [digest_of(address_of(APNS, number).encode()) for number in (1, 2)]
    for at_ms, dropped in ((99, 0), (150, 1), (200, 1)):
        dead = DeadAddresses(
            channel=APNS, at_ms=300, rows=[row_a, row_b], generations=[0, 0], digests=digests,
            since_ms=[at_ms, at_ms], reason="token_invalid",
        )  # fmt: skip
        log.append(DEAD_STREAM, [encode_dead(dead)])
        assert registry.take_dead() == dropped, at_ms
    assert registry.dropped() == {("apns", "token_invalid"): 2}
    registry.compact()
    registry.close()
    registry = Registry.open(tmp_path, log)
    assert registry.dropped() == {("apns", "token_invalid"): 2}
    registry.close()


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_stable_and_reused_only_when_free(tmp_path: Path) -> None:
    log = MemoryLog()
    with opened(tmp_path, log) as registry:
        registry.upsert([person("a", 1), person("b", 2)])
        rows = registry.view().row_of(["a", "b"])
        registry.upsert([person("b", 3), person("c", 4)])
        registry.compact()
        assert registry.view().row_of(["a", "b"]).tolist() == rows.tolist()
        registry.erase(["a", "b"])
        registry.upsert([person("d", 5)])
        assert registry.view().row_of(["d"])[0] not in rows, "nobody said the rows are free"
        assert registry.reuse(np.array([rows[1]], np.uint32)) == 1, "an open action refers to b's row"
        registry.upsert([person("e", 6)])
        assert registry.view().row_of(["e"])[0] == rows[0]
        assert registry.view().take("generation", rows).tolist() == [1, 0]
        replica = Replica.open(tmp_path, log)
        row = rows[:1].astype(np.uint32)
        assert replica.addresses(SMS, row, np.array([0], np.uint16)).texts() == [""], "the first holder is gone"
        assert replica.addresses(SMS, row, np.array([1], np.uint16)).texts() == ["+31610000006"]
    with opened(tmp_path, log) as registry:
        assert registry.view().row_of(["e"])[0] == rows[0]


def test_a_sender_follows_through_a_trimmed_log(tmp_path: Path) -> None:
    log = MemoryLog()
    with opened(tmp_path, log) as registry:
        replica = Replica.open(tmp_path, log)
        for number in range(5):
            registry.upsert([person("a", number)])
            registry.compact()
        registry.upsert([person("b", 9)])
        registry.erase(["a"])
        assert replica.refresh()
        assert not replica.refresh()
        answer = replica.addresses(SMS, np.array([0, 1, 7], np.uint32), np.zeros(3, np.uint16))
        assert answer.texts() == ["", "+31610000009", ""]


def test_a_read_that_fails_half_way_hides_no_erasure(tmp_path: Path) -> None:
    """A sender has a page of the log, and the ledger is away as it asks for the next."""
    log = MemoryLog()
    with opened(tmp_path, log) as registry:
        registry.upsert([person("a"), person("b")])
        registry.compact()
        replica = Replica.open(tmp_path, log)
        registry.erase(["a"])
        for number in range(1, READ_MOST):
            registry.upsert([person("b", number)])
        read, asked = log.read, 0

        def read_once(stream: str, *, after: int, most: int) -> list[tuple[int, bytes]]:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise Refused("store_unavailable", detail="away")
            return read(stream, after=after, most=most)

        log.read = read_once  # type: ignore[method-assign]
        with pytest.raises(Refused):
            replica.refresh()
        log.read = read  # type: ignore[method-assign]
        replica.refresh()
        rows = np.array([0, 1], np.uint32)
        texts = ["", f"+3161000{READ_MOST - 1:04d}"]
        assert replica.addresses(SMS, rows, np.zeros(2, np.uint16)).texts() == texts


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("people", "code", "where"),
    [
        ([person("a"), person("a")], "field_invalid", "participants[1].id"),
        ([person("a", addresses=[wire.Address(channel="sms", value="0612345678")])], "field_invalid",
         "participants[0].addresses[0].value"),
        ([person("a", addresses=[wire.Address(channel="sms", value="+9991234567")])], "field_invalid",
         "participants[0].addresses[0].value"),
        ([person("a", addresses=[wire.Address(channel="apns", value="../../3/device/x")])], "field_invalid",
         "participants[0].addresses[0].value"),
        ([person("a", addresses=[wire.Address(channel="fcm", value='"},"x":{"' * 3)])], "field_invalid",
         "participants[0].addresses[0].value"),
        ([person("a", addresses=[wire.Address(channel="sms", value="+31612345678\n")])], "field_invalid",
         "participants[0].addresses[0].value"),
        ([person("b"), person("a", timezone="Europe/Atlantis")], "field_invalid", "participants[1].timezone"),
        ([person("b"), person("a", kinds=["picnic"])], "kind_unknown", "participants[1].kinds"),
        ([person("a", tenants=["nobody"])], "tenant_unknown", "participants[0].tenants"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_happens(
    tmp_path: Path, people: list[wire.Participant], code: str, where: str
) -> None:
    log = MemoryLog()
    registry = Registry.open(tmp_path, log, kinds=["search"], tenants=["police"])
    with pytest.raises(Refused) as refusal:
        registry.upsert(people)
    assert (refusal.value.code, refusal.value.where) == (code, where)
    assert registry.view().people == log.last("registry") == registry.view().version == 0
    registry.close()


def test_a_batch_has_a_limit_and_a_folder_one_writer(tmp_path: Path) -> None:
    with opened(tmp_path, MemoryLog()) as registry:
        with pytest.raises(Refused, match="batch_too_large"):
            registry.upsert([person("a")] * (limits.PARTICIPANTS_PER_REQUEST_MAX + 1))
        with pytest.raises(Refused, match="registry_locked"):
            Registry.open(tmp_path, MemoryLog())


# --- live positions ---------------------------------------------------------------------------------------------------


def test_live_positions_are_in_no_file(tmp_path: Path) -> None:
    log = MemoryLog()
    with opened(tmp_path, log) as registry:
        registry.upsert([person("a", 1), person("b", 2)])
        registry.compact()
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        moved = [wire.LivePosition(id=name, lon=6.5, lat=53.2, at_ms=1_000) for name in ("a", "x")]
        assert registry.positions(moved, 2_000) == (1, 1)
        near = Query(shape=circle(6.5, 53.2, 10.0), at_ms=2_000, live="beside")
        assert len(choose(registry.view(), near)) == 1
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert log.last("registry") == 1
        registry.erase(["a"])
        assert len(choose(registry.view(), near)) == 0, "an erased participant is gone at once"
    with opened(tmp_path, log) as registry:
        assert registry.view().live is None


# --- crashes ----------------------------------------------------------------------------------------------------------


def test_a_crash_at_any_step_leaves_a_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write, sync, rename and log call of a compaction and an import is the last one, in turn."""
    steps = 0
    for last in range(200):
        folder, log = tmp_path / str(last), MemoryLog()
        registry = Registry.open(folder, log)
        registry.upsert([person(f"p{n}", n) for n in range(6)])
        registry.compact()
        registry.upsert([person("p1", 101), person("p6", 6)])
        registry.erase(["p2"])
        model = {"p0": 0, "p1": 101, "p3": 3, "p4": 4, "p5": 5, "p6": 6}
        replica = Replica.open(folder, log)
        with monkeypatch.context() as patched:
            done = _crash_after(patched, log, last)
            with suppress(Crash):
                registry.compact()
            steps = max(steps, done())
        registry.close()
        with opened(folder, log) as again:
            check(again.view(), replica, model)
            check(again.view(), Replica.open(folder, log), model)
            again.upsert([person("p7", 7)])
            check(again.view(), replica, model | {"p7": 7})
        if done() < last:
            break
    else:
        pytest.fail("the compaction never ended")
    assert steps > 15, "the crash points are those of a whole compaction"


def _crash_after(patched: pytest.MonkeyPatch, log: MemoryLog, last: int) -> Callable[[], int]:
    """Let `last` calls that change the disk or the log happen; the next one is a crash. Returns a count of calls."""
    calls = 0

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def step(*given_: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls > last:
                raise Crash
            return call(*given_, **named)

        return step

    for target, name in (
        (os, "write"), (os, "fsync"), (os, "open"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"),
        (log, "append"), (log, "trim"),
    ):  # fmt: skip
        patched.setattr(target, name, counted(getattr(target, name)))
    return lambda: calls


@pytest.mark.parametrize("what", ["compact", "rebuild"])
def test_writers_go_on_while_a_base_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    log = MemoryLog()
    with opened(tmp_path, log) as registry:
        registry.upsert([person(f"p{n}", n) for n in range(6)])
        merged = view_module.merged

        def meanwhile(view: View) -> object:
            registry.upsert([person("p1", 101), person("p9", 9)])
            registry.erase(["p2"])
            return merged(view)

        monkeypatch.setattr(view_module, "merged", meanwhile)
        getattr(registry, what)()
        model = {"p0": 0, "p1": 101, "p3": 3, "p4": 4, "p5": 5, "p9": 9}
        check(registry.view(), Replica.open(tmp_path, log), model)
        assert registry.statistics()["delta"] == 3, "what changed meanwhile, and nothing else"
    with opened(tmp_path, log) as registry:
        check(registry.view(), Replica.open(tmp_path, log), model)


def test_a_log_that_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    with opened(tmp_path, log) as registry:
        registry.upsert([person("a", 1)])
        before = registry.view()
        with monkeypatch.context() as patched:
            patched.setattr(log, "append", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="disk full"):
                registry.upsert([person("b", 2)])
            with pytest.raises(OSError, match="disk full"):
                registry.erase(["a"])
        assert registry.view() is before
        registry.upsert([person("c", 3)])
        check(registry.view(), Replica.open(tmp_path, log), {"a": 1, "c": 3})


def test_a_damaged_snapshot_is_refused(tmp_path: Path) -> None:
    log = MemoryLog()
    with opened(tmp_path, log) as registry:
        registry.upsert([person("a", 1)])
        registry.compact()
    for name in ("people", "places", "contacts"):
        path = next(tmp_path.glob(f"snapshot-*/{name}"))
        good = path.read_bytes()
        path.write_bytes(good[:4096] + bytes([good[4096] ^ 1]) + good[4097:])
        with pytest.raises(Refused, match="file_checksum"):
            Registry.open(tmp_path, log)
        path.write_bytes(good)
    assert path.stat().st_mode & 0o777 == 0o600, "contacts are for this user only"
