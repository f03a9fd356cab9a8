"""Peers that are servers: each started for the bench, in a folder of its own, on a Unix socket, and ended with it.

Redis GEOSEARCH, PostGIS and Tile38. A server that is not installed gives None, and the bench says so. What each is
asked and how its answers may differ is said in `peers`; here is how to run it in its best configuration:

* **PostGIS**: an own cluster, as the user `postgres` when this runs as root (it refuses root). Unlogged tables in the
  order of the Hilbert curve, GiST on geography for metres and on geometry for polygons, loaded by COPY, vacuumed and
  analysed, no parallel workers (they cost more than they bring at these sizes), durability off. Statements are
  prepared, and rows come as one string of bytes, since a Python object a row would measure the driver.
* **Redis**: no persistence. Filled in the order of its own index by commands packed here: 40 % of what
  `execute_command` takes in an order of chance. It finds the nearest within a radius only, so it is told the distance
  of the k-th beforehand, which a caller does not know. **Tile38**: no append-only file.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fanout.geo.fixed import EARTH_RADIUS_M
from signage.broker import free_port

Floats = NDArray[np.float64]
Rows = NDArray[Any]
_PATIENCE_S = 30.0


class Redis:
    """Redis GEOSEARCH. Its geohash has 26 bits an axis: cells of 0.6 m by 0.3 m, of which it knows the middle."""

    name: ClassVar = "redis GEOSEARCH"
    precision_m: ClassVar = 0.7
    bytes_a_person: ClassVar = 150
    us_a_person: ClassVar = 8.0  # 5 among 1.6 million, more among more
    RADIUS_M: ClassVar = 6_372_797.560856  # its earth

    def __init__(self, client: Any, lon: Floats, lat: Floats) -> None:
        self.client = client
        self._enough_m: dict[tuple[float, float, int], float] = {}
        order, connection = _by_geohash(lon, lat), client.connection_pool.get_connection()
        for start in range(0, lon.size, 20_000):
            rows = order[start : start + 20_000]
            connection.send_packed_command([_geoadd("people", lon[rows].tolist(), lat[rows].tolist(), rows.tolist())])
            connection.read_response()
        client.connection_pool.release(connection)

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        scaled = radius_m * self.RADIUS_M / EARTH_RADIUS_M
        found = self.client.execute_command("GEOSEARCH", "people", "FROMLONLAT", lon, lat, "BYRADIUS", scaled, "m")
        return np.array(found, np.uint32)

    def nearest(self, lon: float, lat: float, k: int) -> Rows:
        """The k nearest, nearest first."""
        where = ("FROMLONLAT", lon, lat, "BYRADIUS", self._enough_m[lon, lat, k], "m")
        found = self.client.execute_command("GEOSEARCH", "people", *where, "ASC", "COUNT", k)
        return np.array(found, np.uint32)

    def expect(self, lon: float, lat: float, k: int, furthest_m: float) -> None:
        """The k-th nearest is so far away."""
        self._enough_m[lon, lat, k] = furthest_m * 1.001 + 2 * self.precision_m


class PostGIS:
    """PostGIS: `ST_DWithin` on the sphere, `ST_Intersects` in the plane, `<->` for the nearest."""

    name: ClassVar = "PostGIS"
    precision_m: ClassVar = 0.01
    bytes_a_person: ClassVar = 150
    us_a_person: ClassVar = 20.0
    BYTES: ClassVar = "SELECT coalesce(string_agg(int4send(id), ''), '') FROM "
    POINT: ClassVar = "ST_SetSRID(ST_MakePoint(%s, %s), 4326)::geography"

    def __init__(self, connection: Any, lon: Floats, lat: Floats) -> None:
        self.ask = connection.cursor(binary=True)
        self.ask.execute("CREATE EXTENSION IF NOT EXISTS postgis")
        self.ask.execute("CREATE UNLOGGED TABLE given (id int4, lon float8, lat float8)")
        with self.ask.copy("COPY given FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(_binary_copy(lon, lat))
        self.ask.execute(
            "CREATE UNLOGGED TABLE people AS SELECT id, place, place::geography AS globe FROM "
            "(SELECT id, ST_SetSRID(ST_MakePoint(lon, lat), 4326) AS place FROM given) AS points ORDER BY place"
        )
        self.ask.execute("DROP TABLE given")
        self.ask.execute("CREATE INDEX ON people USING gist (globe)")
        self.ask.execute("CREATE INDEX ON people USING gist (place)")
        self.ask.execute("VACUUM ANALYZE people")

    def _rows(self, query: str, *given: Any) -> Rows:
        self.ask.execute(self.BYTES + query, given, prepare=True)
        return np.frombuffer(self.ask.fetchone()[0], ">i4").astype(np.uint32)

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        return self._rows(f"people WHERE ST_DWithin(globe, {self.POINT}, %s, false)", lon, lat, radius_m)

    def count(self, lon: float, lat: float, radius_m: float) -> int:
        """How many within a radius."""
        query = f"SELECT count(*) FROM people WHERE ST_DWithin(globe, {self.POINT}, %s, false)"
        self.ask.execute(query, (lon, lat, radius_m), prepare=True)
        return int(self.ask.fetchone()[0])

    def polygon(self, geometry: Any) -> Rows:
        """Rows in or on a shapely geometry."""
        return self._rows("people WHERE ST_Intersects(place, ST_GeomFromWKB(%s, 4326))", geometry.wkb)

    def nearest(self, lon: float, lat: float, k: int) -> Rows:
        """The k nearest, nearest first."""
        return self._rows(f"(SELECT id FROM people ORDER BY globe <-> {self.POINT} LIMIT %s) AS near", lon, lat, k)


class Tile38:
    """Tile38, over RESP. Its metres are of a sphere of its own, its points float64."""

    name: ClassVar = "Tile38"
    precision_m: ClassVar = 0.05
    bytes_a_person: ClassVar = 150
    us_a_person: ClassVar = 15.0
    RADIUS_M: ClassVar = 6_371_000.0  # its earth

    def __init__(self, client: Any, lon: Floats, lat: Floats) -> None:
        self.client = client
        for start in range(0, lon.size, 20_000):
            pipe = client.pipeline(transaction=False)
            for row in range(start, min(start + 20_000, lon.size)):
                pipe.execute_command("SET", "people", row, "POINT", lat[row], lon[row])
            pipe.execute()
        self.most = lon.size

    def circle(self, lon: float, lat: float, radius_m: float) -> Rows:
        """Rows within a radius."""
        scaled = radius_m * self.RADIUS_M / EARTH_RADIUS_M
        return self._rows("NEARBY", "people", "LIMIT", self.most, "IDS", "POINT", lat, lon, scaled)

    def count(self, lon: float, lat: float, radius_m: float) -> int:
        """How many within a radius."""
        scaled = radius_m * self.RADIUS_M / EARTH_RADIUS_M
        return int(
            self.client.execute_command("NEARBY", "people", "LIMIT", self.most, "COUNT", "POINT", lat, lon, scaled)
        )

    def polygon(self, geometry: Any) -> Rows:
        """Rows in or on a shapely geometry."""
        import shapely

        return self._rows("INTERSECTS", "people", "LIMIT", self.most, "IDS", "OBJECT", shapely.to_geojson(geometry))

    def nearest(self, lon: float, lat: float, k: int) -> Rows:
        """The k nearest, nearest first."""
        return self._rows("NEARBY", "people", "LIMIT", k, "IDS", "POINT", lat, lon)

    def _rows(self, *command: Any) -> Rows:
        return np.array(self.client.execute_command(*command)[1], np.uint32)


# --- running them -----------------------------------------------------------------------------------------------------


@contextmanager
def redis_server(folder: Path) -> Iterator[Any]:
    """A client of a Redis of our own, None if there is no redis-server."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    import redis

    address = folder / "redis.sock"
    run = [program, "--port", "0", "--unixsocket", str(address), "--save", "", "--appendonly", "no"]
    with _running(run, folder):
        client = redis.Redis(unix_socket_path=str(address), socket_timeout=60.0, decode_responses=False)
        _wait(client.ping)
        yield client
        client.close()


