"""Answers that make no sense, and numbers in any spelling."""

from __future__ import annotations

import msgspec
import pytest

from fanout.channels.answers import decoded, each, in_camel_case, number_of
from tests.channels.kit import NONSENSE


class _One(msgspec.Struct):
    id: int


ONE = msgspec.json.Decoder(_One)


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[:20]))
def test_no_body_raises(body: bytes) -> None:
    assert decoded(ONE, body) is None


def test_names_in_another_case_are_the_same_names() -> None:
    found = decoded(ONE, in_camel_case('{"Id":7,"Naam":{"ÉénDing":[{"X":null}]}}'.encode()))
    assert found == _One(id=7)
    assert msgspec.json.decode(in_camel_case(b'{"Ab":[{"C":{}}],"":1}')) == {"ab": [{"c": {}}], "": 1}


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[:20]))
def test_nonsense_has_no_names(body: bytes) -> None:
    in_camel_case(body)


@pytest.mark.parametrize(
    "body",
    [b'\xef\xbb\xbf{"id":7}', '{"id":7,"naam":"café"}'.encode(), '{"id":7,"naam":"café"}'.encode("latin-1")],
    ids=["with a mark", "UTF-8", "Latin-1"],
)
def test_letters_in_other_spellings(body: bytes) -> None:
    class Named(msgspec.Struct):
        id: int
        naam: str = ""

    said = decoded(msgspec.json.Decoder(Named), body)
    assert said is not None
    assert (said.id, said.naam) in ((7, ""), (7, "café"))


def test_every_line_is_read_by_itself() -> None:
    lines = [msgspec.Raw(line) for line in (b'{"id":1}', b"null", b'{"id":"x"}', b'{"z":' + b"[" * 60_000, b'{"id":2}')]
    assert each(ONE, lines) == ([_One(1), _One(2)], 3)


@pytest.mark.parametrize(
    ("value", "number"),
    [(2, 2), ("2", 2), ("0302", 302), ("", None), ("-1", None), ("²", None), ("9" * 19, None), (None, None)],
)
def test_numbers(value: int | str | None, number: int | None) -> None:
    assert number_of(value) == number
