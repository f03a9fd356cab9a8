"""How long a busy lane waits between two turns, in which answers gather: what a turn costs beside its rows is as much
as thirty of them. Pure.

A turn too early finds next to nothing; one too late leaves the provider without work. Both show in how much of what was
in flight a turn finds answered, so no clock is needed, and no round trip is measured: the gap grows while that is less
than `FEW`, and shrinks as soon as it is more than `MANY`, for then the provider waits for us. On a machine whose cores
others have as well that halves the turns; beside a quick provider it is as short as it may be.
"""

from __future__ import annotations

from typing import Final

LEAST_S: Final = 0.004  # 80 rows of 20,000 a second
MOST_S: Final = 0.016  # what a row waits for its turn, however slow a provider answers
STEP: Final = 1.25
FEW: Final = 0.25  # of what is in flight
MANY: Final = 0.5


class Gap:
    """The gap of one lane, `s` seconds now."""

    def __init__(self) -> None:
        self.s = LEAST_S

    def __repr__(self) -> str:
        return f"<Gap {1000 * self.s:.1f} ms>"

    def learn(self, in_flight: int, answered: int) -> None:
        """A turn found so many of those in flight answered."""
        if answered < FEW * in_flight:
            self.s = min(MOST_S, self.s * STEP)
        elif answered > MANY * in_flight:
            self.s = max(LEAST_S, self.s / STEP)
