"""`python -m bench NAME|all [--quick] [--json] [--participants N] [--seed N] [--out FOLDER]`: run one bench.

A bench is a module of this package with `run(options) -> Iterable[row]`; a row is a dict with `case`, `system` and
figures.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

import bench
from bench.harness import Options, show

NAMES = sorted(
    module.name
    for module in pkgutil.iter_modules(bench.__path__)
    if not module.name.startswith("_") and "def run(" in (Path(bench.__path__[0]) / f"{module.name}.py").read_text()
)


def main() -> None:
    """Parse, load, run, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Honest numbers, peers in the same run.")
    parser.add_argument("name", choices=[*NAMES, "all"], help="which bench; all: one after another")
    parser.add_argument("--quick", action="store_true", help="within a minute on two cores")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, and nothing else, on standard output"
    )
    parser.add_argument("--participants", type=int, default=None, metavar="N", help="people, where a bench has them")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER", help="where plots go")
    given = parser.parse_args()
    options = Options(
        quick=given.quick, json=given.json, seed=given.seed, participants=given.participants, out=given.out
    )
    for name in NAMES if given.name == "all" else [given.name]:
        show(name, importlib.import_module(f"bench.{name}").run(options), options)


if __name__ == "__main__":
    main()
