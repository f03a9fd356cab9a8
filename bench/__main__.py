"""Runs a bench: `python -m bench NAME|all [--quick] [--json] [--participants N] [--part NAME] [--seed N] …`.

A bench is a module of this package with `run(options) -> Iterable[row]`; a row is a dict with `case`, `system` and
figures. A bench that fails, or has no row to show, says why on standard error, and with `--json` also in a row with
`error`; the others run, and the program ends with 1.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import bench
from bench.harness import Options, tell

NAMES = sorted(
    module.name
    for module in pkgutil.iter_modules(bench.__path__)
    if not module.name.startswith("_") and "def run(" in (Path(bench.__path__[0]) / f"{module.name}.py").read_text()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, load, run, print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Honest numbers, peers in the same run.")
    parser.add_argument("name", choices=[*NAMES, "all"], help="which bench; all: one after another")
    parser.add_argument("--quick", action="store_true", help="within a minute on two cores")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, and nothing else, on standard output"
    )
    parser.add_argument("--participants", type=int, default=None, metavar="N", help="people, where a bench has them")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER", help="where plots go")
    parser.add_argument("--curve", action="store_true", help="all sizes, where a bench has some, and a plot")
    parser.add_argument("--part", default=None, metavar="NAME", help="one part of a bench that has parts: selection")
    given = parser.parse_args(arguments)
    options = Options(
        quick=given.quick,
        json=given.json,
        seed=given.seed,
        participants=given.participants,
        out=given.out,
        curve=given.curve,
        part=given.part,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its servers end with it, and it says that it was ended
    names = NAMES if given.name == "all" else [given.name]
    good = [tell(name, importlib.import_module(f"bench.{name}").run, options) for name in names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
