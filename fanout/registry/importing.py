"""A file of participants into a registry, in one call: what `fanout participants import` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from fanout.registry import files
from fanout.registry.ingest import Imported
from fanout.registry.registry import Registry


def import_file(
    registry: Registry,
    path: Path,
    *,
    on_bad: Literal["refuse", "skip"] = "refuse",
    progress: Callable[[str], None] | None = None,
) -> Imported:
    """Import a Parquet, CSV or Arrow file (columns: see `ingest`); whole or not at all.

    Raises `Refused("import_unreadable" | "import_column_missing" | "import_column_type" | "import_rows_bad")`; with
    `on_bad="skip"` bad rows are left out and told of in the answer. `progress` is told each step's name.
    """
    if progress is not None:
        progress("reading")
    table, numbers = files.read(path)
    return registry.import_table(table, on_bad=on_bad, row_numbers=numbers, progress=progress)
