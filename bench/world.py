"""The points and areas that benches run on: realistic where real data is at hand, and the same for the same seed.

With `shared/data` beside the project: the 14,566 Dutch neighbourhoods of 2024 by inhabitants, points within each one's
radius; real municipalities and provinces. Without: the places that ship, and a many-cornered star for an area.
"""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanout.simulators import nation

_M_PER_DEGREE = 111_195.08
Floats = NDArray[np.float64]


class World(NamedTuple):
    """`lon`, `lat` float64[n] in degrees, seven decimals; `areas`: GeoJSON geometries by case; `origin`: what it is."""

    lon: Floats
    lat: Floats
    areas: dict[str, dict[str, Any]]
    origin: str


def shared_data() -> Path | None:
    """The folder of real data, where it is."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "data" / "SOURCES.md").is_file():
            return folder / "shared" / "data"
    return None


def make(participants: int, seed: int) -> World:
    """A world of so many people, one point each."""
    data = shared_data()
    if data is None:
        table = nation.boards(participants, seed)
        return World(table["lon"].to_numpy(), table["lat"].to_numpy(), _stars(), "the places that ship")
    lon, lat = _neighbourhoods(data / "population" / "buurten_2024.csv", participants, seed)
    return World(lon, lat, _areas(data / "geo", lon, lat), "neighbourhoods of 2024")


def _neighbourhoods(path: Path, n: int, seed: int) -> tuple[Floats, Floats]:
    random = np.random.default_rng(seed)
    with path.open(encoding="utf-8") as file:
        rows = [(row["inwoners"], row["lon"], row["lat"], row["straal_m"]) for row in csv.DictReader(file)]
    people, lon, lat, radius_m = np.array(rows, np.float64).T
    at = random.choice(people.size, n, p=people.clip(min=0) / people.clip(min=0).sum())
    reach, around = radius_m[at] * np.sqrt(random.random(n)), random.random(n) * 2 * np.pi
    north = lat[at] + reach * np.sin(around) / _M_PER_DEGREE
    east = lon[at] + reach * np.cos(around) / (_M_PER_DEGREE * np.cos(np.radians(north)))
    return np.round(east, 7), np.round(north, 7)


def _areas(folder: Path, lon: Floats, lat: Floats) -> dict[str, dict[str, Any]]:
    municipalities = {
        feature["properties"]["naam"]: feature for feature in _features(folder / "gemeenten_342_detail.geojson")
    }
    provinces = {feature["properties"]["naam"]: feature for feature in _features(folder / "provincies_12.geojson")}
    share = {name: feature["properties"]["inwoners"] / 17.9e6 for name, feature in municipalities.items()}
    hundred = min((name for name in share if 95 <= _vertices(municipalities[name]["geometry"]) <= 105), default="Assen")
    # about 15,000 of 1.6 million people, and many corners already
    thousand = min(
        share,
        key=lambda name: abs(share[name] - 0.0094) + (1 if _vertices(municipalities[name]["geometry"]) < 150 else 0),
    )
    return {
        "municipality, 100 vertices": municipalities[hundred]["geometry"],
        "municipality, 1,000 vertices": _finer(municipalities[thousand]["geometry"], 1_000),
        "province": provinces["Gelderland"]["geometry"],
    }


def _features(path: Path) -> list[dict[str, Any]]:
    features: list[dict[str, Any]] = json.loads(path.read_bytes())["features"]
    return features


def _vertices(geometry: dict[str, Any]) -> int:
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return sum(len(ring) for part in parts for ring in part)


def _finer(geometry: dict[str, Any], vertices: int) -> dict[str, Any]:
    """The same border with its longest edges halved until it has so many vertices."""
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    parts = [[[tuple(point) for point in ring] for ring in part] for part in parts]
    while sum(len(ring) for part in parts for ring in part) < vertices:
        longest = max(
            (abs(b[0] - a[0]) + abs(b[1] - a[1]), p, r, at)
            for p, part in enumerate(parts)
            for r, ring in enumerate(part)
            for at, (a, b) in enumerate(pairwise(ring))
        )
        ring = parts[longest[1]][longest[2]]
        a, b = ring[longest[3]], ring[longest[3] + 1]
        ring.insert(longest[3] + 1, (round((a[0] + b[0]) / 2, 7), round((a[1] + b[1]) / 2, 7)))
    return {"type": "MultiPolygon", "coordinates": parts}


def _stars() -> dict[str, dict[str, Any]]:
    def star(corners: int, reach: float) -> dict[str, Any]:
        around = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        wave = reach * (1 + 0.15 * np.sin(around * 17) + 0.03 * np.cos(around * corners / 3))
        ring = np.round(np.column_stack([5.1 + wave * np.cos(around), 52.1 + 0.6 * wave * np.sin(around)]), 7).tolist()
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}

    return {
        "municipality, 100 vertices": star(99, 0.1),
        "municipality, 1,000 vertices": star(999, 0.12),
        "province": star(1_200, 0.7),
    }