@contextmanager
def tile38_server(folder: Path) -> Iterator[Any]:
    """A client of a Tile38 of our own, None if there is no tile38-server on the path."""
    program = shutil.which("tile38-server")
    if program is None:
        yield None
        return
    import redis

    port = free_port()
    run = [program, "-h", "127.0.0.1", "-p", str(port), "-d", str(folder / "tile38"), "--appendonly", "no"]
    with _running(run, folder):
        client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=60.0, protocol=2)
        _wait(client.ping)
        yield client
        client.close()


@contextmanager
def postgis_server(folder: Path) -> Iterator[Any]:
    """A connection to a PostgreSQL of our own with PostGIS at hand, None if one of the two or its driver is missing."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or [
        Path(found) for found in [shutil.which("postgres")] if found
    ]
    try:
        import psycopg
    except ImportError:
        programs = []
    if not programs:
        yield None
        return
    here = folder / "postgres"
    here.mkdir(mode=0o700)
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        someone = pwd.getpwnam("postgres")
        user = {"user": someone.pw_uid, "group": someone.pw_gid, "extra_groups": []}
        folder.chmod(0o711)
        os.chown(here, someone.pw_uid, someone.pw_gid)
    binary, data = programs[-1].parent, here / "data"
    create = [
        str(binary / "initdb"),
        "-D",
        str(data),
        "-A",
        "trust",
        "-U",
        "bench",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL, cwd=here, **user)
    options = {
        "listen_addresses": "", "unix_socket_directories": str(here), "shared_buffers": "1GB", "work_mem": "256MB",
        "maintenance_work_mem": "512MB", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
        "autovacuum": "off", "jit": "off", "max_parallel_workers_per_gather": "0", "random_page_cost": "1.0",
        "plan_cache_mode": "force_generic_plan",
    }  # fmt: skip
    run = [str(binary / "postgres"), "-D", str(data), *(f"--{name}={value}" for name, value in options.items())]
    with _running(run, here, **user):
        connected: list[Any] = []

        def connect() -> None:
            connected.append(psycopg.connect(host=str(here), user="bench", dbname="postgres", autocommit=True))

        _wait(connect)
        with connected[0] as connection:
            known = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'postgis'").fetchone()
            yield connection if known else None


@contextmanager
def _running(command: list[str], folder: Path, **options: Any) -> Iterator[None]:
    server: subprocess.Popen[bytes] = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    try:
        yield
    finally:
        server.terminate()
        server.wait(timeout=_PATIENCE_S)


def _wait(ready: Callable[[], Any]) -> None:
    give_up_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            ready()
        except Exception:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.02)
        else:
            return


def _by_geohash(lon: Floats, lat: Floats) -> Rows:
    """Rows in the order of Redis' geohash: the bits of both coordinates, interleaved."""
    order: Rows = np.argsort(_every_other_bit((lat + 90.0) / 180.0) | _every_other_bit((lon + 180.0) / 360.0) << 1)
    return order


