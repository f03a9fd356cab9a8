"""Displays of RTIG T047: what is known of each, and how one is found: by its id, by an answer's request id, by its
place.

Rules:

1. A display stands at one or more places; at the first it is spoken to alone.
2. Its type is a level of the topics it is asked on. It is learnt from whatever it says on a topic of its own; until
   then it is unknown, and asked on the topics of all types: only its own reaches it.
3. An answer may carry the id of the request only. Open requests are kept, `REQUESTS_OPEN_MAX` a display, and found
   without a look at every display.
4. A display that does not say where it stands, stands where others of its very stop do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from signage.dialects import rtig_t047 as t047
from signage.dialects.native import Caps, Item
from signage.dialects.rtig_t047 import Address, Location, Status
from signage.watching import Watch

REQUESTS_OPEN_MAX: Final = 4
ASK_AGAIN_MS: Final = 2_000

Wanted = tuple[Item, Mapping[str, str]]


class Placed(NamedTuple):
    """Where an imported list says a display stands."""

    locations: tuple[Location, ...]
    name: str
    position: tuple[float, float] | None


class Told(NamedTuple):
    """A message a display was told: its payload, when, whether it was to show it (else DELETE), and when it is over by
    itself.
    """

    payload: bytes
    at_ms: int
    shows: bool
    end_ms: int


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A display as it is remembered."""

    kind: str
    id: str = ""
    address: list[str]
    locations: list[list[str]] = []
    model: str
    name: str
    position: tuple[float, float] | None
    caps: Caps | None


class Display:
    """One display of the standard."""

    __slots__ = (
        "addresses",
        "again",
        "ask_at_ms",
        "ask_ms",
        "capable",
        "capable_ask_ms",
        "heard_ms",
        "id",
        "kept",
        "kind",
        "lost",
        "met_ms",
        "model",
        "name",
        "position",
        "proven",
        "requests",
        "reset",
        "status",
        "status_ask_ms",
        "strange",
        "tidy_ms",
        "told",
        "unable",
        "unproven",
        "version",
        "wanted",
        "watch",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        vendor: str,
        device: str,
        locations: Sequence[Location],
        model: str,
        name: str,
        position: tuple[float, float] | None,
    ) -> None:
        self.id = t047.board_id(vendor, device)
        self.kind = kind if kind in t047.TYPES else ""
        self.addresses = _addresses(vendor, device, locations)
        self.model = model
        self.name = name
        self.position = position
        self.heard_ms = 0
        self.lost = False
        self.version = 0
        self.wanted: dict[str, Wanted] = {}
        self.told: dict[str, Told] = {}
        self.kept: set[str] = set()  # ids of which the broker keeps a copy at its full topic
        self.again = False
        self.tidy_ms = 0
        self.watch = Watch()
        self.proven = True
        self.unproven = 0  # snapshots in a row that did not prove what it must show
        self.requests: deque[str] = deque()
        self.ask_at_ms = 0
        self.ask_ms = ASK_AGAIN_MS
        self.met_ms = 0
        self.capable = False
        self.capable_ask_ms = 0
        self.unable = False  # it was asked what it can show, and did not answer in time
        self.status: Status | None = None
        self.status_ask_ms = 0
        self.strange = True
        self.reset = False

    def __repr__(self) -> str:
        return f"<Display {self.id} {self.kind or 'of unknown type'} {'/'.join(self.addresses[0][:3])} {self.watch}>"

    @property
    def address(self) -> Address:
        """Where it is spoken to alone."""
        return self.addresses[0]

    @property
    def locations(self) -> list[Location]:
        return [Location(*address[:3]) for address in self.addresses]

    @property
    def kinds(self) -> Sequence[str]:
        """Types on whose topics it is asked."""
        return (self.kind,) if self.kind else t047.TYPES


def _addresses(vendor: str, device: str, locations: Sequence[Location]) -> tuple[Address, ...]:
    places = locations or (Location(),)
    return tuple(Address(*place, t047.level(vendor), t047.level(device)) for place in places)


class Displays:
    """All displays, by id, by open request and by locality."""

    def __init__(self) -> None:
        self._by_id: dict[str, Display] = {}
        self._by_locality: dict[str, dict[Display, None]] = {}
        self._by_request: dict[str, Display] = {}
        self._spots: dict[Location, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Display]:
        return iter(self._by_id.values())

    def get(self, identifier: str) -> Display | None:
        return self._by_id.get(identifier)

    def at(self, address: Address) -> Display | None:
        """The display that is spoken to alone at this address."""
        return next((one for one in self._by_locality.get(address.locality, ()) if one.address == address), None)

    def add(self, display: Display) -> None:
        self._by_id[display.id] = display
        self._place(display)

    def stand(self, display: Display, vendor: str, device: str, locations: Sequence[Location]) -> bool:
        """It stands at these places; whether that is news."""
        addresses = _addresses(vendor, device, locations)
        if addresses == display.addresses:
            return False
        for address in display.addresses:
            self._by_locality.get(address.locality, {}).pop(display, None)
        display.addresses = addresses
        self._place(display)
        return True

    def spot(self, display: Display, position: tuple[float, float] | None) -> None:
        """It stands at this position, if that is known."""
        if position is not None:
            display.position = position
            self._learn_spot(display)

    def position(self, display: Display) -> tuple[float, float] | None:
        """Where it stands: as it says, or as others of its stop do."""
        if display.position is not None:
            return display.position
        return next((self._spots[each] for each in display.locations if each in self._spots), None)

    def near(self, displays: Iterable[Display]) -> dict[Display, None]:
        """Displays that a topic of one of these displays' localities could reach."""
        localities = {address.locality: None for display in displays for address in display.addresses}
        return {one: None for each in localities for one in self._by_locality.get(each, ())}

    def ask(self, display: Display, request_id: str) -> None:
        """A request to it is open."""
        self._by_request[request_id] = display
        display.requests.append(request_id)
        while len(display.requests) > REQUESTS_OPEN_MAX:
            self._by_request.pop(display.requests.popleft(), None)

    def asked(self, request_id: str) -> Display | None:
        """The display to which a request of this id went."""
        return self._by_request.get(request_id)

    def _place(self, display: Display) -> None:
        for address in display.addresses:
            self._by_locality.setdefault(address.locality, {})[display] = None
        self._learn_spot(display)

    def _learn_spot(self, display: Display) -> None:
        if display.position is not None:
            for location in display.locations:
                if location.stop != "null":
                    self._spots[location] = display.position

    # --- what is remembered -------------------------------------------------------------------------------------------

    def encode(self, identifier: str, caps: Caps | None) -> bytes:
        """A display and its capability, if it told, as `restore` takes them up."""
        display = self._by_id[identifier]
        kept = _Kept(
            id=identifier,
            kind=display.kind,
            address=list(display.address),
            locations=[list(each) for each in display.locations],
            model=display.model,
            name=display.name,
            position=display.position,
            caps=caps,
        )
        return msgspec.msgpack.encode(kept)

    def restore(self, value: bytes) -> Caps | None:
        """A display as it was known before the restart; what it was told is not."""
        kept = msgspec.msgpack.decode(value, type=_Kept)
        locations = [Location(*each) for each in kept.locations or [kept.address[:3]]]
        vendor, device = kept.address[3:]
        display = Display(kept.kind, vendor, device, locations, kept.model, kept.name, kept.position)
        display.id = kept.id or display.id
        display.strange, display.capable = False, kept.caps is not None
        self.add(display)
        return kept.caps
