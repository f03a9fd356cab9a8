"""Which messages a board shows, in what order, and why: a function of the candidates and the time, with no memory.

Rules:

1. Emergencies win and are alone: while one is on, nothing else of ours is. Several page in the order they were
   received.
2. Else a `full` item overrides `over` and `bottom line`. Of several the highest rank (the smallest number) is on; of
   equal rank all are, alternating in the order they were received.
3. With no `full` item on, the highest ranked `over` items are on, and below them every `bottom line` item, by rank.
4. A document has room for so many items as the board takes. Items on now come first, then by priority, then by
   receipt; the rest waits, and is told so. Items that start later travel in the document, so that a board that loses
   contact shows them.
5. Nothing of ours on: the board's own content returns by itself.

The engine decides with `arbitrate` what to send and what to expect; a board decides with rules 1 to 3 on what it has.
Order is total: priority, time of receipt, action id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from signage.dialects.native import EMERGENCY, Item

Standing: TypeAlias = Literal["on", "outranked", "later", "waits", "over"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one candidate, and why, in words for the operator. `sent`: it stands in the document."""

    item: Item
    standing: Standing
    sent: bool
    why: str


def rank_key(item: Item) -> tuple[int, int, int]:
    return (item.priority, item.received_ms, item.action)


def on_now(items: Sequence[Item], now_ms: int) -> list[Item]:
    """The items that are on, in the order they page: rules 1 to 3."""
    if len(items) == 1:  # as most boards have it, ten thousand times in a second
        return [items[0]] if items[0].start_ms <= now_ms < items[0].end_ms else []
    live = sorted((item for item in items if item.start_ms <= now_ms < item.end_ms), key=rank_key)
    if not live:
        return []
    if live[0].priority == EMERGENCY:
        return [item for item in live if item.priority == EMERGENCY]
    for target in ("full", "over"):
        best = [item for item in live if item.target == target]
        if best:
            shown = [item for item in best if item.priority == best[0].priority]
            return shown if target == "full" else shown + [item for item in live if item.target == "bottom line"]
    return live


def next_change_ms(items: Sequence[Item], now_ms: int) -> int | None:
    """When `on_now` may next answer differently; None: never again."""
    times = [time for item in items for time in (item.start_ms, item.end_ms) if time > now_ms]
    return min(times, default=None)


def arbitrate(candidates: Sequence[Item], now_ms: int, items_max: int) -> list[Verdict]:
    """A verdict for each candidate, those on first. The sent ones, in this order, are the document."""
    on = on_now(candidates, now_ms)
    on_ids = {id(item) for item in on}
    ahead = sorted(candidates, key=lambda item: (id(item) not in on_ids, item.start_ms > now_ms, *rank_key(item)))
    verdicts: list[Verdict] = []
    sent = 0
    for item in ahead:
        if item.end_ms <= now_ms:
            verdicts.append(Verdict(item=item, standing="over", sent=False, why="its end has passed"))
            continue
        if sent >= items_max:
            why = f"the board takes {items_max} items, and these come first"
            verdicts.append(Verdict(item=item, standing="waits", sent=False, why=why))
            continue
        sent += 1
        verdicts.append(_verdict(item, on, id(item) in on_ids, now_ms))
    return sorted(verdicts, key=lambda verdict: _ORDER[verdict.standing])


_ORDER = {"on": 0, "outranked": 1, "later": 2, "waits": 3, "over": 4}


def _verdict(item: Item, on: list[Item], is_on: bool, now_ms: int) -> Verdict:
    if is_on:
        if item.priority == EMERGENCY:
            why = "emergencies come first and alone" if len(on) == 1 else f"one of {len(on)} emergencies, by receipt"
        else:
            peers = sum(other.priority == item.priority for other in on)
            why = (
                f"highest rank, {item.priority}"
                if peers == 1
                else f"alternates with {peers - 1} of rank {item.priority}"
            )
        return Verdict(item=item, standing="on", sent=True, why=why)
    if item.start_ms > now_ms:
        return Verdict(item=item, standing="later", sent=True, why="it starts later")
    first = on[0]
    if first.priority == EMERGENCY:
        why = f"emergency {first.action} is on"
    elif first.priority < item.priority:
        why = f"action {first.action} of rank {first.priority} is on"
    else:
        why = f"action {first.action} takes the full screen"
    return Verdict(item=item, standing="outranked", sent=True, why=why)
