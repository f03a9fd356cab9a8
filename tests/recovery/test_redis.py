"""The whole engine on a real Redis (AOF): an action to everyone, a sender and the engine killed on the
way, and the result; nobody is lost, nobody is rung twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fanout import wire
from fanout.demo.stage import open_stage
from tests.recovery.test_kill import check_promises
from tests.store.test_redis_store import pytestmark as needs_redis
from tests.store.test_redis_store import server

PEOPLE = 6_000

pytestmark = [needs_redis]


@pytest.mark.parametrize("people", [PEOPLE, pytest.param(60_000, marks=pytest.mark.long)])
def test_an_action_on_redis_survives_its_processes(tmp_path: Path, people: int) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with (
        server(folder) as address,
        open_stage(tmp_path, people, more_settings=f'[store]\nkind = "redis"\nredis = "{address}"\n') as stage,
    ):
        accepted = stage.engine.start(stage.request(wire.Everyone(), "all"))
        stage.wait_waiting(accepted.id, people * 3 // 4)
        os.kill(stage.crew.children("engine", "sender-push-0")[0], signal.SIGKILL)
        stage.wait_waiting(accepted.id, people // 2)
        stage.stop_engine(hard=True)
        stage.start_engine()
        view = stage.wait_settled(accepted.id)
        assert view.tallies[0].selected == accepted.people == people
        check_promises(stage, view)
        stage.engine.result(
            accepted.id, wire.ResultRequest(reference="end", outcome="direct", texts={"nl": "Gevonden. Dank u wel."})
        )
        ended = stage.wait_settled(accepted.id)
        tally = ended.tallies[0]
        assert ended.tallies[1].selected == tally.accepted + tally.unknown, ended
        stage.wait_delivered(accepted.id)
