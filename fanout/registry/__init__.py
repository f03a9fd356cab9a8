"""Who takes part: columns in memory, contacts on disk, a log of changes, snapshots.

`Registry` is for the one process that writes and selects; `View` is what it hands to readers; `Replica` is what a
sender has of it. See `registry` for the rules, `ingest` for the import format.
"""

from fanout.registry.packed import Packed
from fanout.registry.registry import Registry
from fanout.registry.replica import Replica
from fanout.registry.view import View

__all__ = ["Packed", "Registry", "Replica", "View"]
