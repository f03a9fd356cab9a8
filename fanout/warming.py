"""Compiles every kernel, so that numba's cache is full before the first start: `python -m fanout.warming`, at install.

Kernels are compiled for the kinds of arrays they meet, and a mapped file is another kind than an array in memory. So
what can be lived is lived here, on two people in a folder that goes away: registered, written down, mapped by a sender,
changed, looked up again. Before that the kernels are compiled in two processes, a core each.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from fanout import selection, wire
from fanout.channels import ece
from fanout.dispatch.frames import kernels as frames
from fanout.registry import bodies
from fanout.registry.registry import Registry
from fanout.registry.replica import Replica
from fanout.simulators.http2 import kernels as simulators
from fanout.store.sqlite_store import SqliteStore

HALVES: Final = ((selection.warm,), (bodies.warm, frames.warm, simulators.warm, ece.warm))
"""Neither needs kernels of the other; selection's bring those of `fanout.geo`."""


def compile_all() -> None:
    """Fill the cache, in two processes. Blocking. *Errors*: `RuntimeError` if one of them failed; it said why."""
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_warm_half, args=(half,)) for half in range(len(HALVES))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("kernels could not be compiled")
    warm_all()


def _warm_half(half: int) -> None:
    for warm in HALVES[half]:
        warm()


def warm_all() -> None:
    """Compile or load all kernels of the engine and of a sender. Blocking: a minute the first time, then a second."""
    for half in range(len(HALVES)):
        _warm_half(half)
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore.open(Path(folder) / "ledger.db")
        registry = Registry.open(Path(folder) / "registry", store, kinds=("any",), tenants=("any",))
        registry.upsert([_person("a"), _person("b")])
        registry.compact()
        replica = Replica.open(Path(folder) / "registry", store)
        _look_up(replica)
        registry.upsert([_person("b"), _person("c")])
        registry.view().id_of(np.arange(2, dtype=np.uint32))
        replica.refresh()
        _look_up(replica)
        registry.compact()
        registry.close()
        store.close_store()


def _look_up(replica: Replica) -> None:
    for channel in range(len(wire.CHANNELS)):
        replica.addresses(channel, np.arange(2, dtype=np.uint32), np.zeros(2, np.uint16))


def _person(name: str) -> wire.Participant:
    address = wire.Address(channel="sms", value="+31612345678")
    return wire.Participant(id=name, places=[wire.Place(lon=0.0, lat=0.0)], addresses=[address])


if __name__ == "__main__":
    compile_all()
