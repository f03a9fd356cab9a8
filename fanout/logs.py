"""Where a process of ours writes its log: standard error, one line an entry, at the level of the settings.

A log line never holds a token or a number of a participant; httpx is kept quiet because it logs whole addresses.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import PurePath

from fanout.settings import Settings


def set_up(settings: Settings) -> None:
    """Call once, first thing."""
    logging.basicConfig(
        level=settings.engine.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def what_failed(error: BaseException) -> str:
    """What an error is and where it came from, without its words, which may quote somebody's number.

    `RecursionError at answers.py:29 < sms.py:141`; of a group the first one.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    places = [f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} at {' < '.join(places[:-4:-1]) or 'no place'}"
