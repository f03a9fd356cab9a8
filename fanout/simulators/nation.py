"""A made-up nation on real geography: participants and stops, as many as wanted, the same for the same seed.

People live in the 1,966 Dutch places of GeoNames (`data/`, CC BY 4.0) in proportion to inhabitants, scattered round
each place as widely as it is large; they work nearer rather than farther (a gravity model: inhabitants of the other
place times exp(-distance / 15 km)). Nobody in it exists. Stops are synthetic and labelled so.

Addresses have the providers' forms, and tell the provider simulators what to answer:

    fcm    163 characters, `{22}:APA91b{134}`     apns   64 hexadecimal digits     sms, voice   +316 and eight digits
    dead   begin with `dead` (numbers end in 999): the provider says the device is gone
    wrong  begin with `bad0`: the provider says it never was one

Everything is made in columns (numpy, Arrow): 1.6 million people take a few seconds.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from fanout.geo.fixed import EARTH_RADIUS_M

_M_PER_DEGREE: Final = EARTH_RADIUS_M * np.pi / 180
_COMMUTE_M: Final = 15_000.0
_BASE64: Final = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", np.uint8)
_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_LIVE_NUMBERS: Final = 99_900_000  # eight digits that do not end in 999
_STEP: Final = 61_803_399  # coprime to it: successive numbers are far apart, and none repeats
_WORK_HOURS: Final = ("12345 08:00-18:00", "12345 09:00-17:00", "1234 07:00-16:00", "234567 14:00-23:00")
_HOME_HOURS: Final = ("", "", "", "", "", "", "", "1234567 17:00-08:30")
_VISIT_HOURS: Final = ("67 10:00-20:00", "7 12:00-22:00", "3 13:00-18:00")

Matrix = NDArray[np.uint8]


def spread(
    participants: int,
    seed: int,
    *,
    every_channel: bool = False,
    push_origin: str = "https://127.0.0.1:9443",
    dead: float = 0.01,
    wrong: float = 0.001,
) -> pa.Table:
    """Participants in the import format (see `fanout.registry.ingest`), in no order of place.

    60 % are reached by FCM, 30 % by APNs, others by SMS; `every_channel` leaves 6 % to SMS, and gives 3 % Web Push of
    the push service at `push_origin`, 1 % a voice call. One in twelve who has an app gives a number too. `dead`,
    `wrong`: shares of addresses.
    """
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {"id": _strings(_ids(participants))}
    columns |= _places(random, participants)
    columns |= _addresses(random, participants, push_origin if every_channel else None, dead, wrong)
    columns["language"] = _chosen(random, participants, ("nl", "en"), (0.94, 0.06))
    columns["age_group"] = _chosen(
        random, participants, ("unknown", "youth", "adult", "senior"), (0.3, 0.06, 0.44, 0.2)
    )
    return pa.table(columns)


def boards(n: int, seed: int) -> pa.Table:
    """Synthetic stops by inhabitants: `id` (begins with `synthetic-`), `lon`, `lat`, `place`."""
    random = np.random.default_rng(seed + 1)
    towns = _towns()
    home = random.choice(towns["weight"].size, n, p=towns["weight"])
    lon, lat = _scattered(random, towns, home, 0.9)
    names = towns["name"]
    return pa.table(
        {
            "id": [f"synthetic-{number:06d}" for number in range(n)],
            "lon": lon,
            "lat": lat,
            "place": [names[at] for at in home],
        }
    )


# --- places -----------------------------------------------------------------------------------------------------------


def _towns() -> dict[str, Any]:
    with (resources.files("fanout.simulators") / "data" / "nl_plaatsen_geonames.csv").open("rb") as file:
        table = pyarrow.csv.read_csv(file)
    people = table["inwoners"].to_numpy().astype(np.float64).clip(min=50)
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    return {
        "name": table["naam"].to_pylist(),
        "lon": lon,
        "lat": lat,
        "weight": people / people.sum(),
        "spread_m": 60 + 4.5 * np.sqrt(people),
    }


def _scattered(
    random: np.random.Generator, towns: dict[str, Any], at: NDArray[np.intp], width: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points round towns, degrees to seven decimals."""
    east, north = random.standard_normal((2, at.size)) * (towns["spread_m"][at] * width)
    lat = towns["lat"][at] + north / _M_PER_DEGREE
    lon = towns["lon"][at] + east / (_M_PER_DEGREE * np.cos(np.radians(lat)))
    return np.round(lon, 7), np.round(lat, 7)


def _places(random: np.random.Generator, n: int) -> dict[str, Any]:
    towns = _towns()
    home = random.choice(towns["weight"].size, n, p=towns["weight"])
    lon, lat = _scattered(random, towns, home)
    columns: dict[str, Any] = {"lon": lon, "lat": lat, "hours": _chosen(random, n, _HOME_HOURS)}
    share = random.random(n)
    for suffix, share_max, hours in (("_2", 0.45, _WORK_HOURS), ("_3", 0.10, _VISIT_HOURS)):
        there = share < share_max
        lon, lat = _scattered(random, towns, _away(random, towns, home[there]))
        for name, values in (("lon", lon), ("lat", lat)):
            whole = np.zeros(n)
            whole[there] = values
            columns[name + suffix] = pa.array(whole, mask=~there)
        columns["hours" + suffix] = _chosen(random, n, hours, mask=~there)
    return columns


