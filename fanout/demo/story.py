"""The story of the demo, told through the public API with the client a control room would use.

1. A child is missing in a town: everyone within 2 km and the boards there. The child is found: the result, to the same.
2. An AMBER Alert goes to the whole nation. While it runs, one of two suppliers of SMS fails, and the other one takes
   over; and a second child is missing in another town: that action overtakes the national one. Both end with their
   results.

At the end the engine is stopped, and who was told when is read from its ledger for the picture.
"""

from __future__ import annotations

import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from fanout import app, wire
from fanout.api.auth import SCOPES, create_key
from fanout.client import Client
from fanout.demo import picture, show, world
from fanout.demo.crew import Crew, CrewError
from fanout.settings import load
from fanout.store.states import State
from fanout.stores import open_store

WIDTH: Final = 100  # of a log or a pipe
FOLLOW_S: Final = 0.2
PATIENCE_S: Final = 240.0
RADIUS_M: Final = 2_000.0
STORM_S: Final = 4.0
UNDELIVERED: Final = 0.01


class Options(NamedTuple):
    """See `fanout demo --help`."""

    participants: int
    boards: int
    seed: int
    json: bool
    stay: bool
    out: Path


class Act(NamedTuple):
    """One action of the story."""

    name: str
    kind: str
    area: wire.Area
    texts: dict[str, str]
    titles: dict[str, str]
    result: dict[str, str]
    board_result: dict[str, str]


ASSEN: Final = Act(
    name="Assen",
    kind="missing_child",
    area=wire.Circle(lon=6.5625, lat=52.99667, radius_m=RADIUS_M),
    texts={
        "nl": "Vermist: meisje, 8 jaar, blond haar, rode jas, blauwe fiets. Laatst gezien Assen. Bel 0800-0011.",
        "en": "Missing: girl, 8, blond hair, red coat, blue bicycle. Last seen in Assen. Seen her? Call 0800-0011.",
    },
    titles={"nl": "Vermist kind", "en": "Missing child"},
    result={
        "nl": "Het vermiste meisje (8) uit Assen is gezond gevonden, dankzij een tip. Dank voor het uitkijken.",
        "en": "The missing girl (8) from Assen was found safe, thanks to a tip. Thank you for looking out.",
    },
    board_result={"nl": "Het kind in Assen is gevonden. Dank u wel."},
)
NATION: Final = Act(
    name="Nederland",
    kind="amber_alert",
    area=wire.Everyone(),
    texts={
        "nl": "AMBER Alert: jongen, 6 jaar, gele regenjas. In grijze bestelbus. Gezien? Bel 112.",
        "en": "AMBER Alert: boy, 6, yellow raincoat. In a grey van. Seen him? Call 112.",
    },
    titles={"nl": "AMBER Alert", "en": "AMBER Alert"},
    result={
        "nl": "De jongen van het AMBER Alert is veilig gevonden. Dank aan heel Nederland.",
        "en": "The boy of the AMBER Alert was found safe. Thank you all.",
    },
    board_result={},
)
ZWOLLE: Final = Act(
    name="Zwolle",
    kind="missing_child",
    area=wire.Circle(lon=6.09444, lat=52.5125, radius_m=RADIUS_M),
    texts={
        "nl": "Vermist: jongen, 4 jaar, groene trui, rubberlaarzen. Laatst gezien Zwolle. Gezien? Bel 0800-0011.",
        "en": "Missing: boy, 4, green sweater, wellingtons. Last seen in Zwolle. Seen him? Call 0800-0011.",
    },
    titles={"nl": "Vermist kind", "en": "Missing child"},
    result={
        "nl": "De vermiste jongen (4) uit Zwolle is gevonden en maakt het goed. Dank u wel.",
        "en": "The missing boy (4) from Zwolle was found and is well. Thank you.",
    },
    board_result={},
)


class Timings(NamedTuple):
    """Seconds of the way to the first action."""

    import_s: float
    start_s: float
    boards_s: float


