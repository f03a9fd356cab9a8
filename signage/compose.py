"""Documents of boards: from the actions that chose a board to the payload of its desired topic, or of an area's.

Boards of one model with the same actions share their items, laid out, ranked and encoded once; what differs is the
envelope: board, version, checksum, signature. So ten thousand boards of a dozen models are a dozen layouts and ten
thousand digests.

On MQTT 5 a document expires with the last end of anything its board was ever told, so one that takes a message down
lives exactly as long as that message could have: after that each board's own clock has taken it down, and a board that
comes back reads nothing instead of something old. The grace of the settings is ours alone: so long the topic is kept on
MQTT 3.1.1, and the proofs are waited for.

`clear` must be called whenever an action changed its stage: items are kept by model and action ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
Composed: TypeAlias = tuple[tuple[Item, ...], dict[str, bytes]]


class Composer:
    """Composes, signs and encodes. `key` is the id of the signing key, empty for unsigned documents."""

    def __init__(self, settings: SignageSettings, key: str, sign: Sign | None) -> None:
        self._settings = settings
        self._key = key
        self._sign = sign
        self._composed: dict[tuple[Model, int, tuple[int, ...]], Composed] = {}

    def clear(self) -> None:
        """Something about an action changed."""
        self._composed.clear()

    def item(self, showing: Showing, model: Model) -> Item | None:
        """What an action puts on a model, None for nothing."""
        return showing.item(model, self._settings.rank_result)

    def items(
        self, model: Model, items_max: int, actions: tuple[int, ...], showings: Mapping[int, Showing], now_ms: int
    ) -> Composed:
        """The items of boards of a model that show these actions, and a place for their encodings by form."""
        key = (model, items_max, actions)
        found = self._composed.get(key)
        if found is None:
            items = [self.item(showings[action], model) for action in actions]
            verdicts = arbitrate([item for item in items if item is not None], now_ms, items_max)
            if len(self._composed) >= KEPT_MAX:
                self._composed.clear()
            found = self._composed[key] = (tuple(verdict.item for verdict in verdicts if verdict.sent), {})
        return found

    def compose(self, board: Board, actions: tuple[int, ...], showings: Mapping[int, Showing], now_ms: int) -> None:
        """Give a board the items of its actions, and a version above all it knows."""
        board.items, board.item_bytes = self.items(board.model, board.caps.items, actions, showings, now_ms)
        reported = board.report.version if board.report is not None else 0
        board.version = max(now_ms, board.version + 1, reported + 1)

    def own(self, board: Board, now_ms: int, token: object) -> Packet:
        """The document of a board as a packet on its own topic."""
        body = self._body(board.items, board.item_bytes, board.caps.form, board.version, board=board.id)
        return self._packet(native.desired_topic(board.id), body, board.caps.form, board.last_end_ms, now_ms, token)

    def shared(
        self, area: str, version: int, one: Board, composed: Composed, end_ms: int, now_ms: int, token: object
    ) -> Packet:
        """One document for all boards that listen to an area topic, which are all like this one."""
        form = one.caps.form
        body = self._body(*composed, form, version, area=area, model=one.model.name)
        return self._packet(native.area_topic(area), body, form, end_ms, now_ms, token)

    def _body(
        self, items: Sequence[Item], kept: dict[str, bytes], form: native.Form, version: int, **whom: str
    ) -> bytes:
        encoded = kept.get(form)
        if encoded is None:
            encoded = kept[form] = native.encode_items(items, form)
        return native.encode_body(
            version=version,
            on_comm_loss=self._settings.on_comm_loss,
            comm_loss_s=self._settings.comm_loss_s,
            items=encoded,
            form=form,
            **whom,
        )

    def _packet(self, topic: str, body: bytes, form: native.Form, end_ms: int, now_ms: int, token: object) -> Packet:
        signature = self._sign(body) if self._sign is not None else b""
        return Packet(
            topic,
            native.encode_envelope(body, form, key=self._key, signature=signature),
            expiry_s=expiry_s(end_ms, now_ms),
            content_type=native.CONTENT_TYPE[form],
            token=token,
        )
