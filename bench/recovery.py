"""Recovery: kill -9 in the middle of an action to everyone, and how long nobody is told anything.

Everything is real: engine, senders, simulators over HTTP/2 and TLS. A watcher reads the simulators' count of pushes a
hundred times a second; `outage_ms` is the longest time after the kill in which it did not grow while rows still waited,
so it has in it: noticing the death, starting anew (ledger, kernels, TLS), claiming, and the first push. `ready_ms` is
when the API answers again.

Cases: the engine's main process is killed and started again at once (by `systemd`, say; its senders end with it); one
of two push senders is killed; the only push sender is killed. The engine starts senders anew by itself.

Beside the times stand the promises: `lost` (selected, and in no state at the end), `doubled_ringing` (SMS and others
that ring twice, by the simulators' own count), `doubled_push` (sent again quietly, same collapse id) and `unknown`
(what rings and was in doubt; a push only if it was not sent again before the rest was cancelled).

A kill comes early in an action, and once pushes flow again the rest of it is cancelled: what a crash left in doubt is
sent first, and a nation would take minutes for each kill and show nothing more. One nation serves all cases.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx

from bench.harness import Options, Row
from fanout import wire
from fanout.demo.stage import Stage, open_stage
from fanout.dispatch.terms import PUSH
from fanout.store.states import REPLACES_IN_PLACE

LOOK_EVERY_S: Final = 0.01
RINGING: Final = [name for number, name in enumerate(wire.CHANNELS) if number not in REPLACES_IN_PLACE]
TOLD: Final = 20_000
"""So many have been told, at least, when something is killed; of a small nation a third."""
FLOWS_S: Final = 4.0
"""Pushes flow again when there was one so long after the processes stood: what was in doubt has been sent by then."""


def run(options: Options) -> Iterator[Row]:
    """A row for each kill."""
    people = options.participants or (120_000 if options.quick else 400_000)
    repeats = 1 if options.quick else 5
    cases: tuple[tuple[str, int, Callable[[Stage], float]], ...] = (
        ("engine killed and started again", 2, _kill_engine),
        ("one of two senders killed", 2, _kill_sender),
        ("the only sender killed", 1, _kill_sender),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        open_stage(Path(folder), people, seed=options.seed, senders=cases[0][1]) as stage,
    ):
        running = cases[0][1]
        for case, senders, kill in cases:
            if senders != running:
                _restart(stage, running, senders)
                running = senders
            for number in range(repeats):
                yield {"case": case, "system": "fanout", "people": people} | _once(stage, f"{case} {number}", kill)


def _restart(stage: Stage, before: int, senders: int) -> None:
    """The same engine with so many push senders."""
    stage.stop_engine()
    text = stage.scene.settings_file.read_text()
    stage.scene.settings_file.write_text(text.replace(f"processes = {before}", f"processes = {senders}"))
    stage.start_engine()


def _once(stage: Stage, reference: str, kill: Callable[[Stage], float]) -> Row:
    accepted = stage.engine.start(stage.request(wire.Everyone(), reference))
    stage.wait_waiting(accepted.id, accepted.people - min(TOLD, accepted.people // 3))
    with _Watcher(stage) as watcher:
        killed_s = time.perf_counter()
        ready_ms = kill(stage)
        _wait_flow(stage, accepted.id, watcher, time.perf_counter() + FLOWS_S)
        outage_ms = watcher.longest_silence_s(killed_s) * 1000
    stage.engine.cancel(accepted.id, wire.ReasonRequest(reference="flows again"))
    tally = stage.wait_settled(accepted.id).tallies[0]
    seen = stage.seen(accepted.id)
    doubled = {name: one["doubled_count"] for name, one in seen["channels"].items()}
    settled = tally.accepted + tally.failed + tally.expired + tally.cancelled + tally.unknown
    return {
        "outage_ms": round(outage_ms, 1),
        "ready_ms": round(ready_ms, 1),
        "lost": accepted.people - settled,
        "doubled_ringing": sum(count for name, count in doubled.items() if name in RINGING),
        "doubled_push": sum(count for name, count in doubled.items() if name not in RINGING),
        "unknown": tally.unknown,
    }


def _wait_flow(stage: Stage, action: int, watcher: _Watcher, since_s: float) -> None:
    """Until there was a push after `since_s`, or nobody waits for one. Errors: `TimeoutError`."""
    pause, give_up_s = threading.Event(), time.perf_counter() + stage.patience_s
    while not watcher.grew_since(since_s):
        if not stage.engine.view(action).tallies[0].waiting:
            return
        if time.perf_counter() > give_up_s:
            raise TimeoutError(f"no push within {stage.patience_s:.0f} s")
        stage.crew.check()
        pause.wait(10 * LOOK_EVERY_S)


def _kill_engine(stage: Stage) -> float:
    """SIGKILL to the main process, and the same command again; milliseconds until it is ready."""
    stage.stop_engine(hard=True)
    return stage.start_engine() * 1000


def _kill_sender(stage: Stage) -> float:
    """SIGKILL to one sender; nothing else is done."""
    os.kill(stage.crew.children("engine", "sender-push-0")[0], signal.SIGKILL)
    return 0.0


class _Watcher:
    """Reads how many pushes the simulators have had, and remembers when the number grew."""

    def __init__(self, stage: Stage) -> None:
        self._http = httpx.Client(base_url=stage.providers, verify=stage.tls, trust_env=False, timeout=30)
        self._grew_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._http.close()

    def grew_since(self, since_s: float) -> bool:
        """Whether there was a push after that."""
        return bool(self._grew_s) and self._grew_s[-1] > since_s

    def longest_silence_s(self, since_s: float) -> float:
        """The longest time between two growths, from `since_s` to the last."""
        moments = [since_s, *(moment for moment in self._grew_s if moment > since_s)]
        return max((after - before for before, after in itertools.pairwise(moments)), default=0.0)

    def _watch(self) -> None:
        count = -1
        while not self._stop.wait(LOOK_EVERY_S):
            totals = self._http.get("/_totals").json()
            total = sum(totals.get(name, 0) for name in PUSH)
            if total != count:
                count = total
                self._grew_s.append(time.perf_counter())
