"""The promises of the house, checked on what is left of a night: the ledger against what was seen from the outside.

Each function is one promise and says which; `check` goes through all of them. What is compared: the ledger's rows, what
phones got (`Phones`), what went over the engine's borders (`Journal`), and what operators and clerks were told.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from fanout import wire
from fanout.results import tallies
from fanout.store.protocol import ActionRecord, PhaseRecord
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import OPEN, REPLACES_IN_PLACE, Reason, State
from fanout.wire import CHANNELS

if TYPE_CHECKING:
    from tests.simulation.town import Town

NOTICE_MS = 300
"""A closed action may still put rows on the wire for this long: until its senders looked at the ledger again."""

BOUNCE_MS = 15_000
"""In so much time a sender has taken up who bounced, whatever processes die and whatever their clocks say."""

UNSENT = (State.CANCELLED, State.EXPIRED, State.FAILED, State.MOVED)


class Row(NamedTuple):
    """One delivery as the ledger has it."""

    channel: int
    row: int
    generation: int
    person: int
    seq: int
    state: State
    reason: Reason


Phases = dict[int, list[Row]]


def check(town: Town, store: SqliteStore) -> None:
    """All promises. Errors: `AssertionError` with what was broken."""
    ledger = {record.id: record for record in store.actions()}
    assert town.accepted.keys() <= ledger.keys(), "an acknowledged action is lost"
    assert town.boards.showing() == [], "a board shows what is over"
    for record in ledger.values():
        phases = store.phases(record.id)
        rows = {phase.phase: list(_rows(town, store, record.id, phase.phase)) for phase in phases}
        everyone_is_accounted_for(town, store, record, rows)
        nobody_is_told_who_was_not_selected(town, record, rows)
        states_are_what_happened(town, record, rows)
        nobody_is_rung_twice(town, record, phases)
        receipts_count(town, record, rows)
        only_who_certainly_got_nothing_moves_on(town, record, phases, rows)
        nothing_goes_out_after_the_close(town, record, phases)
        a_pause_holds(town, record)
        waves_hold_back_the_rest(town, record, phases, rows)
        the_result_goes_to_who_may_have_got_it(town, record, phases, rows)
    the_erased_get_nothing(town)
    the_same_snapshot_gives_the_same_bytes(town)


def _rows(town: Town, store: SqliteStore, action: int, phase: int) -> Iterator[Row]:
    for view in store.batches(action):
        if view.phase == phase:
            columns = (view.rows, view.generations, view.status, view.reason)
            for row, generation, state, reason in zip(*(column.tolist() for column in columns), strict=True):
                person = town.persons[row, generation]
                yield Row(view.channel, row, generation, person, view.seq, State(state), Reason(reason))


def everyone_is_accounted_for(town: Town, store: SqliteStore, record: ActionRecord, rows: Phases) -> None:
    """Everyone selected is in exactly one state at the end, the sums add up, and unknowns are counted."""
    for phase, tally in enumerate(tallies(store.phases(record.id), store.counts(record.id))):
        states = [row.state for row in rows[phase]]
        assert not any(state in OPEN for state in states), f"action {record.id} phase {phase} still waits"
        keys = [(row.channel, row.row, row.generation) for row in rows[phase]]
        assert len(set(keys)) == len(keys), f"action {record.id} phase {phase}: somebody is in the ledger twice"
        ended = tally.accepted + tally.failed + tally.expired + tally.cancelled + tally.unknown
        assert (tally.waiting, tally.selected) == (0, ended), f"the sums do not add up: {tally}"
        assert tally.unknown == states.count(State.UNKNOWN), f"unknowns are not counted: {tally}"
        assert tally.delivered == states.count(State.DELIVERED) <= tally.accepted
    if record.id in town.accepted:
        counted = {row.person for row in rows[0] if row.state is not State.MOVED}
        there = [row for row in rows[0] if row.state is not State.MOVED]
        assert len(counted) == len(there) == town.accepted[record.id].people, "somebody selected is not there, or twice"


def nobody_is_told_who_was_not_selected(town: Town, record: ActionRecord, rows: Phases) -> None:
    for phase, mine in rows.items():
        known = {(CHANNELS[row.channel], row.person) for row in mine}
        assert town.phones.who(record.id, phase) <= known, "somebody got it who was not selected"


def states_are_what_happened(town: Town, record: ActionRecord, rows: Phases) -> None:
    """Accepted is what a provider took; failed, expired, cancelled and moved is what none took."""
    for phase, mine in rows.items():
        for row in mine:
            key = (record.id, phase, CHANNELS[row.channel], row.person)
            arrivals = town.phones.got.get(key, [])
            if row.state in (State.ACCEPTED, State.DELIVERED):
                assert arrivals, f"counted as accepted, and never taken: {key} {row}"
            if row.state in UNSENT and arrivals:
                told = town.post.acknowledged[key] == {False} and row.state in (State.FAILED, State.MOVED)
                assert told, f"counted as unsent, and taken: {key} {row} {arrivals}"


def nobody_is_rung_twice(town: Town, record: ActionRecord, phases: list[PhaseRecord]) -> None:
    """Not by SMS or voice at all; by push never twice with a sound."""
    for (action, phase, channel, person), arrivals in town.phones.got.items():
        if action != record.id:
            continue
        where = f"action {action} phase {phase} {channel} {person}: {arrivals}"
        if CHANNELS.index(channel) not in REPLACES_IN_PLACE:
            assert len(arrivals) <= 1, f"rung twice: {where}"
        assert sum(not arrival.quiet for arrival in arrivals) <= 1, f"sounded twice: {where}"


def receipts_count(town: Town, record: ActionRecord, rows: Phases) -> None:
    """A receipt that was acknowledged is in the ledger; of two that contradict each other, the good one."""
    for phase, mine in rows.items():
        for row in mine:
            said = town.post.acknowledged.get((record.id, phase, CHANNELS[row.channel], row.person))
            if said and True in said:
                assert row.state is State.DELIVERED, f"a receipt was lost: {row}"
            elif said:
                assert row.state in (State.FAILED, State.MOVED), f"a bad receipt was lost: {row}"
            else:
                assert row.state is not State.DELIVERED, f"delivered, and nobody said so: {row}"


def only_who_certainly_got_nothing_moves_on(
    town: Town, record: ActionRecord, phases: list[PhaseRecord], rows: Phases
) -> None:
    """Of whom a provider took a message for; and they do, if there is a way and the time."""
    for phase in phases:
        stop_ms = phase.end_ms
        if phase.name != "result":
            stop_ms = min(stop_ms, town.journal.closed_ms.get(record.id, stop_ms))
        for row in rows[phase.phase]:
            key = (record.id, phase.phase, CHANNELS[row.channel], row.person)
            bounced_ms = town.post.bounced_ms.get(key)
            if bounced_ms is None:
                taken = key in town.phones.got
                assert not (taken and row.state is State.MOVED), f"moved, and it may have rung: {key} {row}"
            elif row.state is State.MOVED:
                town.met["bounced and moved"] += 1
            elif bounced_ms + BOUNCE_MS < stop_ms:
                assert not town.has_other_way(row.person, key[2]), f"bounced, and stays: {key} {row}"


def nothing_goes_out_after_the_close(town: Town, record: ActionRecord, phases: list[PhaseRecord]) -> None:
    """Nor after a phase's end."""
    closed_ms = town.journal.closed_ms.get(record.id)
    for (action, number, *_), arrivals in town.phones.got.items():
        if action != record.id:
            continue
        phase = phases[number]
        for one in arrivals:
            assert one.own_ms <= phase.end_ms, f"sent after the end {phase.end_ms}: {one}"
            if phase.name != "result" and closed_ms is not None:
                assert one.sent_ms <= closed_ms + NOTICE_MS, f"sent after the close at {closed_ms}: {one}"


