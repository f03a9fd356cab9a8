"""One action as boards see it: its texts, its times, its stage; and the item it makes for each model.

Rules:

1. Forms of the text: the action's own, then the short forms for boards, the longest first; a language with fewer short
   forms keeps its shortest. The layout takes the longest form that fits the model.
2. The lane gives the priority: life at risk is an emergency, the others have a rank of the settings. A result is never
   an emergency: it must not displace one that is still on. The lane gives the target too, by the settings: an emergency
   has the whole board.
3. A result takes the action's place for a while, under the same action id; without text, or on a model that cannot
   show it, the action is taken down at once. So is it on a model that cannot show an updated text: an old one may send
   people after the wrong car, and a part of the new one would be a cut.
4. What is to be shown at once has start 0, not the engine's time: a board whose clock is late must not wait.
5. Boards that take pictures get the photo of the action beside its text, with an update too; never with a result: who
   was found has a right not to be shown any more.
6. A record is what must be remembered: it is durable before anything is published.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from fanout import wire
from signage import charsets
from signage.dialects.native import EMERGENCY, Item, Media, Stage, Target
from signage.layout import Model, Pace, Unfit, band, reduced, refusal
from signage.pictures import Box, lay_out_beside

Forms = tuple[tuple[tuple[str, str], ...], ...]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An action on boards, as remembered. `stage`: `start` while it is on, `update` once its texts were replaced, then
    `result`, then `over`.
    """

    action: int
    request: wire.Action
    priority: int
    start_ms: int
    end_ms: int
    boards: list[str]
    stage: Literal["start", "update", "result", "over"] = "start"
    ended_ms: int | None = None  # when the action's own message had to be gone
    result_texts: dict[str, str] = {}
    result_end_ms: int = 0
    reason: str = ""
    photo: wire.Photo | None = None
    target: Target = "full"
    left: list[str] = []  # displays of RTIG T047 that were in its area and are elsewhere now

    @property
    def live(self) -> bool:
        """The action itself is to be shown."""
        return self.stage in ("start", "update")


def forms_of(texts: dict[str, str], short: dict[str, list[str]]) -> Forms:
    """Texts of the action, then its short forms, each as pairs in the order of the action's languages."""
    ranked = {language: sorted(short.get(language, []), key=len, reverse=True) for language in texts}
    depth = max((len(forms) for forms in ranked.values()), default=0)
    forms = [tuple(texts.items())]
    for at in range(depth):
        form = tuple(
            (language, own[min(at, len(own) - 1)] if (own := ranked[language]) else text)
            for language, text in texts.items()
        )
        if form != forms[-1]:
            forms.append(form)
    return tuple(forms)


def remembered(action: wire.Action) -> wire.Action:
    """What boards remember of an action, whatever call it came by: a start has a reference too, which is not theirs."""
    return wire.Action(**{name: getattr(action, name) for name in wire.Action.__struct_fields__})


class Showing:
    """A record with its layouts. `item(model)` is None where the model cannot show it, or shows nothing any more."""

    def __init__(self, record: Record, pace: Pace) -> None:
        self.record = record
        self._pace = pace
        self._items: dict[Model, Item | None] = {}
        self._why: dict[Model, str] = {}
        self._texts: dict[Model, dict[str, str]] = {}

    def replace(self, **changes: object) -> None:
        """Change the record; items are made anew."""
        self.record = msgspec.structs.replace(self.record, **changes)
        self._items.clear()
        self._why.clear()
        self._texts.clear()

    @property
    def last_end_ms(self) -> int:
        """When everything this action ever put on a board is over by its own end."""
        return max(self.record.end_ms, self.record.result_end_ms)

    def item(self, model: Model, result_rank: int) -> Item | None:
        """The item of the present stage for a model."""
        if model not in self._items:
            self._items[model] = self._make(model, result_rank)
        return self._items[model]

    def stages_gone(self, *, left: bool) -> list[Stage]:
        """Stages whose message must be gone from a board; `left`: all, for it is not in the area any more."""
        match "over" if left else self.record.stage:
            case "start" | "update":
                return []
            case "result":
                return ["start", "update"]
            case _:
                return ["start", "update", "result"] if self.record.result_texts else ["start", "update"]

    def texts(self, model: Model) -> dict[str, str]:
        """The texts that the item of this model was laid out from, spelt with the characters it has, for displays that
        lay out themselves.
        """
        return self._texts.get(model, {})

    def every_text(self, stage: str, model: Model) -> tuple[str, ...]:
        """Every text that a stage may have put on this model, spelt as there, for what must be gone from it."""
        record = self.record
        forms = forms_of(record.request.texts, record.request.boards.texts)
        texts = record.result_texts.values() if stage == "result" else [text for form in forms for _, text in form]
        return tuple(dict.fromkeys(_spelt(text, model) for text in texts))

    def why_unfit(self, model: Model) -> str:
        return self._why.get(model, "")

    def _make(self, model: Model, result_rank: int) -> Item | None:
        record = self.record
        if record.stage == "over":
            return None
        if record.stage == "result":
            forms = forms_of(record.result_texts, {})
            end_ms, priority = record.result_end_ms, result_rank
        else:
            forms = forms_of(record.request.texts, record.request.boards.texts)
            end_ms, priority = record.end_ms, record.priority
        photo = record.photo if record.live and record.target == "full" else None
        if photo is not None and (photo.mime not in model.media or not photo.url):
            photo = None
        try:
            size_px = (photo.width, photo.height) if photo is not None else None
            placed = lay_out_beside(forms, reduced(model, record.target), self._pace, size_px)
        except Unfit as unfit:
            self._why[model] = refusal(unfit, record.target)
            return None
        layout = placed.layout
        chosen = dict(forms[layout.form])
        self._texts[model] = {language: _spelt(chosen[language], model) for language in layout.languages}
        media = [_media(photo, placed.picture, end_ms)] if photo is not None and placed.picture is not None else []
        return Item(
            action=record.action,
            stage=record.stage,
            priority=priority,
            target=record.target,
            behaviour=layout.behaviour,
            pages=list(layout.pages),
            font=layout.font,
            start_ms=0,
            end_ms=end_ms,
            received_ms=record.start_ms,
            media=media,
            box=list(placed.text or _box(model, record.target)),
        )


def _spelt(text: str, model: Model) -> str:
    """The text with the characters the model has; as it is where it cannot be, and the model then shows none of it."""
    try:
        return charsets.spell(charsets.normalise(text), charsets.membership(model.charset))
    except charsets.Unspellable:
        return text


def _box(model: Model, target: Target) -> tuple[int, ...]:
    """Where a text of a target stands on a board of pixels; nothing for the whole of it, and for lines."""
    if target == "full" or model.kind == "characters":
        return ()
    top, high = band(model, target)
    return (0, top, model.width_px, high)


def _media(photo: wire.Photo, box: Box, end_ms: int) -> Media:
    return Media(
        url=photo.url,
        content_type=photo.mime,
        sha256=photo.hash,
        expires_ms=end_ms,
        width_px=photo.width,
        height_px=photo.height,
        box=list(box),
    )


def priority_of(lane: int, rank_search: int, rank_information: int) -> int:
    """Lanes of `wire.LANES`: life is an emergency, then by the settings."""
    return (EMERGENCY, rank_search, rank_information)[lane]


def target_of(lane: int, target_search: Target, target_information: Target) -> Target:
    """As `priority_of`: an emergency has the whole board."""
    targets: tuple[Target, ...] = ("full", target_search, target_information)
    return targets[lane]
