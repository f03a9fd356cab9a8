"""Typed settings from TOML and the environment. `config/default.toml` is their only manual.

Rules:

1. Every setting has a default in `config/default.toml`, with unit, reason and consequence beside it; this module has the
   types and ranges and no second set of defaults.
2. A file given by the user overlays the defaults, the environment overlays the file: `FANOUT__API__PORT=8080` is
   `api.port`. An unknown key is a problem, not a silence.
3. All problems are found before the first is told: `Refused("settings_invalid")` lists each with its key.
4. The fence: with `engine.fence = "loopback"` every address of a provider, broker, store or listener must be loopback.

Why no settings library: one msgspec struct a section gives types, ranges and sentences; the rest is this file.
"""

from __future__ import annotations
