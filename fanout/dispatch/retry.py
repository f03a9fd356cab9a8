"""When a batch is tried again. The one retry layer of the engine: adapters and lanes never retry.

`pause_s` doubles with each attempt from `first_s` up to `most_s`, with jitter of a factor 0.5 to 1 derived from the
batch's ids, so that thousands of batches turned away by one outage do not come back in step, and so that a simulation
with the same seed runs the same way. What the provider asked for is obeyed when it is longer, within reason: no
provider may silence us for longer than `ASKED_S_MAX`.
"""

from __future__ import annotations

import hashlib
from typing import Final

ASKED_S_MAX: Final = 15 * 60.0  # the longest window any of our providers counts in


def pause_s(batch: int, attempt: int, *, first_s: float, most_s: float, asked_s: float = 0.0) -> float:
    """Seconds before attempt `attempt + 1` of a batch, when attempt `attempt` (from 1) has ended."""
    doubled = min(most_s, first_s * 2.0 ** min(attempt - 1, 30))
    return max(doubled * (0.5 + 0.5 * jitter(batch, attempt)), min(asked_s, ASKED_S_MAX))


def jitter(*ids: int) -> float:
    """A number in [0, 1) that depends on the ids only, and looks like nothing."""
    digest = hashlib.blake2b(b"".join(number.to_bytes(8, "little") for number in ids), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64
