"""Documents of boards: from the actions that chose a board to the payload of its desired topic.

Boards of one model with the same actions share their items, laid out, ranked and encoded once; what differs is the
envelope: board, version, checksum, signature. So ten thousand boards of a dozen models are a dozen layouts and ten
thousand digests.

`clear` must be called whenever an action changed its stage: items are kept by model and action ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from fanout.settings import SignageSettings
from signage.arbitration import arbitrate
from signage.boards import Board
from signage.dialects import native
from signage.dialects.native import Item
from signage.layout import Model
from signage.mqtt import Packet, expiry_s
from signage.showing import Showing

KEPT_MAX: Final = 10_000  # sets of items by model and actions; above it all are made anew

Sign: TypeAlias = Callable[[bytes], bytes]
_Composed: TypeAlias = tuple[tuple[Item, ...], dict[str, bytes]]


class Composer:
    """Composes, signs and encodes. `key` is the id of the signing key, empty for unsigned documents."""

    def __init__(self, settings: SignageSettings, key: str, sign: Sign | None) -> None:
        self._settings = settings
        self._key = key
        self._sign = sign
        self._composed: dict[tuple[Model, int, tuple[int, ...]], _Composed] = {}

    def clear(self) -> None:
        """Something about an action changed."""
        self._composed.clear()

    def item(self, showing: Showing, model: Model) -> Item | None:
        """What an action puts on a model, None for nothing."""
        return showing.item(model, self._settings.rank_result)

    def compose(self, board: Board, actions: tuple[int, ...], showings: Mapping[int, Showing], now_ms: int) -> None:
        """Give a board the items of its actions, and a version above all it knows."""
        key = (board.model, board.caps.items, actions)
        found = self._composed.get(key)
        if found is None:
            items = [self.item(showings[action], board.model) for action in actions]
            verdicts = arbitrate([item for item in items if item is not None], now_ms, board.caps.items)
            if len(self._composed) >= KEPT_MAX:
                self._composed.clear()
            found = self._composed[key] = (tuple(verdict.item for verdict in verdicts if verdict.sent), {})
        board.items, board.item_bytes = found
        reported = board.report.version if board.report is not None else 0
        board.version = max(now_ms, board.version + 1, reported + 1)

    def packet(self, board: Board, now_ms: int) -> Packet:
        """The board's document as a packet; its token is the board and the version."""
        form = board.caps.form
        items = board.item_bytes.get(form)
        if items is None:
            items = board.item_bytes[form] = native.encode_items(board.items, form)
        body = native.encode_body(
            board=board.id,
            version=board.version,
            on_comm_loss=self._settings.on_comm_loss,
            comm_loss_s=self._settings.comm_loss_s,
            items=items,
            form=form,
        )
        signature = self._sign(body) if self._sign is not None else b""
        return Packet(
            native.desired_topic(board.id),
            native.encode_envelope(body, form, key=self._key, signature=signature),
            expiry_s=expiry_s(board.last_end_ms + int(self._settings.grace_s * 1000), now_ms),
            content_type=native.CONTENT_TYPE[form],
            token=(board, board.version),
        )
