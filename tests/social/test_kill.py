"""kill -9 with posts on the wire: who is known by key is asked again, who is not stays unknown, nobody posts twice."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.simulators.kit import Providers
from tests.social.test_poster import opened, posts


def post_and_die(folder: Path, providers: Providers) -> None:
    """A process of its own, killed when every network has its post and has not answered."""
    command = [sys.executable, "-m", "tests.social.victim", str(folder), providers.url, str(providers.ca)]
    victim = subprocess.Popen(command)
    try:
        late_s = time.monotonic() + 120
        while len(posts(providers)) < 3:
            assert victim.poll() is None
            assert time.monotonic() < late_s
    finally:
        victim.kill()
        victim.wait()


async def test_a_killed_engine_posts_nothing_twice(tmp_path: Path, providers: Providers) -> None:
    hang = {"hang": 1.0}
    providers.moods(x=hang, mastodon=hang, telegram=hang)
    post_and_die(tmp_path, providers)
    providers.moods()
    async with opened(tmp_path, providers) as room:
        room.action = 1
        await room.settled()
        assert room.states() == {
            "politie_m start": "accepted", "politie_t start": "unknown", "politie_x start": "unknown",
        }  # fmt: skip
        await room.close()
        await room.settled({"result"})
        found = posts(providers)
        assert sorted((one["network"], one["text"][:7]) for one in found) == [
            (network, words) for network in ("mastodon", "telegram", "x") for words in ("Gevonde", "Vermist")
        ]
        assert {one["network"]: one["again"] for one in found if one["text"] != "Gevonden."} == {
            "mastodon": 1, "telegram": 0, "x": 0,
        }  # fmt: skip
