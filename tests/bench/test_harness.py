"""A bench that fails says so where its rows are kept, and in its status."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bench.harness import Options, Row, tell


def test_an_error_after_some_rows_is_printed_and_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(_options: Options) -> Iterator[Row]:
        yield {"case": "one", "system": "fanout"}
        raise AssertionError("the nation is not told in time")

    assert not tell("broken", breaks, Options(json=True))
    said = capsys.readouterr()
    first, last = map(json.loads, said.out.splitlines())
    assert first["case"] == "one"
    assert last == {"bench": "broken", "error": "AssertionError: the nation is not told in time", "rows": 1}
    assert "Traceback" in said.err


def test_a_bench_without_rows_has_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert not tell("empty", lambda _options: iter(()), Options())
    assert "empty: FAILED after 0 rows: no rows" in capsys.readouterr().err


def test_one_that_is_ended_says_so_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_options: Options) -> Iterator[Row]:
        yield {"case": "one", "system": "fanout"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tell("long", interrupted, Options(json=True))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 1


def test_rows_alone_are_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell("good", lambda _options: iter([{"case": "one", "system": "fanout"}]), Options(json=True))
    assert len(capsys.readouterr().out.splitlines()) == 1
