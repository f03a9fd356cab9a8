"""Boards as the API tells of them: what each can, shall show and says, and why one lags, in words for an operator."""

from __future__ import annotations

from typing import Final

import msgspec

from fanout.wire import BoardCapability, BoardItem, BoardProof, BoardStatus, BoardView
from signage import layout, shadow
from signage.arbitration import Verdict, arbitrate
from signage.boards import Board
from signage.dialects import native
from signage.proof import Proof
from signage.shadow import State
from signage.showing import Record

_PRESENCE: Final = {
    "unknown": "it never announced itself",
    "sleeping": "it sleeps",
    "lost": "it has no contact",
    "retired": "it is retired",
}
_WHY: Final = {
    "local": "its own content has the board",
    "schedule": "its own schedule says so",
    "comm_loss": "it had lost contact",
    "power": "it lost its power",
    "reset": "it was reset",
    "ended": "it is over by its clock",
    "desired": "it was told so",
}
_STATES: Final = {
    State.DUE: "no broker has taken its document yet",
    State.FLIGHT: "the broker has not confirmed its document",
    State.WAITING: "it has not reported yet",
    State.DEVIANT: "it says it shows something else",
    State.REJECTED: "it refused its document",
}
_PLACELESS: Final = "nobody says where it stands: only actions for everyone reach it"


def view_of(board: Board, now_ms: int) -> BoardView:
    """What the API says of a board, in a list of all."""
    report = board.report
    return BoardView(
        id=board.id,
        dialect=board.dialect,
        model=board.model.name,
        place=board.caps.place,
        lon=board.lon,
        lat=board.lat,
        state=board.presence,
        desired_version=board.version,
        reported_version=report.version if report is not None else 0,
        lag_ms=now_ms - board.lag_since_ms if board.state in shadow.OPEN else None,
        desired=[item.action for item in board.items],
        shown=list(report.lines) if report is not None else [],
        why=report.why if report is not None else "",
        problems=[*board.problems, *_standing(board)],
    )


def _standing(board: Board) -> list[str]:
    """What is wrong with it for as long as it is so; what was noted, has happened, and stays."""
    if board.presence == "retired":
        return []
    why = layout.why_useless(board.model)
    return [*([f"it can show nothing: {why}"] if why else []), *([_PLACELESS] if board.lon is None else [])]


def page_of(board: Board, now_ms: int) -> BoardView:
    """Everything the API says of one board."""
    caps = board.caps
    own = {name: getattr(caps, name) for name in BoardCapability.__struct_fields__ if name != "announced"}
    items = [
        BoardItem(action=each.item.action, stage=each.item.stage, standing=each.standing, why=each.why)
        for each in _verdicts(board, now_ms)
    ]
    capability = BoardCapability(announced=board.announced, **own)
    status = BoardStatus(**board.status._asdict()) if board.status is not None else None
    return msgspec.structs.replace(view_of(board, now_ms), capability=capability, items=items, status=status)


def explained(proof: Proof, record: Record, board_of: dict[str, Board], now_ms: int) -> list[BoardProof]:
    """The rows of a proof, with the reason of each board that lags."""
    rows = []
    for row in proof.rows():
        current = row.updated_ms if proof.renewed else row.shown_ms
        if (current if record.live else row.ended_ms) is None or (record.live and row.dark_ms is not None):
            board = board_of.get(row.board)
            reason = _reason(board, record, row, now_ms) if board is not None else "nobody knows it any more"
            row = msgspec.structs.replace(row, reason=reason)
        rows.append(row)
    return rows


def _reason(board: Board, record: Record, row: BoardProof, now_ms: int) -> str:
    """Why a board has not shown, or not taken down, an action: the first thing an operator should look at."""
    if board.presence in _PRESENCE:
        return _PRESENCE[board.presence]
    if record.live:
        verdict = next((each for each in _verdicts(board, now_ms) if each.item.action == record.action), None)
        if verdict is None:
            why = next((each for each in reversed(board.problems) if each.startswith(f"action {record.action} ")), "")
            return why or "there was no room for it among the board's items"
        if verdict.standing != "on":
            return verdict.why
    if board.state in (State.FLIGHT, State.WAITING) and board.unheard:
        return "the broker has its document, and nobody listens on its topic"
    if board.state is State.DEVIANT and row.why:
        return f"{_STATES[board.state]}: {_WHY.get(row.why, row.why)}"
    words = _STATES.get(board.state, "it has not reported yet")
    if board.state is State.WAITING and board.dialect != native.DIALECT:
        words = "no text snapshot of it has proven it yet"
    return f"{words}: {board.problems[-1]}" if board.problems else words


def _verdicts(board: Board, now_ms: int) -> list[Verdict]:
    return arbitrate(board.items, now_ms, board.caps.items)