def _away(random: np.random.Generator, towns: dict[str, Any], home: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each home town another one, nearer rather than farther."""
    x = towns["lon"] * _M_PER_DEGREE * np.cos(np.radians(52.2))
    y = towns["lat"] * _M_PER_DEGREE
    metres = np.hypot(x[:, None] - x, y[:, None] - y)
    pull = np.cumsum(towns["weight"] * np.exp(-metres / _COMMUTE_M), axis=1)
    ladder = (pull / pull[:, -1:] + np.arange(x.size)[:, None]).ravel()  # row i ends at i + 1: one sorted array
    found = np.searchsorted(ladder, home + random.random(home.size)) - home * x.size
    town: NDArray[np.intp] = np.minimum(found, x.size - 1)
    return town


# --- addresses --------------------------------------------------------------------------------------------------------


def _addresses(
    random: np.random.Generator, n: int, push_origin: str | None, dead: float, wrong: float
) -> dict[str, Any]:
    share, fate = random.random(n), random.random(n)
    gone, bad = fate < dead, (fate >= dead) & (fate < dead + wrong)
    fcm, apns = share < 0.60, (share >= 0.60) & (share < 0.90)
    sms = (share >= 0.90) & (share < 0.96) if push_origin else share >= 0.90
    also = (fcm | apns) & (random.random(n) < 1 / 12)
    columns: dict[str, Any] = {
        "fcm": _strings(_marked(_fcm(random, int(fcm.sum())), gone[fcm], bad[fcm]), fcm),
        "apns": _strings(_marked(_letters(random, int(apns.sum()), 64, _HEX), gone[apns], bad[apns]), apns),
        "sms": _strings(_numbers(np.flatnonzero(sms | also), gone[sms | also]), sms | also),
    }
    if push_origin:
        web, voice = (share >= 0.96) & (share < 0.99), share >= 0.99
        columns["voice"] = _strings(_numbers(np.flatnonzero(voice), gone[voice]), voice)
        columns["webpush"] = _strings(_subscriptions(random, push_origin, int(web.sum()), gone[web]), web)
    return columns


def _fcm(random: np.random.Generator, n: int) -> Matrix:
    tokens = _letters(random, n, 163, _BASE64)
    tokens[:, 22:29] = np.frombuffer(b":APA91b", np.uint8)
    return tokens


def _letters(random: np.random.Generator, n: int, width: int, alphabet: Matrix) -> Matrix:
    drawn = np.frombuffer(random.bytes(n * width), np.uint8).reshape(n, width)
    return np.take(alphabet, drawn & np.uint8(alphabet.size - 1))


def _marked(tokens: Matrix, gone: NDArray[np.bool_], bad: NDArray[np.bool_]) -> Matrix:
    """Begin the dead and the wrong as agreed, and let no live one begin so by chance."""
    for prefix in (b"dead", b"bad0"):
        tokens[(tokens[:, :4] == np.frombuffer(prefix, np.uint8)).all(axis=1), 0] = ord("c")
    tokens[gone, :4] = np.frombuffer(b"dead", np.uint8)
    tokens[bad, :4] = np.frombuffer(b"bad0", np.uint8)
    return tokens


def _numbers(rows: NDArray[np.intp], gone: NDArray[np.bool_]) -> Matrix:
    """+316 and eight digits, each once; those of the dead end in 999, and no other does."""
    place = rows.astype(np.int64) * _STEP % _LIVE_NUMBERS
    number = place // 999 * 1000 + place % 999
    number[gone] = np.arange(int(gone.sum())) % 100_000 * 1000 + 999
    digits = number[:, None] // 10 ** np.arange(7, -1, -1) % 10 + ord("0")
    return np.hstack([np.tile(np.frombuffer(b"+316", np.uint8), (rows.size, 1)), digits.astype(np.uint8)])


def _subscriptions(random: np.random.Generator, origin: str, n: int, gone: NDArray[np.bool_]) -> Matrix:
    """Push subscriptions of a browser, all with one valid P-256 key: the base point, known to all."""
    head = f'{{"endpoint":"{origin}/push/'.encode()
    point = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"
    tail = f'","keys":{{"p256dh":"{point}","auth":"'.encode()
    parts = [
        np.tile(np.frombuffer(head, np.uint8), (n, 1)),
        _marked(_letters(random, n, 43, _BASE64), gone, np.zeros(n, np.bool_)),
        np.tile(np.frombuffer(tail, np.uint8), (n, 1)),
        _letters(random, n, 21, _BASE64),
        np.tile(np.frombuffer(b'A"}}', np.uint8), (n, 1)),
    ]
    return np.hstack(parts)


def _ids(n: int) -> Matrix:
    """`p` and eleven hexadecimal digits, each once, in no visible order."""
    numbers = (np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F5) + np.uint64(0x51A7)) & np.uint64((1 << 44) - 1)
    digits = (numbers[:, None] >> (np.uint64(4) * np.arange(10, -1, -1, dtype=np.uint64))) & np.uint64(15)
    return np.hstack([np.full((n, 1), ord("p"), np.uint8), np.take(_HEX, digits)])


# --- columns ----------------------------------------------------------------------------------------------------------


def _strings(letters: Matrix, there: NDArray[np.bool_] | None = None) -> pa.Array:
    """An Arrow column of equally long strings; where `there` is false, null."""
    n = letters.shape[0] if there is None else there.size
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.full(n, letters.shape[1]) if there is None else there * letters.shape[1], out=offsets[1:])
    validity = None if there is None else pa.py_buffer(np.packbits(there, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(letters))
    return pa.Array.from_buffers(pa.large_string(), n, [validity, pa.py_buffer(offsets), data])


def _chosen(
    random: np.random.Generator,
    n: int,
    values: tuple[str, ...],
    shares: tuple[float, ...] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> pa.Array:
    """An Arrow dictionary column, each value drawn by its share."""
    codes = random.choice(len(values), n, p=shares).astype(np.int8)
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=mask), pa.array(values))
