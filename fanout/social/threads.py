"""What one account says of one action, post by post, and what may be done next. Pure.

A *thread* is the start of an action on one account and what follows it: news, the result, as replies. Each of its
*steps* is in a state of the ledger's own table (`store/states.py`), so a post lives by the rules of a delivery:

1. A step is `INTENDED`, durably, before it is on the wire. What was intended when the process died, or was not
   answered, may be there: it is `UNKNOWN` and never posted again, unless the network knows our key again; then it is
   `AGAIN` for as long as that is so, counted from the first time it went.
2. Steps go one after the other; none starts while an earlier one is open. A reply hangs on the first post that was
   taken; where there is none it stands alone, since every text makes sense alone.
3. After the end or the close nothing goes out but the result, and that only where an earlier post may be seen.
4. What was taken can be removed: at once when the action is cancelled or somebody asks, later by a setting. A removal
   may be tried again without harm. Unknown posts have no id and cannot be removed; they are shown as unknown.

A thread is a document of the store. Functions take one and give the next; nothing here reads a clock.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import replace

from fanout.channels.posts import Posted
from fanout.store.states import OPEN, REACHED, TABLE, Event, Reason, State

TAKEN: Final = (State.ACCEPTED, State.DELIVERED)


class Removal(IntEnum):
    """Whether a post that was taken stays."""

    KEPT = 0
    DUE = 1
    REMOVED = 2
    REFUSED = 3


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One post. `photo`: the hash of its picture; `first_ms`: when it first went; `post`, `url`: as the network says.

    `due_ms`: not before. `pictured`: whether the picture went with it; `unpictured`: why it did not.
    """

    name: str
    phase: int
    text: str
    end_ms: int
    photo: str = ""
    state: State = State.PENDING
    reason: Reason = Reason.NONE
    attempt: int = 0
    due_ms: int = 0
    first_ms: int = 0
    at_ms: int | None = None
    post: str = ""
    url: str = ""
    pictured: bool = False
    unpictured: Reason = Reason.NONE
    removal: Removal = Removal.KEPT


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """One account, one action. `over`: how the action ended; `remove_ms`: when its posts go, None: never."""

    action: int
    account: str
    network: str
    language: str
    lane: int
    alt: str
    steps: tuple[Step, ...]
    over: Event | None = None
    remove_ms: int | None = None
    remove_due_ms: int = 0
    remove_attempt: int = 0


class Say(NamedTuple):
    """Post this step, as a reply to `reply_to` if there is one."""

    at: int
    reply_to: str


class Unsay(NamedTuple):
    """Remove this step's post."""

    at: int


class Later(NamedTuple):
    """Nothing before this moment, and perhaps not then."""

    at_ms: int


Next: TypeAlias = Say | Unsay | Later | None


def told(thread: Thread, step: Step) -> Thread:
    """With one more post; one of that phase that is there already stays as it is."""
    if any(known.phase == step.phase for known in thread.steps):
        return thread
    return replace(thread, steps=(*thread.steps, step))


def until(thread: Thread, end_ms: int) -> Thread:
    """Its action ends then. A post that may have gone keeps the end it went with, by which its network knows it."""
    steps = tuple(
        replace(step, end_ms=end_ms)
        if step.name != "result" and step.state is State.PENDING and not step.first_ms
        else step
        for step in thread.steps
    )
    return thread if steps == thread.steps else replace(thread, steps=steps)


def ended(thread: Thread, event: Event, remove_ms: int | None) -> Thread:
    """The action is over (`END`, `CLOSE`): what is unsent stops, but for the result; the first word about it counts."""
    steps = tuple(
        _moved(step, event, _WHY[event])
        if step.name != "result" and step.state in (State.PENDING, State.AGAIN)
        else step
        for step in thread.steps
    )
    if thread.over is None:
        return replace(thread, steps=steps, over=event, remove_ms=remove_ms)
    return replace(thread, steps=steps)


def withdrawn(thread: Thread, now_ms: int) -> Thread:
    """Everything that was posted is to be removed now, and nothing more is posted."""
    return replace(ended(thread, Event.CLOSE, now_ms), remove_ms=now_ms, remove_due_ms=0, remove_attempt=0)


def crashed(thread: Thread, *, same_key: bool) -> Thread:
    """Who had it in hand died: what was on the wire is unknown, or may be asked again."""
    event = Event.CRASH_REPLACES if same_key else Event.CRASH_RINGS
    return _stopped_if_over(
        replace(
            thread,
            steps=tuple(
                _moved(step, event, Reason.CRASH) if step.state is State.INTENDED else step for step in thread.steps
            ),
        )
    )


