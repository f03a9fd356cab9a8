"""How much one action may ask of a provider a second time. Pure.

When a provider turns rows away, each is tried again; when it turns most away, those attempts multiply what it is asked
just while it can bear least, and they take the quota of others. So an action has a budget of retries on each channel:

1. `FLOOR_ROWS` to begin with, so that a local action never meets it, and `SHARE` of the rows that went for the first
   time.
2. A batch that is over the budget is not given up, since nobody may be missed: it waits the longest pause of the
   settings instead of the one that grows from the first. Fall-back and the action's end come as without it.
3. The budget of an action that is not heard of for long is forgotten, `ACTIONS_MAX` are remembered.

A share of what went, not of a time: a slow channel would be starved by the second, a fast one never held.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

SHARE: Final = 0.25
FLOOR_ROWS: Final = 4_096  # what FCM takes in half a second; two batches
ACTIONS_MAX: Final = 1_024  # by channel; a pair of numbers each


class Budgets:
    """The retries of every action, by channel, in one process."""

    def __init__(self) -> None:
        self._spent: OrderedDict[tuple[int, int], tuple[int, int]] = OrderedDict()  # first attempts, retries

    def went(self, action: int, channel: int, rows: int) -> None:
        """So many rows went for the first time."""
        first, again = self._of(action, channel)
        self._spent[action, channel] = first + rows, again

    def allows(self, action: int, channel: int, rows: int) -> bool:
        """Whether so many rows may soon be tried again; if so, they are off the budget."""
        first, again = self._of(action, channel)
        if again + rows > FLOOR_ROWS + SHARE * first:
            return False
        self._spent[action, channel] = first, again + rows
        return True

    def _of(self, action: int, channel: int) -> tuple[int, int]:
        key = action, channel
        found = self._spent.setdefault(key, (0, 0))
        self._spent.move_to_end(key)
        if len(self._spent) > ACTIONS_MAX:
            self._spent.popitem(last=False)
        return found