def run_demo(options: Options) -> None:
    """Play it. Ends every process it started, also on Ctrl-C and on errors. Errors: exits with 1 and says why."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    started_s = time.monotonic()
    # A shell that starts us in the background has Ctrl-C ignored; and a SIGTERM shall end us in order as well.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with Crew(options.out / "logs") as crew:
            summary = _play(console, crew, options)
    except CrewError as error:
        Console(stderr=True).print(f"[bold red]the demo stopped:[/] {error}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; every process has ended", highlight=False)
        sys.exit(130)
    console.print(f"the whole demo took {time.monotonic() - started_s:.0f} s", style="dim")
    if options.json:
        print(msgspec.json.encode(summary).decode())


def _play(console: Console, crew: Crew, options: Options) -> dict[str, Any]:
    console.print(f"spreading {options.participants:,} people over the 1,966 places of the Netherlands …")
    scene = world.make(options.out / "demo", options.participants, options.boards, options.seed, senders=1)
    timings = _raise_curtain(console, crew, scene, options)
    address = (scene.data / "run" / "api").read_text().strip()
    store = open_store(load(scene.settings_file))
    key = create_key(store, "police", "demo", SCOPES, app.clock_ms())
    store.close_store()
    world.set_moods(scene, address, undelivered=UNDELIVERED)
    with Client(address, key) as engine:
        stage = _Stage(console, crew, engine, scene, address)
        stage.play_local(ASSEN)
        stage.play_nation(NATION, ZWOLLE)
        memory = crew.memory_mb("engine")
        if options.stay:
            _stay(console, address, key)
    crew.end("engine")
    console.print(show.summary_table(stage.actions))
    console.print("memory: " + ", ".join(f"{name} {mb:,.0f} MB" for name, mb in memory))
    picture_file = options.out / "reached.png"
    _draw(scene, stage, picture_file)
    console.print(f"who was told when: [bold]{picture_file}[/]")
    return {
        "participants": options.participants,
        "boards": options.boards,
        "seed": options.seed,
        "machine": machine(),
        "import_s": round(timings.import_s, 2),
        "start_s": round(timings.start_s, 2),
        "memory_mb": {f"{position} {name}": round(mb, 1) for position, (name, mb) in enumerate(memory)},
        "picture": str(picture_file),
        "actions": stage.actions,
    }


def _raise_curtain(console: Console, crew: Crew, scene: world.World, options: Options) -> Timings:
    """Start everything there is; returns how long it took."""
    python, config = sys.executable, ["--config", str(scene.settings_file)]
    port = scene.provider_port
    crew.start(
        "providers",
        [python, "-m", "fanout.simulators.providers", "--port", str(port), "--folder", str(scene.certificates)],
    )
    started_s = time.monotonic()
    crew.start("import", [python, "-m", "fanout.cli", "participants", "import", str(scene.people_file), *config])
    crew.finish("import", PATIENCE_S)
    import_s = time.monotonic() - started_s
    console.print(f"imported {options.participants:,} participants in {import_s:.1f} s")
    crew.wait_for("the simulators", partial(world.simulators_answer, scene), PATIENCE_S)
    crew.start("engine", [python, "-m", "fanout.cli", "serve", *config])
    run = scene.data / "run"
    start_s = crew.wait_for("the engine", (run / "api").exists, PATIENCE_S)
    senders = "senders for the nearest, for app push, for Web Push and for all else"
    console.print(f"engine ready after {start_s:.1f} s, with {senders}")
    broker = (run / "broker").read_text().strip()
    standard = world.standard_displays(options.boards)
    boards = ["--boards-file", str(scene.boards_file), "--t047", str(standard), "--broker", broker]
    film = ["--film", str(scene.folder / "film.jsonl")]
    crew.start("boards", [python, "-m", "signage.cli", "simulate", *boards, *film])
    address = (run / "api").read_text().strip()
    boards_s = crew.wait_for("the boards", lambda: _boards_known(address) >= options.boards, PATIENCE_S, look_s=0.5)
    dialects = f"{options.boards - standard:,} of the native contract, {standard:,} of RTIG T047"
    console.print(f"{options.boards:,} boards on the air after {boards_s:.1f} s: {dialects}")
    return Timings(import_s, start_s, boards_s)


def _boards_known(address: str) -> int:
    known = 0
    for line in _metrics(address).splitlines():
        if line.startswith('fanout_boards{state="ready"}'):
            known += int(float(line.rsplit(" ", 1)[1]))
    return known


def _metrics(address: str) -> str:
    import httpx

    return httpx.get(f"{address}/metrics", trust_env=False, timeout=30).text


class _Stage:
    """Plays acts and keeps what came of them."""

    def __init__(self, console: Console, crew: Crew, engine: Client, scene: world.World, address: str) -> None:
        self._console = console
        self._crew = crew
        self._engine = engine
        self._scene = scene
        self._address = address
        self.actions: list[dict[str, Any]] = []
        self.played: list[tuple[Act, int]] = []

    def play_local(self, act: Act) -> None:
        """One action and its result, alone."""
        accepted = self._start(act)
        with show.Progress(self._console) as progress:
            started = self._follow(progress, [(act, accepted.id)], _told)[0]
            self._draw_board(act, accepted.id)
            self._close(act, accepted.id)
            ended = self._follow(progress, [(act, accepted.id)], _over)[0]
        self._keep(act, started, ended)

    def play_nation(self, nation: Act, local: Act) -> None:
        """The whole nation, a local action in the middle of it, and both results."""
        everyone = self._start(nation)
        with show.Progress(self._console) as progress:
            self._storm(progress, nation, everyone.id)
            self._follow(progress, [(nation, everyone.id)], _share(0.2))
            near = self._start(local)
            both = [(nation, everyone.id), (local, near.id)]
            local_told = self._follow(progress, both, _told, only=1)[1]
            nation_then = self._engine.view(everyone.id).tallies[0]
            self._console.print(
                f"{local.name} was told in {local_told.tallies[0].last_ms} ms, "
                f"with {nation_then.waiting:,} of {nation_then.selected:,} of the nation still waiting"
            )
            self._close(local, near.id)
            started = self._follow(progress, [both[0]], _told)[0]
            self._close(nation, everyone.id)
            ended = self._follow(progress, both, _over)
        self._keep(nation, started, ended[0])
        self._keep(local, local_told, ended[1])

    def _start(self, act: Act) -> wire.ActionAccepted:
        now_ms = app.clock_ms()
        request = wire.ActionRequest(
            reference=f"demo-{act.name}-{now_ms}",
            kind=act.kind,
            area=act.area,
            texts=act.texts,
            titles=act.titles,
            end_ms=now_ms + 3_600_000,
        )
        accepted = self._engine.start(request)
        self.played.append((act, accepted.id))
        self._console.print(
            f"[bold]{act.name}[/]: action {accepted.id}, {accepted.people:,} people, {accepted.boards.boards:,} boards"
        )
        return accepted

    def _storm(self, progress: show.Progress, act: Act, action_id: int) -> None:
        """One of two suppliers of SMS answers 503 for a while; its batches go to the other one."""
        world.set_moods(self._scene, self._address, undelivered=UNDELIVERED, sms={"storm": 1.0})
        before, over_s = world.totals(self._scene), time.monotonic() + STORM_S
        self._console.print("the first supplier of SMS answers every call with 503")
        self._follow(progress, [(act, action_id)], lambda _: time.monotonic() > over_s)
        world.set_moods(self._scene, self._address, undelivered=UNDELIVERED)
        after = world.totals(self._scene)
        first, second = (after.get(name, 0) - before.get(name, 0) for name in ("sms", "sms_second"))
        self._console.print(
            f"it works again after {STORM_S:.0f} s: {first} calls were refused, and the second took {second}"
        )

    def _close(self, act: Act, action_id: int) -> None:
        request = wire.ResultRequest(
            reference=f"result-{action_id}", outcome="direct", texts=act.result, board_texts=act.board_result
        )
        self._engine.result(action_id, request)
        self._console.print(f"[bold]{act.name}[/]: closed; the result is on its way")

    def _follow(
        self,
        progress: show.Progress,
        acts: list[tuple[Act, int]],
        done: Callable[[wire.ActionView], bool],
        *,
        only: int | None = None,
    ) -> list[wire.ActionView]:
        """Look every `FOLLOW_S` until `done` holds for all (or for the one at `only`), or patience ends."""
        give_up_s = time.monotonic() + PATIENCE_S
        pause = threading.Event()
        while True:
            views = [self._engine.view(action_id) for _, action_id in acts]
            progress.update([(act.name, view) for (act, _), view in zip(acts, views, strict=True)])
            if all(done(view) for view in (views if only is None else [views[only]])):
                return views
            if time.monotonic() > give_up_s:
                self._console.print(f"[yellow]not done after {PATIENCE_S:.0f} s; going on[/]")
                return views
            self._crew.check()
            pause.wait(FOLLOW_S)

    def _draw_board(self, act: Act, action_id: int) -> None:
        """What one board of the action says it shows at this moment."""
        board = next((each for each in self._engine.boards().boards if action_id in each.desired and each.shown), None)
        if board is not None:
            self._console.print(f"board {board.id} ({board.model}, {board.place}) shows, as it says itself:")
            self._console.print(show.board_panel(board))

    def _keep(self, act: Act, started: wire.ActionView, ended: wire.ActionView) -> None:
        first, result = ended.tallies[0], ended.tallies[-1]
        self.actions.append(
            {
                "name": act.name,
                "selected": first.selected,
                "accepted": first.accepted,
                "delivered": ended.tallies[0].delivered,
                "failed": first.failed,
                "expired": first.expired,
                "cancelled": first.cancelled,
                "unknown": first.unknown,
                "reasons": first.reasons,
                "first_ms": first.first_ms,
                "p90_ms": first.p90_ms,
                "last_ms": first.last_ms,
                "boards_selected": ended.boards.selected,
                "boards_shown": ended.boards.shown,
                "boards_last_ms": started.boards.last_ms,
                "boards_cleared": ended.boards.cleared,
                "result_selected": result.selected,
                "result_accepted": result.accepted,
            }
        )


def _told(view: wire.ActionView) -> bool:
    return not view.tallies[0].waiting and view.boards.shown >= view.boards.selected


def _share(share: float) -> Callable[[wire.ActionView], bool]:
    return lambda view: view.tallies[0].waiting <= (1 - share) * view.tallies[0].selected


def _over(view: wire.ActionView) -> bool:
    result_told = view.tallies[-1].phase == "result" and not view.tallies[-1].waiting
    return result_told and view.boards.cleared >= view.boards.shown


def _stay(console: Console, address: str, key: str) -> None:
    console.print(f"\nstaying: API {address}, key {key}; Ctrl-C ends everything", soft_wrap=True)
    console.print(f"  curl -H 'Authorization: Bearer {key}' {address}/v1/actions/1", soft_wrap=True)
    threading.Event().wait()


def _draw(scene: world.World, stage: _Stage, path: Path) -> None:
    """Read the ledger and the registry of the stopped engine, and draw who was told of which action when."""
    settings = load(scene.settings_file)
    store = open_store(settings)
    registry = app.open_registry(settings, store)
    try:
        lon, lat = registry.view().homes()
        told_ms: NDArray[np.float64] = np.full(len(lon), np.nan)
        for act, action_id in stage.played:
            if not isinstance(act.area, wire.Everyone):
                continue
            record = store.action(action_id)
            assert record is not None
            for batch in store.batches(action_id):
                if batch.phase == 0 and batch.last_ms is not None:
                    rows = batch.rows[np.isin(batch.status, (State.ACCEPTED, State.DELIVERED))]
                    told_ms[rows] = batch.last_ms - record.created_ms
    finally:
        registry.close()
        store.close_store()
    rings = [
        picture.Ring(act.area.lon, act.area.lat, act.area.radius_m, act.name)
        for act, _ in stage.played
        if isinstance(act.area, wire.Circle)
    ]
    lines = [
        f"{np.count_nonzero(~np.isnan(told_ms)):,} of {len(lon):,} people told",
        "every point is a home",
        "the colour: when",
    ]
    picture.draw(path, lon, lat, told_ms / 1_000, rings, "AMBER Alert, the nation", lines)


def machine() -> str:
    """Processor, cores, Python: what a figure must be read beside."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = f"{len(names)} x {names[0]}" if names else model
    return f"{model}, Python {platform.python_version()}"
