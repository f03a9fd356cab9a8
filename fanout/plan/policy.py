"""Which channel reaches whom: one channel per participant, by their own order of preference.

Rules:

1. A participant's first choice among the channels that are open for this action is taken; the next ones are for
   fall-back.
2. A participant with no open channel gets `NO_CHANNEL`. Selection leaves those out already, so in a plan it is a bug.
3. Channels open for an action: those its operator asked for (none given: all), that are switched on here, and that can
   carry the text.

4. A participant is told in their own language where the action has a text in it, else in its parent (`nl` for `nl-BE`),
   else in English, else in the first language the operator gave: nobody is left out for want of a translation.

Hours belong to places and are decided by the selection; what is chosen here is only the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.wire import CHANNELS

NO_CHANNEL: Final = 255
CHOICES: Final = 8
"""A preference is eight nibbles in a uint32: nibble k is 1 + the channel of the k-th choice, 0 where there is none."""


def mask_of(channels: Iterable[str]) -> int:
    """Bits of channel names, as in the registry's `channels` column."""
    mask = 0
    for name in channels:
        mask |= 1 << CHANNELS.index(name)
    return mask


def told_in(wanted: str, offered: Sequence[str]) -> str:
    """Which of the `offered` languages (not empty, the operator's first one first) someone who wants `wanted` gets."""
    for language in (wanted, wanted.partition("-")[0], "en"):
        if language in offered:
            return language
    return offered[0]


def first_choice(preference: NDArray[np.uint32], open_mask: int) -> NDArray[np.uint8]:
    """The channel of each participant.

    `preference` uint32[n] (see `CHOICES`), `open_mask` the bits of the channels that are open;
    returns uint8[n]: channel numbers, `NO_CHANNEL` where none of a participant's channels is open.
    """
    channel_of_nibble = np.full(16, NO_CHANNEL, np.uint8)
    for channel in range(len(CHANNELS)):
        if open_mask >> channel & 1:
            channel_of_nibble[channel + 1] = channel
    chosen = np.full(len(preference), NO_CHANNEL, np.uint8)
    undecided = np.arange(len(preference))
    for choice in range(CHOICES):
        nibble = (preference[undecided] >> np.uint32(4 * choice)) & np.uint32(15)
        chosen[undecided] = channel_of_nibble[nibble]
        undecided = undecided[(chosen[undecided] == NO_CHANNEL) & (nibble != 0)]
        if not len(undecided):
            break
    return chosen