def _every_other_bit(share: Floats) -> NDArray[np.int64]:
    """A number from 0 to 1 in 26 bits with a gap after each."""
    bits = (share * 2**26).astype(np.int64)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333), (1, 0x5555555555555555),
    ):  # fmt: skip
        bits = (bits | (bits << shift)) & mask
    return bits


def _geoadd(key: str, lon: list[float], lat: list[float], rows: list[int]) -> bytes:
    """One command for thousands of members, as it goes over the wire."""
    words = (word for one in zip(map(repr, lon), map(repr, lat), map(str, rows), strict=True) for word in one)
    text = "".join([f"${len(word)}\r\n{word}\r\n" for word in words])
    return f"*{2 + 3 * len(rows)}\r\n$6\r\nGEOADD\r\n${len(key)}\r\n{key}\r\n{text}".encode()


def _binary_copy(lon: Floats, lat: Floats) -> bytes:
    """Rows (id, lon, lat) in PostgreSQL's binary format: a count of fields, then a length before each."""
    layout = [
        ("fields", ">i2"),
        ("a", ">i4"),
        ("id", ">i4"),
        ("b", ">i4"),
        ("lon", ">f8"),
        ("c", ">i4"),
        ("lat", ">f8"),
    ]
    rows = np.zeros(lon.size, layout)
    rows["fields"], rows["a"], rows["b"], rows["c"] = 3, 4, 8, 8
    rows["id"], rows["lon"], rows["lat"] = np.arange(lon.size), lon, lat
    return b"PGCOPY\n\xff\r\n\x00" + bytes(8) + rows.tobytes() + b"\xff\xff"
