"""Goals are of benches and cases that there are, and a row says truly whether it meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench
from bench.__main__ import NAMES
from bench.goals import EVERY, GOALS, goals_of
from bench.harness import Options, show

SOURCES = {name: (Path(bench.__path__[0]) / f"{name}.py").read_text() for name in NAMES}


def test_a_goal_is_of_a_figure_that_its_bench_has() -> None:
    parts = {"push": ("push", "push_peers"), "life": ("life", "harness"), "receipts": ("receipts", "receipt_posts")}
    for goal in GOALS:
        names = parts.get(goal.bench, (goal.bench,))
        text = "".join((Path(bench.__path__[0]) / f"{name}.py").read_text() for name in names)
        figure = goal.figure.removeprefix("x_").removesuffix("_p99_ms")  # of shares and ratios the names are made
        assert figure in text, goal
        assert goal.bench in SOURCES
        assert goal.met(goal.at_most if goal.at_most is not None else goal.at_least or 0.0)


def test_a_row_says_which_goals_it_meets() -> None:
    row = {"case": "local beside", "system": "fanout", "first_p99_ms": 151.0, "last_p99_ms": 1_999}
    assert [(goal.figure, met) for goal, met in goals_of("broadcast", row)] == [
        ("first_p99_ms", False),
        ("last_p99_ms", True),
    ]
    assert list(goals_of("life", row)) == []
    assert list(goals_of("push", {"case": "fcm", "system": "httpx", "rate_per_s": 400})) == []
    slow = {"case": "1 a body", "system": "fanout, Redis", "rate_per_core_s": 4_999}
    assert [met for _, met in goals_of("receipts", slow)] == [False]
    killed = {"case": "the only sender killed", "system": "fanout", "outage_ms": 900, "lost": 0, "doubled_ringing": 1}
    assert [(goal.case, met) for goal, met in goals_of("recovery", killed)] == [
        (EVERY, True),
        (EVERY, True),
        (EVERY, False),
    ]


def test_goals_are_printed_beside_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"case": "1,600,000 people", "system": "fanout", "seconds": 61.0, "lost": 0}]
    show("broadcast", rows, Options())
    assert "goals: seconds at most 60 (SHORT) · lost at most 0 (met)" in capsys.readouterr().out
    show("broadcast", rows, Options(json=True))
    told = json.loads(capsys.readouterr().out)
    assert told["goals"] == [{"goal": "seconds at most 60", "met": False}, {"goal": "lost at most 0", "met": True}]
