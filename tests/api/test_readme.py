"""The README of the API says what the code does: its tables are the code's tables. `--long` is not needed; to renew the
README after a change run this file: `python tests/api/test_readme.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from fanout.api.handlers import Handlers
from fanout.api.routes import Row
from fanout.errors import CATALOGUE
from tests.api.conftest import Running

README = Path(__file__).resolve().parents[2] / "fanout" / "api" / "README.md"


def rows() -> list[Row]:
    return Handlers(*cast(Any, [None] * 8)).rows()


def calls_table() -> str:
    lines = ["| call | takes | answers | does |", "|---|---|---|---|"]
    for row in rows():
        path = re.sub(r"{(\w+):\w+}", r"{\1}", row.path)
        takes = f"`{row.takes.__name__}`" if row.takes else "–"
        answers = f"`{row.answers.__name__}`" if row.answers else ("a stream" if row.streams else f"`{row.media}`")
        lines.append(f"| `{row.method} {path}` | {takes} | {answers} | {row.summary} |")
    return "\n".join(lines)


def errors_table() -> str:
    lines = ["| code | status | sentence |", "|---|---|---|"]
    for code, entry in CATALOGUE.items():
        sentence = entry.sentence.replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{code}` | {entry.status} | {sentence} |")
    return "\n".join(lines)


def with_table(text: str, mark: str, table: str) -> str:
    return re.sub(
        rf"(<!-- {mark}:[^\n]*-->\n).*?(\n<!-- /{mark} -->)", lambda m: m[1] + table + m[2], text, flags=re.DOTALL
    )


def renewed() -> str:
    return with_table(with_table(README.read_text(), "calls", calls_table()), "errors", errors_table())


def test_the_tables_are_those_of_the_code() -> None:
    assert README.read_text() == renewed(), "run this file to renew the README"


def test_each_example_may_be_pasted_after_the_others() -> None:
    references = re.findall(r'"?reference"?(?:: |=)"([^"]+)"', README.read_text())
    assert len(references) >= 5
    assert len(set(references)) == len(references), "the same reference with another body is a conflict"


def test_the_example_without_our_client_starts_an_action(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "msgpack" in code)
    wide = example.replace("2000.0", "40000.0")
    exec(wide.replace("http://127.0.0.1:8080", running.address).replace("fk_…", running.key), {})  # noqa: S102
    assert "'people':" in capsys.readouterr().out


if __name__ == "__main__":
    README.write_text(renewed())
