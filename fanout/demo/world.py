"""The world of the demo: people, boards, and the settings of an engine that may only talk to this machine."""

from __future__ import annotations

import csv
import shutil
import ssl
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from fanout.simulators import nation
from signage.broker import find_mosquitto, free_port

RECEIPT_SECRET: Final = "shared with the simulators"  # noqa: S105
VOICE_PER_S: Final = 250.0
"""Calls a second. Suppliers allow 30; with that, one in a hundred of a nation would be rung for nine minutes."""


class World(NamedTuple):
    """Where everything of one demo lies. `provider_port` is where the provider simulators listen."""

    folder: Path
    people_file: Path
    boards_file: Path
    settings_file: Path
    certificates: Path
    provider_port: int

    @property
    def providers(self) -> str:
        """Address of the provider simulators."""
        return f"https://127.0.0.1:{self.provider_port}"

    @property
    def data(self) -> Path:
        """The engine's data folder."""
        return self.folder / "data"


def make(
    folder: Path, participants: int, boards: int, seed: int, senders: int, *, voice_per_s: float = VOICE_PER_S
) -> World:
    """Write people (Parquet), boards (CSV) and settings (TOML) into an emptied folder."""
    if (folder / "demo.toml").exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = World(
        folder=folder,
        people_file=folder / "people.parquet",
        boards_file=folder / "boards.csv",
        settings_file=folder / "demo.toml",
        certificates=folder / "certificates",
        provider_port=free_port(),
    )
    people: pa.Table = nation.spread(participants, seed, every_channel=True, push_origin=world.providers)
    pq.write_table(people, world.people_file)
    _write_boards(world.boards_file, boards - standard_displays(boards), seed)
    world.settings_file.write_text(_settings(world, senders, voice_per_s))
    return world


def set_moods(world: World, api: str, *, undelivered: float = 0.0, **moods: Any) -> None:
    """How the simulators behave from now on; receipts go to the API at `api`, and some say that nothing arrived.

    They come a second after the message, those of a second together.
    """
    receipts = {"url": f"{api}/v1/receipts", "secret": RECEIPT_SECRET, "after_ms": 1_000}
    receipts |= {"doubled": 0.02, "late": 0.1, "failed": undelivered}
    tls = ssl.create_default_context(cafile=str(world.certificates / "ca.pem"))
    with httpx.Client(verify=tls, trust_env=False, timeout=30) as http:
        http.put(f"{world.providers}/_moods", json={"receipts": receipts} | moods).raise_for_status()


def totals(world: World) -> dict[str, int]:
    """Requests that the simulators had so far, by provider."""
    tls = ssl.create_default_context(cafile=str(world.certificates / "ca.pem"))
    found: dict[str, int] = httpx.get(f"{world.providers}/_totals", verify=tls, trust_env=False, timeout=30).json()
    return found


def simulators_answer(world: World) -> bool:
    """Whether the simulators can be used: their certificates are there long before they listen."""
    try:
        totals(world)
    except (OSError, httpx.TransportError):
        return False
    return True


def standard_displays(boards: int) -> int:
    """How many of so many boards speak the open standard RTIG T047; the others keep the native contract."""
    return boards // 50


def boards_here(fast: bool) -> int:
    """How many boards the broker of this machine carries within the demo's minutes.

    mosquitto carries tens of thousands of messages a second, the embedded broker in pure Python some hundreds.
    """
    if find_mosquitto():
        return 1_000 if fast else 10_000
    return 300 if fast else 1_000


def _write_boards(path: Path, boards: int, seed: int) -> None:
    table = nation.boards(boards, seed)
    with path.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(table.column_names)
        writer.writerows(zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True))


def _settings(world: World, senders: int, voice_per_s: float) -> str:
    where = f'enabled = true\nurl = "{world.providers}"\nca = "{world.certificates / "ca.pem"}"'
    return f"""# Settings of the demo: all on this machine, held by the fence.
[engine]
data = "{world.data}"
fence = "loopback"
[api]
listen = "127.0.0.1:0"
[senders]
processes = {senders}
# The quotas are raised far above the real ones, so that the demo shows what this machine can do.
[providers.fcm]
{where}
rate_per_s = 100_000.0
burst = 100_000
[providers.apns]
{where}
rate_per_s = 100_000.0
burst = 100_000
[providers.webpush]
{where}
rate_per_s = 50_000.0
burst = 50_000
[providers.sms]
{where}
receipt_secret = "{RECEIPT_SECRET}"
rate_per_s = 50_000.0
burst = 50_000
[providers.sms_second]
{where}
product_token = "second"
receipt_secret = "{RECEIPT_SECRET}"
rate_per_s = 50_000.0
burst = 50_000
[providers.voice]
{where}
receipt_secret = "{RECEIPT_SECRET}"
rate_per_s = {voice_per_s}
burst = {voice_per_s:.0f}
"""
