"""Compiles every kernel, so that numba's cache is full before the first start: `python -m fanout.warming`, at install.

Kernels are compiled for the kinds of arrays they meet, and a mapped file is another kind than an array in memory. So
what can be lived is lived here, on two people in a folder that goes away: registered, written down, mapped by a sender,
changed, looked up again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from fanout import geo, selection, wire
from fanout.dispatch.frames import kernels as frames
from fanout.registry import bodies
from fanout.registry.registry import Registry
from fanout.registry.replica import Replica
from fanout.store.sqlite_store import SqliteStore


def warm_all() -> None:
    """Compile or load all kernels of the engine and of a sender. Blocking: a minute the first time, then a second."""
    geo.warm()
    selection.warm()
    bodies.warm()
    frames.warm()
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
    warm_all()
