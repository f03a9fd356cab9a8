"""What a sender tells the registry of addresses that do not lead anywhere (any more). Pure.

Rules:

1. Only the provider's own word counts, about rows that were on the wire. An address that we found malformed ourselves,
   or a row that got no answer, is not in the news.
2. A dead address (`TOKEN_DEAD`) is told of at once, with the moment since when, where the provider says so.
3. An address that was never right (`TOKEN_INVALID`: `BadDeviceToken`, an argument that names the token) is told of for
   push tokens only, since what a supplier says of a telephone number is often about its own routes; and only once the
   provider has taken somebody else's on this channel in this process. A wrong topic, project or host makes every token
   look invalid, and must not empty the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fanout.channels.protocol import Outcome
from fanout.registry.entries import DeadAddresses, digest_of
from fanout.store.protocol import Lease
from fanout.store.states import Event, Reason
from fanout.wire import CHANNELS

JUDGED: Final = frozenset(CHANNELS.index(name) for name in ("fcm", "apns"))
"""Channels whose word about a token that was never valid counts."""


def news(
    lease: Lease,
    index: NDArray[np.intp],
    addresses: Mapping[int, bytes],
    outcome: Outcome,
    since_ms: Mapping[int, int],
    *,
    tried_ms: int,
    proven: bool,
) -> list[DeadAddresses]:
    """Entries for the registry, one a reason.

    `index`: the rows that were on the wire; `addresses`: of those refused, by place in the lease, read at `tried_ms`;
    `outcome`: of `index`; `since_ms`: by place in `index`, as `RowChannel.dead_since_ms` gives it.
    `proven`: somebody was taken on this channel.
    """
    reasons = [Reason.TOKEN_DEAD]
    if proven and lease.channel in JUDGED:
        reasons.append(Reason.TOKEN_INVALID)
    told = []
    for reason in reasons:
        places = np.flatnonzero((outcome.event == Event.REJECT) & (outcome.reason == reason))
        if not len(places):
            continue
        rows = index[places]
        told.append(
            DeadAddresses(
                channel=lease.channel,
                at_ms=tried_ms,
                rows=lease.rows[rows].tolist(),
                generations=lease.generations[rows].tolist(),
                digests=[digest_of(addresses[row]) for row in rows.tolist()],
                since_ms=[min(tried_ms, since_ms.get(place, tried_ms)) for place in places.tolist()]
                if since_ms
                else [],
                reason=reason.name.lower(),
            )
        )
    return told
