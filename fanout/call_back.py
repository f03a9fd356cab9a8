"""The number that people call, in the words of an action that ask for it.

A text, title or board text says `{call_number}`, and the action's own number stands there in all that is measured,
previewed, sent, shown and posted: in its start, its news and its result alike. So an upstream system writes its texts
once, and a desk that takes the calls of this action is called by its number.

Rules:

1. It is put in at the door, before anything is checked; nothing behind it ever sees the place.
2. Words that ask for a number of an action that has none are refused. Any other braces are braces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from fanout import wire
from fanout.errors import Refused

PLACE: Final = "{call_number}"

Action = TypeVar("Action", bound=wire.Action)


def in_action(asked: Action) -> Action:
    """An action with its number in its words. Errors: `Refused("text_unfit")`, naming where."""
    number = asked.call_number
    boards = msgspec.structs.replace(asked.boards, texts=_forms(asked.boards.texts, number, "boards.texts"))
    texts, titles = _words(asked.texts, number, "texts"), _words(asked.titles, number, "titles")
    return msgspec.structs.replace(asked, texts=texts, titles=titles, boards=boards)


def in_update(asked: wire.UpdateRequest, number: str) -> wire.UpdateRequest:
    """News of an action whose number this is. Errors: as `in_action`."""
    texts, forms = _words(asked.texts, number, "texts"), _forms(asked.board_texts, number, "board_texts")
    return msgspec.structs.replace(asked, texts=texts, board_texts=forms)


def in_result(asked: wire.ResultRequest, number: str) -> wire.ResultRequest:
    """The result of an action whose number this is. Errors: as `in_action`."""
    texts, forms = _words(asked.texts, number, "texts"), _words(asked.board_texts, number, "board_texts")
    return msgspec.structs.replace(asked, texts=texts, board_texts=forms)


def _words(words: Mapping[str, str], number: str, where: str) -> dict[str, str]:
    return {language: _put(text, number, f"{where}.{language}") for language, text in words.items()}


def _forms(forms: Mapping[str, list[str]], number: str, where: str) -> dict[str, list[str]]:
    return {
        language: [_put(text, number, f"{where}.{language}[{at}]") for at, text in enumerate(own)]
        for language, own in forms.items()
    }


def _put(text: str, number: str, where: str) -> str:
    if PLACE in text and not number:
        raise Refused("text_unfit", where, detail=f"it asks for {PLACE}, and the action has none")
    return text.replace(PLACE, number)
