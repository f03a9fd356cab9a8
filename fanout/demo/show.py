"""What the demo shows: progress while it runs, and a summary at the end.

On a terminal the progress is redrawn in place; elsewhere (a log, a pipe) it is a line every `PLAIN_EVERY_S` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fanout import wire

PLAIN_EVERY_S: Final = 2.0


class Progress:
    """Counts, rate and time left of the actions that run. A context: it draws while inside."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._rates: dict[tuple[str, str], tuple[float, int, float]] = {}
        self._plain_at_s = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, views: Sequence[tuple[str, wire.ActionView]]) -> None:
        """Show these actions, each with the name it has in the story."""
        now_s = time.monotonic()
        if self._console.is_terminal:
            self._live.update(Group(*(self._panel(name, view, now_s) for name, view in views)))
        elif now_s - self._plain_at_s >= PLAIN_EVERY_S:
            self._plain_at_s = now_s
            for name, view in views:
                self._console.print("  " + self._line(name, view, now_s), highlight=False, soft_wrap=True)

    def _line(self, name: str, view: wire.ActionView, now_s: float) -> str:
        tally = view.tallies[-1]
        rate, left_s = self._rate(name, tally, now_s)
        boards = _boards_word(view, tally)
        told = f"{_settled(tally):,} of {tally.selected:,}"
        return f"{name}, {tally.phase}: {told} · {rate:,.0f}/s · {left_s:.0f} s left · {boards}"

    def _panel(self, name: str, view: wire.ActionView, now_s: float) -> RenderableType:
        tally = view.tallies[-1]
        rate, left_s = self._rate(name, tally, now_s)
        table = Table.grid(padding=(0, 2))
        table.add_row(
            "all",
            ProgressBar(tally.selected or 1, _settled(tally), width=40),
            f"{_settled(tally):,} of {tally.selected:,}",
        )
        for channel, people in sorted(tally.channels.items()):
            accepted = tally.channels_accepted.get(channel, 0)
            table.add_row(channel, ProgressBar(people or 1, accepted, width=40), f"{accepted:,} of {people:,} accepted")
        table.add_row(
            "boards", ProgressBar(view.boards.selected or 1, view.boards.shown, width=40), _boards_word(view, tally)
        )
        words = f"{rate:,.0f}/s · {left_s:.0f} s left · {tally.failed:,} failed · {tally.unknown:,} unknown"
        return Panel(
            Group(table, Text(words, style="dim")), title=f"{name} · {tally.phase}", title_align="left", width=96
        )

    def _rate(self, name: str, tally: wire.Tally, now_s: float) -> tuple[float, float]:
        key, settled = (name, tally.phase), _settled(tally)
        before_s, before, rate = self._rates.get(key, (now_s, settled, 0.0))
        if now_s - before_s >= 0.5:
            rate = (settled - before) / (now_s - before_s)
            self._rates[key] = (now_s, settled, rate)
        elif key not in self._rates:
            self._rates[key] = (before_s, before, rate)
        return rate, tally.waiting / rate if rate > 0 else 0.0


def _settled(tally: wire.Tally) -> int:
    return tally.selected - tally.waiting


def _boards_word(view: wire.ActionView, tally: wire.Tally) -> str:
    if tally.phase == "result":
        return f"boards {view.boards.cleared:,} of {view.boards.shown:,} cleared"
    return f"boards {view.boards.shown:,} of {view.boards.selected:,} show it"


def board_panel(board: wire.BoardView) -> RenderableType:
    """The lines a board reported, as light on black."""
    width = max((len(line) for line in board.shown), default=0)
    text = Text("\n".join(line.ljust(width) for line in board.shown), style="bold yellow on black")
    return Panel(text, style="on black", expand=False, padding=(0, 1))


def summary_table(actions: Sequence[dict[str, object]]) -> Table:
    """The summary as people read it: one column an action."""
    table = Table("", *(str(action["name"]) for action in actions), title="summary", title_justify="left")
    rows = {
        "selected": "people selected", "accepted": "accepted by providers", "delivered": "receipts: delivered",
        "failed": "failed", "unknown": "unknown",
        "expired": "expired", "cancelled": "cancelled", "reasons": "why failed", "first_ms": "first accepted, ms",
        "p90_ms": "90 % accepted, ms", "last_ms": "last accepted, ms", "boards_selected": "boards selected",
        "boards_shown": "boards confirmed", "boards_last_ms": "last board, ms", "boards_cleared": "boards cleared",
        "result_selected": "result to", "result_accepted": "result accepted",
    }  # fmt: skip
    for key, word in rows.items():
        table.add_row(word, *(_cell(action.get(key)) for action in actions))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count:,} {reason}" for reason, count in value.items()) or "–"
    return f"{value:,}" if isinstance(value, int) else "–" if value is None else str(value)
