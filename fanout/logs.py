"""Where a process of ours writes its log: standard error, one line an entry, at the level of the settings.

A log line never holds a token or a number of a participant; httpx is kept quiet because it logs whole addresses.
"""

from __future__ import annotations

import logging

from fanout.settings import Settings


def set_up(settings: Settings) -> None:
    """Call once, first thing."""
    logging.basicConfig(
        level=settings.engine.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
