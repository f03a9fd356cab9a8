"""kill -9 of real processes in the middle of an action to everyone: nobody is lost, nobody is rung twice.

The provider simulators are outside of what is killed, and count what reached them: they are the witness.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from fanout import wire
from fanout.demo.stage import Stage, open_stage
from fanout.store.states import REPLACES_IN_PLACE
from fanout.wire import CHANNELS

PEOPLE = 30_000
SENDERS = ("sender-push-0", "sender-forks", "sender-calls", "sender-nearest", "sender-webpush")
RINGING = [name for number, name in enumerate(CHANNELS) if number not in REPLACES_IN_PLACE]


def check_promises(stage: Stage, view: wire.ActionView) -> None:
    tally = view.tallies[0]
    assert tally.waiting == 0
    assert tally.selected == tally.accepted + tally.failed + tally.expired + tally.cancelled + tally.unknown
    seen = stage.seen(view.id)
    for channel in RINGING:
        assert seen["channels"].get(channel, {"doubled_count": 0})["doubled_count"] == 0, f"{channel} rang twice"
    # Whom the ledger calls accepted the simulators have met; the unknown they may have met.
    assert tally.accepted <= seen["distinct"] <= tally.accepted + tally.failed + tally.unknown


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.long)])
def test_the_engine_is_killed(tmp_path: Path, times: int) -> None:
    with open_stage(tmp_path, PEOPLE) as stage:
        accepted = stage.engine.start(stage.request(wire.Everyone(), "all"))
        for time in range(times):
            stage.wait_waiting(accepted.id, int(PEOPLE * (1 - (time + 1) / (times + 1))))
            stage.stop_engine(hard=True)
            stage.start_engine()
            again = stage.engine.start(
                stage.request(wire.Everyone(), "all", end_ms=stage.engine.view(accepted.id).end_ms)
            )
            assert (again.id, again.people, again.repeated) == (accepted.id, accepted.people, True)
        view = stage.wait_settled(accepted.id)
        assert view.tallies[0].selected == accepted.people
        check_promises(stage, view)
        closing = wire.ResultRequest(reference="end", outcome="direct", texts={"nl": "Gevonden. Dank u wel."})
        stage.engine.result(accepted.id, closing)
        ended = stage.wait_settled(accepted.id)
        assert ended.tallies[1].selected == view.tallies[0].accepted + view.tallies[0].unknown


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.long)])
def test_senders_are_killed(tmp_path: Path, times: int) -> None:
    with open_stage(tmp_path, PEOPLE) as stage:
        alive: dict[str, int] = {}  # forks of a server that was killed are nobody's children
        accepted = stage.engine.start(stage.request(wire.Everyone(), "all"))
        for time in range(times):
            stage.wait_waiting(accepted.id, int(PEOPLE * (1 - (time + 1) / (times + 1))))
            alive |= {name: pid for name in SENDERS for pid in stage.crew.children("engine", name)}
            assert alive.keys() == set(SENDERS)
            if not time:
                niceness = {name: os.getpriority(os.PRIO_PROCESS, pid) for name, pid in alive.items()}
                assert [name for name in SENDERS if niceness[name] > min(niceness.values())] == ["sender-webpush"]
            with suppress(ProcessLookupError):  # killed in an earlier round, and its successor is not there yet
                os.kill(alive[SENDERS[time % len(SENDERS)]], signal.SIGKILL)
        view = stage.wait_settled(accepted.id)
        assert view.tallies[0].selected == accepted.people
        check_promises(stage, view)
