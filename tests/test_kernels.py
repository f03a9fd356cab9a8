"""Kernels that call kernels of another file are compiled again when that file changes.

numba keeps a compiled kernel for as long as the text of its own file stays the same; what it calls in other files is
compiled into it, and nobody looks at those again. So after an upgrade, or a change here, an old kernel could go on
giving old answers. A file of kernels that calls those of others therefore states their digest, and changes with them.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for package in ("fanout", "signage") for path in (ROOT / package).rglob("kernels.py"))


def called(path: Path) -> list[Path]:
    """The other files of kernels that one imports from."""
    modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    names = [str(name) for name in modules if str(name).endswith(".kernels")]
    return sorted(ROOT / f"{name.replace('.', '/')}.py" for name in names)


def digest(paths: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def test_some_call_others() -> None:
    assert sum(bool(called(path)) for path in FILES) >= 4


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_kernels_changes_with_those_it_calls(path: Path) -> None:
    if others := called(path):
        line = f'CALLS = "{digest(others)}"'
        assert f"\n{line}  # " in path.read_text(), f"write {line} there, so that its kernels are compiled again"
