"""The habits of the house that a machine can hold."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import msgspec

from fanout.settings import DEFAULT_FILE, Section, Settings, load

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fanout", "signage", "bench", "loadtests", "tests")
LINES_MAX = 600
TOP_LEVEL = {
    "fanout", "signage", "bench", "loadtests", "config", "tests", "pyproject.toml", "README.md",
    "Makefile", ".ci", ".gitignore", "LICENSE", "constraints.txt",
}  # fmt: skip
BANNED_NAMES = {"utils", "util", "helpers", "base", "manager", "common", "misc"}


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


def python_files() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def test_the_top_level_is_as_designed() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= TOP_LEVEL


def test_no_file_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT)): n
        for path in python_files()
        if (n := len(path.read_text().splitlines())) > LINES_MAX
    }
    assert long == {}


def test_no_file_has_a_name_without_meaning() -> None:
    assert [str(path) for path in python_files() if path.stem in BANNED_NAMES] == []


def test_every_module_says_what_it_is_for() -> None:
    mute = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert mute == []


def test_nothing_is_left_for_later() -> None:
    word = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error)\b")
    found = [str(path.relative_to(ROOT)) for path in python_files() if word.search(path.read_text())]
    assert found == []


def test_no_thread_sleeps_in_shell_or_test() -> None:
    sleepy = []
    for path in python_files():
        sleepy += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
        ]
    allowed = {"fanout/store/sqlite_file.py", "fanout/store/redis_store.py"}
    assert [
        place
        for place in sleepy
        if place.partition(":")[0] not in allowed and not place.startswith(("bench", "loadtests"))
    ] == []


def test_every_setting_is_documented() -> None:
    """Each key of the default file has a comment above it, or above the run of keys it belongs to."""
    bare, explained = [], False
    for number, line in enumerate(DEFAULT_FILE.read_text().splitlines(), 1):
        if line.startswith("#"):
            explained = True
        elif not line.strip():
            explained = False
        elif line.startswith("["):
            explained = explained or line.startswith(("[kinds", "[tenants"))
        elif "=" in line and not line.startswith((" ", "]")) and not explained:
            bare.append(f"{number}: {line}")
    assert bare == []


def test_the_default_file_has_every_setting() -> None:
    settings = load(None, {})
    for field in msgspec.structs.fields(Settings):
        section = getattr(settings, field.name)
        assert isinstance(section, Section | dict), field.name


def test_the_readme_tree_is_true() -> None:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```tree\n(.*?)```", readme, re.DOTALL)
    assert block is not None, "the README has a ```tree block"
    named = set(re.findall(r"^\s*([\w./-]+/?)(?:\s|$)", block[1], re.MULTILINE))
    assert named, "the tree names files"
    assert [name for name in named if not (ROOT / name).exists()] == []
    rooms = {
        f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name in TOP_LEVEL and path.name != ".ci"
    }
    assert rooms <= named


def test_no_address_of_a_machine_or_registry() -> None:
    word = re.compile(r"(?<![\w.])/(wor" + r"k|roo" + r"t)/|pypi\." + r"org|registry\.npm" + r"js|deb\.deb" + r"ian")
    found = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".conf", ".json", ""}
        and word.search(path.read_text(errors="replace"))
    ]
    assert found == []