def by_the_clock(thread: Thread, now_ms: int, same_key_s: int) -> Thread:
    """What time alone changes: ends that have passed, keys that are forgotten, results that nobody needs."""
    steps = list(thread.steps)
    removing = thread.remove_ms is not None and now_ms >= thread.remove_ms
    for at, step in enumerate(steps):
        waiting = step.state in (State.PENDING, State.AGAIN)
        forgotten = step.state is State.AGAIN and now_ms >= step.first_ms + 1_000 * same_key_s
        if waiting and (now_ms >= step.end_ms or forgotten):
            steps[at] = _moved(step, Event.END, Reason.END)
        elif waiting and (removing or (step.name == "result" and not _open(steps[:at]) and not _seen(steps[:at]))):
            steps[at] = _moved(step, Event.CLOSE, Reason.CLOSED)
        elif removing and _removable(step):
            steps[at] = replace(step, removal=Removal.DUE)
    return thread if tuple(steps) == thread.steps else replace(thread, steps=tuple(steps))


def following(thread: Thread, now_ms: int) -> Next:
    """What to do next with a thread that `by_the_clock` has seen; None: nothing until something happens."""
    for at, step in enumerate(thread.steps):
        if step.state is State.INTENDED:
            return None
        if step.state in OPEN:
            if step.due_ms > now_ms:
                return Later(step.due_ms)
            return Say(at, next((known.post for known in thread.steps[:at] if known.post), ""))
    for at, step in enumerate(thread.steps):
        if step.removal is Removal.DUE:
            return Unsay(at) if thread.remove_due_ms <= now_ms else Later(thread.remove_due_ms)
    if thread.remove_ms is not None and any(map(_removable, thread.steps)):
        return Later(thread.remove_ms)
    return None


def finished(thread: Thread) -> bool:
    """Whether nothing will ever be done with it again, unless somebody asks for a removal."""
    return (
        thread.over is not None
        and not _open(thread.steps)
        and not any(step.removal is Removal.DUE for step in thread.steps)
        and (thread.remove_ms is None or not any(map(_removable, thread.steps)))
    )


def intended(thread: Thread, at: int, now_ms: int) -> Thread:
    """The step is about to go to the wire."""
    step = _moved(thread.steps[at], Event.INTEND, thread.steps[at].reason)
    return _with(thread, at, replace(step, first_ms=step.first_ms or now_ms))


def answered(
    thread: Thread,
    at: int,
    said: Posted,
    *,
    now_ms: int,
    same_key_s: int,
    last_attempt: bool,
    due_ms: int,
    pictured: bool = False,
    unpictured: Reason = Reason.NONE,
) -> Thread:
    """What came of a step that was on the wire."""
    step = thread.steps[at]
    assert step.state is State.INTENDED
    doubtful = step.reason is Reason.CRASH  # an earlier try may have been taken
    event, reason = said.event, said.reason
    if event is Event.RETRY and last_attempt:
        event = Event.REJECT
    if event is Event.TIME_OUT and same_key_s:
        event, reason = Event.CRASH_REPLACES, Reason.CRASH
    after = State(int(TABLE[step.state, event]))
    if doubtful and after is State.PENDING:
        after, reason = State.AGAIN, Reason.CRASH
    if doubtful and after is State.FAILED:
        after = State.UNKNOWN
    step = replace(step, state=after, reason=reason, attempt=step.attempt + 1, due_ms=due_ms)
    if after is State.ACCEPTED:
        step = replace(step, reason=Reason.NONE, at_ms=now_ms, post=said.post, url=said.url)
        step = replace(step, pictured=pictured, unpictured=unpictured)
    return _stopped_if_over(_with(thread, at, step))


def removed(thread: Thread, at: int, event: Event, *, due_ms: int, last_attempt: bool) -> Thread:
    """What came of a removal."""
    if event is Event.RETRY and not last_attempt:
        return replace(thread, remove_due_ms=due_ms, remove_attempt=thread.remove_attempt + 1)
    done = Removal.REMOVED if event is Event.ACCEPT else Removal.REFUSED
    return replace(_with(thread, at, replace(thread.steps[at], removal=done)), remove_due_ms=0, remove_attempt=0)


# --- inside ---------------------------------------------------------------------------------------------------------

_WHY: Final = {Event.END: Reason.END, Event.CLOSE: Reason.CLOSED}


def _moved(step: Step, event: Event, reason: Reason) -> Step:
    after = State(int(TABLE[step.state, event]))
    return replace(step, state=after, reason=Reason.CRASH if after is State.UNKNOWN else reason)


def _with(thread: Thread, at: int, step: Step) -> Thread:
    return replace(thread, steps=(*thread.steps[:at], step, *thread.steps[at + 1 :]))


def _stopped_if_over(thread: Thread) -> Thread:
    return thread if thread.over is None else ended(thread, thread.over, thread.remove_ms)


def _open(steps: list[Step] | tuple[Step, ...]) -> bool:
    return any(step.state in OPEN for step in steps)


def _seen(steps: list[Step]) -> bool:
    return bool(np.isin([step.state for step in steps], REACHED).any())


def _removable(step: Step) -> bool:
    return step.state in TAKEN and step.removal is Removal.KEPT and bool(step.post)
