"""Arbitration, slow and obvious: which (action) ids are on, from the rules of the contract's text."""

from __future__ import annotations

from signage.dialects.native import Item


def on(items: list[Item], now_ms: int) -> list[int]:
    live = [item for item in items if item.start_ms <= now_ms and now_ms < item.end_ms]
    emergencies = [item for item in live if item.priority == 0]
    if emergencies:
        return [item.action for item in sorted(emergencies, key=lambda item: (item.received_ms, item.action))]
    for rank in range(1, 100):
        full = [item for item in live if item.target == "full" and item.priority == rank]
        if full:
            return [item.action for item in sorted(full, key=lambda item: (item.received_ms, item.action))]
    chosen: list[int] = []
    for rank in range(1, 100):
        over = [item for item in live if item.target == "over" and item.priority == rank]
        if over:
            chosen = [item.action for item in sorted(over, key=lambda item: (item.received_ms, item.action))]
            break
    bottom = [item for item in live if item.target == "bottom line"]
    return chosen + [item.action for item in sorted(bottom, key=lambda i: (i.priority, i.received_ms, i.action))]