def a_pause_holds(town: Town, record: ActionRecord) -> None:
    for from_ms, to_ms in town.pauses.get(record.id, []):
        for (action, *_), arrivals in town.phones.got.items():
            late = [one for one in arrivals if action == record.id and from_ms + NOTICE_MS < one.sent_ms < to_ms]
            assert not late, f"sent while paused from {from_ms} to {to_ms}: {late}"


def waves_hold_back_the_rest(town: Town, record: ActionRecord, phases: list[PhaseRecord], rows: Phases) -> None:
    """No wave goes before it was let go."""
    asked = wire.decode_msgpack(record.body, wire.ActionRequest).waves
    if asked is None:
        return
    let_go = max(asked.free, town.journal.let_go.get(record.id, 0))
    for phase in phases:
        for row in rows[phase.phase]:
            if phase.name != "result" and row.seq >= let_go:
                key = (record.id, phase.phase, row.channel, row.row, row.generation)
                assert key not in town.journal.intended, f"wave {row.seq} went, {let_go} were let go: {row}"


def the_result_goes_to_who_may_have_got_it(
    town: Town, record: ActionRecord, phases: list[PhaseRecord], rows: Phases
) -> None:
    """To all whom a provider took a message for, and to nobody else but whose case was open or is unknown."""
    results = [phase.phase for phase in phases if phase.name == "result"]
    assert len(results) == (record.state == "closed"), f"{record.state} with {len(results)} results"
    for result in results:
        people = {row.person for row in rows[result]}
        # what was on the wire at the close counts, also where it is refused a moment later
        perhaps = {town.persons[key] for key in town.journal.on_wire_at_close[record.id]}
        for earlier in range(result):
            perhaps |= {person for _, person in town.phones.who(record.id, earlier)}
            perhaps |= {row.person for row in rows[earlier] if row.state is State.UNKNOWN}
        assert people <= perhaps, f"told a result of what was never for them: {people - perhaps}"
        for earlier in range(result):
            for channel, person in town.phones.who(record.id, earlier):
                # a supplier that says a message never rang, and corrects itself only after the close, was believed
                silent = False in town.post.acknowledged.get((record.id, earlier, channel, person), ())
                assert silent or person in people, f"got the action by {channel}, and not its result: {person}"


def the_erased_get_nothing(town: Town) -> None:
    """Not from batches either that were planned before: addresses are read at the last moment."""
    for (*where, person), arrivals in town.phones.got.items():
        if person in town.erased_ms:
            late = [one for one in arrivals if one.read_ms > town.erased_ms[person]]
            assert not late, f"person {person} was erased at {town.erased_ms[person]}, and got {where}: {late}"


def the_same_snapshot_gives_the_same_bytes(town: Town) -> None:
    for twins in town.twins:
        for one, other in pairwise(town.journal.plans[each] for each in twins):
            if one.version == other.version:
                assert one.rows == other.rows, f"actions {twins} have one snapshot, and two selections"
                town.met["twins"] += 1
