"""What a sender would claim now, and who may: the look at the ledger in its thread, or the task that serves.

Two that claim by one count would have twice as much in hand as there is room for. So the wishes are had by one at a
time. Rules:

1. `serve` offers what it counted after its own claims. A look takes it and claims, in whatever thread it runs in.
2. While a look has them, until what it claimed is in hand, nobody counts (`withdraw` says no). Who wanted to is told
   by `give_back`, and counts then.
3. A look that claimed nothing gives back what it took, and the next may use it: between two counts room only grows.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from fanout.dispatch.routes import Route


class Wish(NamedTuple):
    """How many batches of which lanes a channel would take now."""

    route: Route
    lanes: tuple[int, ...]
    most: int


class Wishes:
    """See the module. `take` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offered: Sequence[Wish] = ()
        self._taken = self._refused = False

    def __repr__(self) -> str:
        return f"<Wishes {'taken' if self._taken else list(self._offered)}>"

    def withdraw(self) -> bool:
        """Nobody else claims from now on, until the next `offer`; False while a look does."""
        with self._lock:
            if self._taken:
                self._refused = True
                return False
            self._offered = ()
            return True

    def offer(self, wishes: Sequence[Wish]) -> None:
        """What a look may claim; after a `withdraw`."""
        with self._lock:
            self._offered = wishes

    def take(self) -> Sequence[Wish]:
        """All that is offered, to claim by; `give_back` must follow unless it is nothing."""
        with self._lock:
            wishes, self._offered = self._offered, ()
            self._taken = bool(wishes)
            return wishes

    def give_back(self, wishes: Sequence[Wish], *, used: bool) -> bool:
        """The end of a `take`, once what was claimed is in hand; whether it is time to count again."""
        if not wishes:
            return False
        with self._lock:
            recount = used or self._refused
            self._offered = () if recount else wishes
            self._taken = self._refused = False
            return recount
