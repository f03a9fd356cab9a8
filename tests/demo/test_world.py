"""The world of the demo can be made again where one was, and nothing else is ever emptied."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.demo import story, world
from fanout.demo.crew import Crew
from fanout.settings import load
from tests.simulators.kit import running_providers


def test_a_world_is_made_again_where_one_was(tmp_path: Path) -> None:
    first = world.make(tmp_path / "demo", 1_000, 50, seed=1, senders=1)
    (first.data / "run").mkdir(parents=True)
    second = world.make(tmp_path / "demo", 1_000, 50, seed=1, senders=1)
    assert not second.data.exists(), "nothing of the world before is left"
    assert load(second.settings_file).engine.fence == "loopback"


def test_simulators_are_used_when_they_answer_and_not_before(tmp_path: Path) -> None:
    scene = world.make(tmp_path / "demo", 1_000, 50, seed=1, senders=1)
    assert not world.simulators_answer(scene)
    with running_providers(scene.certificates) as providers:
        listening = scene._replace(provider_port=int(providers.url.rpartition(":")[2]))
        assert world.simulators_answer(listening)
        assert (scene.certificates / "ca.pem").exists()
        assert not world.simulators_answer(scene), "certificates alone take no push"


def test_a_folder_that_is_no_world_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    world.make(tmp_path, 1_000, 50, seed=1, senders=1)
    assert (tmp_path / "mine").read_text() == "keep"


def test_the_demo_keeps_its_logs_outside_the_world_it_empties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.make(tmp_path / "demo", 1_000, 50, seed=1, senders=1)

    def play(_console: object, crew: Crew, options: story.Options) -> dict[str, object]:
        world.make(options.out / "demo", 1_000, 50, seed=1, senders=1)
        crew.start("probe", ["true"])
        crew.finish("probe", 10)
        return {}

    monkeypatch.setattr(story, "_play", play)
    story.run_demo(story.Options(participants=1_000, boards=50, seed=1, json=False, stay=False, out=tmp_path))
    assert (tmp_path / "logs" / "probe.log").exists()
