"""What the API says of boards: plans, counts, proofs, and a board's page. Part of `wire`, and imported from there.

As all that goes out, fields may be added; readers ignore those they do not know.
"""

from __future__ import annotations

import msgspec


class UnfitBoards(msgspec.Struct, frozen=True, kw_only=True):
    """A board model that cannot show the text, how many boards of it are in the area, and why."""

    model: str
    boards: int
    why: str


class BoardPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Boards in the area: how many show the action, which models cannot, and which only without some language.

    `reason`: why no board was asked at all, empty if they were.
    """

    boards: int = 0
    unfit: list[UnfitBoards] = []
    partial: list[UnfitBoards] = []
    reason: str = ""


class BoardCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Boards of one action: chosen, confirmed shown, confirmed cleared; `last_ms` after the start.

    `updated`: confirmed with the latest text, None when it was never updated.
    """

    selected: int = 0
    shown: int = 0
    updated: int | None = None
    cleared: int = 0
    last_ms: int | None = None
    cleared_last_ms: int | None = None
    laggards: list[str] = []


class BoardCapability(msgspec.Struct, frozen=True, kw_only=True):
    """What a board can show, as it says itself, or an imported list says of it (`announced` False)."""

    announced: bool
    kind: str
    lines: int = 0
    characters: int = 0
    width_px: int = 0
    height_px: int = 0
    charset: str = ""
    pages: int = 0
    items: int = 0
    scrolls: bool = False
    mobile: bool = False
    languages: list[str] = []
    media: list[str] = []
    areas: list[str] = []


class BoardItem(msgspec.Struct, frozen=True, kw_only=True):
    """An action on a board: whether it is on, outranked, later, waits for room or is over, and why."""

    action: int
    stage: str
    standing: str
    why: str


class BoardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a display says of itself, where its dialect has words for it. `override`: what somebody on the spot has it
    show instead of its content, empty for nothing.
    """

    firmware: str = ""
    system: str = ""
    up_since: str = ""
    override: str = ""


class BoardView(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/boards/{id}`: what a board can, shall show, and says it shows.

    `state`: `unknown` (never heard of, or its birth document cannot be read: then `problems` says why), `ready`,
    `sleeping`, `lost`, or `retired` (its birth document was cleared).
    `desired`: actions in its desired document, in their order; `shown`: lines as reported; `why`: as reported.
    `lag_ms`: since when its report lags behind what is desired, None if it does not. `capability`, `items` and `status`
    are in the answer for one board, not in the list of all.
    """

    id: str
    dialect: str
    model: str
    place: str = ""
    lon: float | None = None
    lat: float | None = None
    state: str
    desired_version: int = 0
    reported_version: int = 0
    lag_ms: int | None = None
    desired: list[int] = []
    shown: list[str] = []
    why: str = ""
    problems: list[str] = []
    capability: BoardCapability | None = None
    items: list[BoardItem] = []
    status: BoardStatus | None = None


class BoardProof(msgspec.Struct, frozen=True, kw_only=True):
    """One board of an action: when it was told, had it, was seen to show it, its latest text, and to be clear of it.

    Milliseconds since 1970 by the engine's clock, None for never. `dark_ms`: since when it says that it does not show
    it although it must, None while it does. `why`: the board's own words for that, or for its end (`desired`, `ended`,
    `power`, `comm_loss` …), or for refusing it. `reason`: why it lags, in ours; empty when it does not.
    """

    board: str
    published_ms: int | None
    received_ms: int | None
    shown_ms: int | None
    updated_ms: int | None
    ended_ms: int | None
    dark_ms: int | None = None
    why: str = ""
    reason: str = ""


class BoardProofList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/actions/{id}/boards`."""

    boards: list[BoardProof]


class BoardKey(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/keys/boards`: the public key that boards verify documents with.

    `id`: as documents name it; `public`: its 32 bytes in base64; `pem`: the same as libraries read it from a file.
    """

    id: str
    public: str
    pem: str


class BoardList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/boards`."""

    boards: list[BoardView]
