"""A log line says what failed and where, and quotes nobody."""

from __future__ import annotations

from fanout.logs import what_failed


def _fails(word: str) -> None:
    raise ValueError(word)


def test_an_error_is_told_by_its_kind_and_place() -> None:
    try:
        try:
            _fails("+31612345678")
        except ValueError as error:
            raise ExceptionGroup("of 0031612345678", [error]) from None
    except ExceptionGroup as group:
        told = what_failed(group)
    assert told.startswith("ValueError at test_logs.py:")
    assert " < test_logs.py:" in told
    assert "31612345678" not in told
    assert what_failed(KeyError("x")) == "KeyError at no place"
