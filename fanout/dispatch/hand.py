"""What a sender has in hand: its leases, and what it knows of their actions.

Rules:

1. Each lane has room for `most` batches of a channel beside what less urgent lanes hold: a lane is full when it and
   the more urgent ones hold so many. So a life-at-risk action is claimed while a national one has all ordinary
   places, and a search while an information has. At most `most` batches for each lane, whatever is waiting; a small
   one counts by its rows, but as a `SMALL`-th of a whole one at least: people who fall back to SMS from a nation's
   push come in hundreds of batches of a few, and four at a time they would hold up everybody behind them.
2. What keeps rows back is known twice: from the ledger, by `look`, and from the clock, at a phase's end, which an
   operator may have moved since. A result goes out although its action is closed.
3. A batch whose lease ran out may be claimed anew by the sender that still has it: leases are kept by batch and token.

The store blocks; what is called in a thread says so.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fanout import wire
from fanout.channels import catalogue
from fanout.channels.protocol import Column, Message
from fanout.settings import Settings
from fanout.store.protocol import ActionRecord, Generations, Lease, Rows, Store
from fanout.store.states import Event

SMALL: Final = 16
"""How many of the smallest batches take the room of a whole one."""

STOPPED_BY: Final = {"paused": Event.RETRY, "expired": Event.END}
"""What a state of an action other than `open` means for rows not sent; all others close it."""


class Addresses(Protocol):
    """What the sender needs of the registry's replica."""

    def refresh(self) -> bool: ...

    def addresses(
        self, channel: int, rows: Rows, generations: Generations, /
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...

    def preferences(self, rows: Rows, generations: Generations, /) -> NDArray[np.uint32]: ...


class Hand:
    """See the module."""

    def __init__(
        self,
        store: Store,
        replica: Addresses,
        settings: Settings,
        clock_ms: Callable[[], int],
        *,
        most: int,
        sizes: Mapping[int, int],
    ) -> None:
        self._store, self._replica, self._settings = store, replica, settings
        self._clock_ms, self._most, self._sizes = clock_ms, most, sizes
        self._registry = threading.Lock()  # the replica is one object, and threads are several
        self.leases: dict[tuple[int, int], Lease] = {}
        self._stopped: dict[int, Event] = {}
        self._ends_ms: dict[int, int] = {}  # of actions whose record was read since they are in hand
        self._messages: dict[tuple[int, int, str], Message] = {}
        self._channels: dict[tuple[int, int, str], list[int]] = {}

    def take(self, lease: Lease) -> None:
        """A batch is ours now."""
        self.leases[lease.batch, lease.token] = lease

    def drop(self, lease: Lease) -> None:
        """A batch is ours no more."""
        del self.leases[lease.batch, lease.token]

    def room(self, channel: int) -> tuple[tuple[int, ...], int]:
        """The lanes that a channel has room for, and for how many batches."""
        held, whole = [0.0] * len(wire.LANES), self._sizes[channel]
        for lease in self.leases.values():
            if lease.channel == channel:
                held[lease.lane] += min(1.0, max(1 / SMALL, len(lease.rows) / whole))
        for lane in reversed(range(len(wire.LANES))):
            room = math.floor(self._most - sum(held[: lane + 1]))
            if room > 0:
                return tuple(range(lane + 1)), room
        return (), 0

    # --- what is known ------------------------------------------------------------------------------------------------

    def actions(self) -> set[int]:
        """The actions in hand. May be asked from any thread: the leases are copied at once."""
        return {lease.action for lease in tuple(self.leases.values())}

    def read_actions(self, actions: set[int]) -> dict[int, ActionRecord | None]:
        """The actions' records, in one go. Blocking."""
        return {action: self._store.action(action) for action in actions}

    def learn(self, records: dict[int, ActionRecord | None]) -> None:
        """What the ledger says of actions in hand; what is not in hand any more is forgotten."""
        for action, record in records.items():
            if record is None or record.state != "open":
                self._stopped[action] = STOPPED_BY.get(record.state if record else "", Event.CLOSE)
            else:
                self._stopped.pop(action, None)
            if record is not None:
                self._ends_ms[action] = record.end_ms
        in_hand = self.actions()
        for known in (self._stopped, self._ends_ms):
            for action in known.keys() - in_hand:
                del known[action]
        live = {(lease.action, lease.phase, lease.language) for lease in self.leases.values()}
        for key in self._messages.keys() - live:
            del self._messages[key], self._channels[key]

    def stopping(self, lease: Lease, message: Message) -> Event | None:
        """What keeps the rows of a batch back, if anything."""
        if self._clock_ms() >= self.end_ms(message):
            return Event.END
        return None if message.name == "result" else self._stopped.get(lease.action)

    def end_ms(self, message: Message) -> int:
        """When what it says is over: as it was read, unless the ledger has told of another end of its action since."""
        return message.end_ms if message.name == "result" else self._ends_ms.get(message.action, message.end_ms)

    # --- of one batch -------------------------------------------------------------------------------------------------

    def known(self, lease: Lease) -> Message | None:
        """What the batch says, if that was read for another."""
        return self._messages.get((lease.action, lease.phase, lease.language))

    def message(self, lease: Lease) -> Message:
        """What the batch says. Blocking."""
        key = (lease.action, lease.phase, lease.language)
        known = self._messages.get(key)
        if known is not None:
            return known
        record = self._store.action(lease.action)
        assert record is not None, "a batch belongs to an action"
        phase = next(phase for phase in self._store.phases(lease.action) if phase.phase == lease.phase)
        asked = wire.decode_msgpack(record.body, wire.ActionRequest) if record.body else None
        message = Message(
            action=lease.action,
            phase=lease.phase,
            name=phase.name,
            kind=record.kind,
            lane=lease.lane,
            language=lease.language,
            title=phase.titles.get(lease.language, ""),
            text=phase.texts[lease.language],
            end_ms=phase.end_ms,
            image=self._settings.media.link(asked.photo) if asked is not None and phase.name != "result" else "",
        )
        self._channels[key] = self._open_channels(asked.channels if asked is not None else None, message)
        self._messages[key] = message
        return message

    def read_ahead(self, leases: Sequence[Lease]) -> None:
        """Read what batches say, in the thread that claimed them: a first message waits for one turn less. Blocking.

        What cannot be read now is said by whoever handles the batch.
        """
        for lease in leases:
            with suppress(Exception):
                self.message(lease)

    def keep_up(self) -> None:
        """Take in what is new in the registry now, so that no message waits for it: a nation finds thousands dead.

        Blocking. What cannot be read now is said by whoever needs it.
        """
        with suppress(Exception), self._registry:
            self._replica.refresh()

    def fall_backs(self, message: Message) -> list[int]:
        """Channels a message may fall back to, in the order of the settings."""
        return self._channels[message.action, message.phase, message.language]

    def _open_channels(self, asked: Sequence[str] | None, message: Message) -> list[int]:
        return [
            wire.CHANNELS.index(name)
            for name in self._settings.dispatch.fall_back
            if getattr(self._settings.providers, name).enabled
            and (asked is None or name in asked)
            and catalogue.unfit(name, message.text, message.title, message.image) is None
        ]

    def addresses(self, lease: Lease, wanted: NDArray[np.intp]) -> Column:
        """Where the rows at `wanted` are reached now; empty where they are not. Blocking."""
        with self._registry:
            self._replica.refresh()
            return Column(*self._replica.addresses(lease.channel, lease.rows[wanted], lease.generations[wanted]))

    def preferences(self, lease: Lease, index: NDArray[np.intp]) -> NDArray[np.uint32]:
        """The channels of the rows at `index`, in their own order (see `registry.columns`). Blocking."""
        with self._registry:
            self._replica.refresh()
            return self._replica.preferences(lease.rows[index], lease.generations[index])
