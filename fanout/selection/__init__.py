"""Who an action reaches: `choose(view, query)` gives rows, nearest first. `warm()` compiles all of it."""

from fanout.selection.choose import Selection, choose
from fanout.selection.query import Query
from fanout.selection.warming import warm

__all__ = ["Query", "Selection", "choose", "warm"]
