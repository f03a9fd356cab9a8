"""Dead addresses with real senders, real providers' answers and a killed engine: tried once, and not again."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq

from fanout import wire
from fanout.demo.stage import Stage, open_stage
from fanout.registry.columns import choices_of, preference_of, without_choice

PEOPLE = 2_000
PATIENCE_S = 240.0


def dropped(stage: Stage, reason: str = "token_dead") -> dict[str, int]:
    """What `/metrics` counts for a reason, by channel."""
    headers = {"Authorization": f"Bearer {stage.key}"}
    text = httpx.get(f"{stage.address}/metrics", trust_env=False, headers=headers, timeout=60).text
    found = re.findall(rf'^fanout_addresses_dropped_total{{channel="(\w+)",reason="{reason}"}} ([\d.]+)', text, re.M)
    return {channel: int(float(count)) for channel, count in found}


def wait_dropped(stage: Stage, wanted: dict[str, int], reason: str = "token_dead") -> None:
    pause, give_up_s = threading.Event(), time.monotonic() + PATIENCE_S
    while not wanted.items() <= dropped(stage, reason).items():
        assert time.monotonic() < give_up_s, f"dropped {dropped(stage, reason)}, not {wanted}"
        pause.wait(0.1)


def test_a_dead_token_is_tried_in_one_action_and_not_in_the_next(tmp_path: Path) -> None:
    with open_stage(tmp_path, PEOPLE) as stage:
        people = pq.read_table(stage.scene.people_file).to_pydict()
        dead = {
            name: [token for token in people[name] if token and token.startswith("dead")] for name in ("fcm", "apns")
        }
        assert all(dead.values())
        never = wire.Address(channel="fcm", value="bad0-was-never-right")
        home = [wire.Place(lon=5.5, lat=52.5)]
        stage.engine.put_participants([wire.Participant(id="wrong", places=home, addresses=[never])])
        first = stage.engine.start(stage.request(wire.Everyone(), "first"))
        before = stage.wait_settled(first.id).tallies[0]
        assert before.reasons["token_dead"] > 0
        wait_dropped(stage, {name: len(tokens) for name, tokens in dead.items()})
        wait_dropped(stage, {"fcm": 1}, "token_invalid")
        counted = dropped(stage)
        stage.stop_engine(hard=True)
        stage.start_engine()
        assert dropped(stage) == counted, "counts and columns come from the log"
        second = stage.engine.start(stage.request(wire.Everyone(), "second"))
        after = stage.wait_settled(second.id).tallies[0]
        assert after.reasons.get("token_dead", 0) == 0
        gone = before.reasons["token_dead"] + 1
        assert second.people == first.people - gone, "who has another channel is told by that"
        assert set(after.reasons) <= {"undelivered"}, "nothing else of the first action's failures comes again"
        # whoever registers again is told again
        name, token = next(
            (who, value) for who, value in zip(people["id"], people["fcm"], strict=True) if value in dead["fcm"]
        )
        renewed = wire.Address(channel="fcm", value="live" + token[4:])
        place = [wire.Place(lon=5.0, lat=52.0)]
        stage.engine.put_participants([wire.Participant(id=name, places=place, addresses=[renewed])])
        third = stage.engine.start(stage.request(wire.Circle(lon=5.0, lat=52.0, radius_m=1.0), "third"))
        assert third.people == 1
        assert stage.wait_settled(third.id).tallies[0].accepted == 1


def test_a_choice_is_taken_out_and_the_later_ones_move_up() -> None:
    random = np.random.default_rng(1)
    orders = [random.permutation(7)[: random.integers(0, 8)].tolist() for _ in range(500)]
    for channel in range(7):
        kept = without_choice(np.array([preference_of(order) for order in orders], np.uint32), channel)
        assert [choices_of(word) for word in kept.tolist()] == [[c for c in order if c != channel] for order in orders]
