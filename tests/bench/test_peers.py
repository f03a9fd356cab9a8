"""The peers of the selection bench answer what is asked, also where there are fewer people than are asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import peer_servers, peers
from fanout.geo import PlaceIndex

LON, LAT = np.array([5.0, 5.1, 5.2]), np.array([52.0, 52.0, 52.0])


@pytest.mark.parametrize("kind", [peers.Numpy, peers.KDTree], ids=lambda kind: kind.name)
@pytest.mark.parametrize("k", [1, 3, 100_000])
def test_the_nearest_are_those_there_are(kind: Any, k: int) -> None:
    if kind is peers.KDTree:
        pytest.importorskip("scipy", reason="a peer of the bench, which need not be installed")
    assert kind(LON, LAT).nearest(5.0, 52.0, k).tolist() == PlaceIndex.build(LON, LAT).nearest(5.0, 52.0, k).tolist()


def test_a_peer_that_memory_cannot_hold_is_said_to_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.fits(peers.KDTree, 1_000)
    assert "left out" not in capsys.readouterr().err
    assert not peers.fits(peers.KDTree, 10**15)
    assert "left out: scipy.cKDTree needs some" in capsys.readouterr().err


def test_a_peer_that_takes_too_long_is_said_to_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.fits(peer_servers.PostGIS, 1_000_000)
    assert not peers.fits(peer_servers.PostGIS, 16_000_000)
    assert "left out: PostGIS takes some 320 s to take in 16,000,000; at most 120 s" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="a peer of the bench, which need not be installed")
def test_redis_is_filled_with_everybody(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lon, lat = random.uniform(-180, 180, 20_001), random.uniform(-85, 85, 20_001)
    with peer_servers.redis_server(tmp_path) as client:
        redis = peer_servers.Redis(client, lon, lat)
        assert client.zcard("people") == 20_001
        assert redis.circle(float(lon[7]), float(lat[7]), 5.0).tolist() == [7]
