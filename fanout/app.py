"""Composes the services from settings, starts them in order, and drains them in order. The only module that knows all.

Start: lock the folder → ledger → senders (all in `start`), which get warm beside all else → registry → kernels warm →
boards → engine recovered → ready.
Stop (SIGTERM, Ctrl-C): no new requests → running ones finish → senders finish what is on the wire → boards → ledger.

A disk that takes nothing ends nothing here: what cannot be written is refused to its caller, upkeep is tried again, and
the engine goes on answering.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve

from fanout import geo, memory, selection
from fanout.api.auth import Keys
from fanout.api.events import Changes
from fanout.api.handlers import Handlers
from fanout.api.metrics import Metrics
from fanout.api.routes import build
from fanout.clock import clock_ms as clock_ms
from fanout.crews import Senders
from fanout.dispatch import credentials
from fanout.engine import Engine
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas
from fanout.listening import bind
from fanout.media.shelf import Shelf
from fanout.readiness import KEY, SPACE, Readiness
from fanout.registry import bodies as positions
from fanout.registry.registry import Registry
from fanout.settings import Settings
from fanout.social.poster import Poster, open_poster
from fanout.store.protocol import Store
from fanout.store.writer import open_writer
from signage.service import open_signage

log = logging.getLogger("fanout.app")

COMPACT_EVERY_S = 1.0
"""How often the registry is asked whether a new base or a new snapshot is due."""

DEAD_EVERY_S = 5.0
"""How often dead addresses that senders told of are taken out of the registry. Each time it looks over the places of
everybody, and every sender reads what changed; an action that starts meanwhile finds the addresses dead once more."""

SWEEP_EVERY_S = 3_600.0
"""How often pictures that nobody needs any more are looked for; they are kept for hours (`media.keep_h`)."""

RING_EVERY_S = 0.05
"""How often, at most, streams of changes are told that there are some."""

AGAIN_S = 1.0
"""Pause before upkeep that could not be done is tried again, beside its own."""

EXPIRE_EVERY_S = 1.0
"""How often ended actions are looked for. Senders and boards check the end themselves; this settles the counts."""


def open_registry(settings: Settings, store: Store) -> Registry:
    """The registry in the data folder, as the newest snapshot and the log have it."""
    return Registry.open(
        settings.data / "registry",
        store,
        kinds=tuple(settings.kinds),
        tenants=tuple(settings.tenants),
        compact_after_changes=settings.registry.compact_after_changes,
        position_ttl_s=settings.registry.position_ttl_s,
    )


# --- serve ----------------------------------------------------------------------------------------------------------


async def run(
    settings: Settings, store: Store, senders: Senders, stop: trio.Event, on_ready: Callable[[str], None]
) -> None:
    """The engine on its ledger and beside its senders, until `stop`; `on_ready(address)` when everything runs."""
    await trio.to_thread.run_sync(credentials.check, settings.providers)
    registry = await trio.to_thread.run_sync(open_registry, settings, store)
    try:
        await _serve(settings, store, registry, senders, stop, on_ready)
    finally:
        await trio.to_thread.run_sync(registry.close)


async def _serve(
    settings: Settings,
    store: Store,
    registry: Registry,
    senders: Senders,
    stop: trio.Event,
    on_ready: Callable[[str], None],
) -> None:
    areas = await trio.to_thread.run_sync(NamedAreas.open, settings.data / "areas")
    await trio.to_thread.run_sync(_warm)
    shelf = Shelf(settings.data / "media", link=settings.media.link)
    changes = Changes()
    async with (
        open_writer(store) as writer,
        open_signage(
            settings.signage, store, clock_ms, folder=settings.data / "signage", kinds=settings.kinds
        ) as boards,
        open_poster(settings, store, writer, areas, shelf.get, clock_ms) as posts,
    ):
        engine = Engine(settings, store, writer, registry, boards, areas, clock_ms, posts, shelf)
        await engine.recover()
        await engine.warm()
        await trio.to_thread.run_sync(memory.give_back)
        metrics = Metrics(store, registry, boards)
        readiness = Readiness(partial(writer.run, store.put, SPACE, [(KEY, b"")]), settings.data)
        handlers = Handlers(
            engine,
            registry,
            boards,
            changes,
            clock_ms,
            readiness.why_not,
            metrics.registry,
            shelf,
        )
        keys = Keys(store, time.monotonic)
        application = build(
            handlers.rows(), handlers.open_routes(), keys, in_flight_max=settings.api.requests_in_flight_max
        )
        async with trio.open_nursery() as nursery:
            sweep = partial(_sweep_pictures, settings, shelf, engine, posts)
            upkeep = await nursery.start(_upkeep, store, registry, engine, changes, sweep, readiness)
            await senders.warm.wait()
            (address,) = await nursery.start(_listen, application, settings, stop)
            _write_run_file(settings, "broker", boards.broker_address)
            _write_run_file(settings, "receipts", senders.receipts_address)
            _write_run_file(settings, "api", address)
            memory.settle()
            readiness.start()
            on_ready(address)
            await stop.wait()
            log.info("stopping: requests, then senders, then boards")
            upkeep.cancel()
        await senders.end()


def _warm() -> None:
    """Compile or load every kernel now, not on a first request."""
    geo.warm()
    selection.warm()
    positions.warm()


async def _listen(
    application: object,
    settings: Settings,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    listener = bind(settings.api.listen, "api.listen")
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.loglevel = "WARNING"
    config.graceful_timeout = settings.api.drain_s
    config.keep_alive_timeout = 60.0
    if settings.api.tls_certificate:
        config.certfile, config.keyfile = settings.api.tls_certificate, settings.api.tls_key
    if settings.api.client_ca:
        config.ca_certs, config.verify_mode = settings.api.client_ca, ssl.CERT_REQUIRED
    await hypercorn_serve(application, config, shutdown_trigger=stop.wait, task_status=task_status)


async def _upkeep(
    store: Store,
    registry: Registry,
    engine: Engine,
    changes: Changes,
    sweep: Callable[[], Awaitable[None]],
    readiness: Readiness,
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readiness.watch)
            nursery.start_soon(_every, EXPIRE_EVERY_S, engine.keep_up)
            nursery.start_soon(_every, SWEEP_EVERY_S, sweep)
            nursery.start_soon(_every, RING_EVERY_S, partial(_ring, store, changes))
            nursery.start_soon(_every, COMPACT_EVERY_S, partial(_compact, registry, store))
            nursery.start_soon(_every, DEAD_EVERY_S, partial(_hygiene, registry))


async def _every(seconds: float, call: Callable[[], Awaitable[None]]) -> None:
    """Upkeep that nothing ends: what a full disk or a lost ledger keeps from being done is tried again."""
    while True:
        try:
            await call()
        except (Refused, OSError) as error:
            log.error("upkeep waits: %s", getattr(error, "message", type(error).__name__))
            await trio.sleep(AGAIN_S)
        await trio.sleep(seconds)


async def _sweep_pictures(settings: Settings, shelf: Shelf, engine: Engine, posts: Poster) -> None:
    keep = await engine.photos() | posts.pictures()
    older_than_s = settings.media.keep_h * 3_600.0
    if removed := await trio.to_thread.run_sync(partial(shelf.sweep, keep=keep, older_than_s=older_than_s)):
        log.info("%d pictures that nobody needs were removed", removed)


async def _ring(store: Store, changes: Changes) -> None:
    """Tell streams of changes, as soon as somebody may have committed some; without a stream nobody looks."""
    await changes.wanted()
    if await trio.to_thread.run_sync(store.wait, 1.0, abandon_on_cancel=True):
        changes.ring()


async def _compact(registry: Registry, store: Store) -> None:
    """Keep the registry's delta and log short, in a thread beside everybody; one task, so that it is done once."""
    if registry.wants_compaction():
        free = await trio.to_thread.run_sync(store.open_rows)
        await trio.to_thread.run_sync(registry.reuse, free)
        await trio.to_thread.run_sync(registry.compact)
    elif registry.wants_rebuild():
        await trio.to_thread.run_sync(registry.rebuild)
    else:
        return
    await trio.to_thread.run_sync(memory.give_back)


async def _hygiene(registry: Registry) -> None:
    dropped = await trio.to_thread.run_sync(registry.take_dead)
    if dropped:
        log.info("%d addresses that providers declared dead were dropped", dropped)


def _write_run_file(settings: Settings, name: str, text: str) -> None:
    path: Path = settings.data / "run" / name
    path.with_suffix(".new").write_text(text + "\n")
    path.with_suffix(".new").rename(path)
