"""Every board we know: what it is, where it stands, what it shall show and what it says. And which boards are in an
area.

Rules:

1. A board announces itself (birth document, discovery), and then its newest document counts, whole; or it stands in an
   imported list, which fills in where it stands if it does not say.
2. Boards are in the order of their appearance. One that is retired (`remove`) is forgotten; if it appears again, it is
   a new one.
3. Areas are answered by `fanout.geo.PlaceIndex`, rebuilt when a position changed and a query comes: ten thousand
   boards take a millisecond, so boards on vehicles need no index of their own. A board without a position is in no
   area, except that of everyone.
4. A margin widens an area by great-circle metres, exactly: circles and corridors by their radius, polygons by a
   corridor along their border. `Nearest` counts people, so it chooses no boards.

One object a board is right here (a nation has 10,000 to 100,000): the rule of no object a recipient is about people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import numpy as np

from fanout import limits
from fanout.errors import Refused
from fanout.geo import PlaceIndex, shapes
from fanout.geo.fixed import SCALE
from signage import shadow
from signage.dialects.native import Caps, Item, Reported
from signage.dialects.rtig_t047 import Status
from signage.layout import Model, model_of

PROBLEMS_MAX: Final = 8  # the latest entries for ops that are kept per board
_ARC_DEG_MAX: Final = 5  # of a strip along a border: within 3 km of it at any latitude, and 72 to an edge at the most
Presence = Literal["unknown", "ready", "sleeping", "lost", "retired"]


class Board:
    """One board. Written by the service alone; everyone else reads."""

    __slots__ = (
        "announced",
        "boot",
        "boots_ms",
        "caps",
        "clock_offset_ms",
        "dialect",
        "heard_ms",
        "id",
        "item_bytes",
        "items",
        "lag_since_ms",
        "last_end_ms",
        "lat",
        "lon",
        "model",
        "own_held",
        "presence",
        "problems",
        "report",
        "sent_ms",
        "showings",
        "state",
        "status",
        "tries",
        "unheard",
        "version",
        "via",
    )  # fmt: skip

    def __init__(self, caps: Caps, dialect: str) -> None:
        self.id = caps.board
        self.dialect = dialect
        self.caps = caps
        self.model: Model = model_of(caps)
        self.lon = caps.lon
        self.lat = caps.lat
        self.announced = False  # it spoke for itself; else it stands in a list
        self.presence: Presence = "unknown"
        self.boot = ""
        self.boots_ms: list[int] = []
        self.clock_offset_ms = 0
        self.heard_ms = 0
        self.problems: list[str] = []
        self.showings: list[int] = []
        # what it shall show
        self.version = 0
        self.items: Sequence[Item] = ()
        self.item_bytes: dict[str, bytes] = {}
        self.last_end_ms = 0
        self.state = shadow.State.CLEAR
        self.sent_ms = 0
        self.tries = 0
        self.unheard = False  # the broker said that nobody listens on its topic
        self.lag_since_ms = 0
        self.own_held = False  # whether the broker keeps something on its own topic
        self.via: object | None = None  # the area topic it has its document from, if not its own
        # what it says
        self.report: Reported | None = None
        self.status: Status | None = None  # of a display of RTIG T047

    def __repr__(self) -> str:
        return f"<Board {self.id} {self.model.name} {self.presence} {self.state.name} v{self.version}>"

    def note(self, problem: str) -> None:
        """Keep an entry for ops, the newest last; the same one twice is kept once."""
        if problem in self.problems:
            self.problems.remove(problem)
        self.problems.append(problem)
        del self.problems[:-PROBLEMS_MAX]


class Boards:
    """All boards by id, in the order of their appearance."""

    def __init__(self) -> None:
        self._by_id: dict[str, Board] = {}
        self._index: PlaceIndex | None = None
        self._models: dict[Model, Model] = {}
        self._placed: list[Board] = []  # those with a place, in the order of the index

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Board]:
        return iter(self._by_id.values())

    def get(self, board: str) -> Board | None:
        return self._by_id.get(board)

    def put(self, caps: Caps, dialect: str = "native") -> tuple[Board, bool]:
        """Take a birth document; the board, and whether anything of it is new. `Refused` when there are too many."""
        board = self._by_id.get(caps.board)
        if board is None:
            if len(self._by_id) >= limits.BOARDS_MAX:
                detail = f"there are {limits.BOARDS_MAX} boards already"
                raise Refused("board_document_invalid", board=caps.board, what="birth document", detail=detail)
            board = Board(caps, dialect)
            board.model = self._models.setdefault(board.model, board.model)
            self._by_id[board.id] = board
            self._index = None
            return board, True
        if board.caps == caps:
            return board, False
        board.caps = caps
        model = model_of(caps)
        board.model = self._models.setdefault(model, model)
        if caps.lon is not None and caps.lat is not None:
            self.move(board, caps.lon, caps.lat)
        return board, True

    def remove(self, board: Board) -> None:
        """It is retired; whoever still holds it finds that `get` does not know it."""
        del self._by_id[board.id]
        self._index = None

    def move(self, board: Board, lon: float, lat: float) -> bool:
        """A board on a vehicle says where it is; whether that is another place than before."""
        if (board.lon, board.lat) == (lon, lat):
            return False
        board.lon, board.lat = lon, lat
        self._index = None
        return True

    def within(self, shape: shapes.Shape, margin_m: float = 0.0) -> list[Board]:
        """Boards in the area or at most `margin_m` metres outside it, in the order of their appearance."""
        if isinstance(shape, shapes.Everyone):
            return list(self)
        if isinstance(shape, shapes.Nearest) or not self._by_id:
            return []
        index = self._built()
        if len(index) == 0:
            return []
        return [self._placed[at] for at in np.sort(index.select(widened(shape, margin_m))).tolist()]

    def _built(self) -> PlaceIndex:
        if self._index is None:
            self._placed = [board for board in self if board.lon is not None and board.lat is not None]
            lon = np.array([board.lon for board in self._placed], np.float64)
            lat = np.array([board.lat for board in self._placed], np.float64)
            self._index = PlaceIndex.build(lon, lat)
        return self._index


def widened(shape: shapes.Shape, margin_m: float) -> shapes.Shape:
    """The shape and all within `margin_m` metres of it."""
    if margin_m <= 0:
        return shape
    match shape:
        case shapes.Circle(lon=lon, lat=lat, radius_m=radius_m):
            return shapes.Circle(lon, lat, min(radius_m + margin_m, limits.RADIUS_M_MAX))
        case shapes.Corridor(line=line, vectors=vectors, radius_m=radius_m):
            return shapes.Corridor(line, vectors, min(radius_m + margin_m, limits.RADIUS_M_MAX))
        case shapes.Polygon(edges=edges):
            borders = [_border(edge, margin_m) for edge in edges.tolist()]
            return shapes.Union((shape, *borders))
        case shapes.Union(of=parts):
            return shapes.Union(tuple(widened(part, margin_m) for part in parts))
        case shapes.Intersection(of=parts):
            return shapes.Intersection(tuple(widened(part, margin_m) for part in parts))
        case shapes.Difference(of=of, without=without):
            return shapes.Difference(widened(of, margin_m), without)
        case _:
            return shape


def _border(edge: list[int], margin_m: float) -> shapes.Corridor:
    """A strip along one edge, which is straight on the map: its corridor is made of arcs of a few degrees, as a long
    arc of a great circle would leave it, and between opposite points there is none. Edges are unwrapped, corridors not.
    """
    x1, y1, x2, y2 = (value / SCALE for value in edge)
    pieces = math.ceil(max(abs(x2 - x1), abs(y2 - y1)) / _ARC_DEG_MAX) or 1
    line = [(x1 + (x2 - x1) * at / pieces, y1 + (y2 - y1) * at / pieces) for at in range(pieces + 1)]
    return shapes.corridor([((x + 180) % 360 - 180, y) for x, y in line], margin_m)
