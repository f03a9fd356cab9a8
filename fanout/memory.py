"""What a process does about its memory once it has started, and after large things are gone.

Memory is given back to the system that the C library would keep: glibc cuts arrays of some megabytes out of its own
heaps, and of those it returns only what lies at the end. A new base of the registry is hundreds of megabytes of
columns, sorted and thrown away: without this an engine that made one keeps them for good (1.6 million people: 430 MB
after a rebuild, 288 with it; 589 MB after a compaction, 195 with it).
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

COLLECT_EVERY: Final = (20_000, 20, 20)
"""Objects more than were freed, then collections of the younger, before each is looked at (Python: 700, 10, 10)."""


def give_back() -> None:
    """Return free pages to the system, where the C library can (glibc). Blocking, some milliseconds; any thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def settle() -> None:
    """What lives now stays, and the collector looks at it no more: to be called when a process is ready.

    An engine has 170,000 objects by then, nearly all of them modules'; a full collection of these held every thread of
    the process for 0.3 s on a slow core, in the middle of an action. What comes after is looked at in larger heaps:
    reports of boards and outcomes are freed by their count alone, and looking for rings among them every 700 objects
    was a twentieth of what ten thousand boards cost.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)


def spare_scipy() -> None:
    """numba looks for scipy's BLAS when the first kernel is loaded, and where it finds it loads half of scipy.

    No kernel of ours calls it; it took 0.3 s of each process. To be called by a program, before its first kernel.
    """
    sys.modules.setdefault("scipy", None)  # type: ignore[arg-type]
