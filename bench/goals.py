"""What the figures of the delivery benches are to be, so that each run says itself where it falls short.

A goal is of one case of a bench, or of all of them, and of our own system; peers have none. What they are goals on is a
machine that was about three times as fast as those most runs were made on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

EVERY = ""


class Goal(NamedTuple):
    """`figure` of the rows of `case` (`EVERY`: of all) is to be `at_most` or `at_least` that."""

    bench: str
    case: str
    figure: str
    at_most: float | None = None
    at_least: float | None = None

    def met(self, value: float) -> bool:
        """Whether a figure is as it should be."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def __str__(self) -> str:
        bound = f"at most {self.at_most:,g}" if self.at_most is not None else f"at least {self.at_least:,g}"
        return f"{self.figure} {bound}"


_PUSH: Final = [
    Goal("push", channel, figure, at_least=bound)
    for channel in ("fcm", "apns")
    for figure, bound in (("rate_per_s", 35_000), ("x_h2load", 0.4), ("x_httpx", 20))
]
_NATION: Final = "1,600,000 people"

GOALS: Final = (
    *_PUSH,
    Goal("push", "webpush encryption", "rate_per_core_s", at_least=5_000),
    Goal("broadcast", _NATION, "seconds", at_most=60),
    Goal("broadcast", _NATION, "sender_rss_mb", at_most=300),
    Goal("broadcast", EVERY, "lost", at_most=0),
    Goal("broadcast", EVERY, "doubled", at_most=0),
    Goal("broadcast", "local beside", "first_p99_ms", at_most=150),
    Goal("broadcast", "local beside", "last_p99_ms", at_most=2_000),
    Goal("life", "quiet: POST to accepted", "p99_us", at_most=30_000),
    Goal("life", "quiet: POST to first", "p99_us", at_most=60_000),
    Goal("life", "preview through the API", "p99_us", at_most=20_000),
    Goal("recovery", EVERY, "outage_ms", at_most=5_000),
    Goal("recovery", EVERY, "lost", at_most=0),
    Goal("recovery", EVERY, "doubled_ringing", at_most=0),
    Goal("receipts", "1 a body", "rate_per_core_s", at_least=5_000),
    Goal("receipts", "1 a request, at the door", "rate_per_core_s", at_least=5_000),
)


def goals_of(bench: str, row: Mapping[str, Any]) -> Iterator[tuple[Goal, bool]]:
    """The goals that a row has figures for, and whether they are met."""
    if str(row.get("system", "")).partition(",")[0] != "fanout":
        return
    for goal in GOALS:
        if goal.bench == bench and goal.case in (EVERY, row["case"]) and goal.figure in row:
            yield goal, goal.met(row[goal.figure])
