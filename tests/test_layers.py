"""The import rules of the house, read from the syntax trees: lower may not import higher."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The higher a number, the more a module may know. A module may import from its own level only inside its own package.
LEVELS = {
    "fanout.errors": 0,
    "fanout.limits": 0,
    "fanout.wire_boards": 0,
    "fanout.wire_areas": 1,
    "fanout.wire": 2,
    "fanout.settings": 3,
    "fanout.geo": 3,
    "fanout.store.protocol": 3,
    "fanout.store.states": 3,
    "fanout.store": 4,
    "fanout.registry": 4,
    "fanout.channels": 4,
    "fanout.media": 4,
    "fanout.social": 8,
    "fanout.selection": 5,
    "fanout.plan": 6,
    "fanout.posts": 6,
    "fanout.results": 7,
    "fanout.inbound": 7,
    "fanout.dispatch": 7,
    "fanout.drafts": 7,
    "fanout.waves": 7,
    "fanout.engine": 8,
    "fanout.api": 9,
    "fanout.client": 9,
    "fanout.clock": 1,
    "fanout.logs": 4,
    "fanout.memory": 4,
    "fanout.stores": 5,
    "fanout.call_back": 3,
    "fanout.holding": 5,
    "fanout.listening": 4,
    "fanout.readiness": 4,
    "fanout.named_files": 4,
    "fanout.intake": 8,
    "fanout.children": 7,
    "fanout.forkserver": 8,
    "fanout.crews": 9,
    "fanout.sender": 9,
    "fanout.simulators": 9,
    "fanout.warming": 10,
    "fanout.app": 10,
    "fanout.start": 11,
    "fanout.demo": 11,
    "fanout.cli": 12,
}
SIGNAGE_MAY_IMPORT = ("fanout.errors", "fanout.limits", "fanout.wire", "fanout.settings", "fanout.geo")
ONE_FILE = {
    "numba": "kernels.py",
    "paho": "signage/mqtt.py",
    "redis": "fanout/store/redis_store.py",
    "sqlite3": "fanout/store/sqlite_file.py",
    "pycurl": "fanout/dispatch/curl_lane.py",
}
PURE = (
    "fanout/geo",
    "fanout/selection",
    "fanout/plan",
    "fanout/channels",
    "fanout/results.py",
    "fanout/store/states.py",
    "signage/arbitration.py",
    "signage/connections.py",
    "signage/layout.py",
    "signage/readback.py",
    "signage/shadow.py",
    "signage/witness.py",
    "signage/dialects",
)
IMPURE_IMPORTS = {"time", "random", "socket", "trio", "httpx", "pycurl", "sqlite3", "secrets", "requests"}


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(module, line) of each import, `from a import b` as `a.b` where that is a module of ours."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                as_path = ROOT / Path(*inner.split("."))
                ours = as_path.with_suffix(".py").exists() or as_path.is_dir()
                yield (inner if ours else node.module), node.lineno


def level_of(module: str) -> int:
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        level = LEVELS.get(".".join(parts[:size]))
        if level is not None:
            return level
    return -1


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_every_room_has_a_level() -> None:
    rooms = {package_of(module_of(path)) for path in sources("fanout")} - {"fanout"}
    assert {room for room in rooms if level_of(room) < 0} == set()


def test_lower_does_not_import_higher() -> None:
    wrong = []
    for path in sources("fanout"):
        here = module_of(path)
        for module, line in imports(path):
            if not module.startswith("fanout.") or package_of(module) == package_of(here):
                continue
            lazy_command = here == "fanout.cli" or here == "fanout.demo"
            if level_of(module) >= level_of(here) and not lazy_command:
                wrong.append(f"{path.relative_to(ROOT)}:{line} {here} may not import {module}")
    assert not wrong, "\n".join(wrong)


def test_signage_stands_on_its_own() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources("signage")
        for module, line in imports(path)
        if module.startswith("fanout.") and not module.startswith(SIGNAGE_MAY_IMPORT)
    ]
    assert not wrong, "\n".join(wrong)


def test_only_app_and_demo_import_signage() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources("fanout")
        for module, line in imports(path)
        if module.split(".")[0] == "signage" and not module_of(path).startswith(("fanout.app", "fanout.demo"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", ONE_FILE)
def test_a_library_has_one_door(library: str) -> None:
    doors = {
        str(path.relative_to(ROOT))
        for path in sources("fanout", "signage")
        if "simulators" not in path.parts and any(module.split(".")[0] == library for module, _ in imports(path))
    }
    assert all(door.endswith(ONE_FILE[library]) for door in doors), doors


def test_pure_modules_read_no_clock_and_no_socket() -> None:
    wrong = []
    for room in PURE:
        path = ROOT / room
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            wrong += [
                f"{file.relative_to(ROOT)}:{line} imports {module}"
                for module, line in imports(file)
                if module.split(".")[0] in IMPURE_IMPORTS
            ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_named_as_a_library() -> None:
    dependencies = {"trio", "numpy", "numba", "httpx", "redis", "paho", "shapely", "typer", "rich", "starlette", "http"}
    taken = set(sys.stdlib_module_names) | dependencies
    ours = [path for path in sources("fanout", "signage", "bench", "loadtests") if path.stem in taken]
    assert [str(path.relative_to(ROOT)) for path in ours] == []
